"""`plan simulate` over the admin API: whose usage, which hours, against what."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Progress, QuotaGrant
from gatewayd.policy.amounts import parse_time
from gatewayd.policy.buckets import month_of
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin
from tests.control.test_plans import NO_MORE_PRICES

NOON = parse_time("2026-09-20T12:00:00Z")
RANGE = {"since": "2026-09-20", "until": "2026-09-21"}


def use(admin: Admin, key_id: int, requests: int, at: int = NOON, price: int = 1, **more: Any) -> None:
    said = {"status": 200, "units": 1, "flags": ADMITTED} | more
    record = Record(
        said["flags"], at * 10**9, 1, 1, 0, key_id, 0, 0, price, said["status"], 0, said["units"], 0, 0, 0, 0, b""
    )
    with admin.control.database.write() as session:
        Rollups().add(session, [record] * requests)


@pytest.fixture
def usage(admin: Admin) -> None:
    """Keys 1 and 2 of the plan starter at 0.001, key 3 of another: 100, 40 and 10 requests at noon."""
    admin.post("/v1/plans", name="starter", rates=["60/h"], burst=40, quota=1000, price="0.001")
    admin.post("/v1/plans", name="pro", price="0.5")
    for name, plan in (("ci", "starter"), ("cd", "starter"), ("big", "pro")):
        admin.post("/v1/keys", name=name, plan=plan)
    for key_id, requests in ((1, 100), (2, 40), (3, 10)):
        use(admin, key_id, requests, price=2 if key_id == 3 else 1)


def tried(admin: Admin, plan: str = "starter", **body: Any) -> dict[str, tuple[int, int, str, str]]:
    answer = admin.post(f"/v1/plans/{plan}/simulate", **(RANGE | body))
    lines = {item["name"]: item for item in answer["items"]} | {"total": answer["total"]}
    return {
        name: (line["requests"], line["would_refuse"], line["earned"], line["would_earn"])
        for name, line in lines.items()
    }


@pytest.mark.usefixtures("usage")
def test_the_same_plan_would_have_earned_what_it_did(admin: Admin) -> None:
    answer = admin.post("/v1/plans/starter/simulate", **RANGE)
    prefix = admin.get("/v1/keys/ci")["prefix"]
    assert answer["items"][0] == {
        "key": prefix,
        "name": "ci",
        "requests": 100,
        "units": 100,
        "would_refuse": 0,
        "earned": "0.1",
        "would_earn": "0.1",
    }
    assert {name: answer[name] for name in ("plan", "tenant", "currency", "since", "until")} == {
        "plan": "starter",
        "tenant": "default",
        "currency": "USD",
        "since": "2026-09-20T00:00:00Z",
        "until": "2026-09-21T00:00:00Z",
    }
    assert answer["terms"] == {
        "rates": [{"name": "hour", "limit": 60, "window_s": 3600, "burst": 40}],
        "quota": 1000,
        "quota_mode": "hard",
        "shadow": False,
        "price": "0.001",
        **NO_MORE_PRICES,
    }
    assert tried(admin)["total"] == (140, 0, "0.14", "0.14")


@pytest.mark.usefixtures("usage")
def test_other_terms(admin: Admin) -> None:
    assert tried(admin, price="0.002")["total"] == (140, 0, "0.14", "0.28")
    assert tried(admin, rates=["50/h"]) == {
        "ci": (100, 10, "0.1", "0.09"),  # its burst of 40 is kept, as `plan set` keeps it
        "cd": (40, 0, "0.04", "0.04"),
        "total": (140, 10, "0.14", "0.13"),
    }
    assert tried(admin, quota=30)["total"] == (140, 80, "0.14", "0.06")
    for passing in ({"shadow": True}, {"quota_mode": "soft"}):
        assert tried(admin, quota=30, **passing)["total"] == (140, 0, "0.14", "0.14")
    versions = admin.get("/v1/plans/starter/versions")["items"]
    assert len(versions) == 1
    assert len(admin.get("/v1/audit")["items"]) == 5


@pytest.mark.usefixtures("usage")
def test_whose_usage_and_against_which_plan(admin: Admin) -> None:
    assert tried(admin, like="pro")["total"] == (140, 0, "0.14", "70")
    assert tried(admin, "pro", like="starter", quota=4) == {
        "big": (10, 6, "5", "0.004"),
        "total": (10, 6, "5", "0.004"),
    }
    assert tried(admin, keys=["big"])["big"] == (10, 0, "5", "0.01")
    assert set(tried(admin, keys=["cd", "big"])) == {"cd", "big", "total"}


@pytest.mark.usefixtures("usage")
def test_a_key_keeps_what_is_its_own(admin: Admin) -> None:
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql(
            """UPDATE key SET overrides = '{"rates":[["hour",1,3600,1]],"quota":50,"price_id":2}' WHERE id = 1"""
        )
    assert tried(admin, rates=[], quota=30)["cd"] == (40, 10, "0.04", "0.03")
    assert tried(admin, rates=[], quota=30)["ci"] == (100, 98, "0.1", "1")
    assert tried(admin, shadow=True)["ci"] == (100, 0, "0.1", "50")


@pytest.mark.usefixtures("usage")
def test_the_range_is_counted_and_what_was_used_before_it_is_not_free(admin: Admin) -> None:
    use(admin, 1, 20, at=parse_time("2026-09-02T12:00:00Z"))
    use(admin, 1, 500, at=parse_time("2026-08-31T12:00:00Z"))
    use(admin, 1, 500, at=parse_time("2026-09-21T00:00:00Z"))
    assert tried(admin, rates=[], quota=100)["ci"] == (100, 20, "0.1", "0.08")
    with admin.control.database.write() as session:
        month = month_of(NOON)[0]
        for number, (units, is_reset) in enumerate(((5, False), (7, True), (10, True))):
            row = QuotaGrant(
                public_id=f"g{number}", key_id=1, month=month, units=units, is_reset=is_reset, created_at=NOON
            )
            session.add(row)
    assert tried(admin, rates=[], quota=100)["ci"] == (100, 5, "0.1", "0.095")


@pytest.mark.usefixtures("usage")
def test_a_price_that_changed_within_the_hour_and_answers_that_cost_nothing(admin: Admin) -> None:
    use(admin, 2, 10, price=2)
    use(admin, 2, 50, status=500)
    use(admin, 2, 7, flags=0, status=429)
    assert tried(admin, rates=[], quota=50)["cd"] == (100, 50, "5.04", "0.025")


@pytest.mark.usefixtures("usage")
def test_what_cannot_be_tried_is_refused(admin: Admin) -> None:
    for body, field in (
        ({"since": "2026-09-21", "until": "2026-09-20"}, "since"),
        ({"rates": ["60"]}, "rates"),
        ({"price": "free"}, "price"),
        ({"keys": []}, "keys"),
        ({"tier_mode": "volume"}, "tier_mode"),
        ({"billable": ["2xx"]}, "billable"),
        ({"colour": "red"}, "colour"),
    ):
        assert admin.refused("invalid", "POST", "/v1/plans/starter/simulate", body)["field"] == field
    for body in ({"like": "nope"}, {"keys": ["nope"]}):
        admin.refused("not_found", "POST", "/v1/plans/starter/simulate", body)


@pytest.mark.usefixtures("usage")
def test_hours_that_are_gone_are_not_taken_for_no_usage(admin: Admin) -> None:
    assert admin.post("/v1/plans/starter/simulate", **RANGE)["missing_before"] is None
    with admin.control.database.write() as session:
        session.add(Progress(name="hours_from", value=parse_time("2026-09-20")))
    assert admin.post("/v1/plans/starter/simulate", **RANGE)["missing_before"] == "2026-09-20T00:00:00Z"
    since = {"since": "2026-09-19T23:00:00Z"}
    problem = admin.refused("invalid", "POST", "/v1/plans/starter/simulate", json=RANGE | since)
    assert "hours are kept since 2026-09-20T00:00:00Z" in problem["detail"]


@pytest.mark.usefixtures("usage")
def test_a_whole_price_is_tried(admin: Admin) -> None:
    tiers = [{"up_to": 10, "price": "0.1"}, {"up_to": None, "price": "0.01"}]
    priced: dict[str, Any] = {"tiers": tiers, "included": 50, "base_fee": "7"}
    # ci: 100 requests, of which 50 are included, 10 at 0.1 and 40 at 0.01. cd's 40 are included.
    assert tried(admin, **priced) == {
        "ci": (100, 0, "0.1", "1.4"),
        "cd": (40, 0, "0.04", "0"),
        "total": (140, 0, "0.14", "1.4"),
    }
    # From the month's begin on, with its base fee.
    assert tried(admin, since="2026-09-01", **priced)["total"] == (140, 0, "0.14", "15.4")
    assert admin.post("/v1/plans/starter/simulate", **RANGE, **priced)["terms"]["tiers"] == tiers


@pytest.mark.usefixtures("usage")
def test_months_are_those_of_the_tenants_zone(admin: Admin) -> None:
    """In Tokyo October has begun nine hours earlier: what is included was given anew."""
    evening = parse_time("2026-09-30T18:00:00Z")
    use(admin, 1, 50, at=evening)
    whole: dict[str, Any] = {"since": "2026-09-30", "until": "2026-10-01", "rates": [], "included": 120}
    assert tried(admin, **whole)["ci"] == (50, 0, "0.05", "0.03")
    admin.patch("/v1/tenants/default", time_zone="Asia/Tokyo")
    assert tried(admin, **whole)["ci"] == (50, 0, "0.05", "0")
