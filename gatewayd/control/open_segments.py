"""The segments that are still to be taken: found in the folder of the journals, and open as long as there is more.

A file that is no segment is set aside under another name and reported, once it is too old to be in the making.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gatewayd.control.segments import Reader
from gatewayd.records import SEGMENT_SUFFIX, SLOT_BYTES, NotASegmentError, unpack_header

YOUNG_S = 10.0  # a file without a header is being made for so long, and damaged thereafter
DAMAGED_SUFFIX = ".damaged"

log = logging.getLogger(__name__)


class Lag(NamedTuple):
    """What is in the journals and not yet on the rollups. `oldest_ns`: when the first of it was made, 0 for nothing."""

    records: int
    oldest_ns: int

    @property
    def size_bytes(self) -> int:
        return self.records * SLOT_BYTES


class OpenSegments:
    """`positions`: how far each was taken by the one before us, and how many of its slots were torn.

    `cannot_read` hears why a segment cannot be opened for the moment.
    """

    def __init__(
        self, folder: Path, positions: Mapping[str, tuple[int, int]], cannot_read: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._positions = dict(positions)
        self._cannot_read = cannot_read
        self._readers: dict[str, Reader] = {}
        self._unopened: list[str] = []
        self._damaged: list[str] = [path.name for path in folder.glob("*" + DAMAGED_SUFFIX)]

    def __repr__(self) -> str:
        return f"<OpenSegments {len(self._readers)} open, {len(self._unopened)} not>"

    def __len__(self) -> int:
        return len(self._readers)

    def __iter__(self) -> Iterator[Reader]:
        """Those that are open now, but none that goes meanwhile: its descriptor may by then be another file's."""
        return (reader for reader in list(self._readers.values()) if self._readers.get(reader.path.name) is reader)

    @property
    def damaged(self) -> list[str]:
        """Files that are set aside, until somebody takes them away."""
        self._damaged = [name for name in self._damaged if (self._folder / name).exists()]
        return self._damaged

    def find(self) -> None:
        """Open those that have come since."""
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

    def check_header(self, reader: Reader) -> bool:
        """It is a segment, as far as it has come. One that is none, or is gone, is no longer open."""
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

    def put_away(self, reader: Reader) -> None:
        """It is taken, and closed by who has it now."""
        del self._readers[reader.path.name]

    def has_others(self, finished: Reader) -> bool:
        """There is another segment of this worker. It makes the next one before it lets go of one, so we look now."""
        assert finished.header is not None
        self.find()
        if any(name.startswith(finished.stem) for name in self._unopened):
            return True
        return any(
            self.check_header(other) and other.header is not None
            and other.header.worker_id == finished.header.worker_id
            for other in self
        )  # fmt: skip

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

    def whole_until_ns(self, now_ns: int) -> int:
        """What ended before that is on the rollups: a worker's records come to its journal as requests end."""
        waiting = [reader.next_end_ns() for reader in self._readers.values() if not reader.is_empty()]
        return min((now_ns, *waiting))

    def _forget(self, reader: Reader) -> None:
        reader.close()
        del self._readers[reader.path.name]

    def _set_aside(self, reader: Reader) -> None:
        aside = reader.path.with_suffix(DAMAGED_SUFFIX)
        reader.path.rename(aside)
        self._forget(reader)
        self._damaged.append(aside.name)
        log.error("journal segment %s is damaged and has been set aside", reader.path.name)
