"""Names by how they begin, for whoever presses Tab: of each kind, of a million keys, never of another tenant."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from tests.control.conftest import Admin

TARGETS = ["http://127.0.0.1:8001"]


def names(admin: Admin, of: str, **query: Any) -> list[tuple[str, str, str]]:
    items = admin.get("/v1/names", of=of, **query)["items"]
    return [(item["name"], item["id"], item["about"]) for item in items]


def typed(admin: Admin, of: str, **query: Any) -> list[str]:
    return [name or public_id for name, public_id, _ in names(admin, of, **query)]


def plans_of_statements(admin: Admin, starts_with: str) -> list[str]:
    """How SQLite goes about each statement about keys that such a question makes."""
    asked: list[tuple[str, Any]] = []
    readers = admin.control.database._readers

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    event.listen(readers, "before_cursor_execute", note)
    try:
        names(admin, "key", starts_with=starts_with)
    finally:
        event.remove(readers, "before_cursor_execute", note)
    with admin.control.database.read() as session:
        connection = session.connection()
        return [
            str(row[3])
            for statement, parameters in asked
            if "FROM tenant" not in statement
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


def test_services_and_their_targets(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/services", slug="outlet", targets=["http://a.test", "http://b.test"])
    admin.post("/v1/services", slug="shop", targets=TARGETS)
    found = names(admin, "service", starts_with="o")
    assert [(name, about) for name, _, about in found] == [
        ("orders", "http://127.0.0.1:8001"),
        ("outlet", "http://a.test and 1 more"),
    ]
    assert all(public_id.startswith("svc_") for _, public_id, _ in found)
    assert typed(admin, "service", limit=1) == ["orders"]
    assert names(admin, "target", starts_with="http://a") == [("http://a.test", "", "outlet")]
    admin.delete("/v1/services/orders")
    assert typed(admin, "service") == ["outlet", "shop"]


def test_keys_by_name_and_by_prefix(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", rates=["60/min"])
    ci = admin.post("/v1/keys", name="ci", plan="starter")
    unnamed = admin.post("/v1/keys", plan="starter")
    admin.post(f"/v1/keys/{unnamed['id']}/revoke")
    assert names(admin, "key", starts_with="c") == [("ci", ci["prefix"], "starter")]
    assert names(admin, "key") == [("", unnamed["prefix"], "starter, revoked"), ("ci", ci["prefix"], "starter")]
    for length in range(1, len(ci["prefix"]) + 1):
        assert ("ci", ci["prefix"], "starter") in names(admin, "key", starts_with=ci["prefix"][:length])
    assert names(admin, "key", starts_with=ci["prefix"]) == [("ci", ci["prefix"], "starter")]
    assert names(admin, "key", starts_with="CI") == []


def test_routes_plans_clients_alerts(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    named = admin("POST", "/v1/routes", {"service": "orders", "path": "/v1", "name": "reads"}).json()
    nameless = admin("POST", "/v1/routes", {"service": "orders", "path": "/v2", "host": "a.test"}).json()
    assert names(admin, "route") == [("reads", named["id"], "/v1"), ("", nameless["id"], "a.test/v2")]
    assert typed(admin, "route", starts_with="re") == ["reads"]
    assert nameless["id"] in typed(admin, "route", starts_with="rte_")
    admin.post("/v1/plans", name="gold", rates=["60/min", "5/s"])
    admin.post("/v1/plans", name="free")
    assert [about for *_, about in names(admin, "plan", starts_with="g")] == ["60 per minute, 5 per second"]
    key = admin.post("/v1/keys", name="ci")
    admin.post("/v1/clients", name="kiosk", key=key["id"])
    admin.post("/v1/clients", name="phone")
    assert [(name, about) for name, _, about in names(admin, "client")] == [
        ("kiosk", f"of {key['prefix']}"),
        ("phone", "of all keys"),
    ]
    alert = admin.post("/v1/alerts", quota=80, url="http://127.0.0.1:9/hook")
    assert names(admin, "alert") == [("", alert["id"], "quota, 127.0.0.1:9")]


def test_invoices_newest_first(admin: Admin) -> None:
    admin.post("/v1/billing/reset")
    assert [(name, about.split(", ")[1]) for name, _, about in names(admin, "invoice")] == [("INV-000001", "0 USD")]
    assert names(admin, "invoice", starts_with="INV-9") == []


def test_another_tenants_are_not_told(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme", name="Acme")
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    key = admin.post("/v1/keys", name="ci")
    for of in ("service", "target", "route", "plan", "key", "client", "alert", "invoice"):
        assert names(admin, of, tenant="acme") == []
        assert names(admin, of, tenant="acme", starts_with=key["prefix"][:6]) == []


def test_what_is_asked_wrongly_is_refused(admin: Admin) -> None:
    admin.refused("invalid", "GET", "/v1/names")
    admin.refused("invalid", "GET", "/v1/names?of=secret")
    admin.refused("invalid", "GET", "/v1/names?of=key&limit=1001")
    admin.refused("not_found", "GET", "/v1/names?of=key&tenant=nobody")


@pytest.mark.parametrize("starts_with", ["", "k0", "k00001234", "g", "gw_", "gw_2", "gw_23", "gw_234", "gw_23456", "~"])
def test_of_many_keys_ranges_of_indexes_are_read(admin: Admin, starts_with: str) -> None:
    plans = plans_of_statements(admin, starts_with)
    assert [plan for plan in plans if "key" in plan]
    assert not [plan for plan in plans if plan.startswith("SCAN key") or "TEMP B-TREE" in plan], plans
    if starts_with.startswith("gw_23"):
        assert any("(public_id>? AND public_id<?)" in plan for plan in plans), plans
