"""What `usage show` says that usage cost, where prices are not linear: shares that come to the bill."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection

from gatewayd.control import charging, costs, exporting
from gatewayd.control.admin.changes import now_s
from gatewayd.control.cycles import CycleRow, cycle_by_id
from gatewayd.control.prices import all_terms
from gatewayd.policy.money import format_nanos, parse_price
from gatewayd.policy.pricing import Usage, charges, costs_by_key
from tests.control.conftest import Admin
from tests.control.test_plan_prices import NOON, TIERS, use
from tests.control.test_usage_export import exported

MONTH = {"since": "2026-09-01", "until": "2026-10-01"}
DAY_S = 86400
PLANS: dict[str, dict[str, Any]] = {
    "tiered": {"tiers": [{"up_to": 40, "price": "0.000000007"}, {"up_to": None, "price": "0.000000003"}]},
    "volume": {"tiers": TIERS, "tier_mode": "volume", "included": 20, "base_fee": "5"},
    "packed": {"package": {"size": 30, "price": "1"}, "counts": "units", "price": "0.1"},
    "heavy": {"mib_price": "0.001", "price": "0.01", "included": 15, "unit_price": "0.5"},
    "plain": {"price": "0.25", "unit_price": "0.125", "minimum": "100"},
}


@pytest.fixture
def usage(admin: Admin) -> None:
    """A key of each plan, and usage of two services all over the month; one key changed its plan in the middle."""
    random = Random(4)
    for service in ("orders", "products"):
        admin.post("/v1/services", slug=service, targets=["http://127.0.0.1:1"])
    for name, price in PLANS.items():
        admin.post("/v1/plans", name=name, **price)
        admin.post("/v1/keys", name=name, plan=name)
    for day in (-10, -2, 0, 1, 1, 7):
        for key in PLANS:
            made = {
                "service": random.randint(1, 2),
                "units": random.randint(0, 3),
                "bytes_in": random.randint(0, 10**7),
            }
            use(admin, random.randint(1, 25), key, NOON + day * DAY_S, status=random.choice([200, 200, 404]), **made)
        if day == 0:
            admin.patch("/v1/keys/tiered", plan="volume")


def charged(admin: Admin) -> dict[str, int]:
    """By key, what the cycle is charged for usage."""
    names = {key["name"]: key["prefix"] for key in admin.get("/v1/keys")["items"]}
    with admin.control.database.read() as session:
        connection = session.connection()
        nanos = costs_by_key(
            charges(charging.usage_of(connection, cycle_by_id(connection, 1)), (), all_terms(connection))
        )
    return {names[name]: nanos[number] for number, name in enumerate(PLANS, start=1)}


@pytest.mark.usefixtures("usage")
def test_the_lines_of_a_cycle_come_to_its_charge(admin: Admin) -> None:
    expected = charged(admin)
    assert all(expected.values())
    for more in (
        {"by": "key"},
        {"by": "key,service"},
        {"by": "service,key,status", "interval": "hour"},
        {"by": "key", "interval": "day"},
    ):
        answer = admin.get("/v1/usage", **MONTH, **more)
        found: dict[str, int] = {}
        for item in answer["items"]:
            found[item["key"]] = found.get(item["key"], 0) + parse_price(item["cost"])
        assert found == expected, more
        assert answer["total"]["cost"] == format_nanos(sum(expected.values()))
    for prefix, nanos in expected.items():
        assert admin.get("/v1/usage", **MONTH, key=prefix)["total"]["cost"] == format_nanos(nanos)


@pytest.mark.usefixtures("usage")
@pytest.mark.parametrize("since", ["2026-09-01", "2026-09-19", "2026-09-21T12:00:00Z"])
def test_show_top_and_export_say_the_same(admin: Admin, since: str) -> None:
    """Of a whole cycle and of a part, by whatever they sum."""
    within = MONTH | {"since": since}
    for by in ("key", "service", "status", "tenant"):
        shown = admin.get("/v1/usage", **within, by=by)
        top = admin.get("/v1/usage/top", **within, by=by, of="cost")
        assert top["total"]["cost"] == shown["total"]["cost"]
        if by == "key":  # a key's cycle is divided once: of others the last nano may be another one's
            costs = {item["key"]: item["cost"] for item in shown["items"] if item["cost"] != "0"}
            assert {item["key"]: item["cost"] for item in top["items"]} == costs
    for granularity in ("hour", "day") if len(since) == len("2026-09-01") else ("hour",):
        rows = exported(admin, **within, granularity=granularity)
        found: dict[str, int] = {}
        for row in rows:
            found[row["key"]] = found.get(row["key"], 0) + parse_price(row["cost"])
        assert {key: format_nanos(nanos) for key, nanos in found.items() if nanos} == costs


def test_an_export_is_charged_cycle_by_cycle(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cycle once, also where its rows come in many pages; of one that is over nothing is kept."""
    admin.post("/v1/plans", name="tiered", included=5, price="1")
    admin.post("/v1/keys", name="ci", plan="tiered")
    for day in (-40, -39, 0, 1):
        use(admin, 4, at=NOON + day * DAY_S)
    monkeypatch.setattr(exporting, "PAGE_ROWS", 1)
    asked: list[int] = []

    def noted(connection: Connection, cycle: CycleRow, key_id: int | None = None) -> list[Usage]:
        asked.append(cycle.id)
        return charging.usage_of(connection, cycle, key_id)

    monkeypatch.setattr(costs, "usage_of", noted)
    rows = exported(admin, since="2026-08-01", until="2026-10-01")
    assert [row["cost"] for row in rows] == ["1.5"] * 4
    assert len(asked) == len(set(asked)) == 2


