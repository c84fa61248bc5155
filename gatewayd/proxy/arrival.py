"""A connection before its first HTTP byte: the PROXY header, where there has to be one, then the handshake of TLS.

It counts as a connection from its first moment, so that a drain waits for it and the sweeper ends it when it stalls.
When it has arrived, a client connection takes its place. Nobody is told why one does not arrive, for before the
handshake there is no language to say it in; the operator finds a line in the log, at most one a minute.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gatewayd.listener_tls import ListenerTls
from gatewayd.policy.forwarding import is_trusted
from gatewayd.proxy.client import LAST_REQUEST_S, ClientConnection
from gatewayd.proxy.encrypted import SHUTDOWN_TIMEOUT_S, EncryptedConnection
from gatewayd.proxy.origin import origin_of, peer_address
from gatewayd.proxy.preamble import FIRST_BYTES, read_preamble

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.server import ServerState

    from gatewayd.proxy.worker import Worker

COMPLAINT_EVERY_S = 60.0
_Connection = TypeVar("_Connection", bound=ClientConnection)

log = logging.getLogger(__name__)


def first_protocol(worker: Worker, tls: ListenerTls | None) -> Callable[..., asyncio.BaseProtocol]:
    """What makes the protocol of a new connection: a client's at once, unless something comes before HTTP."""
    if tls is None and not worker.settings.proxy_protocol:
        return partial(ClientConnection, worker)
    return partial(Arrival, worker, tls, Complaints())


class Complaints:
    """Of all the connections that did not arrive, one is told of each minute: anyone can make a million."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def about(self, address: bytes, why: str, now: float) -> None:
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_EVERY_S
            log.warning("a connection from %s was closed: %s", address.decode(), why)


class Arrival(asyncio.BufferedProtocol):
    """One connection that cannot speak HTTP yet.

    Buffered, since such a protocol is given no more bytes than it has room for: what follows a PROXY header is TLS's.
    """

    def __init__(
        self,
        worker: Worker,
        tls: ListenerTls | None,
        complaints: Complaints,
        *,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.worker = worker
        self._tls = tls
        self._complaints = complaints
        self._config, self._server_state, self._app_state = config, server_state, app_state
        self._connections: set[Any] = server_state.connections
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self._address = b""
        self._came_at = worker.now()
        self._header = b""
        self._room = bytearray(FIRST_BYTES)
        self._handshake: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Arrival {self._address.decode()} {'header' if self._handshake is None else 'handshake'}>"

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._connections.add(self)
        self._address = peer_address(transport)
        settings = self.worker.settings
        if not settings.proxy_protocol:
            self._admit()
        elif settings.trusted_proxies and not is_trusted(self._address, settings.trusted_proxies):
            self._turn_away("it is none of the trusted proxies")
        elif self.worker.draining:  # see `ClientConnection.connection_made`
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshake is None:  # else this is only the first descriptor
            self._connections.discard(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._header += self._room[:nbytes]
        read = read_preamble(self._header)
        if isinstance(read, int):
            self._room = bytearray(read)
        elif isinstance(read, str):
            self._turn_away(read)
        else:
            self._address = read.address or self._address
            self._admit()

    # The worker's side, as a client connection has it.

    def shutdown(self) -> None:
        """uvicorn drains. Who has said something is waited for; see `ClientConnection.shutdown`."""
        if self._handshake is None and not self._header:
            self.worker.loop.call_later(LAST_REQUEST_S, self._close_silent)

    def check_time(self, now: float) -> None:
        if self._handshake is None and now - self._came_at > self.worker.settings.head_timeout_s:
            self._turn_away("its PROXY header did not arrive in time")

    def _close_silent(self) -> None:
        if self._handshake is None and not self._header:
            self.transport.close()

    def _turn_away(self, why: str) -> None:
        self._complaints.about(self._address, why, self.worker.now())
        self.transport.abort()

    # Onwards.

    def _admit(self) -> None:
        if self._tls is not None:
            # A second descriptor, given to the loop anew: uvloop reads from an accepted connection right after
            # `connection_made`, whatever was said in it, and bytes that have been read cannot be given to TLS.
            sock = self.transport.get_extra_info("socket").dup()
            self.transport.abort()
            self._handshake = self.worker.loop.create_task(self._encrypt(sock, self._tls.context))
            return
        self.transport.pause_reading()  # what comes now is not ours
        client = self._successor(ClientConnection)
        client.origin = origin_of(self._address, self.worker.settings.trusted_proxies)
        self._connections.discard(self)
        self.transport.set_protocol(client)
        client.connection_made(self.transport)
        self.transport.resume_reading()

    async def _encrypt(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        client = self._successor(EncryptedConnection)
        client.address = self._address
        try:
            sock.setblocking(False)
            await self.worker.loop.connect_accepted_socket(
                lambda: client,
                sock,
                ssl=context,
                ssl_handshake_timeout=self.worker.settings.head_timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
        except OSError as error:  # among them ssl.SSLError: plain HTTP, no version in common, a certificate refused
            reason = error.reason if isinstance(error, ssl.SSLError) else ""
            if reason:  # else it has gone, or was slow: nothing that an operator could mend
                why = reason.replace("_", " ").lower()
                self._complaints.about(self._address, f"the TLS handshake failed ({why})", self.worker.now())
        finally:
            self._connections.discard(self)

    def _successor(self, kind: type[_Connection]) -> _Connection:
        return kind(self.worker, config=self._config, server_state=self._server_state, app_state=self._app_state)
