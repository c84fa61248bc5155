"""`usage export`: every row of usage with its names, as of one moment, however long it takes to read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatewayd.control.admin import usage_export
from gatewayd.control.exporting import PAGE_ROWS
from gatewayd.control.tables import Cycle, Progress, Rollup, RollupDay
from gatewayd.policy.histogram import Histogram
from tests.control.conftest import Admin
from tests.control.streaming import streaming
from tests.control.test_usage_top import DAY, FIRST, HOUR, columns

EXPORT = "/v1/usage/export"
RANGE = {"since": "2026-09-01T00:00:00Z", "until": "2026-09-04T00:00:00Z"}
QUERY = "since=2026-09-01T00:00:00Z&until=2026-09-04T00:00:00Z"


def exported(admin: Admin, **query: Any) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        text = "&".join(f"{name}={value}" for name, value in (RANGE | query).items())
        async with streaming(admin.app, EXPORT, text) as stream:
            assert stream.status == 200
            while not stream.over:
                await asyncio.sleep(0.001)
            return stream.rest()

    return asyncio.run(read())


def latency(*micros: int) -> bytes:
    histogram = Histogram()
    for value in micros:
        histogram.add(value)
    return histogram.pack()


@pytest.fixture
def used(admin: Admin) -> Admin:
    """The first day has a row of its own, which is all that is left of it; the second two hours."""
    admin.post("/v1/services", slug="orders", targets=["http://127.0.0.1:8001"])
    admin.post("/v1/keys", name="ci")
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=1, period="2026-09", starts_at=FIRST, ends_at=FIRST + 30 * DAY))
        session.add(Progress(name="rolled_until", value=FIRST + DAY))
        session.add(RollupDay(day=FIRST, **columns(requests=100, billable=20)))
        for hour, number, micros in ((1, 3, 1000), (2, 4, 9000)):
            row = columns(requests=number, billable=number, billable_bytes=7, latency=latency(micros))
            session.add(Rollup(hour=FIRST + DAY + hour * HOUR, **row))
        session.add(Rollup(hour=FIRST + DAY + HOUR, **columns(refused=2, status_class=4, key_id=0)))
    return admin


def test_a_row_has_its_names_and_all_that_is_counted(used: Admin) -> None:
    (key,) = used.get("/v1/keys")["items"]
    refused, first, second = exported(used)
    assert first == {
        "time": "2026-09-02T01:00:00Z", "period": "2026-09", "tenant": "default", "service": "orders", "route": "-",
        "key": key["prefix"], "client": "-", "status": "2xx", "requests": 3, "billable": 3, "errors": 0, "refused": 0,
        "units": 0, "bytes_in": 0, "bytes_out": 0, "billable_units": 0, "billable_bytes": 7,
        "p50_ms": pytest.approx(1, rel=1 / 16), "p95_ms": pytest.approx(1, rel=1 / 16),
        "p99_ms": pytest.approx(1, rel=1 / 16), "price": "0.001", "cost": "0.003",
    }  # fmt: skip
    assert (refused["key"], refused["status"], refused["refused"], refused["p50_ms"]) == ("-", "4xx", 2, None)
    assert (second["time"], second["requests"]) == ("2026-09-02T02:00:00Z", 4)
    assert used.plane.told[-1] == "caught up"


def test_days_are_their_own_rows_or_the_sum_of_their_hours(used: Admin) -> None:
    rows = exported(used, granularity="day", since="2026-09-01T05:00:00Z")
    named = sorted((row["time"], row["status"], row["requests"], row["refused"], row["cost"]) for row in rows)
    assert named == [
        ("2026-09-01T00:00:00Z", "2xx", 100, 0, "0.02"),
        ("2026-09-02T00:00:00Z", "2xx", 7, 0, "0.007"),
        ("2026-09-02T00:00:00Z", "4xx", 0, 2, "0"),
    ]
    (summed,) = [row for row in rows if row["requests"] == 7]
    assert summed["p50_ms"] == pytest.approx(1, rel=1 / 16)
    assert summed["p99_ms"] == pytest.approx(9, rel=1 / 16)
    assert summed["billable_bytes"] == 14


def test_it_is_of_one_moment_and_a_page_at_a_time(used: Admin) -> None:
    """What is added while somebody reads is not in it, also where it was not yet read."""
    with used.control.database.write() as session:
        for number in range(3 * PAGE_ROWS):
            session.add(Rollup(hour=FIRST + DAY + 3 * HOUR, **columns(requests=1, key_id=10 + number)))

    async def read() -> int:
        async with streaming(used.app, EXPORT, QUERY) as stream:
            await stream.line()
            stream.reads.clear()
            with used.control.database.write() as session:
                session.add(Rollup(hour=FIRST + DAY + 4 * HOUR, **columns(requests=1)))
            stream.reads.set()
            while not stream.over:
                await asyncio.sleep(0.001)
            return 1 + len(stream.rest())

    assert asyncio.run(read()) == 3 + 3 * PAGE_ROWS
    assert len(exported(used)) == 4 + 3 * PAGE_ROWS
    assert used.control.exports.running == 0


def test_only_so_many_at_once_and_who_does_not_read_is_cut_off(used: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_export, "EXPORTS", 1)
    monkeypatch.setattr(usage_export, "PATIENCE_S", 0.05)

    async def scenario() -> None:
        async with streaming(used.app, EXPORT, QUERY) as stream:
            stream.reads.clear()
            async with streaming(used.app, EXPORT, QUERY) as second:
                assert second.status == 503
            while used.control.exports.running:
                await asyncio.sleep(0.001)
            assert not stream.over, "a broken answer must not look whole"

    asyncio.run(scenario())


def test_who_leaves_early_leaves_nothing_open(used: Admin) -> None:
    async def leave() -> None:
        async with streaming(used.app, EXPORT, QUERY):
            pass

    asyncio.run(leave())
    assert used.control.exports.running == 0


def test_what_cannot_be_exported(admin: Admin) -> None:
    for query in ({"granularity": "week"}, {"since": "2026-09-02", "until": "2026-09-01"}, {"by": "key"}):
        admin.refused("invalid", "GET", EXPORT, params=query)
    admin.refused("not_found", "GET", EXPORT, params={"tenant": "nobody"})
