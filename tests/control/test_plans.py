"""Plans over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.compile import find_key
from tests.control.conftest import Admin

MINUTE = {"name": "minute", "limit": 60, "window_s": 60, "burst": 10}


def test_a_plan_is_added_as_people_write_it(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="starter", rates=["60/min"], burst=10, quota="10000/month", price="0.0010")
    assert added == {
        "id": added["id"],
        "name": "starter",
        "tenant": "default",
        "rates": [MINUTE],
        "quota": 10_000,
        "price": "0.001",
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
