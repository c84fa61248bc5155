"""Usage and bills, from rollups to the answers of the admin API."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select

from gatewayd.control.compile import find_key
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Cycle, Price, Rollup, Route
from gatewayd.policy.histogram import Histogram
from gatewayd.policy.pricing import Terms, encode_terms
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin

HOUR = 1_788_264_000  # 2026-09-01T12:00:00Z
DAY = {"since": "2026-09-01", "until": "2026-09-02"}
TARGETS = ["http://127.0.0.1:8001"]


class Ledger:
    """Writes rollups, as ingest does."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        with admin.control.database.write() as session:
            session.add(Cycle(tenant_id=1, period="2026-09", starts_at=1_788_220_800, ends_at=1_790_812_800))
            session.add(Price(terms=encode_terms(Terms(request_nanos=1))))

    def add(self, **columns: Any) -> None:
        micros = columns.pop("micros", [])
        latency = Histogram()
        for value in micros:
            latency.add(value)
        row: dict[str, Any] = dict.fromkeys(
            ("route_id", "client_id", "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out"), 0
        )
        row |= {"tenant_id": 1, "hour": HOUR, "cycle_id": 1, "service_id": 1, "key_id": 1, "price_id": 1}
        row |= {"status_class": 2, "latency": latency.pack()} | columns
        with self._admin.control.database.write() as session:
            session.add(Rollup(**row))


@pytest.fixture
def ledger(admin: Admin) -> Ledger:
    """Two services and two keys, with a row for each thing that a view must tell apart."""
    for slug in ("orders", "products"):
        admin.post("/v1/services", slug=slug, targets=TARGETS)
    for name in ("ci", "cd"):
        admin.post("/v1/keys", name=name)
    ledger = Ledger(admin)
    ledger.add(requests=10, billable=10, bytes_in=5, bytes_out=500, units=10, micros=[1000] * 9 + [64_000])
    ledger.add(requests=2, errors=2, status_class=5, micros=[8000] * 2)
    ledger.add(refused=7, status_class=4)
    ledger.add(requests=3, billable=3, key_id=2, price_id=2, hour=HOUR + 3600, micros=[2000] * 3)
    ledger.add(requests=4, billable=4, service_id=2, key_id=0, hour=HOUR + 86400)
    return ledger


def keys_of(admin: Admin) -> list[str]:
    return [item["prefix"] for item in admin.get("/v1/keys")["items"]]


@pytest.mark.usefixtures("ledger")
def test_usage_is_summed_by_service(admin: Admin) -> None:
    answered = admin.get("/v1/usage", **DAY)
    assert (answered["since"], answered["until"]) == ("2026-09-01T00:00:00Z", "2026-09-02T00:00:00Z")
    (orders,) = answered["items"]
    assert orders.pop("service") == "orders"
    assert orders == answered["total"]
    quantiles = {name: orders.pop(name) for name in ("p50_ms", "p95_ms", "p99_ms")}
    assert orders == {
        "requests": 15,
        "billable": 13,
        "errors": 2,
        "refused": 7,
        "units": 10,
        "bytes_in": 5,
        "bytes_out": 500,
        "cost": "0.010000003",
    }
    assert quantiles["p50_ms"] == pytest.approx(1, rel=1 / 16)
    assert quantiles["p95_ms"] == quantiles["p99_ms"] == pytest.approx(64, rel=1 / 16)
    assert admin.plane.told[-1] == "caught up"


