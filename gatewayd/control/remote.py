"""The admin API for other machines: TCP, with TLS but on loopback, and only so much for strangers.

Control hands out leases, so nobody who has not shown a token may cost it much: connections are bounded, in all, by
address and by the second (a handshake is a millisecond of computing), a handshake and a head have to come in time, and
a head has a length. A renewed certificate is taken up by the
next handshake, as the data plane does it.

The application is the one of the Unix socket; so is uvicorn's server, which ends these connections too when it drains.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gatewayd.listener_tls import ListenerTls
from gatewayd.policy.strangers import Turnstile, network_of

CONNECTIONS = 100
CONNECTIONS_OF_ADDRESS = 20
ENTRIES_S = 50  # others wait in the socket's queue
ENTRIES_AT_ONCE = 100
HANDSHAKE_TIMEOUT_S = 10.0
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 60.0  # without a byte of it
IDLE_S = 60.0
HEAD_LIMIT_BYTES = 32768
_NO_ROOM_S = 0.5  # without a descriptor to accept with, nothing is better soon
_COMPLAINT_EVERY_S = 60.0

log = logging.getLogger(__name__)
# uvicorn warns of each request that is none: on TCP strangers would write the log.
_quiet = logging.getLogger(f"{__name__}.wire")
_quiet.setLevel(logging.ERROR)


class _EagerError(Exception):
    """A request came before the one before it was answered. Raised to the parser, which stops at that."""


class RemoteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines, a bounded head, and one request at a time.

    A client may send several and then wait (RFC 9112 section 9.3.2). uvicorn makes room for each at once, also for
    15,000 that come in one read: control stood still for half a second (measured), for somebody without a token. So
    one is answered, and the connection closed. `scope["state"]["hang_up"]` cuts it off.
    """

    def __init__(self, door: RemoteDoor, network: str) -> None:
        super().__init__(door.config, door.server_state, {})
        self.logger = _quiet
        self._door = door
        self._network = network
        self._head_bytes = 0
        self._in_head = True
        self._is_deaf = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {"hang_up": transport.abort}
        self._expect(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._door.leaves(self._network)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), HEAD_LIMIT_BYTES):  # a read may be longer than a head may be
            if not (self._is_deaf or self.transport.is_closing()):
                self._hear(data[start : start + HEAD_LIMIT_BYTES])

    def _hear(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_LIMIT_BYTES:
            self.transport.abort()
        elif self._is_awaiting_body():
            self._expect(BODY_TIMEOUT_S)

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            raise _EagerError
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Also for what was heard behind a request that is being answered: that answer is the last one."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            super().send_400_response(msg)
        else:
            self._is_deaf = True
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._expect(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._expect(None)
        self._in_head = True  # what comes now is the next one's
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._expect(IDLE_S + HEAD_TIMEOUT_S)  # uvicorn's own timer stops at the first byte of a head

    def _is_awaiting_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self._in_head

    def _expect(self, within_s: float | None) -> None:
        """Something has to come in this time. None: it is our turn."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if within_s is None else self.loop.call_later(within_s, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self._is_awaiting_body() and self.flow.read_paused:  # it is we who do not read
            self._expect(BODY_TIMEOUT_S)
            return
        self.transport.abort()


class RemoteDoor:
    """Accepts connections. `<RemoteDoor 3 of 100>`"""

    def __init__(self, app: Any, listener: socket.socket, tls: ListenerTls | None, server_state: ServerState) -> None:
        self.config = Config(
            app, loop="none", http=RemoteProtocol, lifespan="off", ws="none", interface="asgi3", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=int(IDLE_S),
        )  # fmt: skip
        self.config.load()
        self.server_state = server_state
        self._listener = listener
        self._tls = tls
        self._inside: Counter[str] = Counter()
        self._entering: set[asyncio.Task[None]] = set()
        self._turnstile = Turnstile(ENTRIES_S, ENTRIES_AT_ONCE)
        self._silent_until = 0.0

    def __repr__(self) -> str:
        return f"<RemoteDoor {self._inside.total()} of {CONNECTIONS}>"

    async def run(self) -> None:
        """Until cancelled, or closed."""
        loop = asyncio.get_running_loop()
        watching = None if self._tls is None else asyncio.create_task(self._tls.watch())
        self._listener.setblocking(False)
        try:
            while self._listener.fileno() >= 0:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    self._complain("cannot accept: %s", error.strerror)
                    await asyncio.sleep(_NO_ROOM_S)
                    continue
                self._admit(connection, network_of(address[0]))
                if wait_s := self._turnstile.wait_s(loop.time()):
                    await asyncio.sleep(wait_s)
        finally:
            if watching is not None:
                watching.cancel()
            self._listener.close()
            for task in self._entering:
                task.cancel()

    def leaves(self, network: str) -> None:
        self._inside[network] -= 1
        if not self._inside[network]:
            del self._inside[network]

    def _admit(self, connection: socket.socket, network: str) -> None:
        if self._inside.total() >= CONNECTIONS or self._inside[network] >= CONNECTIONS_OF_ADDRESS:
            self._complain("turned a connection from %s away: there are %d", network, self._inside.total())
            connection.close()  # before the handshake there is no language to say it in
            return
        self._inside[network] += 1
        task = asyncio.create_task(self._enter(connection, network))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket, network: str) -> None:
        protocol = RemoteProtocol(self, network)
        timeouts = {"ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S, "ssl_shutdown_timeout": HANDSHAKE_TIMEOUT_S}
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a stream may be silent for hours
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(IDLE_S))
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=None if self._tls is None else self._tls.context,
                **({} if self._tls is None else timeouts),
            )
        except BaseException as error:
            if protocol.transport is None:  # else the protocol counts it out
                self.leaves(network)
                connection.close()
            if not isinstance(error, OSError):  # among them ssl.SSLError
                raise
            if isinstance(error, ssl.SSLError) and error.reason:
                self._complain("a TLS handshake from %s failed: %s", network, error.reason.replace("_", " ").lower())

    def _complain(self, line: str, *arguments: Any) -> None:
        """One line a minute, whatever strangers do."""
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + _COMPLAINT_EVERY_S
            log.warning(f"the remote admin API {line}", *arguments)
