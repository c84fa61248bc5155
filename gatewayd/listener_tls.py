"""TLS of a listener: the certificate, its key, whose certificates clients may show, and taking up renewed files.

The data plane has one, and the admin API where it listens for other machines.

A renewed certificate is a new context, put in the place of the old one by one assignment: connections keep what they
were made with, and a pair that cannot be loaded, as when only one of its files has been written yet, changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from gatewayd.errors import StartupError
from gatewayd.settings import Settings
from gatewayd.stamp import Stamp, stamp

CHECK_S = 1.0  # how often files are looked at: three stats
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

log = logging.getLogger(__name__)


class _PassphraseWantedError(Exception):
    """OpenSSL asks for a passphrase, on the terminal unless it is given a function."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a context is made from. `prefix`: of the settings that name the files, for errors."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_auth: str = "none"
    prefix: str = ""

    @classmethod
    def of_data_plane(cls, settings: Settings) -> TlsFiles | None:
        """None: it speaks no TLS."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_client_ca, settings.tls_client_auth)

    @classmethod
    def of_admin(cls, settings: Settings) -> TlsFiles | None:
        """None: it speaks no TLS."""
        if settings.admin_tls_cert is None or settings.admin_tls_key is None:
            return None
        return cls(settings.admin_tls_cert, settings.admin_tls_key, prefix="admin_")


class ListenerTls:
    """What the next handshake is made with."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = self._look()
        self.context = listener_context(files)

    def __repr__(self) -> str:
        return f"<ListenerTls {self._files.cert}>"

    def refresh(self) -> None:
        """Take up the files if they have changed. One line in the log says how that went."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps  # first: a file that changes while it is read is found to have changed again
        try:
            self.context = listener_context(self._files)
        except StartupError as error:
            log.error("%s; the certificate in use stays", error)
        else:
            log.info("took up the renewed certificate %s", self._files.cert)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            self.refresh()

    def _look(self) -> list[Stamp | None]:
        files = (self._files.cert, self._files.key, self._files.client_ca)
        return [stamp(file) for file in files if file is not None]


def listener_context(files: TlsFiles) -> ssl.SSLContext:
    """A context of the files as they are. Raises StartupError with one line, which names files and quotes nothing."""
    for name, file in (("tls_cert", files.cert), ("tls_key", files.key), ("tls_client_ca", files.client_ca)):
        if file is not None:
            _must_be_readable(f"{files.prefix}{name}", file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, files)
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError:
            raise StartupError(f"tls_client_ca {files.client_ca} holds no certificate in PEM form") from None
        context.verify_mode = _VERIFY[files.client_auth]
    return context


def certificate_field(connection: ssl.SSLObject) -> bytes:
    """`Client-Cert` (RFC 9440 section 2.2) of the certificate that was verified, as a line that ends in CRLF."""
    certificate = connection.getpeercert(binary_form=True)
    return b"Client-Cert: :%b:\r\n" % base64.b64encode(certificate) if certificate else b""


def _must_be_readable(name: str, file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise StartupError(f"{name} {file} cannot be read: {(error.strerror or str(error)).lower()}") from None


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    def ask() -> str:
        raise _PassphraseWantedError

    try:
        context.load_cert_chain(files.cert, files.key, password=ask)
    except _PassphraseWantedError:
        key = f"{files.prefix}tls_key {files.key}"
        raise StartupError(f"{key} is encrypted, and nobody is there to ask for its passphrase") from None
    except ssl.SSLError as error:
        raise StartupError(_what_is_wrong(error, files)) from None


def _what_is_wrong(error: ssl.SSLError, files: TlsFiles) -> str:
    cert, key = f"{files.prefix}tls_cert {files.cert}", f"{files.prefix}tls_key {files.key}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of {cert}"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{cert} is too weak for today's TLS ({error.reason.replace('_', ' ').lower()})"
    try:  # OpenSSL does not say which of the two it could not read
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(files.cert)
    except ssl.SSLError:
        return f"{cert} holds no certificate in PEM form"
    return f"{key} holds no private key in PEM form"
