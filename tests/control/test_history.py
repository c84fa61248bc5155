"""Days, retention and late records: the sums over any range are those of a plain model, whatever came between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Select, select, text
from sqlalchemy.dialects import sqlite

from gatewayd.control import usage
from gatewayd.control.batches import DAY_S, HOUR_S, batch_of, group_of
from gatewayd.control.charging import usage_of
from gatewayd.control.cycles import cycle_by_id
from gatewayd.control.database import Database
from gatewayd.control.days import GRACE_S, Days
from gatewayd.control.history import progress, sources
from gatewayd.control.ingest import Ingest
from gatewayd.control.quotas import _RECORDED
from gatewayd.control.rollups import Rollups
from gatewayd.policy.buckets import month_of
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, MORE_BYTES, SLOT_BYTES, Record, pack_record

FIRST = 1_793_491_200  # 2026-11-01T00:00:00Z
ADDED = st.tuples(st.integers(0, 6 * 24 - 1), st.integers(1, 3), st.integers(1, 4))  # hour, key, how many
ROLLED = st.integers(0, 8)  # the day that it is then
steps = st.lists(st.one_of(ADDED, ROLLED, st.just("crash")), max_size=12)
ranges = st.tuples(st.integers(0, 150), st.integers(1, 150))


def record(at_s: int, key: int = 1, **more: Any) -> bytes:
    fields = {"flags": ADMITTED, "status": 200, "units": 1} | more
    return pack_record(
        fields["flags"], at_s * 10**9, 1, 1, 0, key, 0, 0, 1, fields["status"], 0, fields["units"], 10, 100, 5,
        1000 * key, b"id".ljust(16),
    )  # fmt: skip


class Gateway:
    """Control's part of one: what a crash forgets is made anew, what is stored stays."""

    def __init__(self, folder: Path, keep_bytes: int = 0) -> None:
        self.folder = folder / "journal"
        self.folder.mkdir()
        self.database = Database.open(folder)
        self._keep_bytes = keep_bytes
        self._journals = 0
        self.begin()

    def begin(self) -> None:
        self.ingest = Ingest(self.database, self.folder, lambda *_: None, lambda _: None, self._keep_bytes)
        self.days = Days(self.database, self.ingest.rollups, 2, 1000)

    def empty(self) -> None:
        with self.database.write() as session:
            for name in ("rollup", "rollup_day", "tally", "segment", "progress", "cycle"):
                session.connection().exec_driver_sql(f"DELETE FROM {name}")
        self.begin()

    def add(self, records: list[bytes]) -> None:
        self._journals += 1
        journal = Journal(self.folder, self._journals.to_bytes(16), self._journals)
        for each in records:
            journal.append(each)
        journal.close()

    def take(self) -> None:
        while self.ingest.step() or self.ingest.segments:
            pass

    def roll(self, now: int) -> None:
        asyncio.run(self.days.step(now))

    def requests(self, since: int, until: int, **filters: Any) -> int:
        with self.database.read() as session:
            question = usage.Question(since, until, tenant_id=1, **filters)
            total = usage.usage(session.connection(), question)["total"]
        return int(total["requests"])

    def rows(self, statement: str) -> list[Any]:
        return list(self.database.lookup.exec_driver_sql(statement).all())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.database.close()


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.lists(ranges, min_size=3, max_size=6))
def test_sums_over_any_range_are_those_of_a_model(
    gateway: Gateway, steps: list[Any], asked: list[tuple[int, int]]
) -> None:
    """Records of any hour in any order; days rolled before and after them; control begins anew with what is stored."""
    gateway.empty()
    model: dict[tuple[int, int], int] = {}
    for step in steps:
        match step:
            case (hour, key, count):
                gateway.add([record(FIRST + hour * HOUR_S + place, key) for place in range(count)])
                gateway.take()
                model[hour, key] = model.get((hour, key), 0) + count
            case "crash":
                gateway.begin()
            case day:
                gateway.roll(FIRST + day * DAY_S + GRACE_S)
    for start, length in [*asked, (0, 200)]:
        since, until = FIRST + start * HOUR_S, FIRST + (start + length) * HOUR_S
        expected = sum(n for (hour, _), n in model.items() if start <= hour < start + length)
        assert gateway.requests(since, until) == expected
        assert gateway.requests(since, until, interval="hour") == expected
        of_one = sum(n for (hour, key), n in model.items() if key == 1 and start <= hour < start + length)
        assert gateway.requests(since, until, key_id=1) == of_one
    with gateway.database.read() as session:
        for (cycle_id,) in gateway.rows("SELECT id FROM cycle"):
            billed = {
                each.key_id: each.requests
                for each in usage_of(session.connection(), cycle_by_id(session.connection(), cycle_id))
            }
            by_key = {key: sum(n for (_, own), n in model.items() if own == key) for _, key in model}
            assert billed == by_key
    assert sum(model.values()) == (gateway.rows("SELECT sum(requests) FROM tally")[0][0] or 0)


