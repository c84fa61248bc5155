"""Cycles closed by invoices: what stands in them, what is carried forward, and that a close is whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from gatewayd.control import billing, closing, main
from gatewayd.control.admin.changes import Change, now_s
from gatewayd.control.closing import close_due
from gatewayd.control.compile import find_key
from gatewayd.control.cycles import CycleRow, open_at
from gatewayd.control.database import FILE_NAME, Database
from gatewayd.control.key_past import keys_at, worked
from gatewayd.control.prices import price_id_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Plan
from gatewayd.control.verification import made_anew, verify
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.pricing import Terms, Tier
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin, FakePlane

TARGETS = ["http://127.0.0.1:8001"]
SEPTEMBER = {"period": "2026-09"}


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


class Shop:
    """A service, a plan and keys that use them, as workers record it."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self.database = admin.control.database
        self.rollups = Rollups()
        admin.post("/v1/services", slug="orders", targets=TARGETS)
        admin.post("/v1/plans", name="starter", price="0.001")
        self.key = admin.post("/v1/keys", plan="starter", name="ci")["prefix"]

    def charge(self, terms: Terms) -> None:
        """What the plan costs from now on."""
        with self.database.write() as session:
            plan = session.get(Plan, 1)
            assert plan is not None
            plan.price_id = price_id_of(session, terms)
            session.add(plan)

    def use(self, requests: int, time: str, key: str = "", size: int = 0) -> None:
        conf = find_key(self.database.lookup, (key or self.key)[3:])
        assert conf is not None
        of = (at(time) * 10**9, 1, 1, 0, conf.id, 0, 0, conf.price_id)
        with self.database.write() as session:
            self.rollups.add(session, [Record(ADMITTED, *of, 200, 0, 1, size, 0, 0, 0, b"")] * requests)

    def born(self, time: str) -> None:
        """All keys were made then."""
        with self.database.write() as session:
            session.connection().exec_driver_sql("UPDATE key SET created_at = ?", (at(time),))

    def tick(self, time: str, after_s: int = 3600) -> None:
        """The clock's work at this time."""
        asyncio.run(close_due(self.database, FakePlane(), at(time), after_s))

    def invoices(self) -> list[dict[str, Any]]:
        """Their bodies, the oldest first."""
        items = self.admin.get("/v1/invoices")["items"]
        return [self.admin.get(f"/v1/invoices/{item['number']}")["body"] for item in reversed(items)]

    def state(self) -> list[tuple[Any, ...]]:
        """All that a close writes."""
        tables = ("ledger", "invoice", "invoice_day", "cycle", "audit", "progress")
        run = self.database.lookup.exec_driver_sql
        return [tuple(row) for table in tables for row in run(f"SELECT * FROM {table}").all()]


@pytest.fixture
def shop(admin: Admin) -> Shop:
    return Shop(admin)


def test_a_cycle_is_closed_by_an_invoice(shop: Shop) -> None:
    shop.use(10, "2026-09-01T12:00:00Z")
    shop.use(5, "2026-09-30T23:59:59Z")
    preview = shop.admin.get("/v1/billing/preview", **SEPTEMBER)
    invoice = shop.admin.post("/v1/billing/close")
    assert "caught up" in shop.admin.plane.told
    body = invoice["body"]
    assert body["lines"] == [
        {
            "service": "orders", "key": shop.key, "key_name": "ci", "plan": "starter", "kind": "request", "tier": None,
            "quantity": 15, "requests": 15, "units": 0, "bytes": 0, "price": "0.001", "amount": "0.015", "terms": 1,
        }
    ]  # fmt: skip
    assert body["terms"] == [
        {
            "id": 1, "price": "0.001", "unit_price": "0", "mib_price": "0", "base_fee": "0", "minimum": "0",
            "included": 0, "tiers": [], "tier_mode": None, "package": None, "counts": "requests",
            "billable": ["2xx", "3xx"],
        }
    ]  # fmt: skip
    assert (invoice["number"], invoice["period"], invoice["total"]) == ("INV-000001", "2026-09", "0.015")
    assert preview | {"number": "INV-000001", "issued_at": body["issued_at"]} == body
    text = shop.admin("GET", "/v1/invoices/INV-000001/body").content
    assert hashlib.sha256(text).hexdigest() == invoice["sha256"]
    assert text == msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    assert shop.admin.get("/v1/billing", **SEPTEMBER)["total"] == "0.015"
    assert shop.admin.get("/v1/billing", **SEPTEMBER)["invoice"] == "INV-000001"
    audit = shop.admin.get("/v1/audit")["items"][0]
    assert (audit["action"], audit["subject"], audit["after"]["total"]) == ("billing.close", "INV-000001", "0.015")
    shop.admin.refused("conflict", "POST", "/v1/billing/close")
    shop.admin.refused("conflict", "POST", "/v1/billing/close", SEPTEMBER)
    shop.admin.refused("not_found", "POST", "/v1/billing/close", {"period": "2026-10"})
    shop.admin.refused("invalid", "POST", "/v1/billing/close", {"period": "october"})
    shop.admin.refused("not_found", "GET", "/v1/invoices/INV-000002")


