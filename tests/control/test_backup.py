"""The backup of a gateway that goes on: one moment's database, whole records, and none of them put away meanwhile."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.types import Scope

from gatewayd.control.backup import TEMPORARY_FOLDER, blocks, remove_unfinished, whole_records
from gatewayd.control.database import HEAD, Database
from gatewayd.control.ingest import Ingest
from gatewayd.control.segments import Reader
from gatewayd.proxy.journal import Journal
from gatewayd.records import SLOT_BYTES
from tests.control.conftest import Admin
from tests.control.test_ingest import NOON_NS, WORKER, ingest_of, record, totals

FILES = ["about.json", "gatewayd.db", "manifest.json"]


def entries(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {entry.name: (opened.extractfile(entry) or io.BytesIO()).read() for entry in opened}


@pytest.fixture
def state(database: Database) -> Path:
    folder = database.path.parent
    (folder / "journal").mkdir()
    return folder


class Restored(NamedTuple):
    """A state folder out of a backup, opened, with all that its journals hold taken."""

    database: Database
    manifest: dict[str, Any]

    @classmethod
    def of(cls, tar: bytes, folder: Path) -> Restored:
        (folder / "journal").mkdir(parents=True)
        files = entries(tar)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        restored = Database.open(folder)
        ingest = ingest_of(restored, folder / "journal")
        while ingest.step():
            pass
        return cls(restored, json.loads(files["manifest.json"]))


@pytest.fixture
def journal(state: Path) -> Iterator[Journal]:
    journal = Journal(state / "journal", WORKER, NOON_NS)
    yield journal
    journal.close()


def test_an_empty_gateway(database: Database, state: Path) -> None:
    tar = b"".join(blocks(database.path, state, NOON_NS // 10**9))
    files = entries(tar)
    manifest = json.loads(files["manifest.json"])
    assert sorted(files) == FILES
    assert (manifest["schema"], manifest["created_at"], manifest["waiting_records"]) == (
        HEAD,
        "2026-11-21T12:00:00Z",
        0,
    )
    assert json.loads(files["about.json"])["database_bytes"] == len(files["gatewayd.db"])
    assert not (state / TEMPORARY_FOLDER).exists()


def test_each_record_once_whatever_was_taken_when(
    database: Database, state: Path, journal: Journal, tmp_path: Path
) -> None:
    """Some are on the rollups, some wait, and some come after the database was copied."""
    ingest = ingest_of(database, state / "journal")
    for _ in range(10):
        journal.append(record())
    ingest.step()
    for _ in range(5):
        journal.append(record())
    making = blocks(database.path, state, 0)
    assert next(making) == b""
    for _ in range(3):
        journal.append(record())
    ingest.step()  # on the rollups of the gateway, and not on those of the copy
    assert totals(database)[0] == 18
    tar = b"".join(making)
    restored = Restored.of(tar, tmp_path / "restored")
    assert restored.manifest["waiting_records"] == 8
    assert totals(restored.database)[0] == 18
    restored.database.close()


@pytest.mark.parametrize("keep_bytes", [0, 1 << 30])
def test_a_segment_that_goes_meanwhile_is_in_it(
    database: Database, state: Path, tmp_path: Path, keep_bytes: int
) -> None:
    """A client may take hours: the journals are not kept waiting for it, or they would fill up and refuse requests."""
    folder = state / "journal"
    ingest = Ingest(database, folder, lambda *_: None, lambda _: None, keep_bytes)
    journal = Journal(folder, WORKER, NOON_NS)
    for _ in range(5):
        journal.append(record())
    ingest.step()
    making = blocks(database.path, state, 0)
    with ingest.held():
        next(making)
    journal.append(record())
    journal.close()
    for _ in range(3):
        ingest.step()
    assert not list(folder.glob("*.gwj"))
    restored = Restored.of(b"".join(making), tmp_path / "restored")
    assert totals(restored.database)[0] == totals(database)[0] == 6
    assert restored.manifest["waiting_records"] == 1
    restored.database.close()


def test_while_it_is_held_no_segment_goes(database: Database, state: Path) -> None:
    folder = state / "journal"
    ingest = ingest_of(database, folder)
    journal = Journal(folder, WORKER, NOON_NS)
    journal.append(record())
    journal.close()
    with ingest.held():
        for _ in range(3):
            ingest.step()
        assert totals(database)[0] == 1
        assert list(folder.glob("*.gwj"))
    ingest.step()
    assert not list(folder.glob("*.gwj"))


def test_the_copy_is_of_one_moment_while_others_write(database: Database, state: Path) -> None:
    """A change to rows on the first and the last page, again and again: the copy has both or neither."""
    with database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("CREATE TABLE pair (id INTEGER PRIMARY KEY, number INTEGER, filler BLOB)")
        connection.exec_driver_sql("INSERT INTO pair VALUES (1, 0, zeroblob(20000000)), (2, 0, zeroblob(10))")
    over = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database.path, timeout=30)) as other:
            while not over.is_set():
                other.execute("UPDATE pair SET number = number + 1 WHERE id = 2")
                other.execute("UPDATE pair SET number = (SELECT number FROM pair WHERE id = 2) WHERE id = 2")
                other.execute("INSERT INTO pair (number) SELECT number FROM pair WHERE id = 2")
                other.commit()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        making = blocks(database.path, state, 0)
        next(making)
        next(making)
        copy = state / TEMPORARY_FOLDER / "gatewayd.db"
        with closing(sqlite3.connect(copy)) as copied:
            number, rows = copied.execute("SELECT max(number), count(*) - 2 FROM pair").fetchone()
        assert number == rows
        making.close()
    finally:
        over.set()
        writing.join()
    assert not copy.exists()


def test_a_record_in_the_making_is_not_in_it(state: Path) -> None:
    journal = Journal(state / "journal", WORKER, NOON_NS)
    journal.append(record())
    journal.append(record())
    path = state / "journal" / f"{journal._stem}-000000.gwj"
    assert len(whole(path)) == 3 * SLOT_BYTES
    with path.open("r+b") as file:
        file.seek(3 * SLOT_BYTES)
        file.write(record()[:60])  # the worker is about to copy the rest
    assert len(whole(path)) == 3 * SLOT_BYTES
    torn = path.read_bytes()
    journal.close()
    path.write_bytes(torn)
    assert len(whole(path)) == 4 * SLOT_BYTES  # nobody writes the rest of it any more: it is counted as torn


def test_a_worker_that_writes_while_its_segment_is_read_leaves_no_gap(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that comes behind a slot that was read as empty would make that slot a torn one."""
    journal = Journal(state / "journal", WORKER, NOON_NS)
    journal.append(record())
    pread = os.pread

    def slow(descriptor: int, length: int, offset: int) -> bytes:
        """The page with the end of the segment first, then two records come, then the rest."""
        if length <= SLOT_BYTES:
            return pread(descriptor, length, offset)
        begin = pread(descriptor, min(length, 3 * SLOT_BYTES), offset)
        journal.append(record())
        journal.append(record())
        return begin + pread(descriptor, length - len(begin), offset + len(begin))

    monkeypatch.setattr(os, "pread", slow)
    assert len(whole(state / "journal" / f"{journal._stem}-000000.gwj")) == 2 * SLOT_BYTES
    journal.close()