def test_clients_and_routes_have_names(admin: Admin, ledger: Ledger) -> None:
    """A route without a name of its own is called by where it is; what is removed keeps its name."""
    admin.post("/v1/clients", name="mobile-app")
    admin.post("/v1/clients", name="kiosk", key="ci")
    admin.delete("/v1/clients/kiosk")
    with admin.control.database.write() as session:
        for name, host, path in (("reads", None, "/v1"), ("", "api.example.com", "/v2"), ("", None, "/v3/{id}")):
            session.add(
                Route(public_id=f"rte_{path}", tenant_id=1, service_id=1, name=name, host=host, path=path, created_at=0)
            )
    for number in (1, 2, 3):
        ledger.add(requests=1, route_id=number, client_id=min(number, 2))
    items = admin.get("/v1/usage", **DAY, by="route,client")["items"]
    assert [(item["route"], item["client"], item["requests"]) for item in items] == [
        ("-", "-", 15),
        ("/v3/{id}", "kiosk", 1),
        ("api.example.com/v2", "kiosk", 1),
        ("reads", "mobile-app", 1),
    ]


def test_a_new_price_is_for_what_comes_after_it(admin: Admin) -> None:
    """The price in force when a request was admitted is named by its record, which is what a key's conf says."""
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/plans", name="starter", price="0.001")
    key = admin.post("/v1/keys", plan="starter")

    def use(requests: int, at: int) -> None:
        conf = find_key(admin.control.database.lookup, key["prefix"][3:])
        assert conf is not None
        record = Record(ADMITTED, at * 10**9, 1, 1, 0, conf.id, 0, 0, conf.price_id, 200, 0, 1, 0, 0, 0, 0, b"")
        with admin.control.database.write() as session:
            Rollups().add(session, [record] * requests)

    use(10, at=HOUR)
    admin.patch("/v1/plans/starter", price="0.002")
    use(4, at=HOUR + 60)  # within the same hour
    bill = admin.get("/v1/billing", period="2026-09")
    lines = [(item["requests"], item["price"], item["cost"]) for item in bill["items"]]
    assert (sorted(lines), bill["total"]) == ([(4, "0.002", "0.008"), (10, "0.001", "0.01")], "0.018")
    assert admin.get("/v1/usage", **DAY)["total"]["cost"] == "0.018"
    admin.patch("/v1/plans/starter", price="0.5")
    assert admin.get("/v1/billing", period="2026-09")["total"] == "0.018"
    assert [item["price"] for item in admin.get("/v1/plans/starter/versions")["items"]] == ["0.5", "0.002", "0.001"]


@pytest.mark.usefixtures("ledger")
def test_usage_by_several_dimensions_and_interval(admin: Admin) -> None:
    ci, cd = keys_of(admin)

    def lines(*columns: str, **query: Any) -> list[tuple[Any, ...]]:
        items = admin.get("/v1/usage", since="2026-09-01", until="2026-09-03", **query)["items"]
        return [tuple(item[column] for column in columns) for item in items]

    assert sorted(lines("key", "requests", by="key")) == sorted([("-", 4), (ci, 12), (cd, 3)])
    assert lines("status", "requests", "refused", by="status") == [("2xx", 17, 0), ("4xx", 0, 7), ("5xx", 2, 0)]
    assert lines("time", "service", "requests", by="service", interval="day") == [
        ("2026-09-01T00:00:00Z", "orders", 15),
        ("2026-09-02T00:00:00Z", "products", 4),
    ]
    assert lines("time", "requests", by="", interval="hour") == [
        ("2026-09-01T12:00:00Z", 12),
        ("2026-09-01T13:00:00Z", 3),
        ("2026-09-02T12:00:00Z", 4),
    ]
    assert lines("service", "route", "client", "requests", by="service,route,client") == [
        ("orders", "-", "-", 15),
        ("products", "-", "-", 4),
    ]
    assert lines("requests", by="service", service="products") == [(4,)]
    assert lines("service", "requests", by="service", key="cd") == [("orders", 3)]


