"""Tenants cannot see, name or change what is another's: every address of the admin API is tried with its ids."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gatewayd.control.admin.operations import OPERATIONS
from tests.control.conftest import Admin

# What is made in the tenant acme, by the noun of its address: body, then the names that find it there.
MADE: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "services": ("services", {"slug": "orders", "targets": ["http://a"]}, ("id", "slug")),
    "plans": ("plans", {"name": "gold", "quota": 100}, ("id", "name")),
    "keys": ("keys", {"name": "ci", "plan": "gold"}, ("id", "name", "prefix")),
    "clients": ("clients", {"name": "app", "key": "ci"}, ("id", "name")),
    "routes": ("routes", {"path": "/mine", "service": "orders", "name": "mine"}, ("id",)),
    "alerts": ("alerts", {"quota": 80, "url": "http://127.0.0.1:9"}, ("id",)),
}
# Tenants and tokens are looked up by nobody but an operator of all; quotas are those of keys.
SAME = {"quotas": "keys"}
BODIES = {"grants": {"units": 5}, "reset": {}, "revoke": {}, "simulate": {}}
NOT_IN_TENANTS = {"tenants", "tokens"}

ADDRESSES = sorted(
    {
        (each.method, each.path)
        for each in OPERATIONS
        if "{ref}" in each.path and each.path.split("/")[2] not in NOT_IN_TENANTS
    }
)


@pytest.fixture
def acme(admin: Admin) -> dict[str, dict[str, Any]]:
    admin.post("/v1/tenants", slug="acme")
    nouns = {path.split("/")[2] for _, path in ADDRESSES}
    return {
        noun: made(admin, f"/v1/{path}?tenant=acme", body) for noun, (path, body, _) in MADE.items() if noun in nouns
    }


def made(admin: Admin, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = admin("POST", path, body)
    assert response.status_code == 201, response.text
    return dict(response.json())


def test_every_noun_is_tried() -> None:
    assert {path.split("/")[2] for _, path in ADDRESSES} <= MADE.keys() | SAME.keys()


@pytest.mark.parametrize(("method", "path"), ADDRESSES, ids=[f"{method} {path}" for method, path in ADDRESSES])
@pytest.mark.parametrize("tenant", ["default", "globex"])
def test_what_is_another_tenants_is_not_found(
    admin: Admin, acme: dict[str, dict[str, Any]], tenant: str, method: str, path: str
) -> None:
    admin.post("/v1/tenants", slug="globex")
    noun, action = path.split("/")[2], path.split("/")[-1]
    found = SAME.get(noun, noun)
    before = admin.get("/v1/audit")["items"]
    for name in MADE[found][2]:
        address = re.sub(r"\{.*?\}", str(acme[found][name]), path)
        body = None if method in ("GET", "DELETE") else BODIES.get(action, {})
        problem = admin.refused("not_found", method, address, body, params={"tenant": tenant})
        assert problem["detail"].startswith(("there is no", "no ")), problem
        assert "did_you_mean" not in problem
    assert admin.get("/v1/audit")["items"] == before


@pytest.mark.usefixtures("acme")
def test_lists_show_ones_own(admin: Admin) -> None:
    lists = {each.path for each in OPERATIONS if each.method == "GET" and "{" not in each.path}
    for noun in (MADE.keys() | SAME.keys()) & {path.removeprefix("/v1/") for path in lists}:
        assert admin.get(f"/v1/{noun}", tenant="default")["items"] == []
        assert len(admin.get(f"/v1/{noun}", tenant="acme")["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/usage?service=orders", None),
        ("GET", "/v1/usage?key=ci", None),
        ("GET", "/v1/keys?service=orders", None),
        ("GET", "/v1/keys?plan=gold", None),
        ("GET", "/v1/clients?key=ci", None),
        ("POST", "/v1/keys", {"plan": "gold"}),
        ("POST", "/v1/keys", {"services": ["orders"]}),
        ("PATCH", "/v1/keys/own", {"plan": "gold"}),
        ("PATCH", "/v1/keys/own", {"services": ["orders"]}),
        ("POST", "/v1/clients", {"name": "x", "key": "ci"}),
        ("POST", "/v1/routes", {"path": "/x", "service": "orders"}),
        ("POST", "/v1/plans/own/simulate", {"like": "gold"}),
        ("POST", "/v1/plans/own/simulate", {"keys": ["ci"]}),
        ("POST", "/v1/plans/gold/simulate", {}),
        ("POST", "/v1/alerts", {"quota": 80, "url": "http://127.0.0.1:9", "key": "ci"}),
        ("PATCH", "/v1/tenants/default", {"default_plan": "gold"}),
    ],
)
@pytest.mark.usefixtures("acme")
def test_what_is_another_tenants_cannot_be_referred_to(admin: Admin, method: str, path: str, body: Any) -> None:
    admin.post("/v1/keys", name="own")
    admin.post("/v1/plans", name="own")
    admin.refused("not_found", method, path, body)


@pytest.mark.usefixtures("acme")
def test_a_name_of_another_tenant_is_free(admin: Admin) -> None:
    for noun, (path, body, _) in MADE.items():
        if f"/v1/{noun}" in {each.path for each in OPERATIONS}:
            elsewhere = {"path": "/theirs"} if noun == "routes" else {}  # addresses are everybody's, names are not
            made(admin, f"/v1/{path}", body | elsewhere)
            assert len(admin.get(f"/v1/{path}")["items"]) == 1
