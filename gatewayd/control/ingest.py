"""Journals to rollups, exactly once.

Each step reads what is new in every segment, sums it in memory, and adds it to the rollups in one transaction with the
positions up to which it has read. A crash before the commit forgets both, after it neither: replay is idempotent. A
segment whose writer is gone (its flock is free) and whose records are all taken is deleted; the file goes before its
row, because a row without a file is harmless and a file without a row would be read again.

The journal says what was admitted, a worker's Hello what still may be: a quota is exact only if no request is counted
in both or in neither. So a control that begins anew leaves the segments of living workers alone after it has caught
up, until Hello says up to which record the rest of it was true.

A slot with a wrong checksum is a record in the making while its writer lives. Once the writer is gone it is torn: it is
passed over and counted, never silently. A file that is no segment is set aside under another name and reported.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from gatewayd.control.database import Database
from gatewayd.control.last_used import LastUsed
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Segment
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.records import (
    ADMITTED,
    SEGMENT_SUFFIX,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
    NotASegmentError,
    Record,
    SegmentHeader,
    is_empty,
    unpack_header,
    unpack_records,
)

# Of one segment in one step. The loop stands still meanwhile, and leases wait: 2,000 records take about 6 ms.
STEP_BYTES = 2000 * SLOT_BYTES
PAUSE_S = 0.2
YOUNG_S = 10.0  # a file without a header is being made for so long, and damaged thereafter
DAMAGED_SUFFIX = ".damaged"

# worker id, key id, units of what was admitted, the hour that it counts for in seconds since 1970
Recorded = Callable[[bytes, int, int, int], None]
_HOUR_NS = 3_600_000_000_000

log = logging.getLogger(__name__)


class _Reader:
    """The reading end of one segment."""

    def __init__(self, path: Path, position: int, torn: int) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.header: SegmentHeader | None = None
        number = path.stem.rpartition("-")[2]
        self.number = int(number) if number.isdecimal() else 0  # a worker fills its segments in this order
        self.position = max(position, SLOT_BYTES)
        self.torn = torn
        self.stored = position  # what the database says

    def read(self) -> bytes:
        return os.pread(self.descriptor, STEP_BYTES, self.position)

    def writer_gone(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        os.close(self.descriptor)


class Ingest:
    """`on_recorded` hears of admitted requests after their commit, `on_writer_gone` of a worker with nothing left."""

    def __init__(
        self, database: Database, folder: Path, on_recorded: Recorded, on_writer_gone: Callable[[bytes], None]
    ) -> None:
        self._database = database
        self._folder = folder
        self._on_recorded = on_recorded
        self._on_writer_gone = on_writer_gone
        self._readers: dict[str, _Reader] = {}
        self._rollups = Rollups()
        self._last_used = LastUsed()
        self._awaited: set[bytes] = set()  # living workers whose Hello is to come
        self._finished: list[str] = []  # rows whose file is gone
        self.on_taken: Callable[[bytes], None] = lambda data: None  # once a batch, after its commit
        self.failure = ""  # why nothing can be stored for the moment
        self.torn = 0
        self.damaged: list[str] = [path.name for path in folder.glob("*" + DAMAGED_SUFFIX)]
        self._positions: dict[str, tuple[int, int]] = {}
        self._load_positions()

    def __repr__(self) -> str:
        return f"<Ingest {len(self._readers)} segments, {self.torn} torn slots>"

    @property
    def segments(self) -> int:
        return len(self._readers)

    def _load_positions(self) -> None:
        with self._database.write() as session:
            for name, position, torn in session.connection().exec_driver_sql(
                "SELECT name, position_bytes, torn FROM segment"
            ):
                self.torn += torn
                if (self._folder / name).exists():
                    self._positions[name] = (position, torn)
                elif not torn:
                    self._finished.append(name)

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            await asyncio.sleep(0 if self.step() else PAUSE_S)

    async def catch_up(self) -> None:
        """Returns when every record stored by now is in the rollups. Raises GatewayError when that cannot be."""
        while self._awaited:
            await asyncio.sleep(0.005)
        await self._database.given_back()
        # Each step takes up to STEP_BYTES of every segment, and a segment holds 16 times that: more is new load.
        for _ in range(32):
            if not self.step():
                break
            await asyncio.sleep(0)
        if self._database.is_lent:
            await self.catch_up()
            return
        if self.failure:  # an old figure that looks like the present one would be a wrong bill
            raise GatewayError(UNAVAILABLE, f"usage cannot be brought up to date, journals are kept: {self.failure}")

    def step(self) -> bool:
        """Take what is new, once. True when there is more to take. A database that fails is tried again later."""
        self._find_segments()
        batches: list[tuple[_Reader, list[Record], int]] = []
        more, stored = False, []
        for reader in list(self._readers.values()):
            if not self._check_header(reader) or self._is_awaited(reader):
                continue
            data = reader.read()
            records, taken = unpack_records(data)
            torn = self._torn_at(reader, data, taken)
            if records or torn:
                batches.append((reader, records, torn))
                stored.append(data[:taken])
                more = more or taken == STEP_BYTES or torn > 0
            elif reader.stored == reader.position and self._is_finished(reader, data):
                self._finish(reader)
        if (batches or self._finished) and not self._store(batches):
            return False
        self._tell(batches)
        for data in stored:
            self.on_taken(data)
        return more

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
        self._find_segments()
        for reader in sorted(self._readers.values(), key=lambda reader: reader.number):
            if not self._check_header(reader) or reader.header is None or reader.header.worker_id != worker_id:
                continue
            end = (min(records - reader.number * SLOTS_PER_SEGMENT, SLOTS_PER_SEGMENT) + 1) * SLOT_BYTES
            while reader.position < end:
                data = reader.read()[: end - reader.position]
                taken, size = unpack_records(data)
                batch = [(reader, taken, 0)]
                if not taken or not self._store(batch):
                    return
                self._tell(batch)
                self.on_taken(data[:size])

    def _is_awaited(self, reader: _Reader) -> bool:
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
        for name in sorted(names):
            if name not in self._readers:
                try:
                    reader = _Reader(self._folder / name, *self._positions.get(name, (0, 0)))
                except FileNotFoundError:  # a worker that finds no room for a segment takes it back at once
                    continue
                self._positions.pop(name, None)
                self._readers[name] = reader

    def _check_header(self, reader: _Reader) -> bool:
        if reader.header is not None:
            return True
        try:
            reader.header = unpack_header(os.pread(reader.descriptor, SLOT_BYTES, 0))
        except NotASegmentError:
            file = os.fstat(reader.descriptor)
            if not file.st_nlink:  # taken back, as above
                self._forget(reader)
            elif time.time_ns() / 1e9 - file.st_mtime > YOUNG_S and reader.writer_gone():
                self._set_aside(reader)
            return False
        return True

    def _torn_at(self, reader: _Reader, data: bytes, taken: int) -> int:
        """1 when the slot after those taken is torn, to be passed over; else 0."""
        slot = data[taken : taken + SLOT_BYTES]
        # A slot that the end of the file cuts short is torn too, or its segment would never be finished with.
        if is_empty(slot) or not reader.writer_gone():
            return 0
        # The lock was free just now, so nothing was written since: if the slot is whole on a second look, it was in the
        # making at the first.
        records, _ = unpack_records(os.pread(reader.descriptor, SLOT_BYTES, reader.position + taken))
        return 0 if records else 1

    def _is_finished(self, reader: _Reader, data: bytes) -> bool:
        """No record is left and none will come. Looked at again after the lock: the last ones may have come between."""
        if not reader.writer_gone():
            return False
        return not data or is_empty(reader.read())

    def _finish(self, reader: _Reader) -> None:
        assert reader.header is not None
        reader.path.unlink(missing_ok=True)
        self._forget(reader)
        if not reader.torn:
            self._finished.append(reader.path.name)
        worker_id = reader.header.worker_id
        if all(other.header is None or other.header.worker_id != worker_id for other in self._readers.values()):
            self._on_writer_gone(worker_id)

    def _forget(self, reader: _Reader) -> None:
        reader.close()
        del self._readers[reader.path.name]

    def _set_aside(self, reader: _Reader) -> None:
        reader.path.rename(reader.path.with_suffix(DAMAGED_SUFFIX))
        self._forget(reader)
        self.damaged.append(reader.path.name)
        log.error("journal segment %s is damaged and has been set aside", reader.path.name)

    def _store(self, batches: list[tuple[_Reader, list[Record], int]]) -> bool:
        """One transaction: sums and positions."""
        if self._database.is_lent:  # later; records are safe where they are
            return False
        try:
            with self._database.write() as session:
                for reader, records, torn in batches:
                    position = reader.position + len(records) * SLOT_BYTES + torn * SLOT_BYTES
                    session.merge(
                        Segment(
                            name=reader.path.name,
                            position_bytes=position,
                            torn=reader.torn + torn,
                        )
                    )
                records = [record for _, taken, _ in batches for record in taken]
                self._rollups.add(session, records)
                self._last_used.add(session, records)
                for name in self._finished:
                    if (row := session.get(Segment, name)) is not None:
                        session.delete(row)
        except DBAPIError as error:
            self._rollups.forget()
            self._last_used.forget()
            if not self.failure:
                log.error("usage cannot be stored for the moment, journals are kept: %s", error.orig)
            self.failure = str(error.orig)
            return False
        self.failure = ""
        self._finished.clear()
        for reader, records, torn in batches:
            reader.position += (len(records) + torn) * SLOT_BYTES
            reader.stored = reader.position
            reader.torn += torn
            self.torn += torn
            if torn:
                log.warning("journal segment %s: a torn record was dropped", reader.path.name)
        return True

    def _tell(self, batches: list[tuple[_Reader, list[Record], int]]) -> None:
        for reader, records, _ in batches:
            assert reader.header is not None
            # By hours, as on the rollups: a batch may hold the end of one month and the begin of the next.
            counts: dict[tuple[int, int], int] = {}
            for record in records:
                if record.flags & ADMITTED and record.key:
                    of = record.key, record.time_ns // _HOUR_NS
                    counts[of] = counts.get(of, 0) + record.units
            for (key_id, hour), units in counts.items():
                self._on_recorded(reader.header.worker_id, key_id, units, hour * 3600)
