"""Spikes of refusals: counted with the records, told once, whatever is restarted in between."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update
from sqlmodel import col, select

from gatewayd.control.alerting import Alerting
from gatewayd.control.database import Database
from gatewayd.control.ingest import Ingest
from gatewayd.control.tables import Alert, AlertEvent, Key, RefusalMinute, Tenant
from gatewayd.errors import RATE_LIMITED
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, MORE_BYTES, pack_record

WORKER = b"w" * 16
NOON_NS = 1_795_262_400 * 10**9  # 2026-11-21 12:00 UTC
REFUSED = 0


class House:
    """A journal, and an ingest with alerts that can be begun anew. Keys 1 and 2 are of tenant 1, key 3 of tenant 2."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder / "journal"
        self.folder.mkdir()
        self.journal = Journal(self.folder, WORKER, 1)
        with database.write() as session:
            session.add(Tenant(id=2, public_id="ten_2", slug="acme", created_at=0))
            session.flush()
            for number in (1, 2, 3):
                session.add(
                    Key(id=number, public_id=f"{number:08}", name=f"k{number}", digest=bytes([number]),
                        tenant_id=1 if number < 3 else 2, created_at=0)
                )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Control begins, with nothing but what is on disk."""
        self.alerting = Alerting(self.database)
        self.ingest = Ingest(
            self.database, self.folder, lambda *_: None, lambda _: None, on_storing=self.alerting.storing
        )  # fmt: skip

    def alert(self, threshold: int, key_id: int | None = None, tenant_id: int = 1) -> None:
        with self.database.write() as session:
            public_id = f"alr_{session.execute(select(func.count()).select_from(Alert)).scalar_one() + 1}"
            session.add(
                Alert(public_id=public_id, tenant_id=tenant_id, kind="refusals", key_id=key_id, threshold=threshold,
                      url="http://127.0.0.1:9", secret="whsec_", created_at=0)
            )  # fmt: skip
        self.alerting.alert_added()

    def refuse(self, count: int, minute: int = 0, key: int = 1, flags: int = REFUSED, tenant: int = 1) -> None:
        time_ns = NOON_NS + minute * 60 * 10**9 + 7
        for _ in range(count):
            of = (flags, time_ns, tenant, 0, 0, key, 0, 0, 1, 429, RATE_LIMITED.number, 1, 0, 0, 1, 0)
            self.journal.append(pack_record(*of, b"id".ljust(16)))
        while self.ingest.step():
            pass

    def told(self) -> list[tuple[str, Any, int]]:
        """Alert, minute and refusals of each event."""
        with self.database.read() as session:
            bodies = session.exec(select(AlertEvent.body).order_by(col(AlertEvent.id))).all()
        data = [json.loads(body)["data"] for body in bodies]
        return [(each["alert"], each["minute"][11:16], each["refused"]) for each in data]


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


def test_a_spike_is_told_once_and_again_after_it_fell_below(house: House) -> None:
    house.alert(10)
    house.refuse(9)
    assert house.told() == []
    house.refuse(1)
    assert house.told() == [("alr_1", "12:00", 10)]
    house.refuse(100)
    house.refuse(30, minute=1)
    house.refuse(30, minute=2)
    assert house.told() == [("alr_1", "12:00", 10)]
    house.refuse(9, minute=3)
    house.refuse(25, minute=4)
    assert house.told() == [("alr_1", "12:00", 10), ("alr_1", "12:04", 25)]


def test_the_event_says_what_there_is_to_say(house: House) -> None:
    house.alert(3, key_id=2)
    house.refuse(5, key=2)
    with house.database.read() as session:
        event = session.exec(select(AlertEvent)).one()
    body = json.loads(event.body)
    assert event.type == body["type"] == "refusals.spike"
    assert body["data"] == {
        "alert": "alr_1", "tenant": "default", "key": "gw_00000002", "key_name": "k2",
        "minute": "2026-11-21T12:00:00Z", "refused": 5, "threshold": 3,
    }  # fmt: skip


def test_of_a_key_or_of_its_tenant_and_of_no_other(house: House) -> None:
    house.alert(10, key_id=1)
    house.alert(10)
    house.alert(10, tenant_id=2)
    house.refuse(6, key=1)
    house.refuse(6, key=2)
    assert house.told() == [("alr_2", "12:00", 12)]
    house.refuse(4, key=1)
    assert house.told() == [("alr_2", "12:00", 12), ("alr_1", "12:00", 10)]
    house.refuse(10, key=3, tenant=2)
    assert house.told()[2:] == [("alr_3", "12:00", 10)]


def test_what_was_admitted_is_no_refusal(house: House) -> None:
    house.alert(1)
    house.refuse(5, flags=ADMITTED)
    house.refuse(5, flags=MORE_BYTES)
    assert house.told() == []


def test_a_restart_in_the_middle_of_a_minute_loses_nothing_and_tells_nothing_twice(house: House) -> None:
    house.alert(10)
    house.refuse(6)
    house.start()
    house.refuse(6)
    assert house.told() == [("alr_1", "12:00", 12)]
    house.start()
    house.refuse(20)
    house.refuse(20, minute=1)
    assert len(house.told()) == 1


def test_a_transaction_that_fails_counts_nothing(house: House) -> None:
    house.alert(10)
    other = sqlite3.connect(house.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    house.refuse(10)
    other.execute("ROLLBACK")
    other.close()
    assert house.told() == []
    house.ingest.step()
    assert house.told() == [("alr_1", "12:00", 10)]


def test_where_nobody_asks_nothing_is_counted(house: House) -> None:
    house.refuse(50)
    house.alert(10)
    with house.database.write() as session:
        session.execute(update(Alert).values(removed_at=1))
    house.refuse(50)
    with house.database.read() as session:
        assert session.exec(select(RefusalMinute)).all() == []
    assert house.told() == []
