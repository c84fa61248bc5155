"""The database: one SQLite file in the state folder, opened, migrated, and shared by one writer and many readers.

`write()` is for control's event loop thread alone: one connection, one transaction at a time, never held across an
await, so changes have a total order and workers are told of them in that order. `lookup` is the same thread's
connection for single reads outside a transaction. `read()` may be used from any thread: each call has a connection of
its own from the pool, a consistent view, and cannot write.

WAL, so that readers never wait for the writer nor it for them. synchronous=NORMAL: a commit is in the kernel when it
returns and outlives `kill -9`; a power cut may take the last commits but never corrupts. FULL would add an fsync to
each commit (milliseconds on the thread that hands out leases) for no gain where journals are no safer in a power cut.
Where they are (`journal_sync`) it is FULL (`durable`): a segment is deleted once its records are committed, and must
not be gone when the commit is.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from gatewayd.errors import UNAVAILABLE, GatewayError, StartupError
from gatewayd.keys import new_public_id
from gatewayd.policy.histogram import lanes_of, merge_packed, sum_packed

FILE_NAME = "gatewayd.db"
# The newest migration. Compared before alembic is imported, which costs a start 0.2 s; a test holds it to the truth.
HEAD = "0008"
DEFAULT_TENANT_ID = 1
DEFAULT_PRICE_ID = 1

_WRITER_WAIT_MS = 1000  # the loop stands still meanwhile; nobody but a backup or a person should hold the lock
_READER_WAIT_MS = 5000
_LOOK_AGAIN_S = 0.02
_MIGRATIONS = Path(__file__).parent / "migrations"
# What all migrations make of an empty database, written by a test that runs them. A new database takes it in one go.
_NEWEST = _MIGRATIONS / "newest.sql"


class Database:
    """The open database. `<Database /var/lib/gatewayd/gatewayd.db schema 0008>`"""

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self._engine = _engine(path, _WRITER_WAIT_MS, begin="BEGIN IMMEDIATE", durable=durable)
        self._readers = _engine(path, _READER_WAIT_MS, begin="BEGIN", read_only=True)
        self._lookups = _engine(path, _WRITER_WAIT_MS, read_only=True)
        self._writer = self._engine.connect()
        self._lenders = 0
        self.lookup = self._lookups.connect()

    def __repr__(self) -> str:
        return f"<Database {self.path} schema {HEAD}>"

    @classmethod
    def open(cls, state_dir: Path, *, durable: bool = False) -> Database:
        """Make the folder and the file where they are missing, migrate, open. Raises StartupError with one line."""
        path = _create(state_dir)
        migrate(path)
        return cls(path, durable=durable)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction of the writer: committed at the end, or rolled back when anything is raised."""
        if self.is_lent:
            raise GatewayError(UNAVAILABLE, "a large change is being stored; try again in a moment")
        if self._writer.in_transaction():
            raise RuntimeError("a transaction is open: one was begun inside another, or held across an await")
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.connection()  # takes the write lock now, so that what is read next is still so when it is changed
            yield session

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Another connection, of another thread, has the write lock: `write` raises at once.

        To wait for the lock would stop the loop, and with it every look-up and lease.
        """
        self._lenders += 1
        try:
            yield
        finally:
            self._lenders -= 1

    @property
    def is_lent(self) -> bool:
        return self._lenders > 0

    @contextmanager
    def write_elsewhere(self) -> Iterator[Session]:
        """One transaction of another thread, on a connection of its own, while the write lock is lent."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.connection()
            yield session

    async def given_back(self) -> None:
        """Returns when the write lock is not lent."""
        while self.is_lent:
            await asyncio.sleep(_LOOK_AGAIN_S)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view of one moment."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    def size_bytes(self) -> int:
        """Of the file and its write-ahead log."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        self.lookup.close()
        self._writer.close()
        for engine in (self._lookups, self._readers, self._engine):
            engine.dispose()


def migrate(path: Path) -> None:
    """Bring the schema to HEAD, in one transaction. Raises StartupError for a database that is not ours or is newer."""
    # A table is made anew under its old name, which references to it survive only unchecked; so they are checked after.
    engine = _engine(path, _READER_WAIT_MS, begin="BEGIN IMMEDIATE", pooled=False, foreign_keys=False)
    try:
        with engine.begin() as connection:
            schema = _schema_of(connection, path)
            if schema is None:
                _make(connection)
            elif schema != HEAD:
                _upgrade(connection, schema, path)
                if dangling := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                    raise StartupError(
                        f"the database {path} cannot be upgraded: a row of {dangling[0]} refers to nothing"
                    )
    except DatabaseError as error:
        raise StartupError(f"the database {path} cannot be opened: {error.orig}") from None
    finally:
        engine.dispose()


def _schema_of(connection: Connection, path: Path) -> str | None:
    """The revision that the database is at; None for a new one."""
    tables = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    if "alembic_version" in tables:
        schema = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return None if schema is None else str(schema)
    if tables:
        raise StartupError(f"{path} is a database, but not gatewayd's; choose another state folder with --state-dir")
    return None


def _make(connection: Connection) -> None:
    """An empty database becomes a new one. Migrations make the same of it, 0.15 s later."""
    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")  # rows come in the order of their tables' names
    values = {"now": time.time_ns() // 1_000_000_000, "public_id": new_public_id()}
    statement = ""
    for line in _NEWEST.read_text().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # a trigger has semicolons inside
            connection.exec_driver_sql(statement, values)
            statement = ""


def _upgrade(connection: Connection, schema: str, path: Path) -> None:
    # Imported here: needed once per version, and dear.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if schema not in known:
        raise StartupError(
            f"the database {path} was written by a newer gatewayd (schema {schema}, this one knows up to {HEAD}); "
            "install that version or restore a backup"
        )
    command.upgrade(config, "head")


def _create(state_dir: Path) -> Path:
    """The path of the database in a folder that exists. What it holds is nobody else's business: 0700 and 0600."""
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StartupError(
            f"cannot write to the state folder {state_dir}: {reason}; choose another with --state-dir"
        ) from None
    return path


