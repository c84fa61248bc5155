"""Alerts: told once when a threshold is passed, and looked for only where one may be."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from gatewayd.control.alerts import Alerts
from gatewayd.control.database import Database
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Audit, Key, Plan, QuotaAlert
from gatewayd.policy.buckets import month_of
from gatewayd.records import ADMITTED, Record

NOW = 1_795_262_400  # 2026-11-21 12:00 UTC
START, END = month_of(NOW)


class House:
    """Keys 1 to 3: of a plan with 200 units and alerts at 50, 80 and 100 %, of one without alerts, of none."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.alerts = Alerts(database)
        with database.write() as session:
            for number, alerts in ((1, "[50,80,100]"), (2, "[]")):
                session.add(
                    Plan(id=number, public_id=f"pln_{number}", tenant_id=1, name=f"p{number}", rates="[]", quota=200,
                         price_id=1, created_at=0, alerts=alerts)
                )  # fmt: skip
            session.flush()
            for number in (1, 2, 3):
                session.add(
                    Key(id=number, public_id=f"{number:08}", digest=bytes([number]), tenant_id=1, created_at=0,
                        plan_id=number if number < 3 else None)
                )  # fmt: skip

    def use(self, units: int, key_id: int = 1, at: int = NOW) -> None:
        record = Record(ADMITTED, at * 10**9, 1, 1, 0, key_id, 0, 0, 1, 200, 0, units, 0, 0, 0, 0, b"")
        with self.database.write() as session:
            Rollups().add(session, [record])
        self.alerts.recorded(key_id, units)

    def step(self, now: int) -> None:
        asyncio.run(self.alerts.step(now))

    def count_looks(self, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        """Which keys were looked up, each time."""
        looks: list[list[int]] = []
        real = self.alerts._look

        def look(due: list[int], now: float) -> Any:
            looks.append(due)
            return real(due, now)

        monkeypatch.setattr(self.alerts, "_look", look)
        return looks

    def told(self) -> list[tuple[int, int, int]]:
        with self.database.read() as session:
            return [(row.key_id, row.month, row.percent) for row in session.exec(select(QuotaAlert)).all()]

    def audited(self) -> list[tuple[str, str, str, Any]]:
        with self.database.read() as session:
            return [(row.actor, row.action, row.subject, row.after) for row in session.exec(select(Audit)).all()]


@pytest.fixture
def house(tmp_path: Path) -> Any:
    database = Database.open(tmp_path)
    yield House(database)
    database.close()


def test_each_threshold_is_told_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    house.use(99)
    house.step(NOW)
    assert house.told() == []
    house.use(1)
    house.step(NOW)
    assert house.told() == [(1, START, 50)]
    for _ in range(3):
        house.use(1)
        house.step(NOW)
    assert house.told() == [(1, START, 50)]
    house.use(150)  # over both of the others at once
    house.step(NOW)
    assert house.told() == [(1, START, 50), (1, START, 80), (1, START, 100)]
    assert house.audited() == [
        ("gatewayd", "quota.alert", "key_00000001", '{"percent":50,"used":100,"limit":200,"period":"2026-11"}'),
        ("gatewayd", "quota.alert", "key_00000001", '{"percent":80,"used":253,"limit":200,"period":"2026-11"}'),
        ("gatewayd", "quota.alert", "key_00000001", '{"percent":100,"used":253,"limit":200,"period":"2026-11"}'),
    ]
    assert caplog.messages == [
        "key gw_00000001 of default has passed 50 % of its quota: 100 of 200 units in 2026-11",
        "key gw_00000001 of default has passed 100 % of its quota: 253 of 200 units in 2026-11",
    ]


def test_a_restart_tells_nothing_twice_and_misses_nothing(house: House) -> None:
    house.use(100)
    house.step(NOW)
    house.alerts = Alerts(house.database)
    house.use(1)
    house.step(NOW)
    assert len(house.told()) == len(house.audited()) == 1
    house.alerts = Alerts(house.database)
    house.use(80)
    house.step(NOW)
    assert house.told() == [(1, START, 50), (1, START, 80)]


def test_the_next_month_is_told_anew(house: House) -> None:
    house.use(200)
    house.step(NOW)
    house.use(100, at=END)
    house.step(END)
    assert house.told()[-1] == (1, END, 50)
    assert len(house.told()) == 4


def test_a_plan_that_changed_is_heard_of(house: House) -> None:
    house.use(90)
    house.step(NOW)
    with house.database.write() as session:
        plan = session.get_one(Plan, 1)
        plan.alerts = "[10]"
    house.alerts.forget()
    house.use(1)
    house.step(NOW)
    assert house.told() == [(1, START, 10)]


def test_who_has_no_alerts_is_looked_up_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = house.count_looks(monkeypatch)
    for _ in range(5):
        for key_id in (2, 3, 99):
            house.use(500, key_id)
        house.step(NOW)
    assert looks == [[2, 3, 99]]
    assert house.told() == []


def test_a_key_is_looked_up_again_when_it_may_have_come_to_the_next_threshold(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.use(1)
    house.step(NOW)
    looks = house.count_looks(monkeypatch)
    for _ in range(98):
        house.use(1)
        house.step(NOW)
    assert looks == []
    house.use(1)
    house.step(NOW)
    assert looks == [[1]]
    assert house.told() == [(1, START, 50)]


def test_a_database_that_fails_is_asked_again(house: House) -> None:
    house.use(100)
    other = sqlite3.connect(house.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    house.step(NOW)
    assert house.told() == []
    other.execute("ROLLBACK")
    other.close()
    house.step(NOW)
    assert house.told() == [(1, START, 50)]