def test_a_line_costs_its_part(admin: Admin) -> None:
    """20 of 80 requests on which 60 were charged: a quarter. At a linear price, what it cost."""
    admin.post("/v1/plans", name="tiered", included=20, price="1")
    admin.post("/v1/plans", name="plain", price="1")
    for name, plan in (("ci", "tiered"), ("cd", "plain")):
        admin.post("/v1/keys", name=name, plan=plan)
        use(admin, 20, name, NOON)
        use(admin, 60, name, NOON + DAY_S)
    first = {"since": "2026-09-20", "until": "2026-09-21", "by": "key"}
    assert [admin.get("/v1/usage", **first, key=name)["total"]["cost"] for name in ("ci", "cd")] == ["15", "20"]
    use(admin, 10, "ci", NOON, status=404)
    use(admin, 10, "ci", NOON, status=500)
    by_status = admin.get("/v1/usage", **first | {"by": "status"}, key="ci")["items"]
    assert [(item["status"], item["cost"]) for item in by_status] == [("2xx", "15"), ("4xx", "0"), ("5xx", "0")]


def test_the_key_says_what_its_month_costs(admin: Admin) -> None:
    admin.post("/v1/plans", name="tiered", included=5, price="0.5", base_fee="3")
    admin.post("/v1/keys", name="ci", plan="tiered")
    use(admin, 8, at=now_s())
    assert admin.get("/v1/keys/ci")["usage"]["cost"] == "1.5"


def test_a_cycle_is_charged_only_for_prices_that_are_not_linear(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.post("/v1/plans", name="plain", price="0.5", unit_price="0.25")
    admin.post("/v1/plans", name="unused", included=5)
    admin.post("/v1/keys", name="ci", plan="plain")
    use(admin, 4, units=2)
    asked: list[int] = []

    def noted(connection: Connection, cycle: CycleRow, key_id: int | None = None) -> list[Usage]:
        asked.append(cycle.id)
        return charging.usage_of(connection, cycle, key_id)

    monkeypatch.setattr(costs, "usage_of", noted)
    assert admin.get("/v1/usage", **MONTH)["total"]["cost"] == "4"
    assert asked == []
    admin.patch("/v1/keys/ci", plan="unused")
    use(admin, 1)
    assert admin.get("/v1/usage", **MONTH)["total"]["cost"] == "4"
    assert asked == [1]
