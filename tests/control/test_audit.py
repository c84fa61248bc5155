"""The audit as a chain: whatever is done to its lines behind the gateway's back is found, and where."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError

from gatewayd.control.audit_check import MOST_DIFFERENCES, check
from gatewayd.control.database import Database
from gatewayd.control.tables import Audit
from gatewayd.policy.audit_chain import GENESIS, Line, link
from tests.control.conftest import Admin
from tests.control.test_database import migrate

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
LINES = st.lists(
    st.builds(Line, st.integers(0, 1 << 40), TEXTS, TEXTS, TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS),
    min_size=1,
    max_size=8,
)
INSERT = (
    "INSERT INTO audit (id, at, actor, action, tenant, subject, before, after, sha256) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_engine = create_engine("sqlite://")
few = settings(max_examples=30)  # each makes a table


@given(LINES.map(lambda lines: lines[0]), st.text("0123456789abcdef", max_size=64))
def test_a_hash_is_that_of_the_json_array(line: Line, previous: str) -> None:
    text = json.dumps([previous, *line], separators=(",", ":"))
    assert link(previous, line) == hashlib.sha256(text.encode()).hexdigest()


def written(lines: list[Line]) -> Connection:
    """A table with these lines, as they are written one after the other."""
    connection = _engine.connect()
    connection.exec_driver_sql("DROP TABLE IF EXISTS audit")
    Audit.__table__.create(connection)  # type: ignore[attr-defined]
    previous = GENESIS
    for number, line in enumerate(lines, 1):
        previous = link(previous, line)
        connection.exec_driver_sql(INSERT, (number, *line, previous))
    return connection


@few
@given(LINES)
def test_a_chain_that_nobody_touched_is_whole(lines: list[Line]) -> None:
    with written(lines) as connection:
        found = check(connection)
    assert (found.lines, found.differences) == (len(lines), [])
    previous = GENESIS
    for line in lines:
        previous = link(previous, line)
        with written(lines) as connection:
            assert check(connection, previous).differences == []
    assert found.sha256 == previous


@few
@given(LINES, st.data())
def test_a_line_that_was_altered_is_found(lines: list[Line], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(lines)))
    column = data.draw(st.sampled_from((*Line._fields, "sha256")))
    kind = {"at": st.integers(0, 1 << 40), "before": st.none() | TEXTS, "after": st.none() | TEXTS}
    with written(lines) as connection:
        (old,) = connection.exec_driver_sql(f"SELECT {column} FROM audit WHERE id = ?", (at,)).one()
        new = data.draw(kind.get(column, TEXTS).filter(lambda value: value != old))
        connection.exec_driver_sql(f"UPDATE audit SET {column} = ? WHERE id = ?", (new, at))
        assert check(connection).differences[0].id == at


@few
@given(LINES.filter(lambda lines: len(lines) > 1), st.data())
def test_a_line_that_was_taken_out_is_missed_by_the_next(lines: list[Line], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(lines) - 1))
    with written(lines) as connection:
        connection.exec_driver_sql("DELETE FROM audit WHERE id = ?", (at,))
        assert check(connection).differences[0].id == at + 1


@few
@given(LINES.filter(lambda lines: len(lines) > 1), st.data())
def test_two_lines_that_changed_places_are_found(lines: list[Line], data: st.DataObject) -> None:
    one, other = sorted(data.draw(st.lists(st.integers(1, len(lines)), min_size=2, max_size=2, unique=True)))
    with written(lines) as connection:
        for old, new in ((one, 0), (other, one), (0, other)):
            connection.exec_driver_sql("UPDATE audit SET id = ? WHERE id = ?", (new, old))
        assert check(connection).differences[0].id == one


@few
@given(LINES, st.data())
def test_a_line_that_was_added_is_found(lines: list[Line], data: st.DataObject) -> None:
    """Also one with a hash that fits the one before it: then the next does not fit it."""
    at = data.draw(st.integers(0, len(lines) - 1))
    with written(lines) as connection:
        connection.exec_driver_sql("UPDATE audit SET id = -id - 1 WHERE id > ?", (at,))
        connection.exec_driver_sql("UPDATE audit SET id = -id WHERE id < 0")
        (before,) = connection.exec_driver_sql("SELECT max(sha256) FROM audit WHERE id = ?", (at,)).one()
        fits = data.draw(st.booleans())
        sha256 = link(before or GENESIS, lines[0]) if fits else "0" * 64
        connection.exec_driver_sql(INSERT, (at + 1, *lines[0], sha256))
        assert check(connection).differences[0].id == at + 1 + fits


@few
@given(LINES, st.data())
def test_lines_taken_from_the_end_are_missed_by_their_number_and_by_a_noted_hash(
    lines: list[Line], data: st.DataObject
) -> None:
    left = data.draw(st.integers(0, len(lines) - 1))
    with written(lines) as connection:
        noted = check(connection).sha256
        connection.exec_driver_sql("DELETE FROM audit WHERE id > ?", (left,))
        (missed,) = check(connection).differences
        assert (missed.expected, missed.found) == (str(len(lines)), str(left))
        connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 'audit'", (left,))
        assert check(connection).differences == []  # nothing in the file tells any more
        (missed,) = check(connection, noted).differences
        assert (missed.id, missed.expected, missed.found) == (None, noted, None)


@few
@given(LINES)
def test_lines_written_anew_are_found_by_a_noted_hash(lines: list[Line]) -> None:
    with written(lines) as connection:
        noted = check(connection).sha256
    with written([lines[0]._replace(actor=lines[0].actor + "x"), *lines[1:]]) as connection:
        assert check(connection).differences == []
        assert check(connection, noted).differences[0].expected == noted


@pytest.mark.parametrize("odd", ["x'ff'", "CAST(x'ff' AS TEXT)"])
def test_what_is_no_text_is_a_difference_and_no_failure(odd: str) -> None:
    lines = [Line(number, "root", "key.set", "default", "key", None, None) for number in range(3)]
    with written(lines) as connection:
        connection.exec_driver_sql(f"UPDATE audit SET actor = {odd} WHERE id = 2")
        assert check(connection).differences


def test_of_many_differences_the_first_are_named(admin: Admin) -> None:
    lines = [Line(number, "root", "key.set", "default", "key", None, None) for number in range(300)]
    with written(lines) as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'nobody'")
        found = check(connection)
    assert [each.id for each in found.differences] == list(range(1, MOST_DIFFERENCES + 1))


# Over the admin API


@pytest.fixture
def busy(admin: Admin) -> Admin:
    for slug in ("acme", "globex"):
        admin.post("/v1/tenants", slug=slug)
        admin.post(f"/v1/keys?tenant={slug}", name=f"{slug}'s")
    admin.holder("operator").post("/v1/keys", name="other")
    return admin


def test_every_way_to_change_something_adds_to_the_chain(busy: Admin) -> None:
    """Also one that stores in a thread of its own."""
    csv = "secret,name\nabcdefghijklmnopqrstuvwxyz,old\n"
    assert busy("POST", "/v1/keys/import", content=csv).status_code == 200
    busy.post("/v1/keys", name="later")
    lines = busy.get("/v1/audit")["items"]
    assert "key.import" in {line["action"] for line in lines}
    answer = busy.get("/v1/audit/verify")
    assert answer == {"ok": True, "lines": len(lines), "sha256": lines[0]["sha256"], "differences": []}
    assert busy.get("/v1/audit/verify", sha256=lines[3]["sha256"])["ok"]


def test_an_audit_without_lines_is_whole(admin: Admin) -> None:
    assert admin.get("/v1/audit/verify") == {"ok": True, "lines": 0, "sha256": None, "differences": []}


def test_what_was_altered_is_named(busy: Admin) -> None:
    with closing(sqlite3.connect(busy.control.database.path)) as connection, connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE id = 3")
    answer = busy.get("/v1/audit/verify")
    assert (answer["ok"], [each["id"] for each in answer["differences"]]) == (False, [3])
    unknown = "0" * 64
    answer = busy.get("/v1/audit/verify", sha256=unknown)
    assert answer["differences"][1]["expected"] == unknown
    for wrong in ("0", "0" * 63, "0" * 65, "X" * 64, ""):
        assert busy.refused("invalid", "GET", f"/v1/audit/verify?sha256={wrong}")["field"] == "sha256"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"actor": "token:operator None %"}, None),
        ({"action": "key"}, ["key.create"] * 3),
        ({"action": "key.create", "tenant": "acme"}, ["key.create"]),
        ({"action": "key.c"}, []),
        ({"action": "key_"}, []),
        ({"action": "%"}, []),
        ({"actor": "root", "action": "token"}, ["token.create"]),
        ({"actor": "nobody"}, []),
        ({"since": "2020-01-01", "until": "2021-01-01"}, []),
        ({"since": "2020-01-01", "action": "tenant"}, ["tenant.add"] * 2),
        ({"until": "2020-01-01"}, []),
    ],
)
def test_the_audit_is_filtered(busy: Admin, asked: dict[str, str], found: list[str] | None) -> None:
    items = busy.get("/v1/audit", **asked)["items"]
    assert [each["action"] for each in items] == (found or [])


def test_the_audit_is_filtered_by_actor_and_subject(busy: Admin) -> None:
    (line,) = [each for each in busy.get("/v1/audit")["items"] if each["actor"].startswith("token:")]
    assert line["action"] == "key.create"
    assert busy.get("/v1/audit", actor=line["actor"])["items"] == [line]
    assert busy.get("/v1/audit", subject=line["subject"])["items"] == [line]
    first = busy.get("/v1/audit", action="key", limit=2)
    second = busy.get("/v1/audit", action="key", limit=2, after=first["next"])
    assert (len(second["items"]), second["next"]) == (1, None)
    assert busy.refused("invalid", "GET", "/v1/audit?since=2026-02-01&until=2026-01-01")["field"] == "since"
    assert busy.refused("invalid", "GET", "/v1/audit?until=yesterdayish")["field"] == "until"


def test_what_was_done_to_a_tenant_of_the_same_name_is_not_told(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.delete("/v1/tenants/acme")
    monkeypatch.setattr("gatewayd.control.admin.changes.now_s", lambda: 1 << 31)
    admin.post("/v1/tenants", slug="acme")
    bound = admin.holder("viewer", "acme")
    assert [each["action"] for each in bound.get("/v1/audit")["items"]] == ["token.create", "tenant.add"]
    assert len(admin.get("/v1/audit", tenant="acme")["items"]) == 4


# The table


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'me'", "DELETE FROM audit"])
def test_lines_can_neither_be_altered_nor_removed(busy: Admin, change: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"), busy.control.database.write() as session:
        session.connection().exec_driver_sql(change)


def test_lines_from_before_there_was_a_chain_are_chained(tmp_path: Path) -> None:
    path = tmp_path / "gatewayd.db"
    migrate(path, "0004")
    lines = [(at, "root", "service.add", "default", f"svc_{at}", None, '{"slug":"\u00e4"}') for at in range(5)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO audit (at, actor, action, tenant, subject, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)", lines
        )
        connection.execute("DELETE FROM audit WHERE id = 2")  # in its time there was nothing that forbade it
    opened = Database.open(tmp_path)
    with opened.read() as session:
        found = check(session.connection())
        assert (found.lines, found.differences) == (4, [])
        hashes = session.connection().exec_driver_sql("SELECT sha256 FROM audit ORDER BY id").scalars().all()
    assert hashes[0] == link(GENESIS, Line(*lines[0]))
    assert hashes[1] == link(hashes[0], Line(*lines[2]))
    opened.close()
