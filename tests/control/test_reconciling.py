"""`usage verify`: whatever is counted twice agrees, and one altered row of any kind is named."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest

from gatewayd.control.batches import DAY_S
from gatewayd.control.database import FILE_NAME
from gatewayd.control.days import Days
from gatewayd.control.ingest import Ingest
from gatewayd.policy.buckets import month_of
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, pack_record
from tests.control.conftest import Admin

NOW = time.time_ns() // 10**9
TODAY = NOW - NOW % DAY_S


@pytest.fixture
def used(admin: Admin) -> Admin:
    """Usage of today and yesterday, the latter rolled; the segment is kept; a quota is counted."""
    admin.post("/v1/services", slug="orders", targets=["http://127.0.0.1:8001"])
    admin.post("/v1/keys", name="ci")
    folder = admin.control.settings.state_dir / "journal"
    folder.mkdir()
    journal = Journal(folder, b"w" * 16, 1)
    for at, count in ((TODAY - 3600, 5), (TODAY - 7200, 2), (NOW, 3)):
        for _ in range(count):
            journal.append(
                pack_record(ADMITTED, at * 10**9, 1, 1, 0, 1, 0, 0, 1, 200, 0, 2, 10, 100, 5, 1000, b"id".ljust(16))
            )
    journal.close()
    database = admin.control.database
    ingest = Ingest(database, folder, lambda *_: None, lambda _: None, keep_bytes=1 << 20)
    while ingest.segments or ingest.step():
        ingest.step()
    admin.run(Days(database, ingest.rollups, 90, 1100).step(TODAY + DAY_S - 1 if NOW - TODAY < 1000 else NOW))
    start = month_of(NOW)[0]
    of_month = sum(2 * count for at, count in ((TODAY - 3600, 5), (TODAY - 7200, 2), (NOW, 3)) if at >= start)
    admin.plane.counted = {1: (start, of_month)}
    return admin


def alter(admin: Admin, statement: str) -> list[dict[str, Any]]:
    """What is found after somebody has changed the database behind our back."""
    with sqlite3.connect(admin.control.settings.state_dir / FILE_NAME) as other:
        for name in ("merge_histograms", "sum_histograms"):
            other.create_function(name, -1, lambda *_: None)
        assert other.execute(statement).rowcount == 1
    other.close()
    answered = admin.get("/v1/usage/verify")
    assert answered["ok"] is False
    found: list[dict[str, Any]] = answered["differences"]
    return found


def test_all_is_well(used: Admin) -> None:
    answered = used.get("/v1/usage/verify")
    assert answered["differences"] == []
    assert answered["ok"] is True
    assert answered["checked"]["segments"] == 1
    assert answered["checked"]["days"] == 2
    assert used.plane.told[-1] == "caught up"


def test_a_segment_that_was_counted_otherwise_is_named(used: Admin) -> None:
    (difference,) = alter(used, "UPDATE segment SET billable = billable + 1")
    assert difference["what"] == "journal"
    assert difference["where"].endswith("-000000.gwj")
    assert (difference["expected"], difference["found"]) == (10, 11)
    assert difference["detail"] == "billable differ by 1"


def test_an_altered_hour_of_today_is_named(used: Admin) -> None:
    found = alter(used, f"UPDATE rollup SET requests = requests - 1 WHERE hour >= {TODAY}")
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    assert [(each["what"], each["expected"], each["found"]) for each in found] == [("rollup", 3, 2)]
    assert found[0]["where"].startswith(day)


def test_an_altered_day_is_named_twice(used: Admin) -> None:
    found = alter(used, "UPDATE rollup_day SET bytes_out = 1")
    assert [(each["what"], each["expected"], each["found"]) for each in found] == [("rollup", 700, 1), ("day", 700, 1)]
    assert "orders, gw_" in found[1]["where"]


def test_an_altered_hour_of_a_rolled_day_is_named(used: Admin) -> None:
    found = alter(used, f"UPDATE rollup SET billable = 7 WHERE hour = {(TODAY - 3600) // 3600 * 3600}")
    assert [(each["what"], each["expected"], each["found"]) for each in found] == [("day", 9, 7)]


def test_a_removed_rollup_is_named(used: Admin) -> None:
    found = alter(used, "DELETE FROM rollup_day")
    assert ("rollup", 7, 0) in [(each["what"], each["expected"], each["found"]) for each in found]


def test_an_altered_control_total_is_named(used: Admin) -> None:
    found = alter(used, f"UPDATE tally SET units = 0 WHERE day = {TODAY}")
    assert [(each["what"], each["expected"], each["found"]) for each in found] == [("rollup", 0, 6)]


def test_a_quota_that_counts_otherwise_is_named(used: Admin) -> None:
    ((_, units),) = used.plane.counted.values()
    used.plane.counted = {1: (month_of(NOW)[0], units + 1)}
    (difference,) = used.get("/v1/usage/verify")["differences"]
    assert (difference["what"], difference["expected"], difference["found"]) == ("quota", units, units + 1)


def test_a_ledger_that_bills_otherwise_is_named(used: Admin) -> None:
    """The ledger of a closed cycle, written by hand here."""
    with used.control.database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("UPDATE cycle SET closed_at = 1")
        sums = "SELECT cycle_id, sum(billable), sum(billable_units), sum(billable_bytes) FROM rollup GROUP BY cycle_id"
        for cycle_id, *numbers in connection.exec_driver_sql(sums).all():
            connection.exec_driver_sql(
                "INSERT INTO ledger (tenant_id, cycle_id, at, kind, key_id, service_id, price_id, first_day, requests, "
                "units, size_bytes, nanos, reason, author, facts) VALUES (1, ?, 1, 'usage', 1, 1, 1, 0, ?, ?, ?, 0, "
                "'', '', '{}')",
                (cycle_id, *numbers),
            )
    assert used.get("/v1/usage/verify")["ok"] is True
    insert = (
        "INSERT INTO ledger (tenant_id, cycle_id, at, kind, key_id, service_id, price_id, first_day, requests, units, "
        "size_bytes, nanos, reason, author, facts) SELECT 1, max(id), 1, 'usage', 1, 1, 1, 0, 4, 0, 0, 0, '', '', '{}' "
        "FROM cycle"
    )
    (difference,) = alter(used, insert)
    assert (difference["what"], difference["expected"] - difference["found"]) == ("invoice", 4)
    assert difference["detail"] == "requests differ by -4"
