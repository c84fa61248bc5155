"""`journal_sync`: what leaves before its record is on the disk, and what does not."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, CLIENT_LEFT, SEGMENT_BYTES, SLOT_BYTES, SLOTS_PER_SEGMENT, pack_record
from tests.wire.harness import GET, OK, Upstream, Wire, service
from tests.wire.peer import CutShortError, Peer

pytestmark = pytest.mark.anyio
UPGRADE = b"GET /open/ HTTP/1.1\r\nHost: api\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
POST = b"POST /none/ HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"
RECORD = pack_record(ADMITTED, 1, 1, 0, 0, 0, 0, 0, 1, 200, 0, 1, 0, 0, 0, 0, b"id".ljust(16))
GIVE_UP_S = 20.0
LONG_ENOUGH_S = 0.05  # for bytes that must not leave to arrive


class Disk:
    """In place of fdatasync: a disk that takes as long as the test wants, and may fail."""

    def __init__(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        self._wire = wire
        self._works = threading.Event()
        self.failure: Exception = OSError(errno.EIO, os.strerror(errno.EIO))
        self.fails = False
        self.covered: list[int] = []  # records that stood in the files when a sync began
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: self._sync())

    def _sync(self) -> None:
        self.covered.append(len(self._wire.records()))
        assert self._works.wait(GIVE_UP_S)
        if self.fails:
            raise self.failure

    def go(self) -> None:
        self._works.set()

    def stop(self) -> None:
        self._works.clear()

    async def is_asked(self, times: int = 1) -> None:
        """A sync has begun, and what was about to leave without it has left."""
        await self._wire.settled(lambda: len(self.covered) >= times)
        await asyncio.sleep(LONG_ENOUGH_S)


@pytest.fixture
async def wire(anyio_backend: object, tmp_path: Path) -> AsyncIterator[Wire]:
    async with Wire(tmp_path, journal_sync="record") as opened:
        yield opened


@pytest.fixture
def disk(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(wire, monkeypatch)


def arrived(client: Peer) -> bytes:
    """All that has come, read by the test or not."""
    return bytes(client.received) + bytes(client._reader._buffer)  # type: ignore[attr-defined]


def connection_of(wire: Wire) -> ClientConnection:
    (connection,) = wire.state.connections
    assert isinstance(connection, ClientConnection)
    return connection


# "record".


@pytest.mark.parametrize(
    ("request_", "answer", "before", "status"),
    [
        (GET, OK, b"", 200),
        (GET, CHUNKED, b"\r\n\r\n", 200),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
        (GET.replace(b"/open/", b"/keyed/"), OK, b"", 401),
        (GET.replace(b"/open/", b"/nowhere/"), OK, b"", 502),
    ],
    ids=["whole", "chunks", "nothing", "refused", "failed"],
)
async def test_the_last_byte_leaves_once_its_record_is_on_the_disk(
    wire: Wire, disk: Disk, request_: bytes, answer: bytes, before: bytes, status: int
) -> None:
    wire.upstream.answer = answer
    client = await wire.client()
    await client.send(request_)
    await disk.is_asked()
    assert disk.covered == [1]
    assert arrived(client).endswith(before) and b"0\r\n\r\n" not in arrived(client)
    assert bool(arrived(client)) == bool(before), "what streams is not held, only its end is"
    disk.go()
    assert (await client.message()).status == status
    await client.send(GET)
    wire.upstream.answer = OK
    assert (await client.message()).status == 200, "the connection lives on"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 304 Not Modified\r\n\r\n", OK[: OK.index(b"\r\n\r\n") + 4]])
async def test_an_answer_that_is_only_a_head(wire: Wire, disk: Disk, answer: bytes) -> None:
    wire.upstream.answer = answer
    client = await wire.client()
    await client.send(GET.replace(b"GET", b"HEAD", 1))
    await disk.is_asked()
    assert not arrived(client)
    disk.go()
    assert (await client.message(bodiless=True)).status in (200, 304)


async def test_of_a_body_that_streams_its_last_piece_waits(wire: Wire, disk: Disk) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await streams.wait()
        await peer.send(b"def")

    streams = asyncio.Event()
    wire.upstream.script = script
    client = await wire.client()
    await client.send(GET.replace(b"Host:", b"Connection: close\r\nHost:"))
    await wire.settled(lambda: arrived(client).endswith(b"abc"))
    streams.set()
    await disk.is_asked()
    assert arrived(client).endswith(b"abc")
    disk.go()
    assert (await client.message()).body == b"abcdef"
    assert await client.rest() == b""


async def test_nobody_waits_for_what_is_not_recorded(wire: Wire, disk: Disk) -> None:
    for head in (GET.replace(b"/open/", b"/none/"), b"nonsense\r\n\r\n"):
        assert (await wire.ask(head)).status in (400, 404)
    assert disk.covered == []


async def test_one_sync_covers_all_who_wait(wire: Wire, disk: Disk) -> None:
    first = asyncio.create_task(wire.ask(GET))
    await disk.is_asked()
    others = [asyncio.create_task(wire.ask(GET)) for _ in range(30)]
    await wire.settled(lambda: len(wire.records()) == 31)
    assert not first.done()
    disk.go()
    assert {(await answer).status for answer in (first, *others)} == {200}
    assert disk.covered == [1, 31]


async def test_a_pipelined_request_waits_for_the_answer_before_it(wire: Wire, disk: Disk) -> None:
    client = await wire.client()
    await client.send(GET + GET.replace(b"/open/", b"/open/2"))
    await disk.is_asked()
    assert len(wire.upstream.requests) == 1
    disk.go()
    assert [(await client.message()).status for _ in range(2)] == [200, 200]
    assert len(wire.records()) == 2


async def test_a_request_whose_body_still_comes(wire: Wire, disk: Disk) -> None:
    """It is refused, and the refusal waits: what comes meanwhile must neither be lost nor close the connection."""
    client = await wire.client()
    length = b"POST /keyed/ HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n01234"
    await client.send(length)
    await disk.is_asked()
    await client.send(b"56789" + GET)
    await asyncio.sleep(LONG_ENOUGH_S)
    assert not arrived(client)
    disk.go()
    assert [(await client.message()).status for _ in range(2)] == [401, 200]


async def test_a_body_that_breaks_while_its_refusal_waits(wire: Wire, disk: Disk) -> None:
    client = await wire.client()
    await client.send(POST.replace(b"/none/", b"/keyed/") + b"nonsense\r\n")
    await disk.is_asked()
    disk.go()
    assert (await client.message()).status == 401


async def test_a_client_that_closes_its_side_within_the_body_of_what_is_refused(wire: Wire, disk: Disk) -> None:
    client = await wire.client()
    await client.send(b"POST /keyed/ HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n01234")
    await disk.is_asked()
    client.half_close()
    await asyncio.sleep(LONG_ENOUGH_S)
    disk.go()
    assert (await client.message()).status == 401


async def test_a_client_that_has_closed_its_side(wire: Wire, disk: Disk) -> None:
    client = await wire.client()
    await client.send(GET)
    client.half_close()
    await disk.is_asked()
    disk.go()
    assert (await client.message()).status == 200
    assert await client.rest() == b""


async def test_a_client_that_leaves_while_its_answer_waits(wire: Wire, disk: Disk) -> None:
    client = await wire.client()
    await client.send(GET)
    await disk.is_asked()
    client.reset()
    await wire.settled(lambda: not wire.state.connections)
    disk.go()
    assert (await wire.ask(GET)).status == 200
    assert [record.flags for record in wire.records()] == [ADMITTED, ADMITTED], "it was answered, and is billed"


async def test_a_client_that_leaves_before_its_answer_is_recorded_by_and_by(wire: Wire, disk: Disk) -> None:
    async def silent(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await peer.rest()

    wire.upstream.script = silent
    client = await wire.client()
    await client.send(GET)
    await wire.settled(lambda: len(wire.upstream.requests) == 1)
    client.reset()
    await disk.is_asked()
    assert [record.flags for record in wire.records()] == [ADMITTED | CLIENT_LEFT]
    disk.go()


async def test_a_disk_that_fails_confirms_nothing(wire: Wire, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.fails = True
    disk.go()
    for _ in range(2):
        with pytest.raises(CutShortError):
            await wire.ask(GET)
    assert wire.worker.syncing.error == "it cannot be brought to the disk: Input/output error"
    assert [entry.message for entry in caplog.records if "brought" in entry.message] == [
        "the journal cannot be brought to the disk: Input/output error"
    ]
    disk.fails = False
    assert (await wire.ask(GET)).status == 200
    assert wire.worker.syncing.error == ""


async def test_a_sync_that_fails_in_a_way_of_its_own(wire: Wire, disk: Disk) -> None:
    disk.failure = MemoryError("no room to think")
    disk.fails = True
    disk.go()
    with pytest.raises(CutShortError):
        await wire.ask(GET)
    assert wire.worker.syncing.error == "it cannot be brought to the disk: no room to think"
    disk.fails = False
    assert (await wire.ask(GET)).status == 200


async def test_a_thread_that_cannot_be_started(wire: Wire, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on processes counts threads. Nothing is confirmed meanwhile, and nobody waits for ever."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    disk.go()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(CutShortError):
                await wire.ask(GET)
        wire.worker.syncing.begin()
    assert wire.worker.syncing.error == "it cannot be brought to the disk: can't start new thread"
    assert (await wire.ask(GET)).status == 200
    assert wire.worker.syncing.error == ""


async def test_a_mistake_in_one_answer_holds_no_other(wire: Wire, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    def mistaken(on_disk: bool) -> None:
        raise AssertionError("mistaken")

    client = await wire.client()
    wire.worker.syncing.hold(mistaken)
    await client.send(GET)
    disk.go()
    assert (await client.message()).status == 200
    assert (await wire.ask(GET)).status == 200
    assert [entry.exc_text for entry in caplog.records if "mistaken" in (entry.exc_text or "")]


async def test_a_worker_that_ends_lets_go_what_waits(wire: Wire, disk: Disk) -> None:
    first, second = await wire.client(), await wire.client()
    await first.send(GET)
    await disk.is_asked()
    await second.send(GET)
    await wire.settled(lambda: len(wire.records()) == 2)
    disk.go()
    wire.worker.syncing.close()
    assert [(await client.message()).status for client in (first, second)] == [200, 200]
    assert not wire.worker.journal.has_unsynced()


# Tunnels.


def switches(rest: bytes = b"") -> Callable[[Upstream, Peer], object]:
    """The upstream switches, sends `rest` behind its answer, and then echoes."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await peer.send(SWITCHED + rest)
        while await peer.more():
            data, peer._taken = bytes(peer.received[peer._taken :]), len(peer.received)
            await peer.send(data)
        peer.close()

    return script


