"""The admin API over TCP: with TLS, and without it only to this machine."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gatectl.errors import GatectlError, MisuseError, UnreachableError

if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT_S = 10.0
_NEW_TOKEN = "make one there with 'gatectl token create', and give it with --token-file FILE or GATECTL_TOKEN"  # noqa: S105 (no secret)

# X509_V_ERR_* of openssl's x509_vfy.h, by what an operator can do about them.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21, 27)
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)


class Tcp:
    """A host and a port. The certificate is checked: by the system's authorities, or by those in `ca_file` alone."""

    kept = True  # a handshake is two round trips, each as long as an answer's
    mend = "is that the address of admin_listen?"
    refused: Mapping[str, str] = {
        "unauthenticated": _NEW_TOKEN,
        "not_permitted": "take a token that may: 'gatectl token create --role' makes one",
    }

    def __init__(self, host: str, port: int, base: str, *, tls: bool, ca_file: str = "") -> None:
        self._address = (host, port)
        self._tls = tls
        self._ca_file = ca_file
        name = f"[{host}]" if ":" in host else host
        self.host = name if port == (443 if tls else 80) else f"{name}:{port}"
        self.base = base.rstrip("/")
        self.place = f"http{'s' * tls}://{self.host}{self.base}"

    def __repr__(self) -> str:
        return f"<Tcp {self.place}>"

    def check_authorities(self) -> None:
        """Raises what is wrong with the file of them, before it is kept for later."""
        if self._tls:
            self._tls_context()

    def connect(self, timeout_s: float) -> socket.socket:
        """Raises what says whether the name, the way, or the certificate is at fault."""
        wrapping = self._tls_context() if self._tls else None
        connection = self._connected(min(timeout_s, CONNECT_TIMEOUT_S))
        if wrapping is None:
            self._must_be_here(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if wrapping is not None:
            try:
                connection = wrapping.wrap_socket(connection, server_hostname=self._address[0])
            except OSError as error:
                connection.close()
                raise self._unsecured(error) from None
        connection.settimeout(timeout_s)
        return connection

    def _connected(self, timeout_s: float) -> socket.socket:
        host, port = self._address
        where = f"{host} port {port}"
        try:
            return socket.create_connection(self._address, timeout_s)
        except socket.gaierror as error:
            raise UnreachableError(f"no address is known of {host}: {error.strerror}", "is the name right?") from None
        except UnicodeError:
            raise MisuseError(f"{host!r} cannot be the name of a host", "see 'gatectl context --help'") from None
        except ConnectionRefusedError:
            hint = "is gatewayd up there, and its setting admin_listen?"
            raise UnreachableError(f"nothing listens at {where}", hint) from None
        except TimeoutError:
            hint = "is it up, and does a firewall let you through?"
            raise UnreachableError(f"no answer from {where} within {timeout_s:g} s", hint) from None
        except OSError as error:
            raise UnreachableError(f"cannot connect to {where}: {error.strerror or error}", self.mend) from None

    def _must_be_here(self, connection: socket.socket) -> None:
        """The name `localhost` is what a file or a name server says it is."""
        from ipaddress import ip_address

        address = connection.getpeername()[0]
        if not ip_address(address).is_loopback:
            connection.close()
            raise UnreachableError(
                f"{self._address[0]} is {address} here, and http:// would show the token on the way there",
                "name this machine as 127.0.0.1",
            )

    def _tls_context(self) -> ssl.SSLContext:
        import ssl  # another `python -c pass`: only for who goes that way

        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except FileNotFoundError:
            raise MisuseError(f"--ca: there is no file {self._ca_file}") from None
        except ssl.SSLError:
            raise MisuseError(f"--ca: {self._ca_file} holds no certificates in PEM form") from None
        except OSError as error:
            raise MisuseError(f"--ca: cannot read {self._ca_file}: {error.strerror}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _unsecured(self, error: OSError) -> GatectlError:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return self._distrusted(error.verify_code, error.verify_message)
        reason = getattr(error, "reason", None) or ""
        where = self.place
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
            return UnreachableError(f"what listens at {where} speaks no TLS", self.mend)
        if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
            return UnreachableError(f"what listens at {where} speaks only a TLS older than 1.2", self.mend)
        if isinstance(error, TimeoutError):
            return UnreachableError(f"{where} did not finish the TLS handshake", "does it speak TLS at all?")
        told = reason.lower().replace("_", " ") or error.strerror or "it closed the connection"
        return UnreachableError(f"no TLS with {where}: {told}", self.mend)

    def _distrusted(self, code: int, message: str) -> GatectlError:
        whose = f"the certificate of {self.place}"
        if code in _UNKNOWN_AUTHORITY:
            hint = "if it is your own, name the authority's certificate with --ca FILE or 'gatectl context set --ca'"
            return UnreachableError(f"{whose} is signed by an authority that is not trusted here", hint)
        if code == _EXPIRED:
            return UnreachableError(f"{whose} has expired", "renew what gatewayd's admin_tls_cert names")
        if code == _NOT_YET_VALID:
            return UnreachableError(f"{whose} is not valid yet", "is the clock of this machine right?")
        if code in _OTHER_NAME:
            return UnreachableError(f"{whose} is for another name", "name the gateway in --url as its certificate does")
        return UnreachableError(f"{whose} is not accepted: {message}", self.mend)