def test_tenants_see_their_own_usage_and_an_operator_all_of_it(admin: Admin, ledger: Ledger) -> None:
    admin.post("/v1/tenants", slug="acme")
    assert admin.get("/v1/usage", tenant="acme", **DAY)["items"] == []
    assert admin.get("/v1/usage", tenant="acme", **DAY)["total"]["p50_ms"] is None
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=2, period="2026-09", starts_at=0, ends_at=1))
    ledger.add(tenant_id=2, cycle_id=2, service_id=0, requests=1)
    items = admin.get("/v1/usage", by="tenant", **DAY)["items"]
    assert [(item["tenant"], item["requests"]) for item in items] == [("acme", 1), ("default", 15)]
    assert len(admin.get("/v1/usage", by="tenant", tenant="default", **DAY)["items"]) == 1


@pytest.mark.usefixtures("ledger")
def test_names_of_removed_services_are_still_shown(admin: Admin) -> None:
    admin.delete("/v1/services/orders")
    assert admin.get("/v1/usage", **DAY)["items"][0]["service"] == "orders"
    assert admin.get("/v1/billing", period="2026-09")["items"][0]["service"] == "orders"
    assert admin.get("/v1/usage", service="orders", **DAY)["total"]["requests"] == 15
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    assert admin.get("/v1/usage", service="orders", **DAY)["total"]["requests"] == 0


def test_a_removed_tenant_can_still_be_billed_until_another_has_its_name(admin: Admin, ledger: Ledger) -> None:
    gone = admin.post("/v1/tenants", slug="acme")["id"]
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=2, period="2026-09", starts_at=1_788_220_800, ends_at=1_790_812_800))
    ledger.add(tenant_id=2, cycle_id=2, requests=1, billable=1)
    admin.delete("/v1/tenants/acme?force=true")
    bill = {"period": "2026-09"}
    assert admin.get("/v1/billing", tenant="acme", **bill)["total"] == "0.001"
    assert admin.get("/v1/usage", tenant="acme", **DAY)["total"]["requests"] == 1
    admin.refused("not_found", "GET", "/v1/services?tenant=acme")
    admin.post("/v1/tenants", slug="acme")
    assert admin.get("/v1/billing", tenant="acme", **bill)["total"] == "0"
    assert admin.get("/v1/billing", tenant=gone, **bill)["total"] == "0.001"


@pytest.mark.usefixtures("ledger")
def test_a_currency_stays_once_there_is_a_bill_in_it(admin: Admin) -> None:
    admin.refused("conflict", "PATCH", "/v1/tenants/default", {"currency": "JPY"})
    assert admin.patch("/v1/tenants/default", currency="USD", name="us")["name"] == "us"


def test_a_range_is_widened_to_whole_hours_and_says_so(admin: Admin) -> None:
    answered = admin.get("/v1/usage", since="2026-09-01T12:34:56Z", until=HOUR + 3601)
    assert (answered["since"], answered["until"]) == ("2026-09-01T12:00:00Z", "2026-09-01T14:00:00Z")
    assert answered["items"] == []


def test_without_a_range_it_is_the_last_day(admin: Admin) -> None:
    answered = admin.get("/v1/usage")
    assert answered["since"] < answered["until"]
    assert answered["total"]["cost"] == "0"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=2026-09-01T12:00:00", "since"),
        ("since=2026-09-02&until=2026-09-01", "since"),
        ("until=1e9", "until"),
        ("until=99999999999999999999", "until"),
        ("until=9999-12-31T23:59:59Z", "until"),
        ("by=colour", "by"),
        ("interval=week", "interval"),
        ("sinse=2026-09-01", "sinse"),
        ("by=key&by=service", "by"),
    ],
)
def test_bad_questions_are_refused(admin: Admin, query: str, field: str) -> None:
    problem = admin.refused("invalid", "GET", f"/v1/usage?{query}")
    assert problem["field"] == field


def test_unknown_names_in_questions_are_not_found(admin: Admin) -> None:
    for query in ("service=nowhere", "key=nobody", "tenant=noone"):
        admin.refused("not_found", "GET", f"/v1/usage?{query}")