async def test_a_tunnel_opens_once_its_record_is_on_the_disk(wire: Wire, disk: Disk) -> None:
    wire.upstream.script = switches(b"hello")  # type: ignore[assignment]
    client = await wire.client()
    await client.send(UPGRADE + b"ahead")
    await disk.is_asked()
    await wire.upstream.peers[0].send(b" there")
    await asyncio.sleep(LONG_ENOUGH_S)
    assert not arrived(client)
    disk.go()
    assert (await client.message(interim=True)).status == 101
    assert await client._take(16) == b"hello thereahead"
    client.close()
    await wire.settled(lambda: not wire.held())


@pytest.mark.parametrize("who", ["client", "upstream", "disk"])
async def test_a_tunnel_that_ends_before_it_is_open(wire: Wire, disk: Disk, who: str) -> None:
    wire.upstream.script = switches()  # type: ignore[assignment]
    wire.serve(service(1, "open", f"http://127.0.0.1:{wire.upstream.port}", in_flight_limit=1))
    client = await wire.client()
    await client.send(UPGRADE)
    await disk.is_asked()
    if who == "client":
        client.reset()
        await wire.settled(lambda: not wire.state.connections)
    elif who == "upstream":
        wire.upstream.peers[0].reset()
        await asyncio.sleep(LONG_ENOUGH_S)
    else:
        disk.fails = True
    disk.go()
    await wire.settled(lambda: not wire.held())
    if who == "disk":
        with pytest.raises(CutShortError):
            await client.message(interim=True)
    disk.fails = False
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(GET)).status == 200, "its place was given back"


