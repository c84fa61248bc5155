"""Journals to rollups: every record once, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.control import segments
from gatewayd.control.database import FILE_NAME, Database
from gatewayd.control.ingest import Ingest
from gatewayd.control.open_segments import OpenSegments
from gatewayd.control.tables import Key
from gatewayd.errors import GatewayError
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, MORE_BYTES, SEGMENT_BYTES, SLOT_BYTES, UPSTREAM_BROKE, pack_header, pack_record

WORKER = b"w" * 16
NOON_NS = 1_795_262_400 * 10**9  # 2026-11-21 12:00 UTC


class Heard:
    """What ingest tells the lessor."""

    def __init__(self) -> None:
        self.admitted = 0
        self.units_by_hour: dict[int, int] = {}
        self.gone: list[bytes] = []
        self.workers: list[bytes] = []

    def recorded(self, worker: bytes, key_id: int, admitted: int, hour_s: int) -> None:
        self.admitted += admitted
        self.workers.append(worker)
        self.units_by_hour[hour_s] = self.units_by_hour.get(hour_s, 0) + admitted

    def writer_gone(self, worker: bytes) -> None:
        self.gone.append(worker)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journals = tmp_path / "journal"
    journals.mkdir()
    return journals


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path)
    yield database
    database.close()


def ingest_of(database: Database, folder: Path, heard: Heard | None = None) -> Ingest:
    heard = heard or Heard()
    return Ingest(database, folder, heard.recorded, heard.writer_gone)


def record(status: int = 200, flags: int = ADMITTED, price: int = 1) -> bytes:
    return pack_record(flags, NOON_NS, 1, 0, 0, 0, 0, 0, price, status, 0, 1, 10, 20, 30, 40, b"id".ljust(16))


def totals(database: Database) -> tuple[int, int, int, int]:
    """Requests, billable, errors, refused."""
    sums = "SELECT coalesce(sum(requests), 0), coalesce(sum(billable), 0), coalesce(sum(errors), 0), "
    row = database.lookup.exec_driver_sql(sums + "coalesce(sum(refused), 0) FROM rollup").one()
    return row[0], row[1], row[2], row[3]


def of_tunnel(flags: int, units: int, bytes_in: int, bytes_out: int, gateway_us: int) -> bytes:
    sizes = (bytes_in, bytes_out, gateway_us, 0)
    return pack_record(flags, NOON_NS, 1, 0, 0, 5, 0, 0, 1, 101, 0, units, *sizes, b"id".ljust(16))


def test_bytes_of_a_tunnel_move_nothing_but_bytes(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    heard = Heard()
    ingest = ingest_of(database, folder, heard)
    columns = "requests, billable, errors, refused, units, status_class, bytes_in, bytes_out, latency"
    rows = []
    opened = of_tunnel(ADMITTED, 1, 10, 20, 30)
    for records in ((opened,), (of_tunnel(MORE_BYTES, 0, 5, 0, 0), of_tunnel(MORE_BYTES, 0, 100, 2000, 0))):
        for data in records:
            journal.append(data)
        ingest.step()
        (row,) = database.lookup.exec_driver_sql(f"SELECT {columns} FROM rollup").all()
        rows.append(row)
    assert tuple(rows[0][:8]) == (1, 1, 0, 0, 1, 1, 10, 20)
    assert tuple(rows[1][:8]) == (1, 1, 0, 0, 1, 1, 115, 2020)
    assert rows[1].latency == rows[0].latency
    assert heard.admitted == 1, "quotas count requests"
    journal.close()


def test_a_batch_over_the_end_of_a_month_counts_for_both(database: Database, folder: Path) -> None:
    month_s = 1_796_083_200  # 2026-12-01 00:00 UTC
    journal, heard = Journal(folder, WORKER, 1), Heard()
    # They are stored as they end: the first to end may have begun last.
    for begun_ns, units in ((month_s * 10**9, 1), (month_s * 10**9 - 1, 2), (month_s * 10**9 + 5, 4)):
        size = (10, 20, 30, 40)
        journal.append(pack_record(ADMITTED, begun_ns, 1, 0, 0, 5, 0, 0, 1, 200, 0, units, *size, b"id".ljust(16)))
    ingest_of(database, folder, heard).step()
    assert heard.units_by_hour == {month_s - 3600: 2, month_s: 5}
    journal.close()


def test_requests_billable_errors_and_refused_are_told_apart(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    for data in (
        record(200),
        record(302),
        record(404),
        record(500),
        record(200, ADMITTED | UPSTREAM_BROKE),
        record(200, price=0),
        record(429, flags=0),
    ):
        journal.append(data)
    ingest_of(database, folder).step()
    assert totals(database) == (6, 2, 2, 1)
    journal.close()


def test_a_second_ingest_counts_nothing_twice(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    for count in (3, 5, 7):
        for _ in range(count):
            journal.append(record())
        ingest = ingest_of(database, folder)  # as after a kill of control: it knows nothing but the database
        ingest.step()
        ingest.step()
    journal.close()
    asyncio.run(ingest_of(database, folder).catch_up())
    assert totals(database)[0] == 15


def test_a_finished_segment_is_deleted_and_its_worker_reported(database: Database, folder: Path) -> None:
    heard = Heard()
    journal = Journal(folder, WORKER, 1)
    journal.append(record())
    journal.close()
    ingest = ingest_of(database, folder, heard)
    ingest.step()
    ingest.step()
    assert list(folder.iterdir()) == []
    assert heard.gone == [WORKER]
    ingest.step()
    assert database.lookup.exec_driver_sql("SELECT count(*) FROM segment").scalar() == 0


@pytest.mark.parametrize("records", [0, 3])
def test_segments_without_a_record_go_with_their_worker(database: Database, folder: Path, records: int) -> None:
    """The first one of a worker that served nothing, and the spare one of a worker that was killed."""
    heard = Heard()
    ingest = Ingest(database, folder, heard.recorded, heard.writer_gone, keep_bytes=SEGMENT_BYTES)
    journal = Journal(folder, WORKER, 1)
    journal.prepare()
    for _ in range(records):
        journal.append(record())
    ingest.step()
    spare, journal.spare = journal.spare, None
    assert spare is not None
    spare.close()  # and not removed, as it is when a worker ends in order
    journal.close()
    for _ in range(3):
        ingest.step()
    assert list(folder.glob("*.gwj")) == []
    assert heard.gone == [WORKER]
    assert len(list(folder.glob("taken/*"))) == (records > 0), "what has no record is of no use to anybody"
    assert totals(database)[0] == records


@pytest.mark.parametrize("kept", [0, 1, 5, *range(8, 90, 9)])  # what lies beyond is zero anyway
def test_a_record_torn_at_any_byte_is_dropped_and_counted(database: Database, folder: Path, kept: int) -> None:
    journal = Journal(folder, WORKER, 1)
    journal.append(record())
    journal.append(record())
    journal.close()
    [segment] = folder.iterdir()
    data = bytearray(segment.read_bytes())
    assert len(data) == SEGMENT_BYTES
    second = 2 * SLOT_BYTES
    data[second + kept : second + SLOT_BYTES] = bytes(SLOT_BYTES - kept)
    segment.write_bytes(data)
    ingest = ingest_of(database, folder)
    asyncio.run(ingest.catch_up())
    assert totals(database)[0] == 1
    assert ingest.torn == (1 if kept else 0)


def test_a_segment_cut_at_any_byte_of_its_header_or_its_last_two_slots(database: Database, folder: Path) -> None:
    """Whole records count once, what is cut counts as torn once, and nothing of it comes again."""
    whole = pack_header(1, WORKER) + record() * 4
    ingest = ingest_of(database, folder)
    counted = torn = 0
    cuts = [*range(SLOT_BYTES), *range(3 * SLOT_BYTES, 5 * SLOT_BYTES + 1)]
    for cut in cuts:
        segment = folder / f"{cut:020d}-77777777-000000.gwj"
        segment.write_bytes(whole[:cut])
        os.utime(segment, (1, 1))
        for _ in range(3):  # taken, deleted, and its row forgotten
            ingest.step()
        slots, rest = divmod(cut, SLOT_BYTES)
        if slots:
            counted, torn = counted + slots - 1, torn + bool(rest)
        assert (totals(database)[0], ingest.torn) == (counted, torn), f"cut after {cut} bytes"
        assert not segment.exists()
    assert len(ingest.damaged) == SLOT_BYTES, "without a whole header it is no segment, and is kept"
    again = ingest_of(database, folder)
    assert not again.step()
    assert (totals(database)[0], again.torn) == (counted, torn)


def test_a_torn_slot_is_counted_once_though_control_is_killed_before_it_deletes_the_segment(
    database: Database, folder: Path
) -> None:
    segment = folder / "00000000000000000001-77777777-000000.gwj"
    data = pack_header(1, WORKER) + record() + record()[:-1] + b"x" + record() + record()[:50]
    segment.write_bytes(data)
    first = ingest_of(database, folder)
    while first.step():
        pass
    assert (totals(database)[0], first.torn) == (2, 2), "what stands behind a torn slot counts"
    segment.write_bytes(data)  # as though it had not been deleted
    second = ingest_of(database, folder)
    for _ in range(3):
        second.step()
    assert (totals(database)[0], second.torn) == (2, 2)
    assert list(folder.iterdir()) == []


def test_a_file_that_is_no_segment_is_set_aside_not_deleted(database: Database, folder: Path) -> None:
    stranger = folder / "stranger.gwj"
    stranger.write_bytes(b"not a journal".ljust(SLOT_BYTES))
    os.utime(stranger, (1, 1))
    ingest = ingest_of(database, folder)
    ingest.step()
    assert [path.name for path in folder.iterdir()] == ["stranger.damaged"] == ingest.damaged
    (folder / "stranger.damaged").unlink()  # as `doctor` says
    assert ingest.damaged == []


def test_a_segment_that_has_gone_meanwhile_is_not_gone_on_with(folder: Path) -> None:
    """It is closed, and the next file that is opened has its descriptor."""
    for name in ("a.gwj", "b.gwj"):
        (folder / name).write_bytes(b"not a journal".ljust(SLOT_BYTES))
        os.utime(folder / name, (1, 1))
    segments = OpenSegments(folder, {}, lambda why: None)
    segments.find()
    found = []
    for reader in segments:
        found.append(reader.path.name)
        for other in segments:
            assert not segments.check_header(other)
    assert found == ["a.gwj"]


def test_a_segment_that_its_worker_takes_back_for_want_of_room(database: Database, folder: Path) -> None:
    """It is there for a moment, several times a second for as long as the disk is full."""
    ingest = ingest_of(database, folder)
    seen = folder / "00000000000000000001-77777777-000000.gwj"
    seen.touch()
    ingest.step()
    assert ingest.segments == 1
    seen.unlink()
    ingest.step()
    assert ingest.segments == 0
    (folder / "00000000000000000001-77777777-000001.gwj").symlink_to("nowhere")  # listed, and then not to be opened
    ingest.step()
    assert (ingest.segments, ingest.damaged, ingest.failure) == (0, [], "")


def test_a_database_that_fails_keeps_the_journal_and_says_so(database: Database, folder: Path, tmp_path: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    journal.append(record())
    journal.close()
    ingest = ingest_of(database, folder)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("ALTER TABLE rollup RENAME TO elsewhere")
    with pytest.raises(GatewayError, match="journals are kept"):
        asyncio.run(ingest.catch_up())
    assert ingest.failure
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO rollup")
    other.close()
    asyncio.run(ingest.catch_up())
    assert not ingest.failure
    assert totals(database)[0] == 1


def test_records_wait_while_another_has_the_write_lock(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    ingest = ingest_of(database, folder)
    journal.append(record())

    async def catch_up() -> None:
        with database.lent():
            assert not ingest.step()
            asked = asyncio.create_task(ingest.catch_up())
            await asyncio.sleep(0.05)
            assert not asked.done()
            assert (totals(database), ingest.failure) == ((0, 0, 0, 0), "")
        await asked

    asyncio.run(catch_up())
    assert totals(database) == (1, 1, 0, 0)
    journal.close()


def test_the_generation_of_a_record_moves_its_last_use(database: Database, folder: Path) -> None:
    with database.write() as session:
        session.add(Key(public_id="bbbbbbbb", digest=b"x", tenant_id=1, created_at=1, generation=2))
    journal = Journal(folder, WORKER, 1)
    journal.append(pack_record(ADMITTED, NOON_NS, 1, 0, 0, 1, 0, 0, 1, 200, 0, 1, 0, 0, 0, 0, b"id".ljust(16), 2))
    ingest_of(database, folder).step()
    used = database.lookup.exec_driver_sql("SELECT last_used_at FROM key").scalar_one()
    assert used == NOON_NS // 60_000_000_000 * 60
    journal.close()


def damage(folder: Path, slot: int, data: bytes) -> None:
    [segment] = folder.glob("*.gwj")
    with segment.open("r+b") as file:
        file.seek(slot * SLOT_BYTES)
        file.write(data)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(("slots", "data"), [(1, b"\xff" * 64), (3, b"\xff" * 3 * SLOT_BYTES)])
def test_records_behind_damage_count(database: Database, folder: Path, ended: bool, slots: int, data: bytes) -> None:
    """A slot that its writer has gone past is no record in the making."""
    journal = Journal(folder, WORKER, 1)
    for _ in range(9):
        journal.append(record())
    damage(folder, 4, data)
    if ended:
        journal.close()
    ingest = ingest_of(database, folder)
    for _ in range(8):
        ingest.step()
    assert (totals(database)[0], ingest.torn) == (9 - slots, slots)
    if not ended:
        journal.append(record())
        damage(folder, 10, b"\xee")  # in the making: nobody is past it
        ingest.step()
        assert (totals(database)[0], ingest.torn) == (9 - slots, slots)
        journal.close()


def test_records_behind_slots_that_a_power_cut_emptied_count(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    for _ in range(9):
        journal.append(record())
    journal.close()
    damage(folder, 3, bytes(4 * SLOT_BYTES))
    ingest = ingest_of(database, folder)
    for _ in range(6):
        ingest.step()
    assert (totals(database)[0], ingest.torn, ingest.segments) == (5, 4, 0)


def test_segments_that_are_taken_are_kept_while_there_is_room(database: Database, folder: Path) -> None:
    """Without their empty slots: here a header and three records each, and room for two of them."""
    room = 2 * 4 * SLOT_BYTES
    for number in range(3):
        journal = Journal(folder, bytes([number]) * 16, number)
        for _ in range(3):
            journal.append(record())
        journal.close()
        ingest = Ingest(database, folder, Heard().recorded, Heard().writer_gone, keep_bytes=room)
        while ingest.step() or ingest.segments:
            pass
    kept = sorted((folder / "taken").iterdir())
    assert [path.name[:20] for path in kept] == [f"{1:020d}", f"{2:020d}"]
    assert [path.stat().st_size for path in kept] == [4 * SLOT_BYTES] * 2
    ingest.step()
    rows = "SELECT name, position_bytes, requests, billable, refused, units FROM segment ORDER BY name"
    found = database.lookup.exec_driver_sql(rows).all()
    assert [tuple(row) for row in found] == [(path.name, 4 * SLOT_BYTES, 3, 3, 0, 3) for path in kept]
    again = Ingest(database, folder, Heard().recorded, Heard().writer_gone, keep_bytes=0)
    again.step()
    assert list((folder / "taken").iterdir()) == []
    assert database.lookup.exec_driver_sql(rows).all() == []
    assert totals(database)[0] == 9


def test_what_waits_in_the_journals_is_told(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    ingest = ingest_of(database, folder)
    ingest.step()
    assert ingest.lag() == (0, 0)
    for _ in range(5):
        journal.append(record())
    assert (ingest.lag().records, ingest.lag().size_bytes) == (5, 5 * SLOT_BYTES)
    assert ingest.lag().oldest_ns == NOON_NS + 70_000, "when it had ended: one that took a minute is no minute behind"
    ingest.step()
    assert ingest.lag() == (0, 0)
    journal.close()


def test_control_totals_are_those_of_the_records(database: Database, folder: Path) -> None:
    journal = Journal(folder, WORKER, 1)
    for data in (record(200), record(404), record(429, flags=0), of_tunnel(MORE_BYTES, 0, 5, 7, 0)):
        journal.append(data)
    ingest_of(database, folder).step()
    (total,) = database.lookup.exec_driver_sql(
        "SELECT day, requests, billable, refused, units, bytes_in, bytes_out FROM tally"
    ).all()
    assert tuple(total) == (NOON_NS // 10**9 - 12 * 3600, 2, 1, 1, 2, 35, 67)
    journal.close()


def of_key() -> bytes:
    return pack_record(ADMITTED, NOON_NS, 1, 0, 0, 5, 0, 0, 1, 200, 0, 1, 10, 20, 30, 40, b"id".ljust(16))


def written(folder: Path, number: int, *records: bytes) -> Path:
    """A segment whose writer is gone."""
    path = folder / f"00000000000000000001-77777777-{number:06d}.gwj"
    path.write_bytes(pack_header(1, WORKER) + b"".join(records))
    return path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Its writer lives."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_worker_that_goes_on_to_its_next_segment_is_not_gone(database: Database, folder: Path) -> None:
    heard = Heard()
    ingest = ingest_of(database, folder, heard)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(held(written(folder, 0, record())))
        ingest.step()
        stack.enter_context(held(written(folder, 1)))
        first.close()
        ingest.step()
        assert (ingest.segments, heard.gone) == (1, [])
    ingest.step()
    assert (ingest.segments, heard.gone) == (0, [WORKER])


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_a_segment_that_somebody_removed_is_taken_and_forgotten(
    database: Database, folder: Path, keep_bytes: int
) -> None:
    heard = Heard()
    ingest = Ingest(database, folder, heard.recorded, heard.writer_gone, keep_bytes)
    path = written(folder, 0, record())
    ingest.step()
    path.unlink()
    for _ in range(3):
        ingest.step()
    assert (totals(database)[0], ingest.segments, heard.gone, ingest.failure) == (1, 0, [WORKER], "")
    assert database.lookup.exec_driver_sql("SELECT count(*) FROM segment").scalar() == 0


def test_a_segment_that_cannot_be_put_away_holds_up_no_other(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, 0, record())
    ingest = ingest_of(database, folder)
    ingest.step()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: os.rmdir("/proc"))
        written(folder, 1, record())
        ingest.step()
        assert totals(database)[0] == 2
        assert path.name in ingest.failure
    for _ in range(3):
        ingest.step()
    assert (list(folder.iterdir()), totals(database)[0], ingest.failure) == ([], 2, "")


def test_what_raises_in_the_transaction_rolls_back_all_and_forgets_it(database: Database, folder: Path) -> None:
    fails = [True]

    def storing(*_: object) -> None:
        if fails:
            raise ValueError(fails.pop())

    written(folder, 0, record())
    ingest = Ingest(database, folder, Heard().recorded, Heard().writer_gone, on_storing=storing)

    async def until_stored() -> None:
        running = asyncio.create_task(ingest.run())
        async with asyncio.timeout(20):
            while totals(database)[0] == 0:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(until_stored())
    assert (totals(database)[0], ingest.failure) == (1, "")
    joined = "SELECT count(*) FROM rollup JOIN cycle ON cycle.id = rollup.cycle_id"
    assert database.lookup.exec_driver_sql(joined).scalar() == 1, "the cycle that was opened first was rolled back"


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(folder, 0, record())
    ingest = Ingest(database, folder, Heard().recorded, Heard().writer_gone, keep_bytes=1 << 20)
    for _ in range(2):
        ingest.step()
    assert len(list((folder / "taken").iterdir())) == 1
    monkeypatch.setattr(segments, "LEAST_FREE_BYTES", 1 << 62)
    ingest.step()
    assert list((folder / "taken").iterdir()) == []
    assert database.lookup.exec_driver_sql("SELECT count(*) FROM segment").scalar() == 0


def test_a_slot_whose_begin_is_gone_is_torn_and_does_not_hide_what_follows(database: Database, folder: Path) -> None:
    written(folder, 0, bytes(8) + record()[8:], record())
    ingest = ingest_of(database, folder)
    for _ in range(4):
        ingest.step()
    assert (totals(database)[0], ingest.torn, ingest.segments) == (1, 1, 0)


def test_records_from_before_hello_are_not_of_their_worker_though_they_are_stored_later(
    database: Database, folder: Path
) -> None:
    """What a worker has on its way is what it said in Hello: those had been recorded, and were not in it."""
    heard = Heard()
    ingest = ingest_of(database, folder, heard)
    path = written(folder, 0)
    with held(path):
        assert ingest.await_writers() == {WORKER}
        path.write_bytes(pack_header(1, WORKER) + of_key() * 5)
        with database.lent():
            ingest.take_until(WORKER, 3)
        while ingest.step():
            pass
    assert (totals(database)[0], heard.admitted, heard.workers) == (5, 5, [b"", WORKER])
