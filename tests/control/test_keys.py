"""Keys over the admin API: the secret comes once, and a hundred thousand of them page."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import pytest
from sqlalchemy import insert

from gatewayd import keys
from gatewayd.control.compile import find_key, find_key_by_id
from gatewayd.control.tables import Key
from gatewayd.policy.amounts import DEFAULT_RATES, format_time
from tests.control.conftest import Admin

TARGETS = ["http://127.0.0.1:8001"]


def conf_of(admin: Admin, key: dict[str, Any]) -> Any:
    conf = find_key(admin.control.database.lookup, key["id"].removeprefix("key_"))
    assert conf is not None
    assert find_key_by_id(admin.control.database.lookup, conf.id) == conf
    return conf


def test_a_key_is_made_and_shown_once(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/plans", name="starter", rates=["60/min"])
    made = admin.post("/v1/keys", services=["orders"], plan="starter", name="ci", expires="90d")
    public_id = keys.public_id_of(made["key"].encode())
    assert made == {
        "id": f"key_{public_id}",
        "key": made["key"],
        "prefix": f"gw_{public_id}",
        "tenant": "default",
        "services": ["orders"],
        "plan": "starter",
        "name": "ci",
        "status": "active",
        "expires_at": made["expires_at"],
        "created_at": made["created_at"],
        "revoked_at": None,
        "disabled_at": None,
        "last_used_at": None,
        "generation": 1,
        "imported": False,
        "allow": [],
        "networks": [],
        "overrides": {},
        "labels": {},
    }
    shown = {name: value for name, value in made.items() if name != "key"}
    assert admin.get("/v1/keys")["items"] == [shown]
    for ref in (made["id"], made["prefix"], public_id, "ci"):
        one = admin.get(f"/v1/keys/{ref}")
        assert {name: one[name] for name in shown} == shown
    secret = made["key"].rpartition("_")[2]
    for path in ("/v1/keys", f"/v1/keys/{made['id']}", "/v1/audit"):
        assert secret not in admin("GET", path).text


def test_what_the_data_plane_gets_of_a_key(admin: Admin) -> None:
    service = admin.post("/v1/services", slug="orders", targets=TARGETS)
    assert service["id"]
    admin.post("/v1/plans", name="starter", rates=["60/min"], burst=3, quota=7)
    made = admin.post("/v1/keys", services=["orders", "orders"], plan="starter", expires="2090-01-01T00:00:00Z")
    conf = conf_of(admin, made)
    assert conf.digest == keys.digest(made["key"].encode())
    assert (conf.services, conf.revoked, conf.expires_at, conf.quota) == ({1}, False, 3786912000, 7)
    assert [(rate.limit, rate.burst) for rate in conf.rates] == [(60, 3)]
    assert find_key(admin.control.database.lookup, "zzzzzzzz") is None


def test_a_key_without_a_plan_has_the_default_limit(admin: Admin) -> None:
    made = admin.post("/v1/keys")
    assert (made["services"], made["plan"], made["expires_at"]) == ([], None, None)
    conf = conf_of(admin, made)
    assert (conf.services, conf.rates, conf.quota, conf.price_id) == (None, DEFAULT_RATES, None, 1)
    shown = admin.get(f"/v1/keys/{made['id']}")
    assert shown["limits"] == {
        "rates": [{"name": "minute", "limit": 10, "window_s": 60, "burst": 10}],
        "quota": None,
        "in_flight_limit": None,
    }
    assert shown["usage"] == {"requests": 0, "billable": 0, "cost": "0"}
    assert admin.plane.told[-1] == "caught up"


@pytest.mark.parametrize(
    ("body", "code", "names"),
    [
        ({"services": []}, "invalid", "services"),
        ({"services": "orders"}, "invalid", "services"),
        ({"services": ["nowhere"]}, "not_found", "nowhere"),
        ({"plan": "nothing"}, "not_found", "nothing"),
        ({"plan": 7}, "invalid", "plan"),
        ({"name": "a\u0000b"}, "invalid", "name"),
        ({"expires": "90"}, "invalid", "expires"),
        ({"expires": "2001-01-01"}, "invalid", "expires"),
        ({"expires": "0d"}, "invalid", "expires"),
        ({"expires": 90}, "invalid", "expires"),
        ({"secret": "gw_x"}, "invalid", "secret"),
    ],
)
def test_bad_keys_are_refused(admin: Admin, body: dict[str, Any], code: str, names: str) -> None:
    assert names in admin.refused(code, "POST", "/v1/keys", body)["detail"]
    assert admin.get("/v1/keys")["items"] == []
    made = admin.post("/v1/keys")
    admin.refused(code, "PATCH", f"/v1/keys/{made['id']}", body)


def test_a_changed_key_is_published(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/plans", name="starter")
    made = admin.post("/v1/keys", name="ci")
    admin.plane.told.clear()
    changed = admin.patch("/v1/keys/ci", name="cd", services=["orders"], plan="starter", expires="1h")
    assert (changed["name"], changed["services"], changed["plan"]) == ("cd", ["orders"], "starter")
    assert changed["expires_at"] is not None
    assert admin.plane.told == [[made["id"].removeprefix("key_")]]
    reverted = admin.patch("/v1/keys/cd", services=None, plan=None, expires=None)
    assert (reverted["services"], reverted["plan"], reverted["expires_at"]) == ([], None, None)


def test_revoking_is_published_and_idempotent(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="ci")
    admin.plane.told.clear()
    first, second = admin.post("/v1/keys/ci/revoke"), admin.post("/v1/keys/ci/revoke")
    assert first == second
    assert first["status"] == "revoked"
    assert first["revoked_at"] is not None
    assert admin.plane.told == [[made["id"].removeprefix("key_")]] * 2
    assert conf_of(admin, made).revoked is True
    assert [line["action"] for line in admin.get("/v1/audit")["items"]] == ["key.revoke", "key.create"]


def test_a_scope_does_not_open_up_when_its_service_goes(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    made = admin.post("/v1/keys", services=["orders"])
    admin.delete("/v1/services/orders")
    assert admin.get(f"/v1/keys/{made['id']}")["services"] == ["orders"]
    assert conf_of(admin, made).services == {1}


def test_keys_are_found_by_service_plan_and_status(admin: Admin) -> None:
    for number in range(1, 13):
        admin.post("/v1/services", slug=f"s{number}", targets=TARGETS)
    admin.post("/v1/plans", name="starter")
    admin.post("/v1/keys", name="any")
    admin.post("/v1/keys", name="one", services=["s1"])
    admin.post("/v1/keys", name="twelve", services=["s2", "s12"])
    admin.post("/v1/keys", name="planned", services=["s3"], plan="starter")
    admin.post("/v1/keys", name="gone", services=["s3"])
    admin.post("/v1/keys/gone/revoke")
    with admin.control.database.write() as session:
        session.execute(insert(Key).values(public_id="expired0", digest=b"x", tenant_id=1, name="old",
                                           service_ids="[4]", created_at=1, expires_at=2))  # fmt: skip

    def names(**query: str) -> list[str]:
        return [item["name"] for item in admin.get("/v1/keys", **query)["items"]]

    assert names(service="s1") == ["any", "one"]
    assert names(service="s2") == names(service="s12") == ["any", "twelve"]
    assert names(plan="starter") == ["planned"]
    assert names(status="revoked") == ["gone"]
    assert names(status="expired") == ["old"]
    assert names(status="active") == ["any", "one", "twelve", "planned"]
    assert names(service="s3", status="revoked") == ["gone"]
    admin.refused("invalid", "GET", "/v1/keys?status=asleep")
    admin.refused("not_found", "GET", "/v1/keys?service=nowhere")


def test_a_name_that_several_keys_have_names_none_of_them(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys", name="ci")
    assert "more than one key" in admin.refused("conflict", "POST", "/v1/keys/ci/revoke")["detail"]


def test_a_misspelt_key_comes_with_a_near_one(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="deploy")
    assert admin.refused("not_found", "GET", "/v1/keys/deplo")["did_you_mean"] == "deploy"
    near = made["prefix"][:-1] + "_"
    assert admin.refused("not_found", "GET", f"/v1/keys/{near}")["did_you_mean"] == made["prefix"]


def test_a_whole_key_is_not_repeated_in_an_error(admin: Admin) -> None:
    made = admin.post("/v1/keys")
    problem = admin.refused("invalid", "GET", f"/v1/keys/{made['key']}")
    assert made["key"] not in str(problem)
    assert made["prefix"] in problem["detail"]


def test_tenants_do_not_see_each_others_keys(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    made = admin.post("/v1/keys", name="ci")
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    for ref in ("ci", made["id"], made["prefix"]):
        admin.refused("not_found", "GET", f"/v1/keys/{ref}?tenant=acme")
        admin.refused("not_found", "POST", f"/v1/keys/{ref}/revoke?tenant=acme")
    admin.refused("not_found", "POST", "/v1/keys?tenant=acme", {"services": ["orders"]})
    assert admin.get("/v1/keys", tenant="acme")["items"] == []


def test_a_hundred_thousand_keys_page_and_are_found_fast(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter")
    rows = [
        {"public_id": f"{number:08x}", "digest": number.to_bytes(32, "big"), "tenant_id": 1, "created_at": number,
         "name": f"n{number}", "plan_id": 1 if number % 1000 == 0 else None}
        for number in range(100_000)
    ]  # fmt: skip
    with admin.control.database.write() as session:
        session.execute(insert(Key), rows)

    def timed(path: str, **query: Any) -> tuple[Any, float]:
        """The answer, and the CPU seconds it took: another process on the core says nothing of a scan."""
        started = time.process_time()
        return admin.get(path, **query), time.process_time() - started

    seen, cursor, times = 0, None, []
    for _ in range(20):
        listed, took = timed("/v1/keys", limit=1000, **({"after": cursor} if cursor else {}))
        seen, cursor = seen + len(listed["items"]), listed["next"]
        times.append(took)
    assert seen == 20_000
    assert listed["items"][-1]["created_at"] == format_time(19_999)
    last, took_last = timed("/v1/keys", after=99_990)
    assert (len(last["items"]), last["next"]) == (10, None)
    by_name, took_by_name = timed("/v1/keys/n77777")
    of_plan, took_of_plan = timed("/v1/keys", plan="starter", limit=1000)
    assert by_name["prefix"] == f"gw_{77777:08x}"
    assert len(of_plan["items"]) == 100
    # Measured: 20 ms a page of 1000, 2 ms the others. The bounds catch a scan, not a slow machine.
    assert median(times) < 0.5
    assert max(took_last, took_by_name, took_of_plan) < 0.1
