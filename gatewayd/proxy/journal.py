"""The writing end of the usage journal: one worker's segments. The format and what it survives stand in `records`.

A spare segment is made ahead of need, so that a full disk is noticed while there are still slots for every request
in flight. From then on `has_room` is false and the worker refuses what it could not record (or serves it and counts
what is lost, see `on_full`); it tries again with every call of `prepare`.

Control takes segments away once their records are on the rollups. While it cannot, they pile up, to a limit that all
workers of a state folder share: past it none is made, as on a full disk. Workers look at the same moment, and so may
pass the limit by a segment each.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from gatewayd.records import (
    ADMITTED,
    MORE_BYTES,
    SEGMENT_BYTES,
    SEGMENT_SUFFIX,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
    flags_of,
    pack_header,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Segment:
    """A mapped segment file. The flock says to control that its writer lives."""

    def __init__(self, path: Path, created_ns: int, worker_id: bytes) -> None:
        self.path = path
        self.on_disk = SLOT_BYTES  # bytes that a sync has covered; a header alone needs none
        self._is_listed = False  # the folder's entry of it is on the disk
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Real blocks, not a hole: storing into a mapped hole on a full disk is SIGBUS.
            os.posix_fallocate(self._fd, 0, SEGMENT_BYTES)
            self.map = mmap.mmap(self._fd, SEGMENT_BYTES)
        except BaseException:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise
        self.map[:SLOT_BYTES] = pack_header(created_ns, worker_id)

    def sync(self) -> None:
        """Bring what has been stored so far to the disk. Takes as long as the disk does."""
        os.fdatasync(self._fd)  # also of what was stored through the map: they are the same pages
        if not self._is_listed:  # without it the file could be there and not be found
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._is_listed = True

    def close(self) -> None:
        self.map.close()
        os.close(self._fd)


class Unsynced(NamedTuple):
    """A segment to be synced, and up to where it had been filled when that was said."""

    segment: Segment
    end: int


class Journal:
    """Appends records. Raises OSError only from the constructor: a worker that cannot record does not start.

    Where only room is missing it starts, and is as full as a disk that filled up later. `synced`: full segments are
    kept open until a sync has covered them.
    """

    def __init__(
        self, folder: Path, worker_id: bytes, started_ns: int, limit_bytes: int | None = None, *, synced: bool = False
    ) -> None:
        self._folder = folder
        self._worker_id = worker_id
        self._stem = f"{started_ns:020d}-{worker_id.hex()[:8]}"
        self._started_ns = started_ns
        self._limit_bytes = limit_bytes
        self._synced = synced
        self._made = 0
        self._filled = -1  # segments that are full; there is none that is being filled yet
        self._full: list[Segment] = []  # and not on the disk
        self._segment: Segment | None = None
        self._map = mmap.mmap(-1, SLOT_BYTES)  # stands for that of the first segment, and is never written to
        self._offset = SEGMENT_BYTES
        self.spare: Segment | None = None
        self.lost = 0  # records of requests that were served and found no room (only with on_full = "serve")
        self.lost_refusals = 0  # the same of refusals, which are nobody's usage
        self.error = ""  # why there is no spare
        try:
            self.spare = self._make()
            self._rotate()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.error = error.strerror or str(error)

    def __repr__(self) -> str:
        name = "none" if self._segment is None else self._segment.path.name
        return f"<Journal {name} {self._offset // SLOT_BYTES - 1} records, {self.lost} lost>"

    @property
    def records(self) -> int:
        """How many were appended. Segments are filled in the order of their numbers."""
        return self._filled * SLOTS_PER_SEGMENT + self._offset // SLOT_BYTES - 1

    def has_room(self, in_flight: int) -> bool:
        """True when this request and all in flight can be recorded."""
        return self.spare is not None or (SEGMENT_BYTES - self._offset) // SLOT_BYTES > in_flight

    def append(self, record: bytes) -> None:
        """Store one record of SLOT_BYTES. Counted as lost if there is no room."""
        offset = self._offset
        if offset == SEGMENT_BYTES:
            if not self._rotate():
                if flags_of(record) & (ADMITTED | MORE_BYTES):
                    self.lost += 1
                else:
                    self.lost_refusals += 1
                return
            offset = SLOT_BYTES
        self._map[offset : offset + SLOT_BYTES] = record
        self._offset = offset + SLOT_BYTES

    def prepare(self) -> None:
        """Make the spare if there is none. Called several times a second."""
        if self.spare is None:
            try:
                self.spare = self._make()
                self.error = ""
            except OSError as error:
                self.error = error.strerror or str(error)

    def close(self) -> None:
        if self._segment is not None:
            if self.has_unsynced():  # what tunnels have carried, for which nobody waits
                with contextlib.suppress(OSError):  # told of when it was met by a sync
                    self._segment.sync()
            self._segment.close()
        if self.spare is not None:
            self.spare.close()
            self.spare.path.unlink()

    # To the disk.

    def has_unsynced(self) -> bool:
        """Something was stored that no sync has covered."""
        segment = self._segment
        return self._synced and (bool(self._full) or (segment is not None and segment.on_disk < self._offset))

    def unsynced(self) -> list[Unsynced]:
        """What a sync that begins now is to cover."""
        covered = [Unsynced(segment, SEGMENT_BYTES) for segment in self._full]
        segment = self._segment
        if self._synced and segment is not None and segment.on_disk < self._offset:
            covered.append(Unsynced(segment, self._offset))
        return covered

    def synced(self, covered: list[Unsynced]) -> None:
        """A sync of these is over. Those that are full can be closed, and control may take them away."""
        for segment, end in covered:
            segment.on_disk = end
            if end == SEGMENT_BYTES and segment in self._full:  # not one that has filled up since the sync began
                self._full.remove(segment)
                segment.close()

    # Segments.

    def _rotate(self) -> bool:
        if self.spare is None:
            self.prepare()
        if self.spare is None:
            return False
        if self._segment is not None:
            if self._synced:
                self._full.append(self._segment)
            else:
                self._segment.close()
        self._filled += 1
        self._segment, self.spare = self.spare, None
        self._map = self._segment.map
        self._offset = SLOT_BYTES
        return True

    def _make(self) -> Segment:
        self._refuse_past_limit()
        path = self._folder / f"{self._stem}-{self._made:06d}{SEGMENT_SUFFIX}"
        segment = Segment(path, self._started_ns, self._worker_id)
        self._made += 1
        return segment

    def _refuse_past_limit(self) -> None:
        if self._limit_bytes is None:
            return
        with os.scandir(self._folder) as entries:
            there = sum(entry.name.endswith(SEGMENT_SUFFIX) for entry in entries)
        if (there + 1) * SEGMENT_BYTES > self._limit_bytes:
            raise OSError(errno.EDQUOT, f"journals have reached {self._limit_bytes} bytes (journal_limit_bytes)")
