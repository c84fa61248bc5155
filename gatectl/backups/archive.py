"""A backup as a file: what is in it, and whether all of it is there and as the gateway sent it.

The manifest is the last file of the tar and names every other with its size and SHA-256, so a backup that was cut short
has none, and one that was altered does not match it. Names are those that a backup has and no others: nothing in a tar
decides where on the disk it goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from gatectl.errors import GatectlError, RejectedError

FORMAT = 1
DATABASE = "gatewayd.db"
_ABOUT, _MANIFEST = "about.json", "manifest.json"
_DATA = re.compile(r"gatewayd\.db|journal/[A-Za-z0-9_-]{1,100}\.gwj", re.ASCII)
_LONGEST_TEXT_BYTES = 1 << 24  # of the manifest: 100,000 segments
_BLOCK_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_ANOTHER = "name another; 'gatectl backup' makes them"

# What is being done, bytes so far, bytes in all; None: it comes through a pipe.
Shown = Callable[[str, int, int | None], None]


class Manifest(NamedTuple):
    """What a backup says of itself. `waiting_records`: what its journals have beyond its database."""

    gatewayd: str
    schema: str
    created_at: str
    waiting_records: int
    files: dict[str, tuple[int, str]]  # size and SHA-256 by name

    @property
    def size_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


def unpack(path: str, folder: Path | None, shown: Shown) -> Manifest:
    """Read a backup (a tar, or one compressed by gzip) to its end and check it; into `folder`, where one is given.

    Raises RejectedError for what is no whole backup, GatectlError where it cannot be read or written.
    """
    found: dict[str, tuple[int, str]] = {}
    try:
        file_bytes = Path(path).stat().st_size
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:  # noqa: PTH123
            for entry in tar:
                so_far = file.tell() if file.seekable() else 0
                shown("checking" if folder is None else "unpacking", so_far, file_bytes or None)
                # A few bytes of a sparse file may stand for any number of zeros, which would fill the disk.
                source = tar.extractfile(entry) if entry.isreg() and not entry.issparse() else None
                if source is None:
                    raise RejectedError(f"{path} is no backup of a gateway: {entry.name!r} is no file", _ANOTHER)
                if entry.name == _MANIFEST:
                    return _checked(path, source, found)
                if entry.name == _ABOUT:
                    continue
                if not _DATA.fullmatch(entry.name) or entry.name in found:
                    raise RejectedError(f"{path} is no backup of a gateway: {entry.name!r} is in it", _ANOTHER)
                found[entry.name] = _copied(source, None if folder is None else folder / entry.name)
    except (tarfile.TarError, EOFError, RecursionError, TypeError) as error:
        # tarfile's own too: of a name of a name of a name, and of a gzip header that was cut short.
        raise RejectedError(f"{path} is no whole backup: {error}", _ANOTHER) from None
    except OSError as error:
        if error.errno is None:  # gzip's own: what it unpacks is no gzip, or broken
            raise RejectedError(f"{path} is no whole backup: {error}", _ANOTHER) from None
        raise GatectlError(f"cannot unpack {path}: {error.strerror}") from None
    raise RejectedError(f"{path} is no whole backup: it was cut short", _ANOTHER)


def check_database(path: Path) -> None:
    """All of it, as SQLite checks it. Raises RejectedError."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as database:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise RejectedError(f"the database in it is damaged: {found}", _ANOTHER)


def _copied(source: IO[bytes], target: Path | None) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    file = None if target is None else os.fdopen(os.open(target, _NEW, 0o600), "wb")
    try:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
            if file is not None:
                file.write(block)
    finally:
        if file is not None:
            file.close()
    return size_bytes, digest.hexdigest()


def _checked(path: str, source: IO[bytes], found: dict[str, tuple[int, str]]) -> Manifest:
    try:
        told: Any = json.loads(source.read(_LONGEST_TEXT_BYTES))
        if told["format"] != FORMAT:
            raise RejectedError(
                f"{path} is a backup of another form ({told['format']})", "take the gatectl that made it"
            )
        files = {each["name"]: (each["size_bytes"], each["sha256"]) for each in told["files"]}
        manifest = Manifest(told["gatewayd"], told["schema"], told["created_at"], told["waiting_records"], files)
    except (ValueError, KeyError, TypeError):
        raise RejectedError(f"{path} is no backup of a gateway: its manifest cannot be read", _ANOTHER) from None
    if DATABASE not in files:
        raise RejectedError(f"{path} is no backup of a gateway: it has no database", _ANOTHER)
    for name in sorted(files.keys() | found.keys()):
        if files.get(name) != found.get(name):
            raise RejectedError(f"{path} was altered: {name} is not as its manifest says", _ANOTHER)
    return manifest