def whole(path: Path) -> bytes:
    with closing(Reader(path, 0, 0)) as segment:
        return whole_records(segment)


def test_a_damaged_database_is_not_sent(database: Database, state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    (copy / "journal").mkdir(parents=True)
    database.lookup.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database.path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    (copy / "gatewayd.db").write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError):
        b"".join(blocks(copy / "gatewayd.db", copy, 0))
    assert not (copy / TEMPORARY_FOLDER).exists()


def test_what_a_killed_control_left_is_removed(state: Path) -> None:
    (state / TEMPORARY_FOLDER).mkdir()
    (state / TEMPORARY_FOLDER / "gatewayd.db").touch()
    remove_unfinished(state)
    assert not (state / TEMPORARY_FOLDER).exists()


def test_over_the_api(admin: Admin, state: Path) -> None:
    answered = admin("POST", "/v1/backup")
    assert (answered.status_code, answered.headers["content-type"]) == (200, "application/x-tar")
    assert sorted(entries(answered.content)) == FILES
    assert "held" in admin.plane.told
    assert admin.get("/v1/audit")["items"][0]["action"] == "backup.make"
    assert admin("POST", "/v1/backup").status_code == 200  # the one before has ended
    assert not (state / TEMPORARY_FOLDER).exists()


@pytest.mark.usefixtures("state")
def test_one_at_a_time_and_only_where_there_is_room(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.control.backups.running = True
    admin.refused("conflict", "POST", "/v1/backup")
    admin.control.backups.running = False
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    assert "has 1 MiB free" in admin.refused("unavailable", "POST", "/v1/backup")["detail"]
    admin.refused("invalid", "POST", "/v1/backup?tenant=default")


def test_a_copy_that_fails_is_a_clear_answer(admin: Admin, database: Database, state: Path) -> None:
    (state / TEMPORARY_FOLDER).touch()  # where the folder should be
    assert "could not be copied" in admin.refused("unavailable", "POST", "/v1/backup")["detail"]
    assert not admin.control.backups.running


def test_a_gateway_that_stops_does_not_wait_for_the_copy(admin: Admin, state: Path) -> None:
    admin.control.backups.stopping.set()
    assert "the gateway is stopping" in admin.refused("unavailable", "POST", "/v1/backup")["detail"]
    assert not (state / TEMPORARY_FOLDER).exists()


def test_a_client_that_goes_ends_it(admin: Admin, state: Path) -> None:
    """The copy is removed and another may begin."""

    async def ask() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > 2:
                await asyncio.sleep(30)  # takes no more

        async def receive() -> Any:
            if sent:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        scope: Scope = {
            "type": "http", "method": "POST", "path": "/v1/backup", "raw_path": b"/v1/backup", "query_string": b"",
            "headers": [], "state": {}, "root_path": "", "scheme": "http", "server": None,
        }  # fmt: skip
        await admin.app(scope, receive, send)

    admin.run(asyncio.wait_for(ask(), 20))
    assert not admin.control.backups.running
    assert not (state / TEMPORARY_FOLDER).exists()
