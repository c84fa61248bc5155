"""Entity tags: nobody overwrites what he has not seen, nor fetches again what he has."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.tables import Key, PlanVersion
from tests.control.conftest import Admin

SERVICE = {"slug": "orders", "targets": ["http://10.0.0.1"]}
# What is made, where it is, and a change of it.
OBJECTS: tuple[tuple[str, dict[str, Any], str, dict[str, Any]], ...] = (
    ("/v1/tenants", {"slug": "acme"}, "/v1/tenants/acme", {"name": "Acme"}),
    ("/v1/services", SERVICE, "/v1/services/orders", {"auth": "none"}),
    ("/v1/routes", {"name": "reads", "service": None, "path": "/v9"}, "/v1/routes/reads", {"exact": True}),
    ("/v1/plans", {"name": "gold"}, "/v1/plans/gold", {"quota": 10}),
    ("/v1/keys", {"name": "ci"}, "/v1/keys/ci", {"labels": {"team": "a"}}),
    ("/v1/clients", {"name": "kiosk", "rates": ["5/s"]}, "/v1/clients/kiosk", {"burst": 9}),
)


def tag_of(admin: Admin, path: str) -> str:
    return admin("GET", path).headers["etag"]


@pytest.mark.parametrize(("made_at", "new", "path", "change"), OBJECTS)
def test_of_two_who_have_read_the_same_one_may_change_it(
    admin: Admin, made_at: str, new: dict[str, Any], path: str, change: dict[str, Any]
) -> None:
    assert admin("POST", made_at, new).status_code == 201
    tag = tag_of(admin, path)
    assert tag_of(admin, path) == tag
    assert admin("PATCH", path, change, headers={"if-match": tag}).status_code == 200
    after = admin.get(path)
    assert tag_of(admin, path) != tag
    problem = admin.refused("precondition_failed", "PATCH", path, change | _OTHER[path], headers={"if-match": tag})
    assert problem["detail"] == "somebody has changed it since it was read: read it again, and decide then"
    assert admin.get(path) == after
    if made_at != "/v1/keys":
        admin.refused("precondition_failed", "DELETE", path, headers={"if-match": tag})
        assert admin("DELETE", path, headers={"if-match": tag_of(admin, path)}).status_code == 200


_OTHER: dict[str, dict[str, Any]] = {
    "/v1/tenants/acme": {"name": "Other"},
    "/v1/services/orders": {"auth": "key"},
    "/v1/routes/reads": {"exact": False},
    "/v1/plans/gold": {"quota": 20},
    "/v1/keys/ci": {"labels": {"team": "b"}},
    "/v1/clients/kiosk": {"burst": 8},
}


def test_a_condition_is_read_as_rfc_9110_has_it(admin: Admin) -> None:
    admin.post("/v1/services", **SERVICE)
    path = "/v1/services/orders"
    tag = tag_of(admin, path)
    for number, (written, may) in enumerate(
        [
            ("*", True),
            (tag, True),
            (f'"other", {tag}', True),
            (f'"other",{tag} ,"more"', True),
            (f'W/"-", {tag}', True),
            (f'"a,-", {tag}', True),
            (f"W/{tag}", False),
            (f'W/{tag}, "other"', False),
            ('"other"', False),
            ('""', False),
            ("", False),
            (f', "other",, {tag},', True),
        ]
    ):
        answer = admin("PATCH", path, {"timeout_s": 10 + number}, headers={"if-match": written})
        assert answer.status_code == (200 if may else 412), written
        admin.patch(path, timeout_s=30)
    several = [("if-match", '"other"'), ("if-match", tag)]
    assert admin("PATCH", path, {"timeout_s": 9}, headers=several).status_code == 200


@pytest.mark.parametrize("written", ["nonsense", 'ab12, "cd"', '"open', '"a" "b"', "**", '*, "a"', 'w/"a"'])
def test_what_is_no_condition_is_refused(admin: Admin, written: str) -> None:
    admin.post("/v1/services", **SERVICE)
    for method, name in (("PATCH", "If-Match"), ("GET", "If-None-Match")):
        body: dict[str, Any] | None = {} if method == "PATCH" else None
        problem = admin.refused("malformed", method, "/v1/services/orders", body, headers={name: written})
        assert problem["detail"] == f'{name} is neither * nor a list of entity tags, each in quotes: "ab12"'


def test_a_long_condition_costs_no_time(admin: Admin) -> None:
    admin.post("/v1/services", **SERVICE)
    admin.refused("malformed", "PATCH", "/v1/services/orders", {}, headers={"if-match": " ,  " * 10_000 + "x"})


def test_a_dry_run_hears_of_it_too(admin: Admin) -> None:
    admin.post("/v1/services", **SERVICE)
    path = "/v1/services/orders?dry_run=true"
    admin.refused("precondition_failed", "DELETE", path, headers={"if-match": '"old"'})
    assert admin.get("/v1/services/orders")


def test_what_is_not_there_is_not_found_whatever_the_condition(admin: Admin) -> None:
    admin.refused("not_found", "PATCH", "/v1/services/none", {}, headers={"if-match": "*"})


def test_who_has_it_already_is_told_so(admin: Admin) -> None:
    admin.post("/v1/services", **SERVICE)
    tag = tag_of(admin, "/v1/services/orders")
    for written in (tag, f"W/{tag}", f'"a", {tag}', "*"):
        answer = admin("GET", "/v1/services/orders", headers={"if-none-match": written})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert admin("GET", "/v1/services/orders", headers={"if-none-match": '"a"'}).status_code == 200


def test_use_of_a_key_is_no_change_of_it_but_it_is_another_answer(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    before = tag_of(admin, "/v1/keys/ci")
    with admin.control.database.write() as session:
        key = session.get_one(Key, 1)
        key.last_used_at = 1_788_264_000
        session.add(key)
    after = tag_of(admin, "/v1/keys/ci")
    assert before != after
    assert before.partition(".")[0] == after.partition(".")[0]
    assert admin("GET", "/v1/keys/ci", headers={"if-none-match": before}).status_code == 200
    assert admin("POST", "/v1/keys/ci/disable", headers={"if-match": before}).status_code == 200
    admin.refused("precondition_failed", "POST", "/v1/keys/ci/rotate", headers={"if-match": before})
    admin.refused("precondition_failed", "POST", "/v1/keys/ci/revoke", headers={"if-match": before})


def test_the_end_of_an_older_secret_takes_the_condition_too(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    before = tag_of(admin, "/v1/keys/ci")
    admin.post("/v1/keys/ci/rotate")
    refused = {"generation": 1}
    admin.refused("precondition_failed", "POST", "/v1/keys/ci/revoke", refused, headers={"if-match": before})
    assert admin.get("/v1/keys/ci")["generations"][1]["status"] == "active"


def test_a_grant_is_on_the_quota_that_was_seen(admin: Admin) -> None:
    admin.post("/v1/plans", name="gold", quota=100)
    admin.post("/v1/keys", name="ci", plan="gold")
    tag = tag_of(admin, "/v1/quotas/ci")
    for status in (201, 412):
        answer = admin("POST", "/v1/quotas/ci/grants", {"units": 5}, headers={"if-match": tag})
        assert answer.status_code == status
    assert admin.get("/v1/quotas/ci")["granted"] == 5


def test_an_alert_is_the_same_whatever_it_has_sent(admin: Admin) -> None:
    alert = admin.post("/v1/alerts", url="http://127.0.0.1:1/", quota=80)
    path = f"/v1/alerts/{alert['id']}"
    before = tag_of(admin, path)
    assert not admin.post(f"{path}/test")["delivered"]
    assert tag_of(admin, path) != before
    assert admin("DELETE", path, headers={"if-match": before}).status_code == 200


def test_an_older_version_of_a_plan_has_a_tag_of_its_own(admin: Admin) -> None:
    admin.post("/v1/plans", name="gold")
    admin.patch("/v1/plans/gold", quota=5)
    assert tag_of(admin, "/v1/plans/gold?version=1") != tag_of(admin, "/v1/plans/gold")
    with admin.control.database.read() as session:
        assert session.get(PlanVersion, (1, 2)) is not None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/services", {"slug": "other", "targets": ["http://10.0.0.2"]}),
        ("POST", "/v1/targets/drain", {"target": "http://10.0.0.1"}),
        ("POST", "/v1/credits", {"amount": "5", "reason": "thanks"}),
        ("POST", "/v1/config/apply", {"version": 1, "tenants": []}),
        ("POST", "/v1/billing/reset", None),
        ("POST", "/v1/backup", None),
        ("DELETE", "/v1/tokens/laptop", None),
    ],
)
def test_where_nothing_has_a_tag_a_condition_is_refused(admin: Admin, method: str, path: str, body: Any) -> None:
    """Ignored, it would be no protection to whoever counts on it."""
    admin.post("/v1/services", **SERVICE)
    admin.post("/v1/tokens", name="laptop", role="viewer")
    before = admin.get("/v1/audit")
    for written in ('"a"', "*"):
        problem = admin.refused("malformed", method, path, body, headers={"if-match": written})
        assert problem["detail"] == "what this changes has no entity tag; leave If-Match out"
    assert admin.get("/v1/audit") == before


@pytest.mark.parametrize(("made_at", "new", "path", "change"), OBJECTS)
def test_what_is_refused_leaves_nothing_behind(
    admin: Admin, made_at: str, new: dict[str, Any], path: str, change: dict[str, Any]
) -> None:
    admin.post("/v1/services", **SERVICE) if made_at != "/v1/services" else None
    admin.post(made_at, **new)
    audit, shown, told = admin.get("/v1/audit"), admin.get(path), list(admin.plane.told)
    admin.refused("precondition_failed", "PATCH", path, change, headers={"if-match": '"old"'})
    if made_at != "/v1/keys":
        admin.refused("precondition_failed", "DELETE", path, headers={"if-match": '"old"'})
    else:
        for verb in ("disable", "enable", "revoke", "rotate"):
            admin.refused("precondition_failed", "POST", f"{path}/{verb}", headers={"if-match": '"old"'})
    assert (admin.get("/v1/audit"), admin.get(path)) == (audit, shown)
    assert [each for each in admin.plane.told if each != "caught up"] == [each for each in told if each != "caught up"]


def test_what_would_be_refused_all_the_same_is_refused_for_that(admin: Admin) -> None:
    """RFC 9110 section 13.2.1: a condition is of what would be done."""
    for made_at, new, path, _ in OBJECTS:
        if made_at == "/v1/routes":
            admin.post("/v1/services", slug="other", targets=["http://10.0.0.2"])
        admin.post(made_at, **new)
        admin.refused("invalid", "PATCH", path, {"nonsense": 1}, headers={"if-match": '"old"'})
    for path in ("/v1/tenants/acme", "/v1/keys/ci"):
        admin.refused("invalid", "PATCH", path, {"name": "n" * 201}, headers={"if-match": '"old"'})
    admin.refused("invalid", "PATCH", "/v1/plans/gold", {"name": "a b"}, headers={"if-match": '"old"'})
    admin.refused("conflict", "POST", "/v1/keys/ci/revoke", {"generation": 1}, headers={"if-match": '"old"'})
