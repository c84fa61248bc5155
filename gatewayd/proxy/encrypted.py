"""A client connection inside TLS, where closing is a matter of its own.

TLS closes with a message, which the other side answers; uvloop sends what is unsent before it and drops what comes
until the answer is there. That is the lingering that a plain connection does by itself (see `client`). uvloop would end
it after a fixed time, whatever was still unsent to a client that reads slowly; so the sweeper ends it, as it does
elsewhere: by what moves.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

from gatewayd.listener_tls import certificate_field
from gatewayd.proxy.client import LINGER_S, ClientConnection
from gatewayd.proxy.origin import HTTPS, origin_of

SHUTDOWN_TIMEOUT_S = 3600.0  # uvloop's own, which is not to come first
_COUNT = struct.Struct("i")


class EncryptedConnection(ClientConnection):
    """One client connection of the TLS listener. `address`: whose it is, by its peer's or a balancer's word."""

    address: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        certificate = certificate_field(transport.get_extra_info("ssl_object"))
        self.origin = origin_of(self.address, self.worker.settings.trusted_proxies, HTTPS, certificate)
        super().connection_made(transport)

    def eof_received(self) -> bool:
        """The client will read no more: uvloop does not know TLS that is closed on one side (RFC 8446 section 6.1)."""
        self._ended = True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()
        return False

    def check_time(self, now: float) -> None:
        if not self.transport.is_closing():
            super().check_time(now)
            return
        unsent = self._unsent_bytes()
        if unsent != self._unsent:
            self._unsent, self._waits_since = unsent, now
        elif now - self._waits_since > (self.worker.settings.keep_alive_s if unsent else LINGER_S):
            self.abort()

    def _unsent_bytes(self) -> int:
        """With what the kernel holds (tcp(7), SIOCOUTQ), since what the TCP transport below holds cannot be asked."""
        sock = self.transport.get_extra_info("socket")
        try:
            (waiting,) = _COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size)))
        except (OSError, ValueError, AttributeError):  # uvloop has closed it, and tells us in the loop's next turn
            waiting = 0
        return self.transport.get_write_buffer_size() + int(waiting)
