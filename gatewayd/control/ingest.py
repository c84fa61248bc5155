"""Journals to rollups, exactly once.

Each step reads what is new in every segment, sums it in memory, and adds it to the rollups in one transaction with the
positions up to which it has read. A crash before the commit forgets both, after it neither: replay is idempotent. A
segment whose writer is gone (its flock is free) and whose records are all taken is put away, for a while; in the end
the file goes before its row, because a row without a file is harmless and a file without a row would be read again.

The journal says what was admitted, a worker's Hello what still may be: a quota is exact only if no request is counted
in both or in neither. So a control that begins anew leaves the segments of living workers alone after it has caught
up, until Hello says up to which record the rest of it was true.

Which segments there are is `open_segments`' to know, and which of their slots are torn is `torn`'s.
"""

from __future__ import annotations

import asyncio
import logging
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
from gatewayd.control.open_segments import Lag, OpenSegments
from gatewayd.control.rollups import Rollups
from gatewayd.control.segments import Reader, TakenSegments
from gatewayd.control.torn import torn_after
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.records import (
    ADMITTED,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
)

# The loop stands still during a step, and leases wait: it takes as many records as the last one showed to fit. The
# fewest are enough for rows of a thousand busy keys to be written once for several records.
STEP_S = 0.008
FEWEST_SLOTS, FIRST_SLOTS, MOST_SLOTS = 4096, 4096, SLOTS_PER_SEGMENT
PAUSE_S = 0.2

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
        self._taken = TakenSegments(folder, keep_bytes)
        self.rollups = Rollups()
        self._last_used = LastUsed()
        self._step_s = step_s
        self._slots = FIRST_SLOTS  # of one step
        self._awaited: set[bytes] = set()  # living workers whose Hello is to come
        self._told: dict[bytes, int] = {}  # how many records a worker had made when it said Hello
        self._finished: list[str] = []  # rows whose file is gone
        self._holders = 0
        self._unstored = ""  # why the database takes nothing for the moment
        self._unread = ""  # which segment cannot be read, or put away, and why
        self._logged = ""  # the last of these
        self.torn = 0
        self._taken.remove_oldest()
        self._open = OpenSegments(folder, self._load_positions(), self._cannot_read)

    def __repr__(self) -> str:
        return f"<Ingest {len(self._open)} segments, {self.torn} torn slots>"

    @property
    def segments(self) -> int:
        return len(self._open)

    @property
    def failure(self) -> str:
        """Why not all can be stored for the moment."""
        return self._unstored or self._unread

    @property
    def damaged(self) -> list[str]:
        """Files that are set aside, until somebody takes them away."""
        return self._open.damaged

    def _load_positions(self) -> dict[str, tuple[int, int]]:
        """Of the segments that are there. What else there are rows of is finished."""
        positions = {}
        with self._database.write() as session:
            for name, position, torn in session.connection().exec_driver_sql(
                "SELECT name, position_bytes, torn FROM segment"
            ):
                self.torn += torn
                if (self._folder / name).exists():
                    positions[name] = (position, torn)
                elif not torn and not self._taken.has(name):
                    self._finished.append(name)
        return positions

    def lag(self) -> Lag:
        """How far behind we are."""
        return self._open.lag()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Records are taken as ever, but no segment is put away: somebody copies them one after another."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    def whole_until_ns(self, now_ns: int) -> int:
        """What ended before that is on the rollups."""
        return self._open.whole_until_ns(now_ns)

    def positions(self, *, to_the_end: bool = False) -> dict[str, int]:
        """Up to where each segment on the disk has been taken, or is filled, by the names of files.

        At this moment: what stands behind has not been told to `on_taken` yet.
        """
        self._open.find()
        ends = {reader.path.name: reader.filled_until() if to_the_end else reader.position for reader in self._open}
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
        self._open.find()
        ends = [(reader, reader.filled_until()) for reader in self._open]
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
        self._open.find()
        self._finished += self._taken.make_room()
        takings: list[_Taking] = []
        room, more = self._slots, False
        for reader in self._open:
            try:
                if not self._open.check_header(reader) or self._is_awaited(reader):
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
        torn = torn_after(reader, len(batch.data), data)
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
        self._open.find()
        for reader in self._open:
            if self._open.check_header(reader) and not reader.writer_gone():
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
        self._open.find()
        for reader in sorted(self._open, key=lambda reader: reader.number):
            if not self._open.check_header(reader) or reader.header is None or reader.header.worker_id != worker_id:
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

    def _is_finished(self, reader: Reader) -> bool:
        """No record is left and none will come. Looked at again after the lock: the last ones may have come between."""
        return reader.writer_gone() and reader.is_empty() and not reader.empty_slots()

    def _finish(self, reader: Reader) -> None:
        assert reader.header is not None
        self._taken.take(reader)
        self._open.put_away(reader)
        gone = self._taken.remove_oldest() if self._taken.has(reader.path.name) else [reader.path.name]
        self._finished += [name for name in gone if name != reader.path.name or not reader.torn]
        if not self._open.has_others(reader):
            self._told.pop(reader.header.worker_id, None)
            self._on_writer_gone(reader.header.worker_id)

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
