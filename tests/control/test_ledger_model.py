"""A plain model of cycles and bills, and the ledger, are told the same story; they must agree to the nano.

The story: requests on time and late, the clock, closings and resets at any moment, credits; in any time zone.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.control import billing, closing
from gatewayd.control.admin.changes import Change
from gatewayd.control.cycles import oldest_due, open_for
from gatewayd.control.database import FILE_NAME, Database
from gatewayd.control.ledger import append
from gatewayd.control.prices import price_id_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Key, Tenant
from gatewayd.control.verification import made_anew, verify
from gatewayd.errors import GatewayError
from gatewayd.policy.invoicing import Entry
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Terms, Tier
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import FakePlane

DAY_S = 86400
BEGIN = 1_700_000_000  # 2023-11-14
LINEAR = Terms(request_nanos=3, unit_nanos=2)
TIERED = Terms(mode="graduated", tiers=(Tier(10, 5), Tier(None, 2)), base_nanos=100, minimum_nanos=150)


@dataclass
class Segment:
    """A cycle of the model. `used` are the requests of key 1 and of key 2, of two units each."""

    month: str
    start: int
    end: int
    closed: bool = False
    used: list[int] = field(default_factory=lambda: [0, 0])
    credited: int = 0
    total: int = 0

    def subtotal(self, now: int) -> int:
        cost = self.used[0] * (3 + 2 * 2)
        tiered = sum(5 if number < 10 else 2 for number in range(self.used[1]))
        return cost + (max(150, 100 + tiered) if now >= self.start else tiered)


class Model:
    """Months found by asking the calendar; everything else by looking at every cycle."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.cycles: list[Segment] = []
        self.issued: list[Segment] = []

    def month(self, at: int) -> tuple[int, int]:
        local = datetime.fromtimestamp(at, self.zone)
        return local.year, local.month

    def edge(self, low: int, high: int) -> int:
        """The first second of the month that `high` is in and `low` is not."""
        wanted = self.month(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.month(middle) >= wanted else (middle, high)
        return high

    def natural(self, at: int) -> Segment:
        first = last = at
        while self.month(first) == self.month(at):
            first -= 10 * DAY_S
        while self.month(last) == self.month(at):
            last += 10 * DAY_S
        year, month = self.month(at)
        return Segment(f"{year}-{month:02}", self.edge(first, at), self.edge(at, last))

    def cover(self, at: int) -> Segment:
        while True:
            for cycle in self.cycles:
                if cycle.start <= at < cycle.end:
                    return cycle
            if not self.cycles:
                self.cycles = [self.natural(at)]
            elif at < self.cycles[0].start:
                self.cycles.insert(0, self.natural(self.cycles[0].start - 1))
            else:
                self.cycles.append(self.natural(self.cycles[-1].end))

    def open_for(self, at: int) -> Segment:
        cycle = self.cover(at)
        while cycle.closed:
            cycle = self.cover(cycle.end)
        return cycle

    def close(self, cycle: Segment, now: int) -> None:
        due = cycle.subtotal(now) + cycle.credited
        cycle.closed, cycle.total = True, max(0, due)
        self.issued.append(cycle)
        if due < 0:
            self.open_for(cycle.end).credited += due

    def tick(self, now: int) -> None:
        due = sorted((c for c in self.cycles if not c.closed and c.end + 3600 <= now), key=lambda cycle: cycle.end)
        self.cover(now)
        for cycle in due:
            self.close(cycle, now)

    def reset(self, now: int) -> bool:
        cycle = self.open_for(now)
        if cycle.start > now:
            return False
        place = self.cycles.index(cycle)
        if now + 1 < cycle.end:
            self.cycles.insert(place + 1, Segment(cycle.month, now + 1, cycle.end))
        cycle.end = now + 1
        self.close(cycle, now + 1)
        return True


class Told:
    """The gateway's side of the same story."""

    def __init__(self, folder: Path, zone: str) -> None:
        self.database = Database(folder / FILE_NAME)
        self.rollups = Rollups()
        with self.database.write() as session:
            session.get_one(Tenant, 1).time_zone = zone
            for number, terms in enumerate((LINEAR, TIERED), start=1):
                own = msgspec.json.encode({"price_id": price_id_of(session, terms)}).decode()
                key = Key(public_id=f"key{number:05}", digest=bytes([number]), tenant_id=1, created_at=0, overrides=own)
                session.add(key)
        self.prices = [price_id for (price_id,) in self.rows("SELECT id FROM price WHERE terms <> '{}' ORDER BY id")][
            -2:
        ]

    def rows(self, query: str) -> list[Any]:
        return list(self.database.lookup.exec_driver_sql(query).all())

    def use(self, key: int, requests: int, at: int) -> None:
        of = (1, 1, 0, key, 0, 0, self.prices[key - 1], 200, 0, 2, 5, 5, 0, 0, b"")
        with self.database.write() as session:
            self.rollups.add(session, [Record(ADMITTED, at * 10**9 + 5, *of)] * requests)

    def tick(self, now: int) -> None:
        asyncio.run(closing.close_due(self.database, FakePlane(), now, 3600))

    def reset(self, now: int) -> bool:
        try:
            with self.database.write() as session:
                closing.reset(Change(session, "somebody", now), 1)
        except GatewayError:
            return False
        return True

    def close(self, now: int) -> None:
        with self.database.write() as session:
            cycle = oldest_due(session.connection(), 1, now)
            if cycle is not None:
                closing.close(Change(session, "somebody", now), cycle)

    def credit(self, nanos: int, now: int) -> None:
        with self.database.write() as session:
            entry = Entry("adjustment", now, nanos=nanos, reason="a reason", author="somebody")
            append(session.connection(), open_for(session.connection(), 1, now), [entry])

    def cycles(self) -> list[tuple[Any, ...]]:
        """Bounds, whether it is closed, and the requests of either key."""
        return self.rows(
            "SELECT starts_at, ends_at, closed_at IS NOT NULL, "
            "coalesce((SELECT sum(requests) FROM rollup WHERE cycle_id = cycle.id AND key_id = 1), 0), "
            "coalesce((SELECT sum(requests) FROM rollup WHERE cycle_id = cycle.id AND key_id = 2), 0) "
            "FROM cycle ORDER BY starts_at"
        )


steps = st.one_of(
    st.tuples(st.just("use"), st.sampled_from([1, 2]), st.integers(1, 12), st.integers(0, 75 * DAY_S)),
    st.tuples(st.just("use"), st.sampled_from([1, 2]), st.integers(1, 12), st.integers(0, 7200)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("close")),
    st.tuples(st.just("reset")),
    st.tuples(st.just("credit"), st.integers(-2000, 300)),
)
# Half-hour and 45-minute zones, midnights that are missing or twice, and all the rest.
odd = ["Asia/Kolkata", "Asia/Kathmandu", "America/Havana", "America/Asuncion", "Pacific/Kiritimati", "Africa/Cairo"]
zones = st.sampled_from(odd) | st.sampled_from(sorted(available_timezones() - {"localtime"}))
stories = st.lists(st.tuples(st.integers(0, 20 * DAY_S) | st.integers(0, 2), steps), min_size=1, max_size=25)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    Database.open(folder).close()
    return folder / FILE_NAME


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(zones, stories)
def test_the_model_and_the_ledger_agree(template: Path, zone: str, story: list[tuple[int, tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(template, folder)
        model, told = Model(zone), Told(Path(folder), zone)
        try:
            now = BEGIN
            for wait, (verb, *arguments) in story:
                now += wait
                tell(model, told, now, verb, *arguments)
            compare(model, told, now, linear=sum(a[1] for _, (verb, *a) in story if verb == "use" and a[0] == 1))
        finally:
            told.database.close()


def tell(model: Model, told: Told, now: int, verb: str, *arguments: int) -> None:
    if verb == "use":
        key, requests, late = arguments
        model.open_for(now - late).used[key - 1] += requests
        told.use(key, requests, now - late)
    elif verb == "tick":
        model.tick(now)
        told.tick(now)
    elif verb == "close":
        due = [cycle for cycle in model.cycles if not cycle.closed and cycle.end <= now]
        if due:
            model.close(due[0], now)
        told.close(now)
    elif verb == "reset":
        assert told.reset(now) == model.reset(now)
    else:
        model.open_for(now).credited += arguments[0]
        told.credit(arguments[0], now)


def compare(model: Model, told: Told, now: int, linear: int) -> None:
    assert told.cycles() == [(c.start, c.end, int(c.closed), *c.used) for c in model.cycles]
    connection = told.database.lookup
    bodies = [msgspec.json.decode(body) for (body,) in told.rows("SELECT body FROM invoice ORDER BY id")]
    assert [body["number"] for body in bodies] == [f"INV-{number:06}" for number in range(1, len(bodies) + 1)]
    by_start = {msgspec.convert(body["starts_at"], datetime).timestamp(): body for body in bodies}
    assert len(by_start) == len(model.issued)
    for cycle in model.issued:
        body = by_start[cycle.start]
        assert body["total"] == format_nanos(cycle.total)
        assert body["credited"] == format_nanos(cycle.credited)
    assert verify(connection, None) == {"invoices": len(bodies), "ok": True, "differences": []}
    for cycle_id, body in told.rows("SELECT cycle_id, body FROM invoice"):
        assert made_anew(connection, cycle_id).decode() == body
    billed = sum(line["requests"] * 3 + line["units"] * 2 for body in bodies for line in of_key_1(body["lines"]))
    for cycle in model.cycles:
        if not cycle.closed:
            (period,) = told.rows(f"SELECT period FROM cycle WHERE starts_at = {cycle.start}")[0]
            assert period.partition(".")[0] == cycle.month
            bill = billing.bill(connection, 1, period, now)
            assert bill["subtotal"] == format_nanos(cycle.subtotal(now))
            body = billing.preview(connection, 1, period, now)
            assert (body["subtotal"], body["total"]) == (bill["subtotal"], bill["total"])
            billed += sum(line["requests"] * 3 + line["units"] * 2 for line in of_key_1(body["lines"]))
    assert billed == linear * (3 + 2 * 2), "what is linear costs the same however it is cut into bills"


def of_key_1(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["key"] == "gw_key00001"]
