"""Clients over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.compile import find_key
from tests.control.conftest import Admin


def has_clients(admin: Admin, key: dict[str, Any]) -> bool:
    conf = find_key(admin.control.database.lookup, key["prefix"][3:])
    assert conf is not None
    return conf.has_clients


def test_a_client_is_added_changed_and_removed(admin: Admin) -> None:
    key = admin.post("/v1/keys", name="ci")
    assert not has_clients(admin, key)
    added = admin.post("/v1/clients", name="mobile-app")
    assert added == {
        "id": added["id"],
        "name": "mobile-app",
        "tenant": "default",
        "key": None,
        "rates": None,
        "created_at": added["created_at"],
    }
    assert has_clients(admin, key)
    assert admin.get("/v1/clients/mobile-app") == admin.get(f"/v1/clients/{added['id']}") == added
    rates = admin.patch("/v1/clients/mobile-app", rates=["5/s", "100/min"], burst=7)["rates"]
    assert [(rate["limit"], rate["window_s"], rate["burst"]) for rate in rates] == [(5, 1, 7), (100, 60, 7)]
    assert admin.patch("/v1/clients/mobile-app", burst=9)["rates"][0]["burst"] == 9
    assert admin.patch("/v1/clients/mobile-app", rates=["8/s"])["rates"][0]["burst"] == 9
    assert admin.patch("/v1/clients/mobile-app", rates=None)["rates"] is None
    admin.refused("invalid", "PATCH", "/v1/clients/mobile-app", {"burst": 5})
    admin.delete("/v1/clients/mobile-app")
    admin.refused("not_found", "GET", "/v1/clients/mobile-app")
    assert not has_clients(admin, key)
    assert admin.plane.told == [None] * 6
    assert [line["action"] for line in admin.get("/v1/audit")["items"]][:2] == ["client.remove", "client.set"]


def test_a_client_of_one_key(admin: Admin) -> None:
    key, other = admin.post("/v1/keys", name="ci"), admin.post("/v1/keys", name="cd")
    everywhere = admin.post("/v1/clients", name="app")
    added = admin.post("/v1/clients", name="app", key="ci", rates=["5/s"])
    assert added["key"] == key["prefix"]
    assert admin.plane.told[-1] == [key["prefix"][3:]]
    assert admin.get("/v1/clients")["items"] == [everywhere, added]
    assert admin.get("/v1/clients", key="ci")["items"] == [added]
    assert admin.get("/v1/clients", key=other["id"])["items"] == []
    problem = admin.refused("conflict", "GET", "/v1/clients/app")
    assert problem["detail"] == "more than one client is called 'app'; use its id, or say of which key"
    assert admin.get("/v1/clients/app", key="ci") == added
    admin.refused("conflict", "POST", "/v1/clients", {"name": "app"})
    admin.refused("conflict", "POST", "/v1/clients", {"name": "app", "key": "ci"})
    admin.post("/v1/clients", name="app", key="cd")
    admin.delete(f"/v1/clients/{added['id']}")
    admin.post("/v1/clients", name="app", key="ci")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a,b"}, "name"),
        ({"name": "cli_abcdefgh"}, "name"),
        ({"name": "ü"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"rates": ["5"]}, "rates"),
        ({"rates": ["5/month"]}, "rates"),
        ({"burst": 5}, "burst"),
        ({"quota": 5}, "quota"),
    ],
)
def test_bad_clients_are_refused(admin: Admin, body: dict[str, Any], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/clients", {"name": "app"} | body)
    assert (problem["field"], field in problem["detail"]) == (field, True), problem
    assert admin.get("/v1/clients")["items"] == []


def test_an_unknown_client_comes_with_a_near_one(admin: Admin) -> None:
    admin.post("/v1/clients", name="mobile-app")
    assert admin.refused("not_found", "GET", "/v1/clients/mobil-app")["did_you_mean"] == "mobile-app"
    admin.refused("not_found", "POST", "/v1/clients", {"name": "x", "key": "nope"})