async def test_a_tunnel_whose_service_is_gone_before_it_is_open(wire: Wire, disk: Disk) -> None:
    wire.upstream.script = switches(b"secret")  # type: ignore[assignment]
    client = await wire.client()
    await client.send(UPGRADE)
    await disk.is_asked()
    wire.serve()
    disk.go()
    with pytest.raises(CutShortError):
        await client.message(interim=True)
    await wire.settled(lambda: not wire.held())


async def test_a_drain_that_begins_while_a_tunnel_waits(wire: Wire, disk: Disk) -> None:
    wire.upstream.script = switches()  # type: ignore[assignment]
    client = await wire.client()
    await client.send(UPGRADE)
    await disk.is_asked()
    wire.worker.drain()
    connection_of(wire).shutdown()
    disk.go()
    assert (await client.message(interim=True)).status == 101
    assert await client.rest() == b""
    await wire.settled(lambda: not wire.held())


# "second" and "process".


async def test_by_the_second_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Wire(tmp_path, journal_sync="second") as wire:
        disk = Disk(wire, monkeypatch)
        assert (await wire.ask(GET)).status == 200
        await disk.is_asked()
        assert (await wire.ask(GET)).status == 200, "nor for a disk that is slow"
        disk.go()
        await wire.settled(lambda: disk.covered == [1, 2] and not wire.worker.journal.has_unsynced())
        wire.worker.syncing.begin()
        assert disk.covered == [1, 2], "nothing new, nothing to sync"


