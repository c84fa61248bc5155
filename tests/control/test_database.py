"""Opening, migrating, sharing. To add a migration: write versions/000N_*.py and raise HEAD; these say what else,
and one of them writes newest.sql."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import alembic.command
import msgspec
import pytest
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import SQLModel, col, select

from gatewayd.conf import TlsConf
from gatewayd.control import database as module
from gatewayd.control import tables
from gatewayd.control.admin.plans import PlanView, show
from gatewayd.control.compile import snapshot
from gatewayd.control.database import HEAD, Database
from gatewayd.control.tables import Plan, PlanVersion, Price, Service, Target, Tenant
from gatewayd.errors import StartupError
from gatewayd.policy.pricing import DEFAULT_TERMS, Terms, decode_terms

MIGRATIONS = str(Path(module.__file__).parent / "migrations")
NEWEST = Path(MIGRATIONS) / "newest.sql"
TOLD = (
    "-- What all migrations make of an empty database. Written by tests/control/test_database.py, which says how.\n\n"
)


def shape(connection: sqlite3.Connection) -> dict[str, object]:
    """Columns and indexes of every table, and what is said after its closing bracket."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    found: dict[str, object] = {}
    for table, sql in connection.execute(query).fetchall():
        columns = [tuple(row[1:]) for row in connection.execute(f"PRAGMA table_info({table})")]
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", (table,)
        )
        foreign = {tuple(row[2:5]) for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
        found[table] = (columns, sorted(map(str, indexes)), foreign, sql.rpartition(")")[2], "AUTOINCREMENT" in sql)
    found.pop("alembic_version", None)
    return found


def test_a_new_database_has_the_default_tenant_and_price(database: Database) -> None:
    with database.read() as session:
        tenant = session.get(Tenant, 1)
        price = session.get(Price, 1)
    assert tenant is not None
    assert (tenant.slug, tenant.currency, tenant.public_id[:4]) == ("default", "USD", "ten_")
    assert price is not None
    assert decode_terms(price.terms) == DEFAULT_TERMS


def test_commits_are_as_safe_as_the_journals_whose_segments_they_let_go(tmp_path: Path) -> None:
    """2 is FULL: the commit is on the disk. With 1, NORMAL, a power cut could take it when the segment is deleted."""
    for durable, expected in ((False, 1), (True, 2)):
        opened = Database.open(tmp_path, durable=durable)
        with opened.write() as session:
            assert session.connection().exec_driver_sql("PRAGMA synchronous").scalar_one() == expected
        opened.close()


def test_migrations_make_what_the_tables_say(database: Database, tmp_path: Path) -> None:
    assert tables.__doc__
    SQLModel.metadata.create_all(create_engine(f"sqlite:///{tmp_path}/tables.db"))
    with sqlite3.connect(database.path) as migrated, sqlite3.connect(tmp_path / "tables.db") as declared:
        assert shape(migrated) == shape(declared)
    migrated.close()
    declared.close()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory(MIGRATIONS).get_current_head() == HEAD


def migrate(path: Path, revision: str) -> None:
    """From whatever it is, or from nothing, by alembic alone."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    engine = module._engine(path, 5000, begin="BEGIN IMMEDIATE", pooled=False)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
    engine.dispose()


def written(path: Path) -> str:
    """A new database as statements, in which what differs from one to the next is a parameter."""
    with closing(sqlite3.connect(path)) as database:
        order = "ORDER BY type = 'trigger', type = 'index', name"  # what is made on a table comes after it
        query = f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' {order}"
        statements = [sql for (sql,) in database.execute(query)]
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted(set(tables) - {"sqlite_sequence"}):
            rows = database.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in rows.description]
            for row in rows:
                quoted = [database.execute("SELECT quote(?)", (value,)).fetchone()[0] for value in row]
                values = ", ".join(map(as_parameter, columns, quoted))
                statements.append(f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({values})')
    return "".join(f"{statement};\n" for statement in statements)


def as_parameter(column: str, value: str) -> str:
    if column == "public_id":
        return f"{value[:5]}' || :public_id"
    return ":now" if column.endswith("_at") and value != "NULL" else value


def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    """`GOLDEN_UPDATE=1 pytest tests/control/test_database.py` writes newest.sql anew."""
    migrate(tmp_path / "migrated.db", "head")
    migrated = written(tmp_path / "migrated.db")
    if os.environ.get("GOLDEN_UPDATE"):
        NEWEST.write_text(TOLD + migrated)
    Database.open(tmp_path).close()
    assert written(tmp_path / "gatewayd.db") == migrated
    assert NEWEST.read_text() == TOLD + migrated


def test_new_databases_differ_in_what_they_are_called(database: Database, tmp_path: Path) -> None:
    other = Database.open(tmp_path / "other")
    now = time.time_ns() // 1_000_000_000
    with other.read() as session, database.read() as ours:
        tenant, mine = session.get_one(Tenant, 1), ours.get_one(Tenant, 1)
    assert tenant.public_id != mine.public_id
    assert len(tenant.public_id) == len("ten_") + 8
    assert 0 <= now - tenant.created_at < 60
    other.close()


def test_a_database_at_head_is_opened_without_alembic(database: Database) -> None:
    code = (
        "import sys, pathlib; from gatewayd.control.database import Database; "
        "Database.open(pathlib.Path(sys.argv[1])).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(database.path.parent)], check=True)


def test_what_it_holds_is_for_its_user_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "state")
    database.close()
    assert database.path.stat().st_mode & 0o777 == 0o600
    assert database.path.parent.stat().st_mode & 0o777 == 0o700


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    first = Database.open(tmp_path)
    with first.write() as session:
        session.add(Price(terms='{"request_nanos":5}'))
    first.close()
    second = Database.open(tmp_path)
    with second.read() as session:
        assert session.exec(select(Price.terms).order_by(col(Price.id))).all() == [
            '{"request_nanos":1000000}',
            '{"request_nanos":5}',
        ]
    second.close()


def refusal(state_dir: Path) -> str:
    with pytest.raises(StartupError) as caught:
        Database.open(state_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_database_of_a_newer_version_is_refused_and_untouched(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = refusal(database.path.parent)
    assert "written by a newer gatewayd (schema 9999" in said
    assert "install that version or restore a backup" in said
    with database.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_a_database_of_someone_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gatewayd.db") as other:
        other.execute("CREATE TABLE recipes (name)")
    other.close()
    assert "not gatewayd's" in refusal(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gatewayd.db").write_bytes(b"not a database at all\n" * 500)
    assert "file is not a database" in refusal(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(tmp_path / "file" / "state")
    assert said.startswith(f"cannot write to the state folder {tmp_path}/file/state: not a directory")
    assert "--state-dir" in said


def test_a_migration_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("half-way")

    path = tmp_path / "gatewayd.db"
    migrate(path, "0001")
    before = written(path)
    with monkeypatch.context() as patched:
        patched.setattr("alembic.op.bulk_insert", fail)
        patched.setattr("alembic.op.execute", fail)
        with pytest.raises(RuntimeError, match="half-way"):
            Database.open(tmp_path)
    assert written(path) == before
    Database.open(tmp_path).close()


def test_a_new_database_that_fails_half_way_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module, "_NEWEST", tmp_path / "broken.sql")
        (tmp_path / "broken.sql").write_text(NEWEST.read_text() + "CREATE TABLE tenant (id);\n")
        assert "table tenant already exists" in refusal(tmp_path)
    assert written(tmp_path / "gatewayd.db") == ""
    Database.open(tmp_path).close()


def test_a_database_of_the_first_schema_comes_along_with_all_its_rows(tmp_path: Path) -> None:
    migrate(tmp_path / "gatewayd.db", "0001")
    with closing(sqlite3.connect(tmp_path / "gatewayd.db")) as old, old:
        old.executescript(_OLD_ROWS)
    opened = Database.open(tmp_path)
    with opened.read() as session:
        first, second = session.exec(select(Service).order_by(col(Service.id))).all()
        assert [target.url for target in session.exec(select(Target)).all()] == ["http://a", "http://b"]
        assert session.execute(text("PRAGMA foreign_key_check")).all() == []
        assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    assert (first.slug, first.timeout_s, first.body_limit_bytes, first.removed_at) == ("orders", 12.5, 7, None)
    assert (first.first_byte_timeout_s, first.idle_timeout_s, first.tunnel_lifetime_s) == (30.0, 300.0, 86400.0)
    assert (first.in_flight_limit, first.tls_verify, first.tls_ca_file) == (None, True, None)
    assert (second.slug, second.timeout_s, second.removed_at) == ("gone", 30.0, 1788000000)
    confs = snapshot(opened.lookup).services
    assert [(conf.slug, conf.timeout_s, conf.tls) for conf in confs] == [("orders", 12.5, TlsConf())]
    with opened.write() as session:
        first.timeout_s = None
        session.add(first)
    opened.close()


def test_what_a_plan_was_before_versions_is_its_first(tmp_path: Path) -> None:
    migrate(tmp_path / "gatewayd.db", "0002")
    with closing(sqlite3.connect(tmp_path / "gatewayd.db")) as old, old:
        old.executescript(_OLD_PLANS)
    opened = Database.open(tmp_path)
    with opened.read() as session:
        tenant = session.get_one(Tenant, 1)
        prices = {1: DEFAULT_TERMS, 5: Terms(request_nanos=12_000_000_000), 6: Terms()}
        assert {price.id: decode_terms(price.terms) for price in session.exec(select(Price))} == prices
        for plan in session.exec(select(Plan)).all():
            version = session.get_one(PlanVersion, (plan.id, 1))
            assert msgspec.json.decode(version.terms, type=PlanView) == show(plan, tenant, prices[plan.price_id])
            assert (plan.version, version.created_at) == (1, plan.created_at)
        assert len(session.exec(select(PlanVersion.version)).all()) == 3
    opened.close()


_OLD_ROWS = """
    INSERT INTO service VALUES
        (3, 'svc_3', 1, 'orders', 'key', '[]', FALSE, 12.5, 10.0, 7, 'X-API-Key', 1787000000, NULL),
        (4, 'svc_4', 1, 'gone', 'key', '[]', FALSE, 30.0, 10.0, NULL, 'X-API-Key', 1787000000, 1788000000);
    INSERT INTO target VALUES (1, 3, 0, 'http://a', 1), (2, 3, 1, 'http://b', 1);
"""


_OLD_PLANS = """
    INSERT INTO price VALUES (5, 12000000000), (6, 0);
    INSERT INTO plan VALUES
        (3, 'pln_3', 1, 'starter', '[["minute",60,60,10],["90s",5,90,5]]', 10000, 1, 1787000000, NULL),
        (4, 'pln_4', 1, 'gone', '[]', NULL, 5, 1787000001, 1788000000),
        (5, 'pln_5', 1, 'free', '[]', NULL, 6, 1787000002, NULL);
"""


def test_postgresql_gets_statements_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    migration = ScriptDirectory(MIGRATIONS).get_revision("0002").module
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True})
    with Operations.context(context):
        migration.upgrade()
    said = capsys.readouterr().out
    assert "ALTER TABLE service ALTER COLUMN timeout_s DROP NOT NULL" in said
    assert "ALTER TABLE service ADD COLUMN tls_verify BOOLEAN DEFAULT TRUE NOT NULL" in said


def test_a_change_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(Price(terms='{"request_nanos":5}'))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert len(session.exec(select(Price)).all()) == 1


def test_a_change_inside_a_change_is_a_mistake(database: Database) -> None:
    with database.write() as session:
        with pytest.raises(RuntimeError, match="a transaction is open"), database.write():
            pass
        session.add(Price(terms='{"request_nanos":5}'))
    with database.read() as session:
        assert len(session.exec(select(Price.id)).all()) == 2


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"), database.read() as session:
        session.add(Price(terms='{"request_nanos":5}'))
        session.flush()


def test_a_reader_sees_one_moment_and_does_not_wait_for_the_writer(database: Database) -> None:
    with database.read() as reader:
        assert len(reader.exec(select(Price)).all()) == 1
        with database.write() as writer:
            writer.add(Price(terms='{"request_nanos":5}'))
            writer.flush()
            assert len(reader.exec(select(Price.id)).all()) == 1
        assert len(reader.exec(select(Price.id)).all()) == 1
    with database.read() as later:
        assert len(later.exec(select(Price.id)).all()) == 2


def test_look_ups_see_each_commit_at_once(database: Database) -> None:
    for terms in ('{"request_nanos":5}', '{"request_nanos":6}'):
        with database.write() as session:
            session.add(Price(terms=terms))
        assert database.lookup.execute(select(Price.id).where(Price.terms == terms)).first() is not None


def test_readers_may_come_from_many_threads(database: Database) -> None:
    counts: list[int] = []

    def count() -> None:
        for _ in range(20):
            with database.read() as session:
                counts.append(len(session.exec(select(Price)).all()))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 160


def test_a_lock_that_somebody_else_holds_is_an_error_and_not_a_hang(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), database.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with database.write() as session:
        session.add(Price(terms='{"request_nanos":5}'))


def test_it_explains_itself(database: Database) -> None:
    assert repr(database) == f"<Database {database.path} schema {HEAD}>"
    assert database.size_bytes() > 4096


def test_an_error_does_not_tell_what_was_to_be_stored(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised, database.write() as session:
        session.connection().execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "whsec_MfKQ9r8GKYq"})
    assert "whsec" not in str(raised.value)
