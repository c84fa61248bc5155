"""`gatectl backup`: fetches a backup into a file that is there when it is whole and has been read again, not before."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from gatectl.backups import archive
from gatectl.client import Gateway
from gatectl.errors import UnreachableError
from gatectl.files import file_written

COPY_S = 3600.0  # for the gateway to copy its database, before the first byte
PATIENCE_S = 120.0  # between two bytes
_ABOUT_BYTES = 1024  # the first file of the tar and the header before it, which is half of it
_SUFFIXES = (".gz", ".tgz")

Shown = Callable[[str, int, int | None], None]


def default_name() -> str:
    return f"gatewayd-{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}.tar"


def to_stdout(gateway: Gateway, shown: Shown) -> None:
    """Into whatever reads it, which must look for itself whether it is whole: `gatectl restore --dry-run` does."""
    for block in _blocks(gateway, shown):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def to_file(gateway: Gateway, name: str, shown: Shown) -> dict[str, Any]:
    """What is in the file now. It is compressed where its name says so."""
    blocks = _blocks(gateway, shown)
    with file_written(name, private=True) as file:
        if name.endswith(_SUFFIXES):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6) as packed:
                _write(packed, blocks)
        else:
            _write(file, blocks)
        file.flush()
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
        # What the disk has, not what was sent to it.
        manifest = archive.unpack(f"/proc/self/fd/{file.fileno()}", None, lambda *how_far: shown(*how_far))
    return {
        "file": name, "size_bytes": size_bytes, "created_at": manifest.created_at, "gatewayd": manifest.gatewayd,
        "schema": manifest.schema, "files": len(manifest.files), "waiting_records": manifest.waiting_records,
    }  # fmt: skip


def _write(file: BinaryIO | gzip.GzipFile, blocks: Iterator[bytes]) -> None:
    for block in blocks:
        file.write(block)


def _blocks(gateway: Gateway, shown: Shown) -> Iterator[bytes]:
    begin, done, size_bytes = b"", 0, None
    try:
        for block in gateway.blocks("/v1/backup", {}, PATIENCE_S, method="POST", begins_s=COPY_S, lines=False):
            if size_bytes is None and len(begin) < _ABOUT_BYTES:
                begin += block[:_ABOUT_BYTES]
                size_bytes = _size_of(begin)
            done += len(block)
            shown("receiving", done, size_bytes)
            yield block
    except UnreachableError as error:
        if not done:
            raise
        raise UnreachableError(error.what, "there is no backup; see what the gateway says on stderr") from None


def _size_of(begin: bytes) -> int | None:
    """How much will come, about: the journals are beside the database."""
    if len(begin) >= _ABOUT_BYTES:
        with suppress(ValueError, KeyError):
            return int(json.loads(begin[_ABOUT_BYTES // 2 : _ABOUT_BYTES].rstrip(b"\0"))["database_bytes"])
    return None
