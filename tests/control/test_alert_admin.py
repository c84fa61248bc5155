"""Alerts over the admin API: added, listed, shown, tried out, removed; and the secret comes once and stands nowhere."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from sqlmodel import col, select

from gatewayd.control import outbox
from gatewayd.control.tables import Alert, AlertEvent
from tests.control.conftest import Admin
from tests.receiver import receiver

URL = "https://ops.example.com/hooks"
OWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def add(admin: Admin, **body: Any) -> Any:
    return admin.post("/v1/alerts", **{"url": URL, "quota": 80, **body})


def test_an_alert_is_added_with_a_secret_that_comes_once(admin: Admin) -> None:
    made = add(admin)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert made == {
        "id": made["id"], "tenant": "default", "kind": "quota", "when": "80% of the quota", "quota": 80, "spend": None,
        "refusals": None, "key": None, "url": URL, "state": "active", "delivered": 0, "pending": 0, "failed": 0,
        "error": "", "created_at": made["created_at"],
    }  # fmt: skip
    assert admin.plane.told == ["alert added"]
    assert admin.get(f"/v1/alerts/{made['id']}") == {**made, "events": []}
    assert admin.get("/v1/alerts") == {"items": [made], "next": None}
    assert add(admin)["secret"] != secret


def test_of_each_kind(admin: Admin) -> None:
    key = admin.post("/v1/keys", name="ci")
    spend = add(admin, quota=None, spend="99.50", key="ci")
    assert (spend["kind"], spend["spend"], spend["when"]) == ("spend", "99.5", "99.5 USD a cycle")
    assert spend["key"] == key["prefix"]
    refusals = add(admin, quota=None, refusals="100/min")
    assert (refusals["kind"], refusals["refusals"], refusals["when"]) == ("refusals", 100, "100 refused a minute")
    assert add(admin, quota=None, refusals=7)["refusals"] == 7


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"quota": None}, "quota"),
        ({"spend": "1"}, "spend"),
        ({"quota": 0}, "quota"),
        ({"quota": None, "spend": "free"}, "spend"),
        ({"quota": None, "refusals": "5/s"}, "refusals"),
        ({"url": "ops.example.com"}, "url"),
        ({"url": "https://user:pass@ops.example.com"}, "url"),
        ({"secret": "hunter2"}, "secret"),
        ({"percent": 80}, "percent"),
    ],
)
def test_what_is_no_alert_is_refused(admin: Admin, body: dict[str, Any], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/alerts", {"url": URL, "quota": 80, **body})
    assert problem["field"] == field
    assert "hunter2" not in problem["detail"]
    assert "pass" not in problem["detail"].replace("password", "")
    assert admin.get("/v1/alerts")["items"] == []


def test_a_secret_of_the_receivers_own_does_not_come_back(admin: Admin) -> None:
    assert "secret" not in add(admin, secret=OWN)


def test_secrets_stand_in_no_answer_no_audit_and_no_log(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiver(500) as hooks:
        made = add(admin, url=hooks.url)
        own = add(admin, url=hooks.url, secret=OWN)
        for alert in (made, own):
            admin.post(f"/v1/alerts/{alert['id']}/test")
    shown = [admin.get("/v1/alerts"), admin.get("/v1/audit")]
    shown += [admin.get(f"/v1/alerts/{alert['id']}{more}") for alert in (made, own) for more in ("", "/events")]
    for alert in (made, own):
        shown.append(admin.delete(f"/v1/alerts/{alert['id']}"))
    shown.append(admin.get("/v1/audit"))
    written = repr(shown) + caplog.text
    for secret in (made["secret"], OWN):
        assert secret.removeprefix("whsec_") not in written
    with admin.control.database.read() as session:
        assert session.exec(select(Alert.secret)).all() == ["", ""]  # once removed, not even in the database


def test_a_test_is_sent_at_once_and_tells_what_came_of_it(admin: Admin) -> None:
    with receiver(204, 500) as hooks:
        made = add(admin, url=hooks.url)
        told = admin.post(f"/v1/alerts/{made['id']}/test")
        assert told == {"id": hooks.got[0].id, "delivered": True, "status": 204, "error": ""}
        event = hooks.got[0].verified(made["secret"])
        assert event["type"] == "alert.test"
        assert event["data"] == {
            "alert": made["id"], "tenant": "default", "key": None, "kind": "quota", "when": "80% of the quota",
        }  # fmt: skip
        told = admin.post(f"/v1/alerts/{made['id']}/test")
        assert told == {"id": hooks.got[1].id, "delivered": False, "status": 500, "error": "it answered 500"}
    shown = admin.get(f"/v1/alerts/{made['id']}")
    assert (shown["delivered"], shown["pending"], shown["failed"], shown["error"]) == (1, 0, 1, "it answered 500")
    assert shown["state"] == "failing"
    assert [event["state"] for event in shown["events"]] == ["failed", "delivered"]
    assert shown["events"][0]["body"]["type"] == "alert.test"


def test_a_test_that_arrives_enables_an_alert_again(admin: Admin) -> None:
    with receiver(204) as hooks:
        made = add(admin, url=hooks.url)
        with admin.control.database.write() as session:
            session.exec(select(Alert)).one().disabled_at = 5
        assert admin.get("/v1/alerts")["items"][0]["state"] == "disabled"
        admin.post(f"/v1/alerts/{made['id']}/test")
    assert admin.get("/v1/alerts")["items"][0]["state"] == "active"
    assert admin.plane.told == ["alert added", "alert added"]
    assert [item["action"] for item in admin.get("/v1/audit")["items"]] == ["alert.enable", "alert.add"]


def test_events_come_in_pages_the_latest_first(admin: Admin) -> None:
    made = add(admin, quota=None, refusals=5)
    with admin.control.database.write() as session:
        (alert,) = outbox.wanted(session.connection(), "refusals")
        for minute in range(3):
            outbox.put(session.connection(), alert, "refusals", f"refusals:{minute}", 1000 + minute)
    first = admin.get(f"/v1/alerts/{made['id']}/events", limit="2")
    assert [event["created_at"] for event in first["items"]] == ["1970-01-01T00:16:42Z", "1970-01-01T00:16:41Z"]
    assert [event["state"] for event in first["items"]] == ["pending", "pending"]
    rest = admin.get(f"/v1/alerts/{made['id']}/events", after=first["next"])
    assert len(rest["items"]) == 1
    assert admin.get("/v1/alerts")["items"][0]["pending"] == 3


def test_removed_it_has_nothing_left_to_tell(admin: Admin) -> None:
    made = add(admin, quota=None, refusals=5)
    with admin.control.database.write() as session:
        (alert,) = outbox.wanted(session.connection(), "refusals")
        outbox.put(session.connection(), alert, "refusals", "refusals:1", 1000)
    address = f"/v1/alerts/{made['id']}"
    assert admin("DELETE", address, params={"dry_run": "true"}).status_code == 200
    assert admin.get(address)["pending"] == 1
    admin.delete(address)
    admin.refused("not_found", "GET", address)
    admin.refused("not_found", "POST", f"{address}/test", {})
    with admin.control.database.read() as session:
        event = session.exec(select(AlertEvent).order_by(col(AlertEvent.id))).one()
        assert (event.next_at, event.error) == (None, "the alert was removed")
        assert outbox.wanted(session.connection(), "refusals") == []
    assert admin.plane.told == ["alert added", ("alert removed", 1)]
    assert [item["action"] for item in admin.get("/v1/audit")["items"]] == ["alert.remove", "alert.add"]


def test_an_alert_that_there_is_not(admin: Admin) -> None:
    made = add(admin)
    problem = admin.refused("not_found", "GET", f"/v1/alerts/{made['id'][:-1]}")
    assert problem["did_you_mean"] == made["id"]
