"""What a key may be told: rules, networks, labels, limits of its own, a plan by default."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.compile import find_key
from gatewayd.control.tables import Tenant
from tests.control.conftest import Admin


def conf_of(admin: Admin, key: dict[str, Any]) -> Any:
    return find_key(admin.control.database.lookup, key["id"].removeprefix("key_"))


def test_rules_and_networks_reach_the_data_plane_as_they_are_shown(admin: Admin) -> None:
    made = admin.post("/v1/keys", allow=["get /v1/users/*", "* /health"], networks=["10.0.0.0/8", "2001:DB8::/32"])
    assert (made["allow"], made["networks"]) == (["GET /v1/users/*", "* /health"], ["10.0.0.0/8", "2001:db8::/32"])
    conf = conf_of(admin, made)
    assert (conf.allow, conf.networks) == (tuple(made["allow"]), tuple(made["networks"]))
    changed = admin.patch(f"/v1/keys/{made['id']}", allow=[], networks=None)
    assert (changed["allow"], changed["networks"]) == ([], [])
    assert conf_of(admin, made).allow == ()


def test_limits_of_its_own_stand_before_the_plans(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", rates=["60/min"], quota=1000, price="0.002")
    made = admin.post("/v1/keys", plan="starter", name="ci")
    planned = conf_of(admin, made)
    changed = admin.patch("/v1/keys/ci", rates=["5/s"], burst=9, quota="7/month", in_flight_limit=3, price="0.5")
    assert changed["overrides"] == {
        "rates": [{"name": "second", "limit": 5, "window_s": 1, "burst": 9}],
        "quota": 7,
        "in_flight_limit": 3,
        "price": "0.5",
    }
    conf = conf_of(admin, made)
    assert [(rate.limit, rate.burst) for rate in conf.rates] == [(5, 9)]
    assert (conf.quota, conf.in_flight_limit) == (7, 3)
    assert conf.price_id not in (planned.price_id, 1)
    limits = admin.get("/v1/keys/ci")["limits"]
    assert (limits["rates"][0]["limit"], limits["quota"]["limit"], limits["in_flight_limit"]) == (5, 7, 3)
    assert admin.patch("/v1/keys/ci", burst=2)["overrides"]["rates"][0]["burst"] == 2
    cleared = admin.patch("/v1/keys/ci", rates=None, quota=None, in_flight_limit=None, price=None)
    assert cleared["overrides"] == {}
    assert conf_of(admin, made) == planned


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"allow": ["GET"]}, "allow"),
        ({"allow": ["GET /v1/*/x"]}, "allow"),
        ({"networks": ["10.0.0.1/8"]}, "networks"),
        ({"networks": ["here"]}, "networks"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"labels": {"team": "a\nb"}}, "labels"),
        ({"labels": {"team": 7}}, "labels"),
        ({"rates": ["fast"]}, "rates"),
        ({"rates": ["10/month"]}, "rates"),
        ({"rates": []}, "rates"),
        ({"rates": ["5/s", "6/s"]}, "rates"),
        ({"burst": 3}, "burst"),
        ({"quota": "7/min"}, "quota"),
        ({"in_flight_limit": 0}, "in_flight_limit"),
        ({"price": "-1"}, "price"),
    ],
)
def test_what_a_key_cannot_be_told_is_refused_by_its_name(admin: Admin, body: dict[str, Any], names: str) -> None:
    assert names in admin.refused("invalid", "POST", "/v1/keys", body)["field"]
    made = admin.post("/v1/keys")
    admin.refused("invalid", "PATCH", f"/v1/keys/{made['id']}", body)
    assert {**made, "key": None} == {**admin.get("/v1/keys")["items"][0], "key": None}


def test_keys_are_found_by_their_labels(admin: Admin) -> None:
    admin.post("/v1/keys", name="one", labels={"team": "a", "tier/level": "gold"})
    admin.post("/v1/keys", name="two", labels={"team": "b"})
    admin.post("/v1/keys", name="three")

    def names(label: str) -> list[str]:
        return [item["name"] for item in admin.get("/v1/keys", label=label)["items"]]

    assert names("team=a") == names("tier/level=gold") == ["one"]
    assert names("team") == ["one", "two"]
    assert names("team=") == names("tea") == []
    assert "label" in admin.refused("invalid", "GET", "/v1/keys?label=%22")["detail"]
    assert admin.patch("/v1/keys/one", labels=None)["labels"] == {}


def test_a_key_takes_the_plan_that_is_its_tenants_default_when_it_is_made(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", rates=["60/min"])
    before = admin.post("/v1/keys", name="before")
    with admin.control.database.write() as session:
        tenant = session.get(Tenant, 1)
        assert tenant is not None
        tenant.default_plan_id = 1
    made = admin.post("/v1/keys", name="after")
    assert (before["plan"], made["plan"]) == (None, "starter")
    assert admin.get("/v1/keys/before")["plan"] is None
    assert admin.post("/v1/keys", plan=None)["plan"] is None


def test_a_key_is_disabled_and_enabled_again(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="ci", expires="1h")
    admin.plane.told.clear()
    disabled = admin.post("/v1/keys/ci/disable")
    assert disabled["status"] == "disabled"
    assert disabled["disabled_at"] is not None
    assert conf_of(admin, made).disabled is True
    assert admin.post("/v1/keys/ci/disable") == disabled
    assert [item["name"] for item in admin.get("/v1/keys", status="disabled")["items"]] == ["ci"]
    assert admin.get("/v1/keys", status="active")["items"] == []
    enabled = admin.post("/v1/keys/ci/enable")
    assert (enabled["status"], enabled["disabled_at"]) == ("active", None)
    assert conf_of(admin, made).disabled is False
    assert admin.plane.told == [[made["id"].removeprefix("key_")]] * 3
    actions = [line["action"] for line in admin.get("/v1/audit")["items"]]
    assert actions == ["key.enable", "key.disable", "key.create"]
    admin.post("/v1/keys/ci/revoke")
    admin.refused("conflict", "POST", "/v1/keys/ci/enable", {})
