"""Spending: told once a cycle, by the live bill, and added up only for those whose usage has moved."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest
from sqlalchemy import func
from sqlmodel import col, select

from gatewayd.control import spending_alerts
from gatewayd.control.batches import group_of
from gatewayd.control.charging import charges_of
from gatewayd.control.cycles import CycleRow
from gatewayd.control.database import Database
from gatewayd.control.rollups import Rollups
from gatewayd.control.spending_alerts import LOOK_AGAIN_S, SpendingAlerts
from gatewayd.control.tables import Alert, AlertEvent, Key, Tenant
from gatewayd.policy.buckets import month_of
from gatewayd.records import ADMITTED, Record

NOW = 1_795_262_400  # 2026-11-21 12:00 UTC
START, END = month_of(NOW)
MILLI = 1_000_000  # nanos, the default price of a request


class House:
    """Keys 1 and 2 are of tenant 1, key 3 of tenant 2; a request costs 0.001."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.monotonic_s = 0.0
        with database.write() as session:
            session.add(Tenant(id=2, public_id="ten_2", slug="acme", created_at=0, currency="EUR"))
            session.flush()
            for number in (1, 2, 3):
                session.add(
                    Key(id=number, public_id=f"{number:08}", name=f"k{number}", digest=bytes([number]),
                        tenant_id=1 if number < 3 else 2, created_at=0)
                )  # fmt: skip
        self.start()

    def start(self) -> None:
        self.alerts = SpendingAlerts(self.database)

    def alert(self, nanos: int, key_id: int | None = None, tenant_id: int = 1) -> None:
        with self.database.write() as session:
            count = session.execute(select(func.count()).select_from(Alert)).scalar_one()
            session.add(Alert(public_id=f"alr_{count + 1}", tenant_id=tenant_id, kind="spend", key_id=key_id,
                              threshold=nanos, url="http://127.0.0.1:9", secret="whsec_", created_at=0))  # fmt: skip
        self.alerts.forget()

    def use(self, count: int, key_id: int = 1, at: int = NOW, tenant_id: int = 1) -> None:
        record = Record(ADMITTED, at * 10**9, tenant_id, 1, 0, key_id, 0, 0, 1, 200, 0, 1, 0, 0, 0, 0, b"")
        with self.database.write() as session:
            Rollups().add(session, [record] * count)
        self.alerts.recorded([group_of(record)])

    def step(self, now: int = NOW, later_s: float = 3600.0) -> None:
        self.monotonic_s += later_s
        asyncio.run(self.alerts.step(now, self.monotonic_s))

    def told(self) -> list[tuple[str, str, str, str]]:
        """Alert, period, amount and what was spent of each event."""
        with self.database.read() as session:
            bodies = session.exec(select(AlertEvent.body).order_by(col(AlertEvent.id))).all()
        data = [json.loads(body)["data"] for body in bodies]
        return [(each["alert"], each["period"], each["threshold"], each["spent"]) for each in data]


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


@pytest.fixture
def bills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cycles whose bill was added up."""
    added_up: list[int] = []
    real = charges_of

    def adding_up(connection: Any, cycle: CycleRow, now: int) -> Any:
        added_up.append(cycle.id)
        return real(connection, cycle, now)

    monkeypatch.setattr(spending_alerts, "charges_of", adding_up)
    return added_up


def test_an_amount_is_told_once_a_cycle(house: House) -> None:
    house.alert(10 * MILLI)
    house.step()
    house.use(9)
    house.step()
    assert house.told() == []
    house.use(1, key_id=2)
    house.step()
    assert house.told() == [("alr_1", "2026-11", "0.01", "0.01")]
    house.use(50)
    house.step()
    assert len(house.told()) == 1
    house.use(12, at=END)
    house.step(END)
    assert house.told()[1:] == [("alr_1", "2026-12", "0.01", "0.012")]


def test_of_a_key_or_of_its_tenant_and_of_no_other(house: House) -> None:
    house.alert(10 * MILLI, key_id=1)
    house.alert(10 * MILLI)
    house.alert(10 * MILLI, tenant_id=2)
    house.step()
    house.use(9, key_id=1)
    house.use(9, key_id=2)
    house.step()
    assert [each[0] for each in house.told()] == ["alr_2"]
    house.use(1, key_id=1)
    house.step()
    assert [each[0] for each in house.told()] == ["alr_2", "alr_1"]
    house.use(10, key_id=3, tenant_id=2)
    house.step()
    assert [each[0] for each in house.told()] == ["alr_2", "alr_1", "alr_3"]


def test_the_event_says_what_there_is_to_say(house: House) -> None:
    house.alert(10 * MILLI, key_id=3, tenant_id=2)
    house.use(11, key_id=3, tenant_id=2)
    house.step()
    with house.database.read() as session:
        body = json.loads(session.exec(select(AlertEvent)).one().body)
    assert body["type"] == "spend.threshold"
    assert body["data"] == {
        "alert": "alr_1", "tenant": "acme", "key": "gw_00000003", "key_name": "k3", "period": "2026-11",
        "starts_at": "2026-11-01T00:00:00Z", "ends_at": "2026-12-01T00:00:00Z", "currency": "EUR",
        "threshold": "0.01", "spent": "0.011",
    }  # fmt: skip


def test_a_new_alert_that_is_reached_already_tells_at_once(house: House) -> None:
    house.use(10)
    house.step()
    house.alert(10 * MILLI)
    house.step()
    assert len(house.told()) == 1


def test_a_restart_misses_nothing_and_tells_nothing_twice(house: House) -> None:
    house.alert(10 * MILLI)
    house.step()
    house.use(10)  # and control is killed before it has looked
    house.start()
    house.step()
    assert len(house.told()) == 1
    house.start()
    house.step()
    house.use(1)
    house.step()
    assert len(house.told()) == 1


def test_only_what_has_moved_is_added_up_and_not_all_the_time(house: House, bills: list[int]) -> None:
    house.alert(1000 * MILLI)
    house.use(1)
    house.use(1, key_id=3, tenant_id=2)
    house.step()
    assert len(bills) == 1
    house.step()
    assert len(bills) == 1  # nothing has moved
    house.use(1)
    house.use(1, key_id=3, tenant_id=2)  # nobody asks about that tenant
    house.step()
    assert len(bills) == 2
    house.use(1)
    house.step(later_s=LOOK_AGAIN_S / 2)  # too soon
    assert len(bills) == 2
    house.step(later_s=LOOK_AGAIN_S)
    assert len(bills) == 3


def test_what_was_told_is_not_added_up_again(house: House, bills: list[int]) -> None:
    house.alert(MILLI)
    house.use(1)
    house.step()
    house.use(1)
    house.step()
    assert len(bills) == 1


def test_a_cycle_long_over_tells_nothing(house: House) -> None:
    house.use(10)
    house.alert(MILLI)
    house.step(END + 86400)
    assert house.told() == []


def test_what_comes_late_is_told_of_the_cycle_that_it_belongs_to(house: House) -> None:
    house.alert(10 * MILLI)
    house.use(10)
    house.step(END + 3600)
    assert [each[1] for each in house.told()] == ["2026-11"]


def test_a_database_that_fails_is_asked_again(house: House) -> None:
    house.alert(MILLI)
    house.use(1)
    other = sqlite3.connect(house.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    house.step()
    assert house.told() == []
    other.execute("ROLLBACK")
    other.close()
    house.step()
    assert len(house.told()) == 1
