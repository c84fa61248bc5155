"""TLS of the listener: the certificate, its key, whose certificates clients may show, and taking up renewed files.

A renewed certificate is a new context, put in the place of the old one by one assignment: connections keep what they
were made with, and a pair that cannot be loaded, as when only one of its files has been written yet, changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from pathlib import Path

from gatewayd.errors import StartupError
from gatewayd.proxy.stamp import Stamp, stamp
from gatewayd.settings import Settings

CHECK_S = 1.0  # how often files are looked at: three stats
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

log = logging.getLogger(__name__)


class _PassphraseWantedError(Exception):
    """OpenSSL asks for a passphrase, on the terminal unless it is given a function."""


class ListenerTls:
    """What the next handshake is made with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stamps = self._look()
        self.context = listener_context(settings)

    def __repr__(self) -> str:
        return f"<ListenerTls {self._settings.tls_cert}>"

    def refresh(self) -> None:
        """Take up the files if they have changed. One line in the log says how that went."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps  # first: a file that changes while it is read is found to have changed again
        try:
            self.context = listener_context(self._settings)
        except StartupError as error:
            log.error("%s; the certificate in use stays", error)
        else:
            log.info("took up the renewed certificate %s", self._settings.tls_cert)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            self.refresh()

    def _look(self) -> list[Stamp | None]:
        settings = self._settings
        files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        return [stamp(file) for file in files if file is not None]


def listener_context(settings: Settings) -> ssl.SSLContext:
    """A context of the files as they are. Raises StartupError with one line, which names files and quotes nothing."""
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    assert cert is not None
    assert key is not None
    for name, file in (("tls_cert", cert), ("tls_key", key), ("tls_client_ca", client_ca)):
        if file is not None:
            _must_be_readable(name, file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, cert, key)
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise StartupError(f"tls_client_ca {client_ca} holds no certificate in PEM form") from None
        context.verify_mode = _VERIFY[settings.tls_client_auth]
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


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def ask() -> str:
        raise _PassphraseWantedError

    try:
        context.load_cert_chain(cert, key, password=ask)
    except _PassphraseWantedError:
        raise StartupError(f"tls_key {key} is encrypted, and nobody is there to ask for its passphrase") from None
    except ssl.SSLError as error:
        raise StartupError(_what_is_wrong(error, cert, key)) from None


def _what_is_wrong(error: ssl.SSLError, cert: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"tls_key {key} is not the key of tls_cert {cert}"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"tls_cert {cert} is too weak for today's TLS ({error.reason.replace('_', ' ').lower()})"
    try:  # OpenSSL does not say which of the two it could not read
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError:
        return f"tls_cert {cert} holds no certificate in PEM form"
    return f"tls_key {key} holds no private key in PEM form"
