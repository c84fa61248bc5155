"""A worker between transports in memory. Bytes move when `Gateway.settle` lets the loop turn, in the pieces given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uvicorn.server import ServerState

from gatewayd.channel import Welcome
from gatewayd.conf import TenantConf
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.worker import Worker
from gatewayd.records import SEGMENT_SUFFIX, SLOT_BYTES, SLOTS_PER_SEGMENT, Record, unpack_records
from gatewayd.settings import Settings
from tests.wire.harness import services

TURNS = 12  # of the loop between two pieces: more than any step of an exchange takes


class MemoryTransport(asyncio.Transport):
    """One end of a connection. As strict as uvloop's: pausing twice, or resuming what was not paused, raises."""

    def __init__(self, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol = protocol
        self._loop = loop
        self.written = bytearray()
        self.closing = False
        self.aborted = False  # ended so that what was written may be lost
        self.wrote_eof = False
        self.gone = False  # the protocol has been told
        self._paused = False
        self._inbox: list[bytes] = []
        self.on_write: Callable[[bytes], None] = lambda data: None

    # The protocol's side.

    def write(self, data: Any) -> None:
        assert not self.wrote_eof, "written after write_eof"
        if not self.closing:
            self.written += data
            self._loop.call_soon(self.on_write, bytes(data))

    def write_eof(self) -> None:
        self.wrote_eof = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def _lose(self) -> None:
        self.gone = True
        self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        if self._paused:
            raise RuntimeError("Already paused")
        self._paused = True

    def resume_reading(self) -> None:
        if not self._paused:
            raise RuntimeError("Not paused")
        self._paused = False
        self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return not self._paused

    def get_write_buffer_size(self) -> int:
        return 0

    # The other side.

    def feed(self, data: bytes) -> None:
        if data:
            self._inbox.append(data)
            self._deliver()

    def _deliver(self) -> None:
        while self._inbox and not self._paused and not self.closing:
            self.protocol.data_received(self._inbox.pop(0))

    def feed_eof(self) -> None:
        if not self.closing and not self.protocol.eof_received():
            self.close()


class MemoryLoop(asyncio.SelectorEventLoop):
    """Connects to nobody: every connection it makes is one more of `dialled`."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[MemoryTransport] = []
        self.on_dialled: Callable[[MemoryTransport], None] = lambda transport: None
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        protocol = protocol_factory()
        transport = MemoryTransport(protocol, self)
        self.dialled.append(transport)
        self.on_dialled(transport)
        protocol.connection_made(transport)
        return transport, protocol


class Gateway:
    """A worker with the services of the wire's harness. One serves many examples; `fresh` is between two."""

    def __init__(self, worker: Worker, loop: MemoryLoop) -> None:
        self.worker = worker
        self.loop = loop
        self.state = ServerState()
        self._seen = 0  # records of the examples before

    def client(self) -> MemoryTransport:
        protocol = ClientConnection(
            self.worker, config=None, server_state=self.state, app_state={}, _loop=self.loop
        )  # fmt: skip
        transport = MemoryTransport(protocol, self.loop)
        protocol.connection_made(transport)
        return transport

    def settle(self) -> None:
        """Let the loop turn until there is nothing left to do."""
        self.loop.run_until_complete(self._turn())

    async def _turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def records(self) -> list[Record]:
        """What the example has put on the journal, as it stands in the files."""
        wanted = range(self._seen, self.worker.journal.records)
        found: list[Record] = []
        segments = sorted((self.worker.settings.state_dir / "journal").glob(f"*{SEGMENT_SUFFIX}"))
        for number in range(wanted.start // SLOTS_PER_SEGMENT, -(-wanted.stop // SLOTS_PER_SEGMENT)):
            here = [index - number * SLOTS_PER_SEGMENT for index in (wanted.start, wanted.stop)]
            begin, end = max(here[0], 0), min(here[1], SLOTS_PER_SEGMENT)
            with segments[number].open("rb") as segment:
                segment.seek((begin + 1) * SLOT_BYTES)  # the header is as long as a slot
                found += unpack_records(segment.read((end - begin) * SLOT_BYTES))[0]
        return found

    def fresh(self) -> None:
        """Forget the last example: no connection of it is left."""
        for pool in self.worker._pools.values():
            pool.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        self.settle()
        self.worker.journal.prepare()
        self._seen = self.worker.journal.records
        self.loop.dialled.clear()
        self.loop.errors.clear()


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    (folder / "journal").mkdir()
    loop = MemoryLoop()

    async def build() -> Worker:
        settings = Settings(state_dir=folder, admin_socket=folder / "admin.sock", workers=1)
        worker = Worker(settings, 0, set())
        tenants = (TenantConf(1, "default", False), TenantConf(2, "acme", False))
        worker._on_message(Welcome(tenants, services("http://127.0.0.1:1")))
        worker.journal.prepare()
        return worker

    worker = loop.run_until_complete(build())
    try:
        yield Gateway(worker, loop)
    finally:
        worker.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
