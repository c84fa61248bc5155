"""The writing end of the usage journal: one worker's segments. The format and what it survives stand in `records`.

A spare segment is made ahead of need, so that a full disk is noticed while there are still slots for every request
in flight. From then on `has_room` is false and the worker refuses what it could not record; it tries again with
every call of `prepare`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from gatewayd.records import SEGMENT_BYTES, SEGMENT_SUFFIX, SLOT_BYTES, SLOTS_PER_SEGMENT, pack_header


class _Segment:
    """A mapped segment file. The flock says to control that its writer lives."""

    def __init__(self, path: Path, created_ns: int, worker_id: bytes) -> None:
        self.path = path
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

    def close(self) -> None:
        self.map.close()
        os.close(self._fd)


class Journal:
    """Appends records. Raises OSError only from the constructor: a worker that cannot record does not start."""

    def __init__(self, folder: Path, worker_id: bytes, started_ns: int) -> None:
        self._folder = folder
        self._worker_id = worker_id
        self._stem = f"{started_ns:020d}-{worker_id.hex()[:8]}"
        self._started_ns = started_ns
        self._made = 0
        self._filled = 0
        self._segment = self._make()
        self._map = self._segment.map
        self._offset = SLOT_BYTES
        self.spare: _Segment | None = None
        self.lost = 0  # records that found no room (only with on_full = "serve", or refusals on a full disk)
        self.error = ""  # why there is no spare

    def __repr__(self) -> str:
        return f"<Journal {self._segment.path.name} {self._offset // SLOT_BYTES - 1} records, {self.lost} lost>"

    @property
    def records(self) -> int:
        """How many were appended. Segments are filled in the order of their numbers."""
        return self._filled * SLOTS_PER_SEGMENT + self._offset // SLOT_BYTES - 1

    def has_room(self, in_flight: int) -> bool:
        """True when this request and all in flight can be recorded."""
        return self.spare is not None or (SEGMENT_BYTES - self._offset) // SLOT_BYTES > in_flight

    def append(self, record: bytes) -> None:
        """Store one record of SLOT_BYTES. Counted in `lost` if there is no room."""
        offset = self._offset
        if offset == SEGMENT_BYTES:
            if not self._rotate():
                self.lost += 1
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
        self._segment.close()
        if self.spare is not None:
            self.spare.close()
            self.spare.path.unlink()

    def _rotate(self) -> bool:
        if self.spare is None:
            self.prepare()
        if self.spare is None:
            return False
        self._segment.close()
        self._filled += 1
        self._segment, self.spare = self.spare, None
        self._map = self._segment.map
        self._offset = SLOT_BYTES
        return True

    def _make(self) -> _Segment:
        path = self._folder / f"{self._stem}-{self._made:06d}{SEGMENT_SUFFIX}"
        segment = _Segment(path, self._started_ns, self._worker_id)
        self._made += 1
        return segment