def test_a_day_is_rolled_once_it_is_over_and_late_records_are_in_both(gateway: Gateway) -> None:
    gateway.add([record(FIRST + hour * HOUR_S, key) for hour in (0, 1, 23, 25) for key in (1, 2)])
    gateway.take()
    gateway.roll(FIRST + DAY_S + GRACE_S - 1)
    assert gateway.rows("SELECT count(*) FROM rollup_day") == [(0,)]
    gateway.roll(FIRST + DAY_S + GRACE_S)
    assert gateway.rows("SELECT day, key_id, requests FROM rollup_day") == [(FIRST, 1, 3), (FIRST, 2, 3)]
    gateway.add([record(FIRST + 5 * HOUR_S), record(FIRST + 26 * HOUR_S)])
    gateway.take()
    assert gateway.rows("SELECT key_id, requests FROM rollup_day") == [(1, 4), (2, 3)]
    assert gateway.requests(FIRST, FIRST + DAY_S) == 7
    assert gateway.requests(FIRST, FIRST + 2 * DAY_S) == 10


def test_records_that_come_while_their_day_is_rolled_are_in_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.add([record(FIRST + 60)])
    gateway.take()
    summed = gateway.days._summed
    came: list[int] = []

    def sum_and_add(tenant_id: int, day: int) -> Any:
        rows = summed(tenant_id, day)
        if not came:
            came.append(day)
            gateway.add([record(FIRST + 61), record(FIRST + DAY_S + 1)])
        return rows

    async def roll() -> None:
        rolling = asyncio.create_task(gateway.days.step(FIRST + DAY_S + GRACE_S))
        while not rolling.done():
            gateway.ingest.step()
            await asyncio.sleep(0)
        await rolling

    monkeypatch.setattr(gateway.days, "_summed", sum_and_add)
    asyncio.run(roll())
    gateway.take()
    assert came == [FIRST]
    assert gateway.rows("SELECT requests FROM rollup_day") == [(2,)]


