"""Quotas over the admin API: what is used, grants, resets, and what the lessor is told by them."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.quotas import quota_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import QuotaAlert
from gatewayd.policy.amounts import format_time, period_of
from gatewayd.policy.buckets import month_of
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin

NOW = 1_795_262_400  # 2026-11-21 12:00 UTC
START, END = month_of(NOW)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A month that does not end while a test runs."""
    for module in ("quotas", "changes", "keys"):
        monkeypatch.setattr(f"gatewayd.control.admin.{module}.now_s", lambda: NOW)


def use(admin: Admin, units: int, key_id: int = 1) -> None:
    record = Record(ADMITTED, NOW * 10**9, 1, 1, 0, key_id, 0, 0, 1, 200, 0, units, 0, 0, 0, 0, b"")
    with admin.control.database.write() as session:
        Rollups().add(session, [record])


@pytest.fixture
def key(admin: Admin) -> dict[str, Any]:
    """Of a plan with 100 units a month, of which 90 are used."""
    admin.post("/v1/plans", name="starter", quota=100, alerts=[80, 100])
    key: dict[str, Any] = admin.post("/v1/keys", name="ci", plan="starter")
    use(admin, 90)
    admin.plane.told.clear()
    return key


def test_a_quota_is_shown(admin: Admin, key: dict[str, Any]) -> None:
    shown = admin.get("/v1/quotas/ci")
    assert shown == {
        "id": key["id"],
        "key": key["prefix"],
        "name": "ci",
        "tenant": "default",
        "plan": "starter",
        "period": period_of(START),
        "quota": 100,
        "granted": 0,
        "limit": 100,
        "used": 90,
        "forgiven": 0,
        "remaining": 10,
        "mode": "hard",
        "alerts": [80, 100],
        "alerts_passed": [],
        "resets_at": format_time(END),
        "grants": [],
    }
    assert admin.plane.told == ["caught up"]
    assert admin.get("/v1/quotas")["items"] == [{name: shown[name] for name in shown if name != "grants"}]
    assert admin.get("/v1/usage", since=str(START), until=str(END))["total"]["units"] == shown["used"]


def test_lists_keys_that_have_one(admin: Admin, key: dict[str, Any]) -> None:
    admin.post("/v1/plans", name="free")
    admin.post("/v1/keys")
    admin.post("/v1/keys", plan="free")
    second = admin.post("/v1/keys", plan="starter")
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql("""UPDATE key SET overrides = '{"quota":7}' WHERE id = 2""")
    listed = admin.get("/v1/quotas")["items"]
    assert [(item["name"], item["limit"]) for item in listed] == [("ci", 100), ("", 7), ("", 100)]
    assert admin.get("/v1/quotas", limit=1)["next"] == "1"
    admin.post(f"/v1/keys/{second['id']}/revoke")
    assert len(admin.get("/v1/quotas")["items"]) == 2


def test_a_grant_raises_the_limit(admin: Admin, key: dict[str, Any]) -> None:
    assert "units" in admin.refused("invalid", "POST", "/v1/quotas/ci/grants", {"units": "5k/month"})["detail"]
    granted = admin.post("/v1/quotas/ci/grants", units="5k", reason="launch day")
    assert (granted["granted"], granted["limit"], granted["remaining"]) == (5000, 5100, 5010)
    assert admin.plane.told == ["caught up", [key["prefix"][3:]]]
    admin.post("/v1/quotas/ci/grants", units=7, until=format_time(NOW + 60))
    shown = admin.get("/v1/quotas/ci")
    assert shown["limit"] == 5107
    assert [(item["kind"], item["units"], item["until"], item["reason"]) for item in shown["grants"]] == [
        ("grant", 5000, format_time(END), "launch day"),
        ("grant", 7, format_time(NOW + 60), ""),
    ]
    assert quota_of(admin.control.database.lookup, 1, 100, NOW + 61).limit == 5100
    line = admin.get("/v1/audit")["items"][1]
    assert (line["action"], line["subject"], line["before"]["limit"]) == ("quota.grant", key["id"], 100)


