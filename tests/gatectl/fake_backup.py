"""A backup as a gateway sends one, and damaged ones."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path

CREATED = "2026-11-21T02:00:00Z"
SEGMENT = "journal/01795276145586987492-7024efcf-000000.gwj"


@cache
def database(rows: int = 3) -> bytes:
    """A database that is whole; what is in it is the gateway's business."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.db"
        with closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE tenant (slug TEXT)")
            made.executemany("INSERT INTO tenant VALUES (?)", [(f"t{number}",) for number in range(rows)])
            made.commit()
        return path.read_bytes()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def backup(**changed: bytes) -> bytes:
    """The tar; `changed` are other bytes than the manifest says, by `database` or `segment`."""
    whole = {"gatewayd.db": database(), SEGMENT: b"GWJ1".ljust(128, b"\0") + b"r" * 256}
    files = [
        {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in whole.items()
    ]
    about = {"format": 1, "gatewayd": "0.1.0", "schema": "0005", "created_at": CREATED}
    data = whole | {{"database": "gatewayd.db", "segment": SEGMENT}[name]: value for name, value in changed.items()}
    return tar_of(
        {
            "about.json": json.dumps({**about, "database_bytes": len(database())}).encode(),
            **data,
            "manifest.json": json.dumps({**about, "waiting_records": 2, "files": files}).encode(),
        }
    )


def sparse(name: str, size_bytes: int) -> bytes:
    """A file of so many zeros, as GNU tar writes it."""
    entry = tarfile.TarInfo(name)
    entry.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(size_bytes)}
    entry.size = 512
    return entry.tobuf(tarfile.PAX_FORMAT) + bytes(512 + 1024)


def long_name(times: int) -> bytes:
    """The name of a long name, again and again."""
    entry = tarfile.TarInfo("gatewayd.db")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 5
    return (entry.tobuf(tarfile.GNU_FORMAT) + b"abcd".ljust(512, b"\0")) * times
