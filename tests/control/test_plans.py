"""Plans over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.compile import find_key
from tests.control.conftest import Admin

NO_MORE_PRICES = {
    "unit_price": "0",
    "mib_price": "0",
    "base_fee": "0",
    "minimum": "0",
    "included": 0,
    "tiers": [],
    "tier_mode": None,
    "package": None,
    "counts": "requests",
    "billable": ["2xx", "3xx"],
}
MINUTE = {"name": "minute", "limit": 60, "window_s": 60, "burst": 10}


def test_a_plan_is_added_as_people_write_it(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota="10000/month", price="0.0010")
    assert added == {
        "id": added["id"],
        "name": "starter",
        "tenant": "default",
        "version": 1,
        "rates": [MINUTE],
        "quota": 10_000,
        "quota_mode": "hard",
        "in_flight_limit": None,
        "shadow": False,
        "alerts": [],
        "clients_limit": 0,
        "price": "0.001",
        **NO_MORE_PRICES,
        "created_at": added["created_at"],
    }
    assert admin.get("/v1/plans/starter") == admin.get(f"/v1/plans/{added['id']}") == added
    assert admin.get("/v1/plans")["items"] == [added]


def test_a_plan_without_limits_has_none_and_the_default_price(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="free")
    assert (added["rates"], added["quota"], added["price"]) == ([], None, "0.001")


def test_a_month_among_the_rates_is_the_quota(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="pro", rates=["10/s", "1k/h", "1M/month"])
    assert [(rate["name"], rate["limit"], rate["burst"]) for rate in added["rates"]] == [
        ("second", 10, 10),
        ("hour", 1000, 1000),
    ]
    assert added["quota"] == 1_000_000


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "pln_abcdefgh"}, "name"),
        ({"rates": "60/min"}, "rates"),
        ({"rates": ["60"]}, "rates"),
        ({"rates": ["60/fortnight"]}, "rates"),
        ({"rates": ["0/min"]}, "rates"),
        ({"rates": ["60/min", "50/60s"]}, "rates"),
        ({"rates": ["1/s"] * 17}, "rates"),
        ({"burst": 10}, "burst"),
        ({"rates": ["60/min"], "burst": 0}, "burst"),
        ({"rates": ["60/min"], "burst": 1.5}, "burst"),
        ({"quota": "100/day"}, "quota"),
        ({"quota": 0}, "quota"),
        ({"quota": -5}, "quota"),
        ({"quota": "many"}, "quota"),
        ({"quota": True}, "quota"),
        ({"quota": 10**40}, "quota"),
        ({"rates": ["5/month"], "quota": 5}, "quota"),
        ({"rates": ["5/month", "6/month"]}, "quota"),
        ({"price": "free"}, "price"),
        ({"price": "-1"}, "price"),
        ({"price": 0.001}, "price"),
        ({"price": "0.0000000001"}, "price"),
        ({"price": "1000001"}, "price"),
        ({"overage": "1"}, "overage"),
        ({"quota_mode": "strict"}, "quota_mode"),
        ({"in_flight_limit": 0}, "in_flight_limit"),
        ({"alerts": [0]}, "alerts"),
        ({"alerts": [80.5]}, "alerts"),
        ({"alerts": list(range(1, 12))}, "alerts"),
        ({"clients_limit": -1}, "clients_limit"),
        ({"clients_limit": 10**9}, "clients_limit"),
        ({"shadow": "yes"}, "shadow"),
    ],
)
def test_bad_plans_are_refused(admin: Admin, body: dict[str, Any], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/plans", {"name": "starter"} | body)
    assert (problem["field"], field in problem["detail"]) == (field, True), problem
    assert admin.get("/v1/plans")["items"] == []


def test_a_change_reaches_every_key_at_once(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota=100, price="0.001")
    key = admin.post("/v1/keys", plan="starter")
    admin.plane.told.clear()
    changed = admin.patch("/v1/plans/starter", rates=["5/s"], price="0.5")
    assert [rate["name"] for rate in changed["rates"]] == ["second"]
    assert (changed["quota"], changed["price"]) == (100, "0.5")
    assert admin.plane.told == [None]
    conf = find_key(admin.control.database.lookup, key["prefix"][3:])
    assert conf is not None
    assert [(rate.name, rate.limit) for rate in conf.rates] == [("second", 5)]
    assert (conf.quota, conf.price_id > 1) == (100, True)


def test_each_part_of_a_plan_changes_alone(admin: Admin) -> None:
    before = admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota=100, price="0.001")
    assert admin.patch("/v1/plans/starter") == before
    assert admin.patch("/v1/plans/starter", burst=20)["rates"] == [MINUTE | {"burst": 20}]
    assert admin.patch("/v1/plans/starter", quota=None)["quota"] is None
    assert admin.patch("/v1/plans/starter", rates=["7/month"])["quota"] == 7
    assert admin.get("/v1/plans/starter")["rates"] == []
    admin.refused("invalid", "PATCH", "/v1/plans/starter", {"burst": 5})
    assert admin.patch("/v1/plans/starter", name="basic")["id"] == before["id"]
    admin.refused("not_found", "GET", "/v1/plans/starter")


def test_equal_prices_are_one_row(admin: Admin) -> None:
    for name, price in (("a", "0.5"), ("b", "0.50"), ("c", "0.001")):
        admin.post("/v1/plans", name=name, price=price)
    ids = set()
    for plan in ("a", "b", "c"):
        conf = find_key(admin.control.database.lookup, admin.post("/v1/keys", plan=plan)["prefix"][3:])
        assert conf is not None
        ids.add(conf.price_id)
    assert ids == {1, 2}


def test_a_plan_in_use_stays(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter")
    key = admin.post("/v1/keys", plan="starter")
    problem = admin.refused("conflict", "DELETE", "/v1/plans/starter")
    assert problem["detail"] == "1 key has the plan 'starter'; give them another first"
    admin.post(f"/v1/keys/{key['id']}/revoke")
    admin.delete("/v1/plans/starter")
    assert admin.get(f"/v1/keys/{key['id']}")["plan"] == "starter"
    admin.post("/v1/plans", name="starter")


def test_a_name_is_taken_once(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter")
    admin.post("/v1/plans", name="pro")
    admin.refused("conflict", "POST", "/v1/plans", {"name": "starter"})
    admin.refused("conflict", "PATCH", "/v1/plans/pro", {"name": "starter"})
    assert admin.refused("not_found", "GET", "/v1/plans/startr")["did_you_mean"] == "starter"


def test_a_burst_that_was_set_survives_a_new_rate_of_the_same_window(admin: Admin) -> None:
    admin.post("/v1/plans", name="kept", rates=["60/min", "5/s"], burst=10)
    admin.post("/v1/plans", name="plain", rates=["60/min"])
    kept = admin.patch("/v1/plans/kept", rates=["120/min", "1000/h"])
    assert [(rate["name"], rate["limit"], rate["burst"]) for rate in kept["rates"]] == [
        ("minute", 120, 10),
        ("hour", 1000, 1000),
    ]
    assert admin.patch("/v1/plans/plain", rates=["120/min"])["rates"][0]["burst"] == 120


def test_a_quota_among_the_rates_is_not_lifted_by_the_way(admin: Admin) -> None:
    """Both were taken once, and the null won: the plan had no quota, and nobody was told."""
    admin.post("/v1/plans", name="starter", rates=["60/min"], quota=100)
    for quota in (None, 5):
        problem = admin.refused("invalid", "PATCH", "/v1/plans/starter", {"rates": ["7/month"], "quota": quota})
        assert problem["field"] == "quota"
    assert admin.get("/v1/plans/starter")["quota"] == 100


def test_all_that_a_plan_may_say(admin: Admin) -> None:
    terms = {
        "quota_mode": "soft",
        "in_flight_limit": 5,
        "shadow": True,
        "alerts": [100, 80, 80],
        "clients_limit": 20,
    }
    added = admin.post("/v1/plans", name="full", rates=["60/min", "5/s"], quota="1k/month", **terms)
    assert {name: added[name] for name in terms} == terms | {"alerts": [80, 100]}
    key = admin.post("/v1/keys", plan="full")
    conf = find_key(admin.control.database.lookup, key["prefix"][3:])
    assert conf is not None
    assert (conf.quota_soft, conf.in_flight_limit, conf.shadow, conf.has_clients) == (True, 5, True, True)
    back: dict[str, Any] = {
        "quota_mode": "hard",
        "in_flight_limit": None,
        "shadow": False,
        "alerts": [],
        "clients_limit": 0,
    }
    changed = admin.patch("/v1/plans/full", **back)
    assert {name: changed[name] for name in back} == back
    conf = find_key(admin.control.database.lookup, key["prefix"][3:])
    assert conf is not None
    assert (conf.quota_soft, conf.in_flight_limit, conf.shadow, conf.has_clients) == (False, None, False, False)


def test_every_change_makes_a_version(admin: Admin) -> None:
    first = admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota=100)
    second = admin.patch("/v1/plans/starter", price="0.002")
    assert (first["version"], second["version"]) == (1, 2)
    third = admin.patch("/v1/plans/starter", name="basic", alerts=[80])
    listed = admin.get("/v1/plans/basic/versions")
    assert [{name: item[name] for name in third} for item in listed["items"]] == [third, second, first]
    assert all(item["since"].endswith("Z") for item in listed["items"])
    assert admin.get("/v1/plans/basic", version=2) == listed["items"][1]
    assert admin.get("/v1/plans/basic") == third
    problem = admin.refused("not_found", "GET", "/v1/plans/basic?version=4")
    assert problem["detail"] == "plan 'basic' has no version 4"
    assert admin.get("/v1/plans/basic/versions", limit=2)["next"] == "2"


def test_nothing_changed_is_no_version(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota=100, alerts=[80, 100])
    lines = len(admin.get("/v1/audit")["items"])
    admin.plane.told.clear()
    same = {"name": "starter", "rates": ["60/min"], "quota": "100/month", "price": "0.0010", "alerts": [100, 80]}
    assert admin.patch("/v1/plans/starter", **same) == added
    assert admin.plane.told == []
    assert len(admin.get("/v1/audit")["items"]) == lines
    assert len(admin.get("/v1/plans/starter/versions")["items"]) == 1


def test_a_dry_run_says_what_a_removal_would_say(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="starter")
    assert admin.delete("/v1/plans/starter?dry_run=true") == added
    key = admin.post("/v1/keys", plan="starter")
    tried = admin.refused("conflict", "DELETE", "/v1/plans/starter?dry_run=true")
    assert tried["detail"] == admin.refused("conflict", "DELETE", "/v1/plans/starter")["detail"]
    admin.post(f"/v1/keys/{key['id']}/revoke")
    lines = len(admin.get("/v1/audit")["items"])
    admin.delete("/v1/plans/starter?dry_run=true")
    assert admin.get("/v1/plans/starter") == added
    assert len(admin.get("/v1/audit")["items"]) == lines
    admin.delete("/v1/plans/starter")


def test_the_plan_that_new_keys_take_stays(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter")
    admin.patch("/v1/tenants/default", default_plan="starter")
    problem = admin.refused("conflict", "DELETE", "/v1/plans/starter")
    assert problem["detail"] == "new keys of the tenant 'default' take the plan 'starter'; give it another first"
    admin.patch("/v1/tenants/default", default_plan=None)
    admin.delete("/v1/plans/starter")
