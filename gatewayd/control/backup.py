"""A backup of a gateway that goes on: one tar stream of the database and of the journals that it has not ingested.

Every record is in it exactly once. The database says up to which position each segment is on its rollups; it is copied
first, as of one moment (a read transaction, which stops nobody), and the segments after it, while ingest puts none
away (`Ingest.hold`). So a segment in the backup holds at least what the database of the backup has taken of it, and
what it holds beyond is taken when a gateway starts on the restored state, by the same positions. What answers after the
database was copied may be in the backup too: whole records only.

The copy goes to a folder beside the database first, so its disk must have room for it; it is checked there by SQLite
(`PRAGMA quick_check`) before a byte of it leaves, and hashed while it leaves. The manifest is the last file of the tar:
without it a backup is not whole. Segments that are on the rollups and kept for a while (`journal_keep_bytes`) are left
out, and so are the levels of limits, which a moment later are others.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sqlite3
import tarfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from gatewayd import __version__
from gatewayd.control.batches import batch_of
from gatewayd.control.database import FILE_NAME, HEAD
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.amounts import format_time
from gatewayd.records import SEGMENT_SUFFIX, SLOT_BYTES

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
TEMPORARY_FOLDER = "backup.part"  # in the state folder; one that a killed control left is removed by the next
SPARE_BYTES = 1 << 28  # of the disk that a copy leaves to the journals
_BLOCK_BYTES = 1 << 20
_PAGES = 4096  # copied at once: 16 MiB
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


def blocks(database: Path, state_dir: Path, now_s: int) -> Generator[bytes, None, None]:
    """The tar, in blocks; for a thread. The database is copied before the first, so that what fails fails before it:
    OSError, sqlite3.Error. Closing it removes the copy.
    """
    folder = state_dir / TEMPORARY_FOLDER
    remove_unfinished(state_dir)
    folder.mkdir(mode=0o700)
    about = {"format": FORMAT, "gatewayd": __version__, "schema": HEAD, "created_at": format_time(now_s)}
    try:
        copy = folder / FILE_NAME
        positions = _copy(database, copy)
        about_text = msgspec.json.encode({**about, "database_bytes": copy.stat().st_size})  # first: for who shows a bar
        yield _header(ABOUT, len(about_text), now_s) + _padded(about_text)
        stored = [(yield from _file(copy, now_s))]
        records = 0
        for path in sorted((state_dir / "journal").glob("*" + SEGMENT_SUFFIX)):
            if data := whole_records(path):
                name = f"journal/{path.name}"
                records += max(0, len(data) - max(positions.get(path.name, 0), SLOT_BYTES)) // SLOT_BYTES
                stored.append(Stored(name, len(data), hashlib.sha256(data).hexdigest()))
                yield _header(name, len(data), now_s) + _padded(data)
        manifest = msgspec.json.encode({**about, "waiting_records": records, "files": [s._asdict() for s in stored]})
        yield _header(MANIFEST, len(manifest), now_s) + _padded(manifest) + _END
    finally:
        remove_unfinished(state_dir)


def whole_records(path: Path) -> bytes:
    """A segment up to its last record. The record that a living worker is just making is not in it. b"" if it is gone.

    A torn one of a worker that is gone stays: it is counted when it is ingested.
    """
    try:
        with path.open("rb") as file:
            data = file.read()
            living = _has_writer(file.fileno())
    except FileNotFoundError:  # a worker that finds no room for a segment takes it back at once
        return b""
    filled = len(data.rstrip(b"\0"))
    data = data[: filled + -filled % SLOT_BYTES]
    if living and len(data) > SLOT_BYTES and not batch_of(data[-SLOT_BYTES:]).data:
        return data[:-SLOT_BYTES].rstrip(b"\0").ljust(len(data) - SLOT_BYTES, b"\0")
    return data


def _copy(source: Path, target: Path) -> dict[str, int]:
    """Copy the database as of now, and check the copy; the positions of its segments.

    The read transaction is held from before the first page to after the last: without it SQLite would begin anew with
    every change that somebody makes meanwhile.
    """
    with closing(_opened(f"file:{quote(str(source))}?mode=ro")) as ours, closing(_opened(str(target))) as copied:
        ours.execute("BEGIN")
        ours.execute("SELECT count(*) FROM sqlite_master").fetchone()
        ours.backup(copied, pages=_PAGES)
        ours.execute("ROLLBACK")
        copied.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        if (found := copied.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"the database is damaged: {found}")
        return dict(copied.execute("SELECT name, position_bytes FROM segment").fetchall())


def _opened(name: str) -> sqlite3.Connection:
    return sqlite3.connect(name, uri=True, isolation_level=None)  # None: only the transactions that we begin


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


def _has_writer(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False
