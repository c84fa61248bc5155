"""Journals to rollups, exactly once.

Each step reads what is new in every segment, sums it in memory, and adds it to the rollups in one transaction with the
positions up to which it has read. A crash before the commit forgets both, after it neither: replay is idempotent. A
segment whose writer is gone (its flock is free) and whose records are all taken is put away, for a while; in the end
the file goes before its row, because a row without a file is harmless and a file without a row would be read again.

The journal says what was admitted, a worker's Hello what still may be: a quota is exact only if no request is counted
in both or in neither. So a control that begins anew leaves the segments of living workers alone after it has caught
up, until Hello says up to which record the rest of it was true.

A slot with a wrong checksum is a record in the making while its writer lives and has not gone past it. Otherwise it is
torn: it is passed over and counted, never silently, and what stands behind it counts. So are slots that a power cut has
emptied in the middle. A file that is no segment is set aside under another name and reported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gatewayd.control.batches import Batch, batch_of
from gatewayd.control.database import Database
from gatewayd.control.last_used import LastUsed
from gatewayd.control.rollups import Rollups
from gatewayd.control.segments import Reader, TakenSegments
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.records import (
    ADMITTED,
    SEGMENT_SUFFIX,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
    NotASegmentError,
    unpack_header,
)

# The loop stands still during a step, and leases wait: it takes as many records as the last one showed to fit. The
# fewest are enough for rows of a thousand busy keys to be written once for several records.
STEP_S = 0.008
FEWEST_SLOTS, FIRST_SLOTS, MOST_SLOTS = 4096, 4096, SLOTS_PER_SEGMENT
PAUSE_S = 0.2
YOUNG_S = 10.0  # a file without a header is being made for so long, and damaged thereafter
DAMAGED_SUFFIX = ".damaged"

_ADVANCE = (
    "INSERT INTO segment (name, position_bytes, torn, requests, billable, refused, units) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET position_bytes = excluded.position_bytes, torn = torn + excluded.torn, "
    "requests = requests + excluded.requests, billable = billable + excluded.billable, "
    "refused = refused + excluded.refused, units = units + excluded.units"
)

# worker id, key id, units of what was admitted, the hour that it counts for in seconds since 1970
Recorded = Callable[[bytes, int, int, int], None]
# The transaction that records are stored in, and the batch of them.
Storing = Callable[[Session, Batch], None]

log = logging.getLogger(__name__)


class Lag(NamedTuple):
    """What is in the journals and not yet on the rollups. `oldest_ns`: when the first of it was made, 0 for nothing."""

    records: int
    oldest_ns: int

    @property
    def size_bytes(self) -> int:
        return self.records * SLOT_BYTES


class _Taking(NamedTuple):
    """What one step takes of one segment: `torn` slots follow the batch, and perhaps `more` records."""

    reader: Reader
    batch: Batch
    torn: int = 0
    more: bool = False

    @property
    def end(self) -> int:
        return self.reader.position + len(self.batch.data) + self.torn * SLOT_BYTES


class Ingest:
    """`on_recorded` hears of admitted requests after their commit, `on_writer_gone` of a worker with nothing left.

    `on_taken`, where it is set, is given each batch after its commit; `on_storing` may write what follows
    from records in their own transaction. `keep_bytes`: of segments that are taken.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        on_recorded: Recorded,
        on_writer_gone: Callable[[bytes], None],
        keep_bytes: int = 0,
        on_storing: Storing = lambda session, batch: None,
        step_s: float = STEP_S,
    ) -> None:
        self._database = database
        self._folder = folder
        self._on_recorded = on_recorded
        self._on_writer_gone = on_writer_gone
        self._on_storing = on_storing
        self.on_taken: Callable[[Batch], None] = lambda batch: None
        self._readers: dict[str, Reader] = {}
        self._taken = TakenSegments(folder, keep_bytes)
        self.rollups = Rollups()
        self._last_used = LastUsed()
        self._step_s = step_s
        self._slots = FIRST_SLOTS  # of one step
        self._awaited: set[bytes] = set()  # living workers whose Hello is to come
        self._told: dict[bytes, int] = {}  # how many records a worker had made when it said Hello
        self._finished: list[str] = []  # rows whose file is gone
        self._unopened: list[str] = []  # segments
        self._holders = 0
        self._unstored = ""  # why the database takes nothing for the moment
        self._unread = ""  # which segment cannot be read, or put away, and why
        self._logged = ""  # the last of these
        self.torn = 0
        self._damaged: list[str] = [path.name for path in folder.glob("*" + DAMAGED_SUFFIX)]
        self._positions: dict[str, tuple[int, int]] = {}
        self._taken.remove_oldest()
        self._load_positions()

    def __repr__(self) -> str:
        return f"<Ingest {len(self._readers)} segments, {self.torn} torn slots>"

    @property
    def segments(self) -> int:
        return len(self._readers)

    @property
    def failure(self) -> str:
        """Why not all can be stored for the moment."""
        return self._unstored or self._unread

    @property
    def damaged(self) -> list[str]:
        """Files that are set aside, until somebody takes them away."""
        self._damaged = [name for name in self._damaged if (self._folder / name).exists()]
        return self._damaged

    def _load_positions(self) -> None:
        with self._database.write() as session:
            for name, position, torn in session.connection().exec_driver_sql(
                "SELECT name, position_bytes, torn FROM segment"
            ):
                self.torn += torn
                if (self._folder / name).exists():
                    self._positions[name] = (position, torn)
                elif not torn and not self._taken.has(name):
                    self._finished.append(name)

    def lag(self) -> Lag:
        """How far behind we are. A few dozen reads of 8 bytes a segment."""
        records, oldest_ns = 0, 0
        for reader in self._readers.values():
            behind = max(0, reader.filled_until() - reader.position) // SLOT_BYTES
            if behind:
                records += behind
                made_ns = reader.next_end_ns()
                oldest_ns = min(oldest_ns, made_ns) if oldest_ns else made_ns
        return Lag(records, oldest_ns)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Records are taken as ever, but no segment is put away: somebody copies them one after another."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    def whole_until_ns(self, now_ns: int) -> int:
        """What ended before that is on the rollups: a worker's records come to its journal as requests end."""
        waiting = [reader.next_end_ns() for reader in self._readers.values() if not reader.is_empty()]
        return min((now_ns, *waiting))

    def positions(self, *, to_the_end: bool = False) -> dict[str, int]:
        """Up to where each segment on the disk has been taken, or is filled, by the names of files.

        At this moment: what stands behind has not been told to `on_taken` yet.
        """
        self._find_segments()
        readers = self._readers.items()
        ends = {name: reader.filled_until() if to_the_end else reader.position for name, reader in readers}
        return {**self._taken.sizes_bytes(), **ends}

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            more = False
            try:
                more = self.step()
            except Exception as error:  # ended for good, it would bill nothing, and nobody would know
                why = f"{type(error).__name__}: {error}"
                if why != self._logged:
                    log.exception("records could not be taken from the journals")
                self._cannot_read(why)
            await asyncio.sleep(0 if more else PAUSE_S)

    async def catch_up(self) -> None:
        """Returns when every record stored by now is in the rollups. Raises GatewayError when that cannot be."""
        while self._awaited:
            await asyncio.sleep(0.005)
        await self._database.given_back()
        self._find_segments()
        ends = [(reader, reader.filled_until()) for reader in self._readers.values()]
        while behind := sum(max(0, end - reader.position) for reader, end in ends):
            self.step()
            if behind == sum(max(0, end - reader.position) for reader, end in ends):
                break  # by records that are being made: what they record was not complete when this was asked
            await asyncio.sleep(0)
        if self._database.is_lent:
            await self.catch_up()
            return
        if self.failure:  # an old figure that looks like the present one would be a wrong bill
            raise GatewayError(UNAVAILABLE, f"usage cannot be brought up to date, journals are kept: {self.failure}")

    def step(self) -> bool:
        """Take what is new, once. True when there is more to take. A database that fails is tried again later."""
        began = time.thread_time()  # not the clock's: where others keep us waiting, smaller steps would make it worse
        self._unread = ""
        self._find_segments()
        self._finished += self._taken.make_room()
        takings: list[_Taking] = []
        room, more = self._slots, False
        for reader in list(self._readers.values()):
            try:
                if not self._check_header(reader) or self._is_awaited(reader):
                    continue
                if room <= 0:
                    more = True
                    break
                taking = self._look_at(reader, room)
            except OSError as error:  # the others are taken all the same
                self._cannot_read(f"segment {reader.path.name}: {error.strerror}")
                continue
            if taking is not None:
                takings.append(taking)
                room -= len(taking.batch.data) // SLOT_BYTES + 1
                more = more or taking.more
        if (takings or self._finished) and not self._store(takings):
            return False
        self._tell(takings)
        self._adapt(sum(len(taking.batch.data) for taking in takings) // SLOT_BYTES, time.thread_time() - began)
        return more

    def _look_at(self, reader: Reader, room: int) -> _Taking | None:
        """What there is to take of a segment. One that is finished is put away."""
        data = reader.read(room)
        told_end = self._told_end(reader)
        if reader.position < told_end:  # what is told of at once is all from before Hello, or all from after
            data = data[: told_end - reader.position]
        batch = batch_of(data)
        torn = self._torn_after(reader, len(batch.data), data)
        if batch.data or torn:
            return _Taking(reader, batch, torn, len(batch.data) == len(data) or torn > 0)
        if not self._holders and reader.stored == reader.position and self._is_finished(reader):
            self._finish(reader)
        return None

    def _told_end(self, reader: Reader) -> int:
        """Up to where this segment was filled when its worker said Hello."""
        assert reader.header is not None
        records = self._told.get(reader.header.worker_id, 0) - reader.number * SLOTS_PER_SEGMENT
        return (min(records, SLOTS_PER_SEGMENT) + 1) * SLOT_BYTES

    def _cannot_read(self, why: str) -> None:
        self._unread = why
        if why != self._logged:  # else it would be said with every step
            self._logged = why
            log.error("not all of the journals can be taken for the moment: %s", why)

    def _adapt(self, records: int, took_s: float) -> None:
        if records >= FEWEST_SLOTS:
            fitting = int(records * self._step_s / max(took_s, 1e-6))
            self._slots = max(FEWEST_SLOTS, min(MOST_SLOTS, fitting, 2 * self._slots))

    def await_writers(self) -> set[bytes]:
        """Take no more of the segments of living workers until `take_until`; who these workers are."""
        self._find_segments()
        for reader in list(self._readers.values()):
            if self._check_header(reader) and not reader.writer_gone():
                assert reader.header is not None
                self._awaited.add(reader.header.worker_id)
        return set(self._awaited)

    def await_nobody(self) -> None:
        self._awaited.clear()

    def take_until(self, worker_id: bytes, records: int) -> None:
        """Take what this worker had recorded when it said Hello, and from now on what it records."""
        if worker_id not in self._awaited:
            return
        self._awaited.discard(worker_id)
        self._told[worker_id] = records  # what of them cannot be taken now is not counted as of this worker later
        self._find_segments()
        for reader in sorted(self._readers.values(), key=lambda reader: reader.number):
            if not self._check_header(reader) or reader.header is None or reader.header.worker_id != worker_id:
                continue
            end = self._told_end(reader)
            while reader.position < end:
                batch = batch_of(reader.read(FIRST_SLOTS)[: end - reader.position])
                takings = [_Taking(reader, batch)]
                if not batch.data or not self._store(takings):
                    return
                self._tell(takings)

    def _is_awaited(self, reader: Reader) -> bool:
        assert reader.header is not None
        if reader.header.worker_id not in self._awaited:
            return False
        if reader.writer_gone():
            self._awaited.discard(reader.header.worker_id)
            return False
        return True

    def _find_segments(self) -> None:
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(SEGMENT_SUFFIX)]
        self._unopened.clear()
        for name in sorted(names):
            if name not in self._readers:
                try:
                    reader = Reader(self._folder / name, *self._positions.get(name, (0, 0)))
                except FileNotFoundError:  # a worker that finds no room for a segment takes it back at once
                    continue
                except OSError as error:  # too many are open: later, when those are taken
                    self._unopened.append(name)
                    self._cannot_read(f"segment {name}: {error.strerror}")
                    continue
                self._positions.pop(name, None)
                self._readers[name] = reader

    def _check_header(self, reader: Reader) -> bool:
        if reader.header is not None:
            return True
        try:
            reader.header = unpack_header(reader.slot(0))
        except NotASegmentError:
            file = os.fstat(reader.descriptor)
            if not file.st_nlink:  # taken back, as above
                self._forget(reader)
            elif time.time_ns() / 1e9 - file.st_mtime > YOUNG_S and reader.writer_gone():
                self._set_aside(reader)
            return False
        return True

    def _torn_after(self, reader: Reader, taken: int, data: bytes) -> int:
        """How many slots after those taken are torn, to be passed over."""
        slot = data[taken : taken + SLOT_BYTES]
        if data and not slot:  # there was no room for more
            return 0
        at = reader.position + taken
        if not slot.strip(b"\0"):  # the end, unless its writer is gone and something stands behind
            return reader.empty_slots() if not taken and reader.writer_gone() else 0
        if not reader.writer_gone() and not _has_passed(data, taken):
            return 0
        # Nobody writes there any more: if the slot is whole on a second look, it was in the making at the first.
        return 0 if batch_of(reader.slot(at)).data else 1

    def _is_finished(self, reader: Reader) -> bool:
        """No record is left and none will come. Looked at again after the lock: the last ones may have come between."""
        return reader.writer_gone() and reader.is_empty() and not reader.empty_slots()

    def _finish(self, reader: Reader) -> None:
        assert reader.header is not None
        self._taken.take(reader)
        del self._readers[reader.path.name]
        gone = self._taken.remove_oldest() if self._taken.has(reader.path.name) else [reader.path.name]
        self._finished += [name for name in gone if name != reader.path.name or not reader.torn]
        if not self._has_others(reader):
            self._told.pop(reader.header.worker_id, None)
            self._on_writer_gone(reader.header.worker_id)

    def _has_others(self, finished: Reader) -> bool:
        """There is another segment of this worker. It makes the next one before it lets go of one, so we look now."""
        assert finished.header is not None
        self._find_segments()
        if any(name.startswith(finished.stem) for name in self._unopened):
            return True
        return any(
            self._check_header(other) and other.header is not None
            and other.header.worker_id == finished.header.worker_id
            for other in list(self._readers.values())
        )  # fmt: skip

    def _forget(self, reader: Reader) -> None:
        reader.close()
        del self._readers[reader.path.name]

    def _set_aside(self, reader: Reader) -> None:
        aside = reader.path.with_suffix(DAMAGED_SUFFIX)
        reader.path.rename(aside)
        self._forget(reader)
        self._damaged.append(aside.name)
        log.error("journal segment %s is damaged and has been set aside", reader.path.name)

    def _store(self, takings: list[_Taking]) -> bool:
        """One transaction: sums and positions."""
        if self._database.is_lent:  # later; records are safe where they are
            return False
        try:
            with self._database.write() as session:
                connection = session.connection()
                for taking in takings:
                    counts = self.rollups.add_batch(session, taking.batch)
                    self._last_used.add(session, taking.batch.groups)
                    self._on_storing(session, taking.batch)
                    of_segment = (counts.requests, counts.billable, counts.refused, counts.units)
                    connection.exec_driver_sql(
                        _ADVANCE, (taking.reader.path.name, taking.end, taking.torn, *of_segment)
                    )
                if self._finished:  # those with torn slots stay, for `status` to tell of
                    rows = [(name,) for name in self._finished]
                    connection.exec_driver_sql("DELETE FROM segment WHERE name = ? AND torn = 0", rows)
        except Exception as error:
            self.rollups.forget()
            self._last_used.forget()
            if not isinstance(error, DBAPIError):
                raise
            if not self._unstored:
                log.error("usage cannot be stored for the moment, journals are kept: %s", error.orig)
            self._unstored = str(error.orig)
            return False
        self._unstored = ""
        self._finished.clear()
        for taking in takings:
            reader = taking.reader
            reader.position = reader.stored = taking.end
            reader.torn += taking.torn
            self.torn += taking.torn
            if taking.torn:
                log.warning("journal segment %s: torn records dropped: %d", reader.path.name, taking.torn)
        return True

    def _tell(self, takings: list[_Taking]) -> None:
        for reader, batch, *_ in takings:
            assert reader.header is not None
            # What it had recorded before Hello is not in what it said then to be on its way.
            worker_id = b"" if reader.position <= self._told_end(reader) else reader.header.worker_id
            # By hours, as on the rollups: a batch may hold the end of one month and the begin of the next.
            counts: dict[tuple[int, int], int] = {}
            for group in batch.groups:
                if group.flags & ADMITTED and group.key:
                    of = group.key, group.hour
                    counts[of] = counts.get(of, 0) + group.units
            for (key_id, hour), units in counts.items():
                self._on_recorded(worker_id, key_id, units, hour)
            self.on_taken(batch)


def _has_passed(data: bytes, damaged: int) -> bool:
    """The writer has stored a whole record behind this slot, before any that is empty."""
    for offset in range(damaged + SLOT_BYTES, len(data), SLOT_BYTES):
        slot = data[offset : offset + SLOT_BYTES]
        if not slot.strip(b"\0"):
            return False
        if batch_of(slot).data:
            return True
    return False