def _merge_histograms(ours: bytes, theirs: bytes) -> bytes:
    """What `rollups` adds with. Latency is not worth a stop: one that is damaged in the database begins anew."""
    try:
        return merge_packed(ours, theirs)
    except ValueError:
        return theirs


class _SumHistograms(list[bytes]):
    """The aggregate of the same, for views: one query gives the sums and the quantiles.

    Rows are only gathered by step, without a frame of Python for each: of 34,000 it is a fifth of the query.
    """

    step = list.append

    def finalize(self) -> bytes:
        try:
            return sum_packed(self)
        except ValueError:  # latency is not worth an error
            return sum_packed(packed for packed in self if _is_whole(packed))


def _is_whole(packed: bytes) -> bool:
    try:
        lanes_of(packed)
    except ValueError:
        return False
    return True


def _engine(
    path: Path,
    wait_ms: int,
    begin: str = "",
    *,
    read_only: bool = False,
    pooled: bool = True,
    foreign_keys: bool = True,
    durable: bool = False,
) -> Engine:
    """An engine whose transactions begin with the statement `begin`; without one, each statement stands alone."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        # isolation_level None: sqlite3 begins no transactions of its own accord, the event below does.
        connect_args={"timeout": wait_ms / 1000, "isolation_level": None},
        hide_parameters=True,  # an error's text goes to the log, and a parameter may be the secret of a webhook
        **({"max_overflow": 64} if pooled else {"poolclass": NullPool}),
    )

    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        connection.create_function("merge_histograms", 2, _merge_histograms, deterministic=True)
        connection.create_aggregate("sum_histograms", 1, _SumHistograms)  # type: ignore[arg-type]

    event.listen(engine, "connect", prepare)
    if begin:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