def test_a_reset_forgives_what_was_used(admin: Admin, key: dict[str, Any]) -> None:
    tried = admin("POST", "/v1/quotas/ci/reset?dry_run=true", {}).json()
    assert (tried["used"], tried["forgiven"]) == (0, 90)
    assert admin.get("/v1/quotas/ci")["used"] == 90
    assert admin.plane.told == ["caught up", "caught up"]
    done = admin.post("/v1/quotas/ci/reset", reason="our fault")
    assert (done["used"], done["forgiven"], done["remaining"]) == (0, 90, 100)
    assert admin.plane.told[-1] == [key["prefix"][3:]]
    use(admin, 3)
    shown = admin.get("/v1/quotas/ci")
    assert (shown["used"], shown["forgiven"]) == (3, 90)
    assert [(item["kind"], item["units"], item["reason"]) for item in shown["grants"]] == [("reset", 90, "our fault")]
    assert admin.get("/v1/usage", since=str(START), until=str(END))["total"]["units"] == 93
    assert admin.get("/v1/audit")["items"][0]["action"] == "quota.reset"


def test_the_key_shows_the_same_quota(admin: Admin, key: dict[str, Any]) -> None:
    """Units, not requests; with what was granted, and less what was forgiven."""

    def shown() -> tuple[dict[str, Any], dict[str, Any]]:
        quota = admin.get("/v1/quotas/ci")
        return admin.get("/v1/keys/ci")["limits"]["quota"], {
            name: quota[name] for name in ("limit", "used", "remaining")
        }

    of_key, quota = shown()
    assert of_key == quota == {"limit": 100, "used": 90, "remaining": 10}
    admin.post("/v1/quotas/ci/grants", units=50)
    admin.post("/v1/quotas/ci/reset")
    use(admin, 30)
    of_key, quota = shown()
    assert of_key == quota == {"limit": 150, "used": 30, "remaining": 120}


def test_what_was_told_is_told_again_after_a_grant_that_took_it_back(admin: Admin, key: dict[str, Any]) -> None:
    with admin.control.database.write() as session:
        session.add(QuotaAlert(key_id=1, month=START, percent=80, at=NOW))
        session.add(QuotaAlert(key_id=1, month=START, percent=50, at=NOW))
    assert admin.get("/v1/quotas/ci")["alerts_passed"] == [50, 80]
    assert admin.post("/v1/quotas/ci/grants", units=50)["alerts_passed"] == [50]
    assert admin.post("/v1/quotas/ci/reset")["alerts_passed"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "units"),
        ({"units": 0}, "units"),
        ({"units": "-5"}, "units"),
        ({"units": "50k/day"}, "units"),
        ({"units": 5, "until": "2020-01-01"}, "until"),
        ({"units": 5, "until": format_time(END + 1)}, "until"),
        ({"units": 5, "reason": "a\nb"}, "reason"),
        ({"units": 5, "month": "2026-09"}, "month"),
    ],
)
@pytest.mark.usefixtures("key")
def test_bad_grants_are_refused(admin: Admin, body: dict[str, Any], field: str) -> None:
    assert admin.refused("invalid", "POST", "/v1/quotas/ci/grants", body)["field"] == field
    assert admin.get("/v1/quotas/ci")["granted"] == 0


def test_a_key_without_a_quota(admin: Admin) -> None:
    key = admin.post("/v1/keys", name="free")
    shown = admin.get("/v1/quotas/free")
    assert (shown["limit"], shown["remaining"], shown["used"], shown["plan"]) == (None, None, 0, None)
    for action in ("grants", "reset"):
        problem = admin.refused(
            "conflict", "POST", f"/v1/quotas/free/{action}", {"units": 5} if action == "grants" else {}
        )
        assert problem["detail"] == f"the key {key['prefix']} has no quota; give it a plan that has one"
