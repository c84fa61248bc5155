"""A backup of a gateway that goes on: one tar stream of the database and of the journals that it has not ingested.

Every record is in it exactly once. The database says up to which position each segment is on its rollups; it is copied
as of one moment (a read transaction, which stops nobody), and the segments that are there at that moment are opened,
before ingest can put one away (`Ingest.held`). So a segment in the backup holds at least what the database of the
backup has taken of it, and what it holds beyond is taken when a gateway starts on the restored state, by the same
positions. What answers after that moment may be in the backup too: whole records only.

From then on segments come and go as ever, since one that is open can be read when its file is gone: were they held
until the last byte, a client on a slow line would fill the journals to their limit, and requests would be refused.

The copy goes to a folder beside the database first, so its disk must have room for it; it is checked there by SQLite
(`PRAGMA quick_check`) before a byte of it leaves, and hashed while it leaves. The manifest is the last file of the tar:
without it a backup is not whole. Segments that are on the rollups and kept for a while (`journal_keep_bytes`) are left
out, and so are the levels of limits, which a moment later are others.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from gatewayd import __version__
from gatewayd.control.batches import batch_of
from gatewayd.control.database import FILE_NAME, HEAD
from gatewayd.control.segments import Reader
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.amounts import format_time
from gatewayd.records import SEGMENT_SUFFIX, SLOT_BYTES

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
TEMPORARY_FOLDER = "backup.part"  # in the state folder; one that a killed control left is removed by the next
SPARE_BYTES = 1 << 28  # of the disk that a copy leaves to the journals
_BLOCK_BYTES = 1 << 20
_PAGES = 4096  # copied at once: 16 MiB
_STEPS = 100_000  # of SQLite, until it looks whether to go on: some ms
_END = bytes(1024)  # two empty blocks, as tar(5) has it


class Stored(NamedTuple):
    """A file of the backup, as the manifest has it."""

    name: str
    size_bytes: int
    sha256: str


def refuse_without_room(state_dir: Path, database_bytes: int) -> None:
    """Raises GatewayError where the copy of the database would fill the disk that the journals need."""
    free = shutil.disk_usage(state_dir).free
    if free < database_bytes + SPARE_BYTES:
        needed = (database_bytes + SPARE_BYTES) >> 20
        raise GatewayError(
            UNAVAILABLE, f"the disk of {state_dir} has {free >> 20} MiB free; to copy the database takes {needed} MiB"
        )


def remove_unfinished(state_dir: Path) -> None:
    """What a control that was killed in the middle of a backup has left."""
    shutil.rmtree(state_dir / TEMPORARY_FOLDER, ignore_errors=True)


def blocks(
    database: Path, state_dir: Path, now_s: int, stopping: threading.Event | None = None
) -> Generator[bytes, None, None]:
    """The tar, in blocks; for threads. Closing it removes the copy of the database.

    `stopping`: the gateway is, which waits for its threads, and a large database takes a minute.

    The first block is empty: from then on it depends on nothing that goes on. The database is copied before the second,
    so that what fails fails before a byte of it is out: OSError, sqlite3.Error.
    """
    folder = state_dir / TEMPORARY_FOLDER
    remove_unfinished(state_dir)
    folder.mkdir(mode=0o700)
    about = {"format": FORMAT, "gatewayd": __version__, "schema": HEAD, "created_at": format_time(now_s)}
    try:
        with ExitStack() as opened:
            copy = folder / FILE_NAME
            with closing(_opened(f"file:{quote(str(database))}?mode=ro")) as ours:
                positions = _begin(ours)
                segments = [opened.enter_context(closing(each)) for each in _segments(state_dir / "journal", positions)]
                yield b""
                _copy(ours, copy, stopping or threading.Event())
            about_text = msgspec.json.encode({**about, "database_bytes": copy.stat().st_size})  # for who shows a bar
            yield _header(ABOUT, len(about_text), now_s) + _padded(about_text)
            stored = [(yield from _file(copy, now_s))]
            records = 0
            for segment in segments:
                if data := whole_records(segment):
                    name = f"journal/{segment.path.name}"
                    records += max(0, len(data) - segment.position) // SLOT_BYTES
                    stored.append(Stored(name, len(data), hashlib.sha256(data).hexdigest()))
                    yield _header(name, len(data), now_s) + _padded(data)
            manifest = msgspec.json.encode(
                {**about, "waiting_records": records, "files": [s._asdict() for s in stored]}
            )
            yield _header(MANIFEST, len(manifest), now_s) + _padded(manifest) + _END
    finally:
        remove_unfinished(state_dir)


def whole_records(segment: Reader) -> bytes:
    """A segment up to its last record; b"" where there is none. What a living worker is just making is not in it.

    Where that begins is looked for before anything is read, or the worker might go past slots that we had read as
    empty, and they would be taken for torn. A torn one of a worker that is gone stays: it is counted when it is taken.
    """
    living = not segment.writer_gone()  # before the rest: what one that is gone has left stays as it is
    end = segment.filled_until() if living else os.fstat(segment.descriptor).st_size
    data = os.pread(segment.descriptor, end, 0)
    if living and not batch_of(data[-SLOT_BYTES:]).data:
        data = data[:-SLOT_BYTES]
    filled = len(data.rstrip(b"\0"))
    return data[: filled + -filled % SLOT_BYTES] if filled > SLOT_BYTES else b""


def _segments(folder: Path, positions: dict[str, int]) -> Iterator[Reader]:
    """Those that are there, open."""
    for path in sorted(folder.glob("*" + SEGMENT_SUFFIX)):
        with suppress(FileNotFoundError):  # a worker that finds no room for a segment takes it back at once
            yield Reader(path, positions.get(path.name, 0), 0)


def _begin(source: sqlite3.Connection) -> dict[str, int]:
    """From now on `source` reads the database as it is now; the positions of its segments.

    The read transaction is held from before the first page to after the last: without it SQLite would begin anew with
    every change that somebody makes meanwhile.
    """
    source.execute("BEGIN")
    return dict(source.execute("SELECT name, position_bytes FROM segment").fetchall())


def _copy(source: sqlite3.Connection, target: Path, stopping: threading.Event) -> None:
    """Copy the database, and check the copy."""

    def go_on(*_: int) -> None:
        if stopping.is_set():
            raise sqlite3.OperationalError("the gateway is stopping")

    with closing(_opened(str(target))) as copied:
        copied.set_progress_handler(stopping.is_set, _STEPS)
        source.backup(copied, pages=_PAGES, progress=go_on)
        copied.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        if (found := copied.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"the database is damaged: {found}")


def _opened(name: str) -> sqlite3.Connection:
    # None: only the transactions that we begin. Blocks are made in one thread after another.
    return sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)


def _file(path: Path, now_s: int) -> Generator[bytes, None, Stored]:
    size_bytes, digest = path.stat().st_size, hashlib.sha256()
    yield _header(path.name, size_bytes, now_s)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            yield block
    yield _padding(size_bytes)
    return Stored(path.name, size_bytes, digest.hexdigest())


def _header(name: str, size_bytes: int, now_s: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size_bytes, 0o600, now_s
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + _padding(len(data))


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