@pytest.mark.usefixtures("ledger")
def test_the_bill_is_one_line_for_service_key_and_price(admin: Admin) -> None:
    ci, cd = keys_of(admin)

    def item(service: str, key: str, requests: int, price: str, cost: str) -> dict[str, Any]:
        of = {"service": service, "key": key, "plan": None, "kind": "request", "tier": None, "quantity": requests}
        return {**of, "requests": requests, "price": price, "cost": cost}

    assert admin.get("/v1/billing", period="2026-09") == {
        "tenant": "default",
        "period": "2026-09",
        "currency": "USD",
        "starts_at": "2026-09-01T00:00:00Z",
        "ends_at": "2026-10-01T00:00:00Z",
        "state": "due",
        "invoice": None,
        "items": [
            item("orders", ci, 10, "0.001", "0.01"),
            item("orders", cd, 3, "0.000000001", "0.000000003"),
            item("products", "-", 4, "0.001", "0.004"),
        ],
        "credits": [],
        "subtotal": "0.014000003",
        "credited": "0",
        "total": "0.014000003",
        "carried_forward": "0",
    }


@pytest.mark.usefixtures("ledger")
def test_the_bill_by_key(admin: Admin) -> None:
    """Its plan is that of the cycle's end: one that it was given after September says nothing of that."""
    ci, cd = keys_of(admin)
    admin.post("/v1/plans", name="starter")
    admin.patch("/v1/keys/ci", plan="starter")
    answered = admin.get("/v1/billing/keys", period="2026-09")
    assert answered["items"] == [
        {"key": "-", "name": "", "plan": None, "requests": 4, "cost": "0.004"},
        {"key": ci, "name": "ci", "plan": None, "requests": 10, "cost": "0.01"},
        {"key": cd, "name": "cd", "plan": None, "requests": 3, "cost": "0.000000003"},
    ]
    assert answered["total"] == "0.014000003"


def test_a_bill_of_a_month_without_requests_is_empty(admin: Admin) -> None:
    answered = admin.get("/v1/billing")
    assert (answered["items"], answered["total"], answered["state"]) == ([], "0", "open")


def test_an_amount_that_no_64_bits_hold_is_exact(admin: Admin, ledger: Ledger) -> None:
    with admin.control.database.write() as session:
        session.add(Price(terms=encode_terms(Terms(request_nanos=10**15))))
    ledger.add(requests=10**12, billable=10**12, price_id=3)
    assert admin.get("/v1/billing", period="2026-09")["total"] == "1000000000000000000.014000003"


@pytest.mark.parametrize("period", ["2026-13", "september", "2026", ""])
def test_bad_periods_are_refused(admin: Admin, period: str) -> None:
    assert admin.refused("invalid", "GET", f"/v1/billing?period={period}")["field"] == "period"


def test_a_key_shows_what_it_used_this_month(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", quota=5)
    made = admin.post("/v1/keys", plan="starter")
    ledger = Ledger(admin)
    now = time.time_ns() // 10**9
    ledger.add(hour=now - now % 3600, requests=7, units=7, billable=6)
    ledger.add(hour=now - now % 3600 - 40 * 86400, requests=100, units=100, billable=100)
    shown = admin.get(f"/v1/keys/{made['id']}")
    assert shown["usage"] == {"requests": 7, "billable": 6, "cost": "0.006"}
    assert shown["limits"]["quota"] == {"limit": 5, "used": 7, "remaining": 0}


@pytest.mark.parametrize(
    ("where", "index"), [("tenant_id = 1 AND hour >= 5", "PRIMARY KEY"), ("key_id = 1 AND hour >= 5", "rollup_by_key")]
)
def test_views_use_an_index(admin: Admin, where: str, index: str) -> None:
    with admin.control.database.read() as session:
        plan = session.execute(text(f"EXPLAIN QUERY PLAN SELECT sum(requests) FROM rollup WHERE {where}")).all()
        assert index in str(plan)
        assert session.exec(select(Rollup)).first() is None
