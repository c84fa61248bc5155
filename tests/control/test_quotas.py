"""A quota of one month: plan, grants, resets, and the one count of what is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.control.database import Database
from gatewayd.control.quotas import KeyQuota, quota_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Key, QuotaGrant
from gatewayd.policy.buckets import month_of
from gatewayd.records import ADMITTED, MORE_BYTES, Record

NOW = 1_795_262_400  # 2026-11-21 12:00 UTC
START, END = month_of(NOW)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path)
    with database.write() as session:
        session.add(Key(id=7, public_id="ab12cd34", digest=b"d", tenant_id=1, created_at=0))
    yield database
    database.close()


def record(database: Database, units: int, at: float = NOW, flags: int = ADMITTED, key: int = 7) -> None:
    made = Record(flags, int(at * 1e9), 1, 1, 0, key, 0, 0, 1, 200, 0, units, 0, 0, 0, 0, b"")
    with database.write() as session:
        Rollups().add(session, [made])


def grant(database: Database, units: int, *, until: int | None = None, is_reset: bool = False, at: int = NOW) -> None:
    with database.write() as session:
        row = QuotaGrant(
            public_id=f"qgr_{session.connection().exec_driver_sql('SELECT count(*) FROM quota_grant').scalar()}",
            key_id=7, month=month_of(at)[0], units=units, is_reset=is_reset, until=until, created_at=at,
        )  # fmt: skip
        session.add(row)


def quota(database: Database, planned: int | None = 100, now: float = NOW) -> KeyQuota:
    return quota_of(database.lookup, 7, planned, now)


def test_used_are_the_units_of_this_months_admitted_requests(database: Database) -> None:
    record(database, 3)
    record(database, 1)
    record(database, 1, flags=0)  # refused
    record(database, 0, flags=MORE_BYTES)
    record(database, 50, at=START - 1)
    record(database, 50, at=END)
    record(database, 50, key=8)
    found = quota(database)
    assert (found.limit, found.used, found.remaining) == (100, 4, 96)
    assert (found.starts_at, found.ends_at, found.changes_at) == (START, END, END)
    without = quota(database, None)
    assert (without.limit, without.used, without.remaining) == (None, 4, None)


def test_a_grant_counts_until_its_end_and_in_its_month(database: Database) -> None:
    grant(database, 50)
    grant(database, 7, until=NOW + 60)
    grant(database, 1000, until=NOW)
    grant(database, 1000, at=START - 1)
    assert (quota(database).limit, quota(database).changes_at) == (157, NOW + 60)
    assert (quota(database, now=NOW + 60).limit, quota(database, now=NOW + 60).changes_at) == (150, END)
    assert quota(database, now=END).limit == 100


def test_a_reset_forgives_what_was_used_by_then(database: Database) -> None:
    record(database, 80)
    grant(database, 80, is_reset=True)
    assert (quota(database).used, quota(database).remaining) == (0, 100)
    record(database, 30)
    found = quota(database)
    assert (found.recorded, found.forgiven, found.used, found.remaining) == (110, 80, 30, 70)
    grant(database, 110, is_reset=True)
    assert quota(database).used == 0


def test_more_than_everything_used_leaves_nothing(database: Database) -> None:
    record(database, 130)
    assert quota(database).remaining == 0
