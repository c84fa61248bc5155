"""A client connection inside TLS, where closing is a matter of its own.

TLS closes with a message, which the other side answers; uvloop sends what is unsent before it and drops what comes
until the answer is there. That is the lingering that a plain connection does by itself (see `client`). uvloop would end
it after a fixed time, whatever was still unsent to a client that reads slowly; so the sweeper ends it, as it does
elsewhere: by what moves.
"""

from __future__ import annotations

import asyncio

from gatewayd.proxy.client import LINGER_S, ClientConnection

SHUTDOWN_TIMEOUT_S = 3600.0  # uvloop's own, which is not to come first


class EncryptedConnection(ClientConnection):
    """One client connection of the TLS listener. `beneath` is the TCP connection."""

    beneath: asyncio.Transport

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
        unsent = self.transport.get_write_buffer_size() + self.beneath.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._waits_since = unsent, now
        elif now - self._waits_since > (self.worker.settings.keep_alive_s if unsent else LINGER_S):
            self.abort()
