"""Alerts: told once when a threshold is passed, and looked for only where one may be."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from gatewayd.control.alerts import Alerts, take_back
from gatewayd.control.database import Database
from gatewayd.control.quotas import quota_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Alert, AlertEvent, Audit, Key, Plan, QuotaAlert, QuotaGrant
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

    def hook(self, percent: int, key_id: int | None = None) -> None:
        """A webhook; it is known when the next step begins."""
        with self.database.write() as session:
            count = len(session.exec(select(Alert)).all())
            session.add(Alert(public_id=f"alr_{count + 1}", tenant_id=1, kind="quota", key_id=key_id,
                              threshold=percent, url="http://127.0.0.1:9", secret="whsec_", created_at=0))  # fmt: skip
        self.alerts.forget()
        self.alerts.look_at_recent()

    def sent(self) -> list[tuple[str, str, int, int]]:
        """Alert, key, percentage and used units of each event."""
        with self.database.read() as session:
            bodies = session.exec(select(AlertEvent.body).order_by(col(AlertEvent.id))).all()
        data = [json.loads(body)["data"] for body in bodies]
        return [(each["alert"], each["key"], each["threshold_percent"], each["used"]) for each in data]

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


def test_a_webhook_is_told_once_a_key_and_month(house: House) -> None:
    house.hook(80)
    for key_id in (1, 2, 3):  # the second's plan has no alerts, the third has no quota
        house.use(159, key_id)
    house.step(NOW)
    assert house.sent() == []
    for key_id in (1, 2, 3):
        house.use(1, key_id)
    house.step(NOW)
    assert sorted(house.sent()) == [("alr_1", "gw_00000001", 80, 160), ("alr_1", "gw_00000002", 80, 160)]
    house.use(10)
    house.step(NOW)
    assert len(house.sent()) == 2
    house.use(170, at=END)
    house.step(END)
    assert house.sent()[2:] == [("alr_1", "gw_00000001", 80, 170)]


def test_a_webhook_may_be_of_one_key(house: House) -> None:
    house.hook(10, key_id=2)
    house.use(40, 1)
    house.use(40, 2)
    house.step(NOW)
    assert house.sent() == [("alr_1", "gw_00000002", 10, 40)]


def test_a_webhook_has_percentages_of_its_own(house: House) -> None:
    """What the plan wants is for audit and log."""
    house.hook(90)
    house.use(170)
    house.step(NOW)
    assert [percent for _, _, percent in house.told()] == [50, 80]
    assert house.sent() == []
    house.use(10)
    house.step(NOW)
    assert house.sent() == [("alr_1", "gw_00000001", 90, 180)]
    assert len(house.told()) == 2


def test_the_event_says_what_there_is_to_say(house: House) -> None:
    house.hook(50)
    house.use(120)
    house.step(NOW)
    with house.database.read() as session:
        event = session.exec(select(AlertEvent)).one()
    body = json.loads(event.body)
    assert event.type == body["type"] == "quota.threshold"
    assert body["data"] == {
        "alert": "alr_1", "tenant": "default", "key": "gw_00000001", "key_name": "", "period": "2026-11",
        "threshold_percent": 50, "used": 120, "limit": 200, "resets_at": "2026-12-01T00:00:00Z",
    }  # fmt: skip


def test_a_new_webhook_tells_of_what_is_passed_already(house: House) -> None:
    house.use(190, 2)
    house.step(NOW)
    house.hook(80)
    house.step(NOW)
    assert house.sent() == [("alr_1", "gw_00000002", 80, 190)]


def test_what_was_stored_just_before_control_was_killed_is_told(house: House) -> None:
    house.hook(80)
    house.step(NOW)
    house.use(200, 1)
    house.use(200, 2)
    house.alerts = Alerts(house.database)
    house.step(NOW)
    assert len(house.sent()) == 2
    assert [percent for _, _, percent in house.told()] == [50, 80, 100]
    house.alerts = Alerts(house.database)
    house.step(NOW)
    assert len(house.sent()) == 2


def test_a_grant_takes_back_what_is_no_longer_passed(house: House) -> None:
    house.hook(50)
    house.hook(90)
    house.use(190)
    house.step(NOW)
    assert [percent for _, _, percent, _ in house.sent()] == [50, 90]
    with house.database.write() as session:
        session.add(QuotaGrant(public_id="qgr_1", key_id=1, month=START, units=100, created_at=NOW))
        session.flush()
        take_back(session, 1, quota_of(session.connection(), 1, 200, NOW))
    house.alerts.forget()
    house.use(1)
    house.step(NOW)
    assert len(house.sent()) == 2
    house.use(80)
    house.step(NOW)
    assert house.sent()[2:] == [("alr_2", "gw_00000001", 90, 271)]
