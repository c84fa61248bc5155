"""Tenants over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

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
    assert admin.plane.told == ["snapshot", "snapshot", "caught up", "snapshot", None, "snapshot"]
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