async def test_by_default_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Wire(tmp_path) as wire:
        disk = Disk(wire, monkeypatch)
        assert (await wire.ask(GET)).status == 200
        wire.worker.syncing.begin()
        assert not wire.worker.journal.has_unsynced()
        assert disk.covered == []


# Segments.


def is_locked(path: Path) -> bool:
    """Whether its writer lives, as control asks."""
    with path.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_full_segment_is_given_up_once_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: called.append("data"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: called.append("folder"))
    journal = Journal(tmp_path, b"w" * 16, 1, synced=True)
    for _ in range(SLOTS_PER_SEGMENT + 1):
        journal.append(RECORD)
    first, second = sorted(tmp_path.iterdir())
    assert is_locked(first), "or control would delete it: its records would be nowhere but in memory"
    covered = journal.unsynced()
    assert [end for _, end in covered] == [SEGMENT_BYTES, 2 * SLOT_BYTES]
    journal.append(RECORD)
    for each in covered:
        each.segment.sync()
    journal.synced(covered)
    assert called == ["data", "folder"] * 2, "a file whose name is not on the disk is lost too"
    assert (is_locked(first), is_locked(second)) == (False, True)
    assert journal.has_unsynced(), "of what came since"
    (left,) = journal.unsynced()
    left.segment.sync()
    journal.synced([left])
    assert called[4:] == ["data"]
    assert not journal.has_unsynced()
    journal.close()


def test_a_segment_that_fills_up_during_a_sync_is_kept_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what came into it since would never be synced, and be confirmed by the sync of another segment."""
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    journal = Journal(tmp_path, b"w" * 16, 1, synced=True)
    journal.append(RECORD)
    covered = journal.unsynced()
    for _ in range(SLOTS_PER_SEGMENT):
        journal.append(RECORD)
    journal.synced(covered)
    first, _ = sorted(tmp_path.iterdir())
    assert is_locked(first)
    assert [end for _, end in journal.unsynced()] == [SEGMENT_BYTES, 2 * SLOT_BYTES]
    journal.synced(journal.unsynced())
    assert not is_locked(first)
    journal.close()


async def test_a_segment_that_cannot_be_synced_keeps_no_other_from_it(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def sync(descriptor: int) -> None:
        asked.append(descriptor)
        if len(asked) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", sync)
    for _ in range(SLOTS_PER_SEGMENT + 1):
        wire.worker.journal.append(RECORD)
    wire.worker.syncing.begin()
    await wire.settled(lambda: not wire.worker.journal.has_unsynced())
    assert len(asked) == 2
    assert wire.worker.syncing.error


def test_what_is_stored_last_is_brought_to_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tunnels have carried is recorded when nobody waits any more."""
    called: list[int] = []
    monkeypatch.setattr(os, "fdatasync", called.append)
    for synced in (True, False):
        journal = Journal(tmp_path, b"w" * 16, int(synced), synced=synced)
        journal.append(RECORD)
        journal.close()
        assert len(called) == 1
