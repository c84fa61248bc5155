"""Which cycle a record is in: months of the tenant's zone, what comes late, what is closed."""

from __future__ import annotations

from datetime import datetime

import pytest

from gatewayd.control.cycles import end_now, mark_closed, open_at
from gatewayd.control.database import Database
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Tenant
from gatewayd.records import ADMITTED, Record


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def record(time: str) -> Record:
    return Record(ADMITTED, at(time) * 10**9, 1, 1, 0, 1, 0, 0, 1, 200, 0, 1, 0, 0, 0, 0, b"")


def add(database: Database, rollups: Rollups, *times: str) -> None:
    with database.write() as session:
        rollups.add(session, [record(time) for time in times])


def set_zone(database: Database, zone: str) -> None:
    with database.write() as session:
        tenant = session.get(Tenant, 1)
        assert tenant is not None
        tenant.time_zone = zone
        session.add(tenant)


def cycles(database: Database) -> list[tuple[str, int, int]]:
    """Period, requests and rows of rollups, in order of time; there must be no gap between them."""
    rows = database.lookup.exec_driver_sql(
        "SELECT period, starts_at, ends_at, coalesce(sum(requests), 0), count(hour) FROM cycle "
        "LEFT JOIN rollup ON cycle_id = cycle.id GROUP BY cycle.id ORDER BY starts_at"
    ).all()
    assert [row.ends_at for row in rows[:-1]] == [row.starts_at for row in rows[1:]]
    return [(row[0], row[3], row[4]) for row in rows]


def test_a_zone_of_half_an_hour_cuts_an_hour(database: Database) -> None:
    set_zone(database, "Asia/Kolkata")
    add(database, Rollups(), "2026-10-31T18:29:59Z", "2026-10-31T18:30:00Z", "2026-10-31T18:59:59Z")
    assert cycles(database) == [("2026-10", 1, 1), ("2026-11", 2, 1)]


def test_months_without_usage_are_opened_in_either_direction(database: Database) -> None:
    rollups = Rollups()
    add(database, rollups, "2026-11-21T12:00:00Z", "2027-02-01T00:00:00Z", "2026-08-31T23:59:59Z")
    assert cycles(database) == [
        ("2026-08", 1, 1),
        ("2026-09", 0, 0),
        ("2026-10", 0, 0),
        ("2026-11", 1, 1),
        ("2026-12", 0, 0),
        ("2027-01", 0, 0),
        ("2027-02", 1, 1),
    ]


def test_what_comes_late_is_in_the_oldest_cycle_that_is_open(database: Database) -> None:
    rollups = Rollups()
    add(database, rollups, "2026-11-21T12:00:00Z")
    with database.write() as session:
        connection = session.connection()
        running = open_at(connection, 1, at("2026-11-21T12:00:00Z"))
        ended = end_now(connection, running, at("2026-11-21T13:00:00Z"))
        mark_closed(connection, ended.id, at("2026-11-21T13:00:00Z"))
    add(database, rollups, "2026-11-21T12:00:00Z", "2026-11-21T12:59:59Z", "2026-11-21T13:00:00Z")
    assert cycles(database) == [("2026-11", 1, 1), ("2026-11.2", 3, 2)]
    with database.write() as session:
        connection = session.connection()
        rest = open_at(connection, 1, at("2026-11-30T12:00:00Z"))
        assert (rest.period, rest.ends_at) == ("2026-11.2", at("2026-12-01T00:00:00Z"))
        mark_closed(connection, rest.id, at("2026-12-01T01:00:00Z"))
    add(database, rollups, "2026-11-21T12:00:00Z")
    assert cycles(database) == [("2026-11", 1, 1), ("2026-11.2", 3, 2), ("2026-12", 1, 1)]


@pytest.mark.parametrize(("zone", "ends"), [("America/Los_Angeles", "-08:00"), ("Pacific/Kiritimati", "+14:00")])
def test_a_change_of_the_zone_holds_from_the_next_cycle_on(database: Database, zone: str, ends: str) -> None:
    rollups = Rollups()
    add(database, rollups, "2026-11-21T12:00:00Z")
    set_zone(database, zone)
    add(database, rollups, "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z", f"2026-12-31T23:59:59{ends}")
    add(database, rollups, f"2027-01-01T00:00:00{ends}")
    assert [cycle[:2] for cycle in cycles(database)] == [("2026-11", 2), ("2026-12", 2), ("2027-01", 1)]


def test_a_cycle_that_was_rolled_back_is_not_remembered(database: Database) -> None:
    rollups = Rollups()
    with pytest.raises(ZeroDivisionError), database.write() as session:
        rollups.add(session, [record("2026-11-21T12:00:00Z")])
        _ = 1 / 0
    rollups.forget()
    add(database, rollups, "2026-11-21T12:00:00Z")
    assert cycles(database) == [("2026-11", 1, 1)]
