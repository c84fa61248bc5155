"""A worker without control: the real protocol classes on a real loop, between real sockets.

`Wire` is the worker with a snapshot in it, an upstream that does what the test says, and the clients that the test
opens. Every service of the snapshot has the same upstream.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from uvicorn.server import ServerState

from gatewayd.channel import SnapshotChanged, Welcome
from gatewayd.conf import BreakerConf, KeyConf, ServiceConf, TargetConf, TenantConf
from gatewayd.keys import digest, new_key
from gatewayd.policy.spending import KeyEntry
from gatewayd.proxy.worker import Worker
from gatewayd.records import SLOT_BYTES, Record, unpack_records
from gatewayd.settings import Settings
from tests.wire.peer import PATIENCE_S, Message, Peer

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET: Final = b"GET /open/ HTTP/1.1\r\nHost: api\r\n\r\n"
BODY_LIMIT_BYTES: Final = 100
BRISK_TIMEOUT_S: Final = 0.3
FIRST_BYTE_S: Final = 0.6
IDLE_S: Final = 0.6

Script = Callable[["Upstream", Peer], Awaitable[None]]


class Upstream:
    """A server whose every connection is run by `script`. By default it answers each request with `answer`."""

    def __init__(self) -> None:
        self.answer = OK
        self.script: Script = Upstream.answer_all
        self.peers: list[Peer] = []
        self.requests: list[Message] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def received(self) -> bytes:
        return b"".join(bytes(peer.received) for peer in self.peers)

    def narrow(self, receives: int) -> None:
        """From now on the kernel takes only about this much for a connection whose script does not read."""
        assert self._server is not None
        self._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)

    async def answer_all(self, peer: Peer) -> None:
        while True:
            self.requests.append(await peer.message())
            await peer.send(self.answer)

    async def __aenter__(self) -> Upstream:
        self._server = await self.listen()
        address = self._server.sockets[0].getsockname()
        self.port = address[1] if isinstance(address, tuple) else 1  # a Unix socket has none
        return self

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for peer in self.peers:
            await peer.closed()
        await asyncio.wait(self._tasks) if self._tasks else None
        for task in self._tasks:
            assert task.cancelled() or task.exception() is None, task

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._tasks.add(asyncio.get_running_loop().create_task(self._run(peer)))

    async def _run(self, peer: Peer) -> None:
        try:
            await self.script(self, peer)
        except Exception as error:  # the end of a connection ends its script
            if type(error).__name__ not in ("CutShortError", "TimeoutError"):
                raise


def service(number: int, slug: str, url: str, targets: tuple[TargetConf, ...] = (), **other: Any) -> ServiceConf:
    fields: dict[str, Any] = {
        "tenant_id": 1,
        "tenant": "default",
        "auth": "none",
        "paths": (),
        "preserve_host": False,
        "timeout_s": 5.0,
        "connect_timeout_s": 5.0,
        "body_limit_bytes": None,
        "key_header": "X-API-Key",
        "breaker": BreakerConf(failures=0),  # most tests here make upstreams fail, and no circuit must open for that
    }
    fields |= other
    return ServiceConf(
        id=number, public_id=f"svc{number}", slug=slug, targets=targets or (TargetConf(url, 1),), **fields
    )  # fmt: skip


def services(url: str) -> tuple[ServiceConf, ...]:
    return (
        service(1, "open", url, paths=("/v1/things",)),
        service(2, "keyed", url, auth="key"),
        service(3, "based", f"{url}/base"),
        service(4, "theirs", url, tenant="acme", tenant_id=2),
        service(5, "hosted", url, preserve_host=True),
        service(6, "small", url, body_limit_bytes=BODY_LIMIT_BYTES),
        service(7, "brisk", url, timeout_s=BRISK_TIMEOUT_S),
        service(8, "nowhere", "http://127.0.0.1:1"),
        service(9, "own", url, auth="key", key_header="X-Own-Key"),
        service(10, "endless", url, timeout_s=None, first_byte_timeout_s=FIRST_BYTE_S, idle_timeout_s=IDLE_S),
        service(11, "hasty", url, timeout_s=BRISK_TIMEOUT_S, first_byte_timeout_s=9.0, idle_timeout_s=9.0),
    )


class Wire:
    """The gateway of one test. Use it with `async with`; at the end nothing may be left of what it held."""

    def __init__(self, folder: Path, upstream: Upstream | None = None, **settings: Any) -> None:
        (folder / "journal").mkdir()
        self.folder = folder
        self.settings = settings
        self.upstream = upstream or Upstream()
        self.clients: list[Peer] = []
        self.key = b""
        self.errors: list[dict[str, Any]] = []

    async def __aenter__(self) -> Wire:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        await self.upstream.__aenter__()
        self.state = ServerState()
        settings = Settings(state_dir=self.folder, admin_socket=self.folder / "admin.sock", workers=1, **self.settings)
        self.worker = Worker(settings, 0, self.state.connections)  # type: ignore[arg-type]
        tenants = (TenantConf(1, "default", False), TenantConf(2, "acme", False))
        self.worker._on_message(Welcome(tenants, services(f"http://127.0.0.1:{self.upstream.port}")))
        self._add_key()
        self._sweep = asyncio.create_task(self.worker.sweep())
        protocol = partial(self.worker.door, config=None, server_state=self.state, app_state={}, _loop=loop)
        self._server = await loop.create_server(protocol, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _add_key(self) -> None:
        public_id, key = new_key()
        self.key = key.encode()
        conf = KeyConf(7, public_id, digest(self.key), 1, None, False, None, (), None, 3)
        self.worker.keys.entries[public_id] = KeyEntry(conf)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        try:
            for client in self.clients:
                await client.closed()
            await self.upstream.__aexit__()
            await self.settled(lambda: self.held() == [])
        finally:
            self._sweep.cancel()
            held = self.held()
            for connection in held:
                if isinstance(connection, asyncio.Protocol):
                    connection.transport.abort()  # type: ignore[attr-defined]
            self.worker.close()
            await asyncio.sleep(0.01 if held else 0)
        assert held == []
        assert not self.errors, self.errors

    def serve(self, *confs: ServiceConf) -> None:
        """These services in place of those it began with."""
        self.worker._install(SnapshotChanged(1, (TenantConf(1, "default", False),), confs))

    def held(self) -> list[object]:
        """What the worker has open."""
        upstream = [connection for pool in self.worker._pools.values() for connection in pool._open]
        return [*self.state.connections, *self.worker.exchanges, *upstream]

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.001)

    async def client(self, limit: int = 1 << 16, receives: int = 0) -> Peer:
        """`limit` and `receives`: bytes that it takes before it is asked to, in its own memory and in the kernel's."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        if receives:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        sock.setblocking(False)
        peer = Peer(*await asyncio.open_connection(sock=sock, limit=limit))
        self.clients.append(peer)
        return peer

    async def ask(self, request: bytes, step: int = 0) -> Message:
        """Send one request on a connection of its own and read the answer."""
        client = await self.client()
        await client.send(request, step)
        return await client.message(bodiless=request.startswith(b"HEAD "))

    def records(self) -> list[Record]:
        """The journal as it stands in the file."""
        found: list[Record] = []
        for path in sorted((self.folder / "journal").glob("*.gwj")):
            found += unpack_records(path.read_bytes()[SLOT_BYTES:])[0]
        return found
