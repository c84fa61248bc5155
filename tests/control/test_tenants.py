"""Tenants over the admin API."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import select

from gatewayd.control.compile import snapshot
from gatewayd.control.tables import Cycle, Rollup, Tenant
from tests.control.conftest import Admin


def test_the_default_tenant_is_there_from_the_start(admin: Admin) -> None:
    listed = admin.get("/v1/tenants")
    assert [(item["slug"], item["currency"], item["suspended"]) for item in listed["items"]] == [
        ("default", "USD", False)
    ]
    assert listed["next"] is None


def test_a_tenant_is_added_changed_and_removed(admin: Admin) -> None:
    added = admin.post("/v1/tenants", slug="acme", name="Acme & Söhne", currency="EUR")
    assert added == {
        "id": added["id"],
        "slug": "acme",
        "name": "Acme & Söhne",
        "currency": "EUR",
        "suspended": False,
        "time_zone": "UTC",
        "contact": "",
        "default_plan": None,
        "rates": [],
        "allow": [],
        "created_at": added["created_at"],
    }
    assert added["id"].startswith("ten_")
    assert added["created_at"].endswith("Z")
    assert admin.get("/v1/tenants/acme") == admin.get(f"/v1/tenants/{added['id']}") == added
    assert admin.patch("/v1/tenants/acme", suspended=True)["suspended"] is True
    assert admin.patch("/v1/tenants/acme", currency="CHF", name="") == {
        **added, "currency": "CHF", "name": "", "suspended": True
    }  # fmt: skip
    admin.delete("/v1/tenants/acme")
    admin.refused("not_found", "GET", "/v1/tenants/acme")
    assert admin.plane.told == ["snapshot", "snapshot", "caught up", "snapshot", "caught up", None, "snapshot"]
    assert admin.post("/v1/tenants", slug="acme")["id"] != added["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"slug": "Acme"}, "slug"),
        ({"slug": ""}, "slug"),
        ({"slug": "proxy"}, "slug"),
        ({"slug": "acme", "currency": "euro"}, "currency"),
        ({"slug": "acme", "currency": "EURO"}, "currency"),
        ({"slug": "acme", "name": "a\nb"}, "name"),
        ({"slug": "acme", "name": "x" * 201}, "name"),
        ({"slug": 7}, "slug"),
        ({}, "slug"),
        ({"slug": "acme", "time_zone": "Mars/Olympus"}, "time_zone"),
        ({"slug": "acme", "time_zone": "Europe"}, "time_zone"),
        ({"slug": "acme", "time_zone": "../etc/passwd"}, "time_zone"),
        ({"slug": "acme", "time_zone": "/etc/localtime"}, "time_zone"),
        ({"slug": "acme", "time_zone": ""}, "time_zone"),
        ({"slug": "acme", "contact": "x" * 201}, "contact"),
        ({"slug": "acme", "contact": "a\nb"}, "contact"),
        ({"slug": "acme", "rates": ["5"]}, "rates"),
        ({"slug": "acme", "rates": ["5/month"]}, "rates"),
        ({"slug": "acme", "burst": 5}, "burst"),
        ({"slug": "acme", "allow": ["GET"]}, "allow"),
        ({"slug": "acme", "allow": ["GET v1"]}, "allow"),
        ({"slug": "acme", "colour": "red"}, "colour"),
    ],
)
def test_bad_tenants_are_refused(admin: Admin, body: dict[str, Any], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/tenants", body)
    assert problem["field"] == field
    assert field in problem["detail"]
    assert len(admin.get("/v1/tenants")["items"]) == 1
    assert admin.plane.told == []


def test_a_slug_is_taken_once(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    assert admin.refused("conflict", "POST", "/v1/tenants", {"slug": "acme"})["detail"] == (
        "tenant 'acme' exists already"
    )


def test_a_tenant_and_a_service_of_the_default_tenant_cannot_share_a_name(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=["http://a"])
    admin.post("/v1/tenants", slug="acme")
    assert "ambiguous" in admin.refused("conflict", "POST", "/v1/tenants", {"slug": "orders"})["detail"]
    for slug in ("acme", "default"):
        body = {"slug": slug, "targets": ["http://a"]}
        assert "ambiguous" in admin.refused("conflict", "POST", "/v1/services", body)["detail"]
    admin.post("/v1/services?tenant=acme", slug="acme", targets=["http://a"])


def test_the_default_tenant_stays(admin: Admin) -> None:
    admin.refused("conflict", "DELETE", "/v1/tenants/default?force=true")


def test_a_tenant_in_use_is_removed_only_by_force(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services?tenant=acme", slug="orders", targets=["http://a"])
    admin.post("/v1/plans?tenant=acme", name="starter")
    key = admin.post("/v1/keys?tenant=acme", plan="starter")
    admin.post("/v1/keys?tenant=acme")
    problem = admin.refused("conflict", "DELETE", "/v1/tenants/acme")
    assert problem["detail"] == "tenant 'acme' still has 1 service and 2 keys; force removes them with it"
    admin.plane.told.clear()
    admin.delete("/v1/tenants/acme?force=true")
    assert admin.plane.told == [None, "snapshot"]
    assert admin.get("/v1/audit")["items"][0]["action"] == "tenant.remove"
    again = admin.post("/v1/tenants", slug="acme")
    assert again["slug"] == "acme"
    assert admin.get("/v1/services", tenant="acme")["items"] == []
    admin.refused("not_found", "GET", f"/v1/keys/{key['id']}?tenant=acme")


def test_an_unknown_tenant_comes_with_a_near_one(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="globex")
    problem = admin.refused("not_found", "GET", "/v1/services?tenant=globx")
    assert problem["detail"] == "there is no tenant 'globx'"
    assert problem["did_you_mean"] == "globex"
    assert "did_you_mean" not in admin.refused("not_found", "GET", "/v1/tenants/zzz")


def test_all_that_a_tenant_may_say(admin: Admin) -> None:
    said = {"time_zone": "Europe/Berlin", "contact": "ops@acme.example", "allow": ["GET /v1/*", "* /health"]}
    added = admin.post("/v1/tenants", slug="acme", rates=["1000/s", "1M/d"], burst=100, **said)
    assert {name: added[name] for name in said} == said
    assert [(rate["limit"], rate["window_s"], rate["burst"]) for rate in added["rates"]] == [
        (1000, 1, 100),
        (1000000, 86400, 100),
    ]
    (conf,) = (tenant for tenant in snapshot(admin.control.database.lookup).tenants if tenant.slug == "acme")
    assert [rate.limit for rate in conf.rates] == [1000, 1000000]
    assert conf.allow == ("GET /v1/*", "* /health")
    assert admin.patch("/v1/tenants/acme", allow=[])["allow"] == []
    assert admin.patch("/v1/tenants/acme", rates=["500/s"])["rates"][0]["burst"] == 100
    assert admin.patch("/v1/tenants/acme", burst=7)["rates"][0]["burst"] == 7
    assert admin.patch("/v1/tenants/acme", rates=[], time_zone="UTC", contact="")["rates"] == []
    assert admin.refused("invalid", "PATCH", "/v1/tenants/acme", {"burst": 7})["field"] == "burst"


def test_the_default_plan_is_one_of_the_tenants_own(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/plans", name="starter")
    admin.refused("not_found", "PATCH", "/v1/tenants/acme", {"default_plan": "starter"})
    admin.post("/v1/plans?tenant=acme", name="gold")
    assert admin.patch("/v1/tenants/acme", default_plan="gold")["default_plan"] == "gold"
    assert [item["default_plan"] for item in admin.get("/v1/tenants")["items"]] == ["gold", None]
    admin.patch("/v1/plans/gold?tenant=acme", name="platinum")
    assert admin.get("/v1/tenants/acme")["default_plan"] == "platinum"


def owing(admin: Admin, billable: int, closed_at: int | None = None) -> None:
    """The tenant acme, with a cycle and so many billable requests in it."""
    with admin.control.database.write() as session:
        tenant = session.exec(select(Tenant).where(Tenant.slug == "acme")).one()
        assert tenant.id is not None
        cycle = Cycle(tenant_id=tenant.id, period="2026-09", starts_at=0, ends_at=1, closed_at=closed_at)
        session.add(cycle)
        session.flush()
        assert cycle.id is not None
        numbers: dict[str, Any] = dict.fromkeys(
            ("errors", "refused", "bytes_in", "bytes_out", "route_id", "client_id"), 0
        )
        row: dict[str, Any] = {
            "hour": 1_788_264_000,
            "service_id": 1,
            "key_id": 1,
            "status_class": 2,
            "latency": b"",
            "price_id": 1,
        }
        session.add(
            Rollup(tenant_id=tenant.id, cycle_id=cycle.id, requests=9, units=9, billable=billable, **row, **numbers)
        )


def test_a_tenant_that_owes_is_removed_only_by_force(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme", currency="EUR")
    owing(admin, billable=1500)
    tried = admin.refused("conflict", "DELETE", "/v1/tenants/acme?dry_run=true")
    problem = admin.refused("conflict", "DELETE", "/v1/tenants/acme")
    assert problem["detail"] == tried["detail"] == (
        "tenant 'acme' owes 1.5 EUR for 2026-09 that no invoice has billed; force removes it all the same"
    )  # fmt: skip
    admin.post("/v1/keys?tenant=acme")
    both = admin.refused("conflict", "DELETE", "/v1/tenants/acme")["detail"]
    assert both.startswith("tenant 'acme' still has 1 key and owes 1.5 EUR for 2026-09 that no invoice has billed;")
    admin.delete("/v1/tenants/acme?force=true")
    bill = admin.get("/v1/billing", tenant="acme", period="2026-09")
    assert (bill["total"], bill["state"]) == ("1.5", "due")


@pytest.mark.parametrize(("billable", "closed_at"), [(0, None), (9, 1_790_812_800)])
def test_what_costs_nothing_or_is_billed_holds_nobody(admin: Admin, billable: int, closed_at: int | None) -> None:
    admin.post("/v1/tenants", slug="acme")
    owing(admin, billable, closed_at)
    admin.delete("/v1/tenants/acme")


def test_a_dry_run_leaves_the_tenant(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.plane.told.clear()
    admin.delete("/v1/tenants/acme?dry_run=true")
    admin.refused("conflict", "DELETE", "/v1/tenants/default?force=true&dry_run=true")
    assert admin.plane.told == ["caught up"]
    admin.get("/v1/tenants/acme")
