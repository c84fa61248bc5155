"""Segment files as control finds them: read while their workers fill them, and kept for a while once they are taken."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gatewayd.records import SEGMENT_SUFFIX, SLOT_BYTES, SegmentHeader, ended_ns, unpack_records

TAKEN_FOLDER = "taken"  # in the folder of the journals
LEAST_FREE_BYTES = 1 << 28  # on the disk; below it nothing is kept
_EMPTY_SLOT = bytes(8)
_TIME_OFFSET = 8  # of a slot's `time_ns`


class Reader:
    """The reading end of one segment."""

    def __init__(self, path: Path, position: int, torn: int) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.header: SegmentHeader | None = None
        self.stem, _, number = path.stem.rpartition("-")  # of all that a worker makes
        self.number = int(number) if number.isdecimal() else 0  # a worker fills its segments in this order
        self.position = max(position, SLOT_BYTES)
        self.torn = torn
        self.stored = self.position  # what the database says; a header alone needs no row

    def __repr__(self) -> str:
        return f"<Reader {self.path.name} at {self.position}, {self.torn} torn>"

    def read(self, slots: int) -> bytes:
        """What follows the position. Empty where nothing does: most segments that are looked at have nothing new."""
        if self.is_empty():
            return b""
        return os.pread(self.descriptor, slots * SLOT_BYTES, self.position)

    def slot(self, offset: int) -> bytes:
        return os.pread(self.descriptor, SLOT_BYTES, offset)

    def is_empty(self) -> bool:
        """Nothing stands at the position (yet)."""
        found = os.pread(self.descriptor, len(_EMPTY_SLOT), self.position)
        return not found.strip(b"\0")

    def empty_slots(self) -> int:
        """How many lie between the position and the next slot with something in it; 0 when there is none."""
        rest = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, self.position)
        filled = rest.lstrip(b"\0")
        if not filled or rest[: len(_EMPTY_SLOT)] != _EMPTY_SLOT:
            return 0
        return (
            len(rest) - len(filled)
        ) // SLOT_BYTES or 1  # one that has lost no more than its begin is as good as empty

    def filled_until(self) -> int:
        """Where the first empty slot is: slots are filled in order, so a bisection finds it."""
        low, high = self.position // SLOT_BYTES, os.fstat(self.descriptor).st_size // SLOT_BYTES
        # All but the last of those that wait are full: 3 µs each instead of 18, for which the loop stands still.
        if low < high and os.pread(self.descriptor, len(_EMPTY_SLOT), (high - 1) * SLOT_BYTES) != _EMPTY_SLOT:
            return high * SLOT_BYTES
        while low < high:
            middle = (low + high) // 2
            if os.pread(self.descriptor, len(_EMPTY_SLOT), middle * SLOT_BYTES) == _EMPTY_SLOT:
                high = middle
            else:
                low = middle + 1
        return low * SLOT_BYTES

    def next_end_ns(self) -> int:
        """When the record at the position was made: when its request had ended, or nearly so."""
        slot = self.slot(self.position)
        records, _ = unpack_records(slot)
        return ended_ns(records[0]) if records else int.from_bytes(slot[_TIME_OFFSET : _TIME_OFFSET + 8], "little")

    def writer_gone(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        os.close(self.descriptor)


class TakenSegments:
    """Segments whose records are all on the rollups, so that the recent past can be counted again from its records.

    As many as `keep_bytes` hold, the last to be taken; with 0, or on a disk that is nearly full, none.
    """

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self.folder = folder / TAKEN_FOLDER
        self._keep_bytes = keep_bytes

    def __repr__(self) -> str:
        return f"<TakenSegments {self.folder}, up to {self._keep_bytes} bytes>"

    def take(self, reader: Reader) -> None:
        """Put a segment away, without its empty slots, and close it. One that has no record goes at once.

        Raises OSError, and then it is still open.
        """
        if not self._keep_bytes or reader.position == SLOT_BYTES or not self._keep(reader):
            reader.path.unlink(missing_ok=True)
        reader.close()

    def _keep(self, reader: Reader) -> bool:
        """False where it cannot be: it is gone, or there is no room for the folder."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            os.truncate(reader.path, min(reader.position, reader.path.stat().st_size))
            os.utime(reader.path)  # the order in which they go; names are in the order of workers
            reader.path.rename(self.folder / reader.path.name)
        except OSError:
            return False
        return True

    def sizes_bytes(self) -> dict[str, int]:
        """Of all that are kept, by name."""
        try:
            with os.scandir(self.folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(SEGMENT_SUFFIX)}
        except FileNotFoundError:
            return {}

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def make_room(self) -> list[str]:
        """Remove all where the disk is nearly full: workers and the database need it more. The names."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:  # there is no folder
            return []
        return self._remove(0) if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES else []

    def remove_oldest(self) -> list[str]:
        """Remove what there is no room for; the names."""
        return self._remove(self._keep_bytes)

    def _remove(self, keep_bytes: int) -> list[str]:
        if not self.folder.exists():
            return []
        files = sorted(
            ((entry.stat(), entry.name) for entry in os.scandir(self.folder) if entry.name.endswith(SEGMENT_SUFFIX)),
            key=lambda file: (-file[0].st_mtime_ns, file[1]),
        )
        removed, kept_bytes = [], 0
        for stat, name in files:
            kept_bytes += stat.st_size
            if kept_bytes > keep_bytes:
                (self.folder / name).unlink(missing_ok=True)
                removed.append(name)
        return removed