def test_whatever_fails_days_are_rolled_later(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.add([record(FIRST + 60)])
    gateway.take()
    with monkeypatch.context() as patched:
        patched.setattr(gateway.days, "_summed", lambda *_: 1 // 0)
        gateway.roll(FIRST + DAY_S + GRACE_S)
    assert gateway.rows("SELECT count(*) FROM rollup_day") == [(0,)]
    gateway.roll(FIRST + DAY_S + GRACE_S)
    assert gateway.rows("SELECT requests FROM rollup_day") == [(1,)]


async def roll_beside_ingest(gateway: Gateway, now: int) -> None:
    rolling = asyncio.create_task(gateway.days.step(now))
    while not rolling.done():
        gateway.ingest.step()
        await asyncio.sleep(0)
    await rolling


def test_the_first_records_of_a_day_may_come_while_it_is_rolled(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.add([record(FIRST + 60)])
    gateway.take()
    gateway.roll(FIRST + DAY_S + GRACE_S)
    tenants = gateway.days._tenants

    def found_before_they_came(day: int) -> list[int]:
        found = tenants(day)
        gateway.add([record(day + 61)])
        give_up_at = time.monotonic() + 10
        while not gateway.ingest.rollups.touched and time.monotonic() < give_up_at:
            time.sleep(0.001)
        return found

    monkeypatch.setattr(gateway.days, "_tenants", found_before_they_came)
    asyncio.run(roll_beside_ingest(gateway, FIRST + 2 * DAY_S + GRACE_S))
    assert gateway.rows("SELECT day, requests FROM rollup_day") == [(FIRST, 1), (FIRST + DAY_S, 1)]


def test_records_of_the_day_before_the_very_first_may_come_while_that_is_rolled(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.add([record(FIRST + DAY_S + 60)])
    gateway.take()
    summed = gateway.days._summed
    came: list[int] = []

    def sum_and_add(tenant_id: int, day: int) -> Any:
        if not came:
            came.append(day)
            gateway.add([record(FIRST + 60)])
            give_up_at = time.monotonic() + 10
            while gateway.rows("SELECT count(*) FROM rollup") != [(2,)] and time.monotonic() < give_up_at:
                time.sleep(0.001)
        return summed(tenant_id, day)

    monkeypatch.setattr(gateway.days, "_summed", sum_and_add)
    asyncio.run(roll_beside_ingest(gateway, FIRST + 2 * DAY_S + GRACE_S))
    assert gateway.rows("SELECT day, requests FROM rollup_day") == [(FIRST, 1), (FIRST + DAY_S, 1)]


def test_what_is_old_goes_once_it_is_billed_and_not_before(gateway: Gateway) -> None:
    """Hours are kept for two days here. The quota month of `now` begins after all of them."""
    gateway.add([record(FIRST + day * DAY_S + hour * HOUR_S) for day in range(6) for hour in (1, 2)])
    gateway.take()
    now = month_of(FIRST)[1] + DAY_S + GRACE_S
    gateway.roll(now)
    assert gateway.rows("SELECT count(*) FROM rollup") == [(12,)], "the cycle is open"
    with gateway.database.write() as session:
        session.connection().exec_driver_sql("UPDATE cycle SET closed_at = 1")
    gateway.roll(now + DAY_S)
    assert gateway.rows("SELECT count(*) FROM rollup") == [(0,)]
    assert gateway.rows("SELECT count(*) FROM rollup_day") == [(6,)]
    assert gateway.requests(FIRST, FIRST + 6 * DAY_S) == 12
    # A part of a day whose hours are gone: the whole day, and the answer says so.
    with gateway.database.read() as session:
        question = usage.Question(FIRST + HOUR_S, FIRST + 2 * HOUR_S, tenant_id=1)
        answered = usage.usage(session.connection(), question)
    assert (answered["since"], answered["until"]) == ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")
    assert answered["total"]["requests"] == 2


def test_hours_of_the_present_quota_month_stay(gateway: Gateway) -> None:
    gateway.add([record(FIRST + 60)])
    gateway.take()
    with gateway.database.write() as session:
        session.connection().exec_driver_sql("UPDATE cycle SET closed_at = 1")
    gateway.roll(FIRST + 20 * DAY_S)
    assert gateway.rows("SELECT count(*) FROM rollup") == [(1,)]


def plan_of(database: Database, query: Select[Any]) -> list[str]:
    statement = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    return [row[3] for row in database.lookup.execute(text("EXPLAIN QUERY PLAN " + statement.replace(":", r"\:")))]


@pytest.mark.parametrize("filters", [{"tenant_id": 1}, {"tenant_id": 1, "key_id": 1}, {"key_id": 1}])
@pytest.mark.parametrize("by", [(), ("key",), ("service", "status")])
@pytest.mark.parametrize("interval", [None, "hour", "day"])
def test_usage_is_found_by_an_index(gateway: Gateway, filters: dict[str, int], by: Any, interval: Any) -> None:
    gateway.add([record(FIRST + day * DAY_S) for day in range(4)])
    gateway.take()
    gateway.roll(FIRST + 3 * DAY_S)
    assert progress(gateway.database.lookup)["rolled_until"] == FIRST + 2 * DAY_S
    question = usage.Question(FIRST + HOUR_S, FIRST + 5 * DAY_S, by, interval, **filters)
    queries = usage.queries(gateway.database.lookup, question)
    assert len(queries) == (1 if interval == "hour" else 3)
    for query in queries:
        steps = [step for step in plan_of(gateway.database, query) if "rollup" in step]
        assert all(step.startswith("SEARCH rollup") and "USING" in step for step in steps), steps
        assert steps


def test_bills_and_quotas_are_found_by_an_index(gateway: Gateway) -> None:
    gateway.add([record(FIRST)])
    gateway.take()
    cycle = cycle_by_id(gateway.database.lookup, 1)
    wanted = [select(each.table.c.requests).where(*each.of(cycle)) for each in sources(gateway.database.lookup)]
    quota = _RECORDED.params(key_id=1, start=0, end=1)
    for query in (*wanted, quota):
        steps = [step for step in plan_of(gateway.database, query) if "rollup" in step]
        assert all(step.startswith("SEARCH rollup") for step in steps), steps
        assert steps


def test_a_batch_that_is_stored_again_counts_as_it_did(database: Database) -> None:
    """Two groups of one row: storing failed once. Nothing of what others read of the batch may have changed."""
    batch = batch_of(record(FIRST, status=200) + record(FIRST, status=201) + record(FIRST, status=200))
    rollups = Rollups()
    counted = []
    for _ in range(2):
        with database.write() as session:
            counted.append(rollups.add_batch(session, batch))
            session.rollback()
        rollups.forget()
    assert counted[0].requests == counted[1].requests == 3
    assert [len(group.micros) for group in batch.groups] == [2, 1]


records = st.builds(
    Record,
    flags=st.sampled_from([0, ADMITTED, MORE_BYTES]),
    time_ns=st.integers(FIRST * 10**9, (FIRST + 2 * HOUR_S) * 10**9),
    tenant=st.just(1), service=st.integers(0, 2), route=st.just(0), key=st.integers(0, 2), client=st.just(0),
    identity=st.just(0), price=st.integers(0, 1), status=st.sampled_from([200, 201, 404, 500]),
    problem=st.integers(0, 1), units=st.integers(0, 9), bytes_in=st.integers(0, 1 << 40),
    bytes_out=st.integers(0, 1 << 40), gateway_us=st.integers(0, 1 << 31), upstream_us=st.integers(0, 1 << 31),
    request_id=st.just(b"r" * 16), generation=st.integers(0, 2),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=30))
def test_records_grouped_by_their_bytes_add_up_to_the_same(database: Database, made: list[Record]) -> None:
    """Groups are read from slices of slots; one by one they are read by `records`."""
    batch = batch_of(b"".join(pack_record(*each) for each in made) + bytes(SLOT_BYTES))
    assert batch.records() == made
    assert sum(len(group.micros) for group in batch.groups) == len(made)
    assert all(any(group.is_of(each) for group in batch.groups) for each in made)
    sums = []
    for whole in (True, False):
        with database.write() as session:
            connection = session.connection()
            connection.exec_driver_sql("DELETE FROM rollup")
            rollups = Rollups()
            counts = rollups.add_batch(session, batch) if whole else rollups.add(session, made)
            sums.append((counts, connection.exec_driver_sql("SELECT * FROM rollup").all()))
    assert sums[0] == sums[1]
    assert [group_of(each).hour for each in made] == [each.time_ns // 10**9 // 3600 * 3600 for each in made]
