"""TLS towards upstreams: a context from a service's options. Control tries them out, workers use them."""

from __future__ import annotations

import os
import ssl
import stat
from typing import Final

from gatewayd.conf import TlsConf

_LONGEST_FILE_BYTES: Final = 8 << 20  # the bundle of every public authority is a quarter of a megabyte
_LONGEST_PATH: Final = 4096


class TlsFileError(ValueError):
    """A file cannot be used. `field` is the option that names it; the sentence never quotes what is in the file."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def upstream_context(conf: TlsConf) -> ssl.SSLContext:
    """A context for connections of a service's `https` targets. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not conf.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if conf.ca_file is not None:
        _trust(context, conf.ca_file)
    elif conf.verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    _show_certificate(context, conf.cert_file, conf.key_file)
    return context


def check_files(conf: TlsConf) -> None:
    """Whether the files that the options name can be used. Raises TlsFileError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities: they are dear, and not asked
    if conf.ca_file is not None:
        _trust(context, conf.ca_file)
    _show_certificate(context, conf.cert_file, conf.key_file)


def files_of(conf: TlsConf) -> tuple[str, ...]:
    """What a context is made from, and has to be made from again when it changes."""
    system = ssl.get_default_verify_paths().cafile if conf.verify else None  # its folder is read at each handshake
    return tuple(file for file in (conf.ca_file or system, conf.cert_file, conf.key_file) if file is not None)


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    if "-----BEGIN CERTIFICATE-----" not in (text := _read("tls_ca_file", ca_file)):
        raise TlsFileError("tls_ca_file", f"{ca_file} holds no PEM certificate")
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise TlsFileError("tls_ca_file", f"{ca_file} holds a certificate that is damaged") from None
    # Whoever names a file trusts what is in it: an intermediate authority too, without the root above it.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def _show_certificate(context: ssl.SSLContext, cert_file: str | None, key_file: str | None) -> None:
    if cert_file is None and key_file is None:
        return
    if cert_file is None or key_file is None:
        given, missing = ("key", "certificate") if cert_file is None else ("certificate", "key")
        raise TlsFileError(f"tls_{'cert' if cert_file is None else 'key'}_file", f"a {given} needs its {missing} too")
    if "-----BEGIN CERTIFICATE-----" not in _read("tls_cert_file", cert_file):
        raise TlsFileError("tls_cert_file", f"{cert_file} holds no PEM certificate")
    key = _read("tls_key_file", key_file)
    if "PRIVATE KEY-----" not in key:
        raise TlsFileError("tls_key_file", f"{key_file} holds no PEM private key")
    if "ENCRYPTED" in key:  # OpenSSL would ask for the passphrase on the terminal
        raise TlsFileError("tls_key_file", f"{key_file} is protected by a passphrase; nobody is there to type it")
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            sentence = f"{key_file} is not the key of the certificate in {cert_file}"
        else:
            sentence = f"{cert_file} or {key_file} is damaged"
        raise TlsFileError("tls_key_file", sentence) from None
    except (OSError, ValueError) as error:
        raise TlsFileError("tls_cert_file", f"{cert_file} cannot be used: {error}") from None


def _read(field: str, path: str) -> str:
    """The text of a file that is one: a pipe or a device would make us wait."""
    if not path.startswith("/") or len(path) > _LONGEST_PATH or not path.isprintable():
        raise TlsFileError(field, "must be the whole path of a file, beginning with /")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TlsFileError(field, f"{path} is not a file")
            if status.st_size > _LONGEST_FILE_BYTES:
                raise TlsFileError(field, f"{path} is too large to be a certificate or key")
            # Text may stand around the certificates, in any coding; OpenSSL passes over it, but is given ASCII alone.
            return file.read().decode("ascii", "replace").replace("\ufffd", "?")
    except OSError as error:
        raise TlsFileError(
            field, f"{path} cannot be read by the gateway: {(error.strerror or str(error)).lower()}"
        ) from None