def test_an_invoice_says_what_things_were_called(shop: Shop) -> None:
    shop.use(1, "2026-09-01T12:00:00Z")
    body = shop.admin.post("/v1/billing/close")["body"]
    shop.admin.patch("/v1/tenants/default", name="Another", time_zone="Asia/Tokyo")
    shop.admin.delete("/v1/services/orders")
    replayed = shop.admin.get("/v1/invoices/INV-000001/replay")
    assert (replayed["same"], replayed["body"]) == (True, body)
    assert shop.admin.get("/v1/billing/verify") == {"invoices": 1, "ok": True, "differences": []}


def test_what_comes_late_is_in_the_next_bill(shop: Shop) -> None:
    shop.use(1, "2026-09-30T12:00:00Z")
    shop.admin.post("/v1/billing/close")
    shop.use(2, "2026-09-30T12:00:01Z")
    assert shop.admin.get("/v1/billing", **SEPTEMBER)["total"] == "0.001"
    assert shop.admin.get("/v1/billing", period="2026-10")["total"] == "0.002"
    assert shop.admin.post("/v1/billing/close", period="2026-10")["body"]["lines"][0]["requests"] == 2
    assert [body["number"] for body in shop.invoices()] == ["INV-000001", "INV-000002"]
    first, second = shop.admin.get("/v1/invoices")["items"][::-1]
    assert shop.invoices()[1]["previous_sha256"] == first["sha256"] != second["sha256"]
    assert shop.admin.get("/v1/billing/verify")["ok"]


