"""The journal without room: at its limit, on a full disk, and once there is room again."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from gatewayd.channel import WorkerStats
from gatewayd.proxy.journal import Journal
from gatewayd.records import (
    ADMITTED,
    MORE_BYTES,
    SEGMENT_BYTES,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
    Record,
    pack_record,
    unpack_records,
)
from tests.wire.harness import GET, OK, Upstream, Wire
from tests.wire.peer import Peer

WORKER = b"w" * 16


def record(flags: int = ADMITTED, status: int = 200) -> bytes:
    return pack_record(flags, 1, 1, 0, 0, 0, 0, 0, 1, status, 0, 1, 0, 0, 0, 0, b"id".ljust(16))


def fill(journal: Journal, count: int = SLOTS_PER_SEGMENT) -> None:
    for _ in range(count):
        journal.append(record())


def stored(folder: Path) -> list[Record]:
    found: list[Record] = []
    for path in sorted(folder.iterdir()):
        found += unpack_records(path.read_bytes()[SLOT_BYTES:])[0]
    return found


def test_no_segment_is_made_past_the_limit_and_one_is_once_control_has_taken_some_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path, WORKER, 1, 2 * SEGMENT_BYTES)
    journal.prepare()
    fill(journal, SLOTS_PER_SEGMENT + 1)
    journal.prepare()
    assert journal.error == f"journals have reached {2 * SEGMENT_BYTES} bytes (journal_limit_bytes)"
    assert journal.has_room(SLOTS_PER_SEGMENT - 2) and not journal.has_room(SLOTS_PER_SEGMENT - 1)
    fill(journal, SLOTS_PER_SEGMENT - 1)
    assert not journal.has_room(0)
    assert (journal.lost, journal.records, len(stored(tmp_path))) == (0, 2 * SLOTS_PER_SEGMENT, 2 * SLOTS_PER_SEGMENT)
    fill(journal, 3)
    journal.append(record(MORE_BYTES, 101))
    journal.append(record(0, 429))
    assert (journal.lost, journal.lost_refusals) == (4, 1)
    assert len(list(tmp_path.iterdir())) == 2
    sorted(tmp_path.iterdir())[0].unlink()
    journal.prepare()
    assert journal.has_room(100) and journal.error == ""
    fill(journal, 1)
    assert (journal.lost, journal.records) == (4, 2 * SLOTS_PER_SEGMENT + 1)
    journal.close()


def test_a_limit_is_for_all_workers_of_a_folder(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, WORKER, 1, 3 * SEGMENT_BYTES), Journal(tmp_path, b"v" * 16, 1, 3 * SEGMENT_BYTES)
    first.prepare()
    second.prepare()
    assert (first.error, second.spare) == ("", None)
    first.close()
    second.prepare()
    assert second.spare is not None, "what the other gives up is room"
    second.close()


def test_a_worker_may_start_while_there_is_no_room(tmp_path: Path) -> None:
    """It answers, by `on_full`, where a worker that died again and again would answer nobody."""
    other = Journal(tmp_path, b"v" * 16, 1)
    journal = Journal(tmp_path, WORKER, 1, SEGMENT_BYTES)
    assert "journal_limit_bytes" in journal.error
    assert not journal.has_room(0)
    assert repr(journal)
    fill(journal, 2)
    assert (journal.records, journal.lost, journal.has_unsynced(), journal.unsynced()) == (0, 2, False, [])
    other.close()
    next(tmp_path.iterdir()).unlink()
    journal.prepare()
    fill(journal, 1)
    assert (journal.records, len(stored(tmp_path))) == (1, 1)
    journal.close()


def test_a_worker_does_not_start_where_it_could_never_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "none", WORKER, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("on_full", ["refuse", "serve"])
async def test_requests_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_full: str) -> None:
    async with Wire(tmp_path, on_full=on_full) as wire:
        journal = wire.worker.journal
        with monkeypatch.context() as full:

            def no_space(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            full.setattr(os, "posix_fallocate", no_space)
            journal._offset = SEGMENT_BYTES - 2 * SLOT_BYTES  # as though it were nearly full
            statuses = [(await wire.ask(GET)).status for _ in range(5)]
            await wire.settled(lambda: journal.error == "No space left on device")
        if on_full == "refuse":
            assert statuses == [200, 503, 503, 503, 503], "a slot is kept for one more than are in flight"
            assert (journal.lost, journal.lost_refusals) == (0, 4)
        else:
            assert statuses == [200] * 5
            assert (journal.lost, journal.lost_refusals) == (3, 0)
        await wire.settled(lambda: journal.spare is not None)
        assert (await wire.ask(GET)).status == 200
        assert journal.lost == (0 if on_full == "refuse" else 3)


@pytest.mark.anyio
async def test_refusals_leave_the_last_slots_to_those_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was let in has a slot, however many are turned away before its answer is there."""
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)

    async with Wire(tmp_path) as wire:
        wire.upstream.script = script
        journal = wire.worker.journal
        monkeypatch.setattr(journal, "prepare", lambda: None)
        journal._offset = SEGMENT_BYTES - 4 * SLOT_BYTES
        journal.spare = None
        first = [asyncio.create_task(wire.ask(GET)) for _ in range(3)]
        await wire.settled(lambda: len(wire.upstream.requests) == 3)
        refused = [await wire.ask(GET.replace(b"/open/", path)) for path in (b"/open/", b"/keyed/", b"/open/") * 2]
        assert {answer.problem for answer in refused} == {"journal_full"}
        gate.set()
        assert [(await answer).status for answer in first] == [200] * 3
        assert (journal.lost, journal.lost_refusals) == (0, 6)
        assert journal._offset == SEGMENT_BYTES - SLOT_BYTES


@pytest.mark.anyio
async def test_what_its_last_requests_lost_is_told_by_a_worker_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would ever know of what was lost since it told the last time, up to a second before."""
    said: list[object] = []
    async with Wire(tmp_path, on_full="serve") as wire:
        monkeypatch.setattr(wire.worker.link, "send", said.append)
        wire.worker.journal.lost = 3
    stats = said[-1]
    assert isinstance(stats, WorkerStats)
    assert stats.journal_lost == 3