def test_a_reset_ends_the_running_cycle(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And another in the same second would end a cycle of no time."""
    this_second = now_s()
    for module in ("admin.billing", "closing"):
        monkeypatch.setattr(f"gatewayd.control.{module}.now_s", lambda: this_second)
    now = shop.admin.get("/v1/billing")
    tried = shop.admin("POST", "/v1/billing/reset?dry_run=true").json()
    assert tried["number"] == "INV-000001"
    assert shop.admin.get("/v1/billing/cycles")["items"] == []
    invoice = shop.admin.post("/v1/billing/reset")
    assert (invoice["period"], invoice["total"]) == (now["period"], "0")
    running = shop.admin.get("/v1/billing")
    assert (running["period"], running["starts_at"]) == (f"{now['period']}.2", invoice["ends_at"])
    assert running["ends_at"] == now["ends_at"]
    shop.admin.refused("conflict", "POST", "/v1/billing/reset")
    states = [(item["id"], item["state"]) for item in shop.admin.get("/v1/billing/cycles")["items"]]
    assert states == [(f"{now['period']}.2", "open"), (now["period"], "closed")]


def test_a_reset_in_a_months_last_second_leaves_no_cycle_of_no_time(shop: Shop) -> None:
    shop.charge(Terms(base_nanos=10**9))
    shop.born("2026-09-01T00:00:00Z")
    shop.use(1, "2026-09-30T23:59:58Z")
    with shop.database.write() as session:
        closing.reset(Change(session, "somebody", at("2026-09-30T23:59:59Z")), 1)
    shop.use(1, "2026-09-30T23:59:59Z")
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["total"] for body in shop.invoices()] == ["1"], "no base fee for nothing"
    assert [each["period"] for each in shop.admin.get("/v1/billing/cycles")["items"]] == ["2026-10", "2026-09"]


def test_credits_come_off_and_the_rest_is_carried_forward(shop: Shop) -> None:
    shop.charge(Terms(request_nanos=10**9))
    credit = shop.admin.post("/v1/credits", amount="12.50", reason="outage on Monday")
    assert (credit["amount"], credit["reason"], credit["kind"]) == ("-12.5", "outage on Monday", "credit")
    assert credit["author"]
    shop.admin.post("/v1/credits", amount="0.5", reason="a fee", kind="adjustment")
    bill = shop.admin.get("/v1/billing")
    assert (bill["subtotal"], bill["credited"], bill["total"], bill["carried_forward"]) == ("0", "-12", "0", "12")
    body = shop.admin.post("/v1/billing/reset")["body"]
    assert [(each["kind"], each["amount"]) for each in body["credits"]] == [("credit", "-12.5"), ("adjustment", "0.5")]
    assert (body["subtotal"], body["credited"], body["total"], body["carried_forward"]) == ("0", "-12", "0", "12")
    carried = shop.admin.get("/v1/billing")["credits"]
    assert [(each["amount"], each["reason"]) for each in carried] == [("-12", "carried forward from INV-000001")]
    kinds = [(entry["kind"], entry["amount"]) for entry in shop.admin.get("/v1/ledger")["items"]]
    assert kinds == [("credit", "-12.5"), ("adjustment", "0.5"), ("close", None), ("credit", "-12")]
    assert shop.admin.get("/v1/billing/verify")["ok"]


@pytest.mark.parametrize(
    ("json", "field"),
    [
        ({"amount": "0", "reason": "x"}, "amount"),
        ({"amount": "0", "reason": "x", "kind": "adjustment"}, "amount"),
        ({"amount": "-1", "reason": "x"}, "amount"),
        ({"amount": "1.0000000001", "reason": "x"}, "amount"),
        ({"amount": "99999999", "reason": "x"}, "amount"),
        ({"amount": "much", "reason": "x"}, "amount"),
        ({"amount": "1", "reason": " "}, "reason"),
        ({"amount": "1"}, "reason"),
        ({"amount": "1", "reason": "x", "kind": "gift"}, "kind"),
    ],
)
def test_bad_credits_are_refused(shop: Shop, json: dict[str, str], field: str) -> None:
    assert shop.admin.refused("invalid", "POST", "/v1/credits", json)["field"] == field


def test_base_fee_and_minimum_are_owed_by_each_key_that_worked(shop: Shop) -> None:
    shop.charge(Terms(request_nanos=10**9, base_nanos=5 * 10**9, minimum_nanos=8 * 10**9))
    early = shop.admin.post("/v1/keys", plan="starter", name="early")["prefix"]
    shop.born("2026-08-15T00:00:00Z")
    with shop.database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE key SET revoked_at = ? WHERE id = 2", (at("2026-09-10T00:00:00Z"),)
        )
        open_at(session.connection(), 1, at("2026-08-20T00:00:00Z"))
    shop.use(2, "2026-09-20T00:00:00Z")
    shop.use(2, "2026-10-20T00:00:00Z")
    shop.tick("2026-11-01T00:59:59Z")
    august, september = shop.invoices()

    def owed(body: dict[str, Any]) -> list[tuple[str, str, str]]:
        return [(line["key_name"], line["kind"], line["amount"]) for line in body["lines"]]

    assert owed(august) == [
        ("ci", "base", "5"),
        ("ci", "minimum", "3"),
        ("early", "base", "5"),
        ("early", "minimum", "3"),
    ]
    assert owed(september) == [
        ("ci", "request", "2"), ("ci", "base", "5"), ("ci", "minimum", "1"), ("early", "base", "5"),
        ("early", "minimum", "3"),
    ]  # fmt: skip
    shop.tick("2026-11-01T01:00:00Z")
    assert owed(shop.invoices()[2]) == [("ci", "request", "2"), ("ci", "base", "5"), ("ci", "minimum", "1")]
    assert early
    assert shop.admin.get("/v1/billing/verify")["ok"]


@pytest.mark.parametrize(("column", "owes"), [("expires_at", 0), ("revoked_at", 1), ("disabled_at", 1)])
def test_a_key_whose_last_moment_is_the_cycles_first(shop: Shop, column: str, owes: int) -> None:
    """It expires at the begin of that second; it was revoked or disabled somewhere within it."""
    shop.charge(Terms(base_nanos=10**9))
    shop.born("2026-08-15T00:00:00Z")
    with shop.database.write() as session:
        session.connection().exec_driver_sql(f"UPDATE key SET {column} = ?", (at("2026-09-01T00:00:00Z"),))
        open_at(session.connection(), 1, at("2026-08-20T00:00:00Z"))
        open_at(session.connection(), 1, at("2026-09-20T00:00:00Z"))
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["total"] for body in shop.invoices()] == ["1"] * (1 + owes)


@pytest.mark.parametrize(
    ("price", "fee"),
    [
        ({"base_fee": "1"}, "1"),
        ({"base_fee": "2", "tiers": [{"up_to": 5, "price": "1"}, {"up_to": None, "price": "0.5"}]}, "2"),
        ({"minimum": "3", "package": {"size": 10, "price": "7"}, "counts": "units", "billable": ["5xx"]}, "3"),
    ],
)
def test_a_fee_is_that_of_the_plan_at_the_cycles_end(shop: Shop, price: dict[str, Any], fee: str) -> None:
    shop.admin.patch("/v1/plans/starter", **price)
    shop.born("2026-08-15T00:00:00Z")
    with shop.database.write() as session:
        open_at(session.connection(), 1, at("2026-09-20T00:00:00Z"))
        session.connection().exec_driver_sql("UPDATE plan_version SET created_at = ?", (at("2026-09-30T23:59:59Z"),))
    shop.admin.patch("/v1/plans/starter", base_fee="100", minimum="200")
    assert shop.admin.get("/v1/billing", **SEPTEMBER)["total"] == fee
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["total"] for body in shop.invoices()] == [fee]
    assert shop.admin.get("/v1/billing")["total"] == "200"


@pytest.mark.parametrize(
    "changes",
    [
        [("PATCH", "", {"plan": "dear"})],
        [("PATCH", "", {"plan": "dear"}), ("PATCH", "", {"plan": None})],
        [("PATCH", "", {"price": "7"})],
        [("POST", "/disable", None)],
        [("PATCH", "", {"expires": "1d"}), ("PATCH", "", {"plan": "dear", "price": "3"})],
    ],
)
def test_a_fee_is_that_of_the_key_at_the_cycles_end(shop: Shop, changes: list[tuple[str, str, Any]]) -> None:
    """Whatever becomes of it between then and the invoice."""
    shop.charge(Terms(request_nanos=10**9, base_nanos=5 * 10**9))
    shop.admin.post("/v1/plans", name="dear", base_fee="1000", price="0")
    shop.born("2026-08-15T00:00:00Z")
    shop.use(2, "2026-09-20T00:00:00Z")
    for method, path, body in changes:
        assert shop.admin(method, f"/v1/keys/{shop.key}{path}", body).status_code == 200
    preview = shop.admin.get("/v1/billing/preview", **SEPTEMBER)
    body = shop.admin.post("/v1/billing/close")["body"]
    assert [(line["plan"], line["kind"], line["amount"]) for line in body["lines"]] == [
        ("starter", "request", "2"), ("starter", "base", "5"),
    ]  # fmt: skip
    assert preview["lines"] == body["lines"]
    assert shop.admin.get("/v1/billing/verify")["ok"]


def test_a_key_that_did_not_work_owes_nothing_when_it_works_again_before_the_invoice(shop: Shop) -> None:
    shop.charge(Terms(base_nanos=10**9))
    idle = shop.admin.post("/v1/keys", plan="starter", name="idle")["prefix"]
    shop.born("2026-07-15T00:00:00Z")
    with shop.database.write() as session:
        run = session.connection().exec_driver_sql
        run("UPDATE key SET disabled_at = ? WHERE id = 1", (at("2026-08-20T00:00:00Z"),))
        run("UPDATE key SET expires_at = ? WHERE id = 2", (at("2026-08-20T00:00:00Z"),))
        for month in ("08", "09"):
            open_at(session.connection(), 1, at(f"2026-{month}-20T00:00:00Z"))
    shop.admin.post(f"/v1/keys/{shop.key}/enable")
    shop.admin.patch(f"/v1/keys/{idle}", expires=None)
    shop.tick("2026-10-01T01:00:00Z")
    assert [(body["period"], body["total"]) for body in shop.invoices()] == [("2026-08", "2")]


def test_what_a_key_was_is_looked_up_by_its_own_rows(shop: Shop) -> None:
    """Of a plan that 300,000 keys have been given since, closing the cycle before took hours."""
    since, moment = at("2026-08-01T00:00:00Z"), at("2026-09-01T00:00:00Z")
    then = keys_at(moment)
    wanted = select(then.plan_id).select_from(then.source).where(worked(then, since, moment))
    query = wanted.compile(compile_kwargs={"literal_binds": True})
    plan = shop.database.lookup.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    looks = [row.detail for row in plan if "key_was" in row.detail]
    assert len(looks) > 2, looks
    assert all(look.startswith("SEARCH ") for look in looks)
    assert "INTEGER PRIMARY KEY (rowid=?)" in looks[0]
    assert all("key_was_by_key (key_id=?" in look for look in looks[1:])


def test_a_line_names_the_plan_that_it_was_used_on(shop: Shop) -> None:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    admin, key = shop.admin, shop.key
    admin.post("/v1/plans", name="twin", price="0.001")
    admin.post("/v1/plans", name="pro", price="0.1", base_fee="3")
    shop.use(5, now)
    admin.patch("/v1/plans/starter", price="0.002")
    shop.use(4, now)
    admin.patch(f"/v1/keys/{key}", plan=None, price="9")
    shop.use(1, now)
    admin.patch(f"/v1/keys/{key}", plan="pro", price=None)
    shop.use(3, now)
    lines = [("starter", "0.001"), ("starter", "0.002"), (None, "9"), ("pro", "0.1"), ("pro", "3")]

    def named(items: list[dict[str, Any]]) -> list[tuple[str | None, str]]:
        return [(item["plan"], item["price"]) for item in items]

    assert set(named(admin.get("/v1/billing")["items"])) == set(lines)
    assert [item["plan"] for item in admin.get("/v1/billing/keys")["items"]] == ["pro"]
    preview = admin.get("/v1/billing/preview")
    body = admin.post("/v1/billing/reset")["body"]
    assert named(preview["lines"]) == named(body["lines"])
    assert len(body["lines"]) == len(lines)
    assert set(named(body["lines"])) == set(lines)
    admin.patch(f"/v1/keys/{key}", plan="twin")
    assert admin.get("/v1/invoices/INV-000001/replay")["same"]
    assert admin.get("/v1/billing/verify")["ok"]


def test_what_a_configuration_makes_of_a_key_holds_from_then_on_too(shop: Shop) -> None:
    admin = shop.admin
    shop.charge(Terms(base_nanos=5 * 10**9))
    admin.post("/v1/plans", name="dear", base_fee="1000", price="0")
    shop.born("2026-08-15T00:00:00Z")
    with shop.database.write() as session:
        open_at(session.connection(), 1, at("2026-09-20T00:00:00Z"))
    wanted = admin.get("/v1/config")
    (key,) = wanted["tenants"][0]["keys"]
    key["plan"] = "dear"
    assert admin("POST", "/v1/config/apply", wanted).status_code == 200
    body = admin.post("/v1/billing/close")["body"]
    assert [(line["plan"], line["amount"]) for line in body["lines"]] == [("starter", "5")]
    assert admin.get("/v1/billing")["total"] == "1000"


def test_a_key_that_worked_owes_whatever_it_is_said_to_have_been(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration may name an expiry that is past, and a rollback brings one back: it has worked until then."""
    admin, key = shop.admin, shop.key
    idle = admin.post("/v1/keys", plan="starter", name="idle")["prefix"]
    shop.charge(Terms(base_nanos=5 * 10**9))
    shop.born("2026-07-15T00:00:00Z")
    with shop.database.write() as session:
        run = session.connection().exec_driver_sql
        run("UPDATE key SET expires_at = ? WHERE id = 2", (at("2026-08-20T00:00:00Z"),))
        for month in ("08", "09", "10"):
            open_at(session.connection(), 1, at(f"2026-{month}-20T00:00:00Z"))
    wanted = admin.get("/v1/config")
    for each in wanted["tenants"][0]["keys"]:
        each["expires"] = "2026-08-10T00:00:00Z"
    monkeypatch.setattr("gatewayd.control.admin.config.now_s", lambda: at("2026-09-15T00:00:00Z"))
    assert admin("POST", "/v1/config/apply", wanted).status_code == 200
    shop.tick("2026-11-01T01:00:00Z")
    owed = [(body["period"], [line["key"] for line in body["lines"]]) for body in shop.invoices()]
    assert owed == [("2026-08", [key, idle]), ("2026-09", [key])]
    assert admin.get("/v1/billing/verify")["ok"]


def test_a_key_that_was_disabled_until_it_had_expired_owes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that had expired until it was disabled: what it was counts from when it was so."""
    admin, key = shop.admin, shop.key
    other = admin.post("/v1/keys", plan="starter", name="other")["prefix"]
    shop.charge(Terms(base_nanos=5 * 10**9))
    shop.born("2026-07-15T00:00:00Z")
    with shop.database.write() as session:
        run = session.connection().exec_driver_sql
        disabled_at, expires_at = at("2026-08-20T00:00:00Z"), at("2026-09-20T00:00:00Z")
        run("UPDATE key SET disabled_at = ?, expires_at = ? WHERE id = 1", (disabled_at, expires_at))
        run("UPDATE key SET expires_at = ? WHERE id = 2", (at("2026-08-20T00:00:00Z"),))
        open_at(session.connection(), 1, at("2026-09-20T00:00:00Z"))
    for time, method, path, body in (
        ("2026-09-10T00:00:00Z", "POST", f"{other}/disable", None),
        ("2026-09-20T00:00:00Z", "POST", f"{key}/enable", None),
        ("2026-09-28T00:00:00Z", "PATCH", other, {"expires": None}),
    ):
        monkeypatch.setattr("gatewayd.control.admin.changes.now_s", lambda time=time: at(time))
        assert admin(method, f"/v1/keys/{path}", body).status_code == 200
    shop.tick("2026-10-01T01:00:00Z")
    assert shop.invoices() == []


def test_a_month_that_has_no_cycle_owes_nothing(shop: Shop) -> None:
    shop.charge(Terms(base_nanos=10**9))
    running = shop.admin.get("/v1/billing")
    assert running["total"] == "1"
    other = shop.admin.get("/v1/billing", period="2020-01")
    assert (other["items"], other["total"]) == ([], "0")


def test_the_clock_opens_the_cycle_of_a_tenant_that_owes_without_usage(shop: Shop) -> None:
    shop.tick("2026-09-05T00:00:00Z")
    assert shop.admin.get("/v1/billing/cycles")["items"] == [], "nobody owes anything"
    shop.charge(Terms(base_nanos=10**9))
    shop.born("2026-09-01T00:00:00Z")
    shop.tick("2026-09-05T00:00:00Z")
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["total"] for body in shop.invoices()] == ["1"]


def test_nothing_to_bill_is_closed_without_an_invoice_by_the_clock(shop: Shop) -> None:
    shop.use(1, "2026-09-30T00:00:00Z")
    shop.use(1, "2026-07-30T00:00:00Z")
    shop.tick("2026-10-01T00:59:59Z")
    assert [body["period"] for body in shop.invoices()] == ["2026-07"]
    shop.tick("2026-10-01T01:00:00Z")
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["period"] for body in shop.invoices()] == ["2026-07", "2026-09"]
    cycles = shop.admin.get("/v1/billing/cycles")["items"]
    assert [(each["period"], each["state"], each["invoice"]) for each in cycles] == [
        ("2026-09", "closed", "INV-000002"),
        ("2026-08", "closed", None),
        ("2026-07", "closed", "INV-000001"),
    ]


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("step", ["append", "append_close", "_store", "day_digests", "mark_closed", "_carry_forward"])
@pytest.mark.parametrize("after", [False, True])
def test_a_close_that_breaks_leaves_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    shop.use(3, "2026-09-30T00:00:00Z")
    before = shop.state()
    real = getattr(closing, step)

    def breaks(*arguments: Any) -> Any:
        if after:
            real(*arguments)
        raise BrokenError

    with monkeypatch.context() as patch:
        patch.setattr(closing, step, breaks)
        shop.admin.refused("internal", "POST", "/v1/billing/close")
    assert shop.state() == before
    shop.use(1, "2026-09-30T00:00:00Z")
    assert shop.admin.post("/v1/billing/close")["number"] == "INV-000001"
    assert shop.invoices()[0]["total"] == "0.004"


def test_changes_wait_while_a_cycle_is_closed_and_ingest_does_not_fail(shop: Shop) -> None:
    shop.use(1, "2026-09-30T00:00:00Z")

    async def meanwhile() -> None:
        def work(made: Change) -> None:
            with pytest.raises(GatewayError) as refused, shop.database.write():
                pass
            assert refused.value.problem is UNAVAILABLE

        await closing.in_one_go(shop.database, "somebody", work)

    asyncio.run(meanwhile())
    assert not shop.database.is_lent


def raw(shop: Shop) -> sqlite3.Connection:
    return sqlite3.connect(shop.database.path)


@pytest.mark.parametrize("table", ["ledger", "invoice", "invoice_day", "price"])
def test_what_is_written_stays(shop: Shop, table: str) -> None:
    shop.use(3, "2026-09-30T00:00:00Z")
    shop.admin.post("/v1/billing/close")
    connection = raw(shop)
    column = connection.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk = 0").fetchone()[0]
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("billable", "requests"),
        ("billable_units", "units"),
        ("billable_bytes", "size_bytes"),
        ("requests", ""),
        ("refused", ""),
        ("bytes_out", ""),
    ],
)
def test_one_altered_rollup_is_found_and_named(shop: Shop, column: str, names: str) -> None:
    other = shop.admin.post("/v1/keys", plan="starter", name="other")["prefix"]
    for day in (3, 4, 5):
        shop.use(7, f"2026-09-{day:02}T12:00:00Z")
        shop.use(7, f"2026-09-{day:02}T12:00:00Z", key=other)
    shop.admin.post("/v1/billing/close")
    with raw(shop) as connection:
        noon = at("2026-09-04T12:00:00Z")
        connection.execute(f"UPDATE rollup SET {column} = {column} + 1 WHERE hour = ? AND key_id = 2", (noon,))
    connection.close()
    verified = shop.admin.get("/v1/billing/verify")
    assert (verified["ok"], verified["invoices"]) == (False, 1)
    (difference,) = verified["differences"]
    assert (difference["invoice"], difference["what"]) == ("INV-000001", "usage")
    expected = f"2026-09-04 orders {other} {names}" if names else "2026-09-04"
    assert difference["line"] == expected
    if names:
        assert difference["found"] == difference["expected"] + 1


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE invoice SET body = replace(body, '0.003', '0.002')", {"hash", "body"}),
        ("UPDATE invoice SET sha256 = 'x' WHERE id = 1", {"hash", "chain"}),
        ("UPDATE invoice SET number = 'INV-000009' WHERE id = 2", {"number"}),
        ("UPDATE ledger SET requests = 2 WHERE kind = 'usage' AND cycle_id = 1", {"body", "usage"}),
        ("INSERT INTO ledger SELECT 99, 1, 1, 1, 'credit', 0, 0, 0, 0, 0, 0, 0, -5, 'x', 'y', '{}'", {"body"}),
        ("DELETE FROM ledger WHERE kind = 'close' AND cycle_id = 1", {"ledger"}),
        ("UPDATE cycle SET closed_at = NULL WHERE id = 1", {"ledger"}),
        ("DELETE FROM rollup WHERE cycle_id = 1", {"usage"}),
        ("UPDATE price SET terms = '{\"request_nanos\":5}' WHERE id = 1", {"body"}),
        ("UPDATE price SET terms = '{' WHERE id = 1", {"ledger"}),
        ("DELETE FROM price WHERE id = 1", {"ledger"}),
        ("UPDATE ledger SET facts = '{' WHERE kind = 'close' AND cycle_id = 1", {"ledger"}),
        ("UPDATE ledger SET kind = 'usages' WHERE kind = 'usage' AND cycle_id = 1", {"body", "usage"}),
        ("DELETE FROM invoice WHERE id = 1", {"number", "chain", "usage", "ledger"}),
        ("DELETE FROM invoice WHERE id = 2", {"usage", "ledger"}),
        ("DELETE FROM invoice WHERE id = 2; DELETE FROM rollup WHERE cycle_id = 2", {"ledger"}),
        ("UPDATE invoice SET total = '0.002' WHERE id = 1", {"body"}),
        ("UPDATE invoice SET issued_at = issued_at + 1 WHERE id = 1", {"body"}),
        ("UPDATE cycle SET period = '2026-01' WHERE id = 1", {"ledger"}),
        ("UPDATE cycle SET ends_at = ends_at - 1 WHERE id = 1", {"ledger"}),
        ("UPDATE invoice SET tenant_id = 2 WHERE id = 1", {"ledger"}),
        ("DELETE FROM invoice_day WHERE invoice_id = 1", {"usage"}),
    ],
)
def test_whatever_is_altered_is_found(shop: Shop, statement: str, what: set[str]) -> None:
    for month in ("09", "10"):
        shop.use(3, f"2026-{month}-03T12:00:00Z")
        shop.admin.post("/v1/billing/close")
    with raw(shop) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.executescript(statement)
    connection.close()
    verified = shop.admin.get("/v1/billing/verify")
    assert {each["what"] for each in verified["differences"]} == what
    assert not verified["ok"]


def test_a_line_that_differs_is_named(shop: Shop) -> None:
    shop.use(3, "2026-09-03T12:00:00Z")
    shop.admin.post("/v1/billing/close")
    with raw(shop) as connection:
        connection.execute("DROP TRIGGER invoice_no_update")
        connection.execute("UPDATE invoice SET body = replace(body, '\"quantity\":3', '\"quantity\":2')")
    connection.close()
    found = [each for each in shop.admin.get("/v1/billing/verify")["differences"] if each["what"] == "body"]
    assert [(each["line"], each["expected"], each["found"]) for each in found] == [("lines[0].quantity", 3, 2)]
    assert not shop.admin.get("/v1/invoices/INV-000001/replay")["same"]


def test_an_invoice_replays_to_the_same_bytes_on_another_machine(shop: Shop, tmp_path: Path) -> None:
    shop.charge(Terms(mode="graduated", tiers=(Tier(2, 10**9), Tier(None, 7)), mib_nanos=3, included=1))
    shop.use(9, "2026-09-03T12:00:00Z", size=777)
    shop.admin.patch("/v1/keys/ci", name='a "name" über 😀')
    sha256 = shop.admin.post("/v1/billing/close")["sha256"]
    with raw(shop) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(shop.database.path, tmp_path / "elsewhere" / FILE_NAME)
    other = Database.open(tmp_path / "elsewhere")
    body = made_anew(other.lookup, 1)
    assert hashlib.sha256(body).hexdigest() == sha256
    assert body == shop.admin("GET", "/v1/invoices/INV-000001/body").content
    assert verify(other.lookup, None)["ok"]
    other.close()


def test_the_forecast_is_linear_in_quantities_and_then_priced(shop: Shop) -> None:
    shop.charge(Terms(mode="volume", tiers=(Tier(100, 10), Tier(None, 1)), base_nanos=50))
    shop.born("2026-08-01T00:00:00Z")

    def forecast(time: str) -> tuple[str, str, int]:
        told = billing.forecast(shop.database.lookup, 1, at(time))
        return told["total"], told["forecast"], told["forecast_requests"]

    assert forecast("2026-09-01T00:00:00Z") == ("0.00000005", "0.00000005", 0)
    shop.use(10, "2026-09-01T00:00:00Z")
    assert forecast("2026-09-01T00:00:00Z")[2] == 7200, "as if it were an hour's"
    assert forecast("2026-09-04T00:00:00Z") == ("0.00000015", "0.00000105", 100)
    shop.use(90, "2026-09-04T00:00:00Z")
    assert forecast("2026-09-16T00:00:00Z") == ("0.00000105", "0.00000105", 200), "never less than the present"
    assert forecast("2026-09-30T23:59:59Z")[2] == 100


def test_the_live_bill_by_key_has_tiers_and_fees(shop: Shop) -> None:
    shop.charge(Terms(mode="package", package_size=10, package_nanos=10**9, base_nanos=10**9, minimum_nanos=3 * 10**9))
    shop.born("2026-08-01T00:00:00Z")
    shop.use(11, "2026-09-03T12:00:00Z")
    by_key = shop.admin.get("/v1/billing/keys", **SEPTEMBER)
    assert by_key["items"] == [{"key": shop.key, "name": "ci", "plan": "starter", "requests": 11, "cost": "3"}]
    items = shop.admin.get("/v1/billing", **SEPTEMBER)["items"]
    assert [(item["kind"], item["quantity"], item["requests"], item["cost"]) for item in items] == [
        ("package", 2, 0, "2"),
        ("base", 1, 0, "1"),
    ]
    assert shop.admin.get("/v1/billing", period="2026-08")["items"] == []


def test_what_a_tenant_owes_keeps_it(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/plans?tenant=acme", name="starter")
    with admin.control.database.write() as session:
        plan = session.get(Plan, 1)
        assert plan is not None
        plan.price_id = price_id_of(session, Terms(base_nanos=10**9))
        session.add(plan)
    admin.post("/v1/keys?tenant=acme", plan="starter")
    assert "owes 1 USD" in admin.refused("conflict", "DELETE", "/v1/tenants/acme")["detail"]


def roll(shop: Shop, until: str, hours_from: str) -> None:
    """Days that are over, as the rollups of days have them; and hours that are gone."""
    with raw(shop) as connection:
        numbers = (
            "requests, billable, errors, refused, units, bytes_in, bytes_out, latency, billable_units, billable_bytes"
        )
        of = "service_id, route_id, key_id, client_id, price_id, status_class"
        sums = ", ".join("x''" if name == "latency" else f"sum({name})" for name in numbers.split(", "))
        connection.execute(
            f"INSERT INTO rollup_day (tenant_id, day, cycle_id, {of}, {numbers}) "
            f"SELECT tenant_id, hour - hour % 86400 AS day, cycle_id, {of}, {sums} FROM rollup WHERE hour < ? "
            f"GROUP BY tenant_id, day, cycle_id, {of}",
            (at(until),),
        )
        connection.execute("DELETE FROM rollup WHERE hour < ?", (at(hours_from),))
        values = [("rolled_until", at(until)), ("hours_from", at(hours_from))]
        connection.executemany("INSERT OR REPLACE INTO progress VALUES (?, ?)", values)
    connection.close()


@pytest.mark.parametrize("table", ["rollup", "rollup_day"])
def test_days_and_the_hours_that_are_kept_are_both_verified(shop: Shop, table: str) -> None:
    for day in (3, 4, 5, 6):
        for hour in (1, 2):
            shop.use(7, f"2026-09-{day:02}T{hour:02}:00:00Z")
    roll(shop, "2026-09-05T00:00:00Z", "2026-09-04T00:00:00Z")
    invoice = shop.admin.post("/v1/billing/close")
    assert invoice["body"]["lines"][0]["requests"] == 56
    assert shop.admin.get("/v1/billing/verify")["ok"]
    column = "hour" if table == "rollup" else "day"
    with raw(shop) as connection:
        late = (at("2026-09-04T00:00:00Z"), at("2026-09-05T00:00:00Z"))
        connection.execute(f"UPDATE {table} SET billable = billable - 1 WHERE {column} >= ? AND {column} < ?", late)
    connection.close()
    differences = shop.admin.get("/v1/billing/verify")["differences"]
    assert differences
    assert all(each["line"].startswith("2026-09-04") for each in differences)
    with raw(shop) as connection:
        connection.execute("INSERT INTO progress VALUES ('days_from', ?)", (at("2026-09-05T00:00:00Z"),))
        connection.execute("DELETE FROM rollup WHERE hour < ?", (at("2026-09-05T00:00:00Z"),))
        connection.execute("DELETE FROM rollup_day")
    connection.close()
    assert shop.admin.get("/v1/billing/verify")["ok"], "what is past its retention is no difference"


KILLED = """
import os, sys
from pathlib import Path
from gatewayd.control import closing
from gatewayd.control.admin.changes import Change
from gatewayd.control.cycles import cycle_named
from gatewayd.control.database import Database
closing.mark_closed = lambda *_: os.kill(os.getpid(), 9)
database = Database(Path(sys.argv[1]))
with database.write_elsewhere() as session:
    closing.close(Change(session, "somebody", 1790900000), cycle_named(session.connection(), 1, "2026-09"))
"""


def test_a_kill_in_the_middle_leaves_nothing(shop: Shop) -> None:
    shop.use(3, "2026-09-30T00:00:00Z")
    before = shop.state()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(shop.database.path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert shop.state() == before
    assert shop.admin.post("/v1/billing/close")["number"] == "INV-000001"


@pytest.mark.parametrize("error", [BrokenError(), IntegrityError("", None, sqlite3.IntegrityError("unique"))])
def test_a_cycle_that_cannot_be_closed_does_not_keep_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    shop.use(1, "2026-08-30T00:00:00Z")
    shop.use(1, "2026-09-30T00:00:00Z")
    real = closing.close

    def close(made: Change, cycle: CycleRow) -> closing.Issued:
        if cycle.period == "2026-08":
            raise error
        return real(made, cycle)

    monkeypatch.setattr(closing, "close", close)
    shop.tick("2026-10-01T01:00:00Z")
    assert [body["period"] for body in shop.invoices()] == ["2026-09"]
    assert "cannot be closed" in caplog.text


def test_the_clock_goes_on_whatever_a_look_at_it_raises(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    looks: list[int] = []

    async def close_due(*_: Any) -> None:
        looks.append(1)
        if len(looks) == 3:
            raise asyncio.CancelledError
        raise OSError(f"look {len(looks)}")

    monkeypatch.setattr(main, "TIDY_S", 0)
    monkeypatch.setattr(main, "close_due", close_due)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main.close_cycles(shop.database, shop.admin.plane, 3600))  # type: ignore[arg-type]
    assert len(looks) == 3


def test_words_for_a_period_are_the_tenants_months(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """At this time it is October in Auckland, and still September in UTC."""
    monkeypatch.setattr("gatewayd.control.admin.billing.now_s", lambda: at("2026-09-30T15:00:00Z"))
    monkeypatch.setattr("gatewayd.control.admin.ledger.now_s", lambda: at("2026-09-30T15:00:00Z"))
    shop.admin.patch("/v1/tenants/default", time_zone="Pacific/Auckland")
    shop.use(10, "2026-09-30T09:00:00Z")
    shop.use(5, "2026-09-30T12:00:00Z")
    for path in ("/v1/billing", "/v1/billing/keys", "/v1/billing/preview"):
        periods = [shop.admin.get(path, period=word)["period"] for word in ("this-month", "last-month")]
        assert periods == ["2026-10", "2026-09"]
    assert shop.admin.get("/v1/billing", period="last-month")["total"] == "0.01"
    assert shop.admin.get("/v1/ledger", period="last-month")["items"] == []
    shop.admin.refused("invalid", "GET", "/v1/billing", params={"period": "next-month"})


def test_this_month_is_the_running_cycle_after_a_reset_too(shop: Shop) -> None:
    shop.use(10, datetime.now().astimezone().isoformat(timespec="seconds"))
    closed = shop.admin.post("/v1/billing/reset")["period"]
    shop.admin.refused("conflict", "POST", "/v1/billing/close", json={"period": "this-month"})
    assert shop.admin.get("/v1/billing", period="this-month")["period"] == f"{closed}.2"


def test_a_months_second_cycle_has_a_bill_when_it_was_begun(shop: Shop) -> None:
    """It had one before: the base fees of a cycle that nobody had opened."""
    shop.charge(Terms(base_nanos=25 * 10**9))
    shop.use(10, datetime.now().astimezone().isoformat(timespec="seconds"))
    period = shop.admin.get("/v1/billing")["period"]
    for path in ("/v1/billing", "/v1/billing/keys", "/v1/billing/preview"):
        shop.admin.refused("not_found", "GET", path, params={"period": f"{period}.2"})
    shop.admin.post("/v1/billing/reset")
    assert shop.admin.get("/v1/billing", period=f"{period}.2")["period"] == f"{period}.2"
