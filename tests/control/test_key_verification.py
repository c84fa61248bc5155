"""Whether a key would be let in, asked with the key in the body."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from gatewayd import keys
from gatewayd.control.admin.changes import now_s
from gatewayd.control.tables import Key, Rollup
from gatewayd.policy.buckets import month_of
from tests.control.conftest import Admin
from tests.control.test_keys import TARGETS


def code_of(admin: Admin, key: str, **question: Any) -> str | None:
    answer = admin("POST", "/v1/keys/verify", {"key": key, **question}).json()
    assert answer["valid"] is (answer["code"] is None)
    assert bool(answer["detail"]) is not answer["valid"]
    assert key not in str(answer)
    return str(answer["code"]) if answer["code"] else None


def test_a_good_key_is_described(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/plans", name="starter", quota=100)
    made = admin.post("/v1/keys", name="ci", services=["orders"], plan="starter", labels={"team": "a"})
    assert admin.post("/v1/keys/verify", key=made["key"]) == {
        "valid": True,
        "code": None,
        "detail": "",
        "id": made["id"],
        "prefix": made["prefix"],
        "name": "ci",
        "tenant": "default",
        "services": ["orders"],
        "plan": "starter",
        "status": "active",
        "labels": {"team": "a"},
        "generation": 1,
        "expires_at": None,
        "quota": {"limit": 100, "used": 0, "remaining": 100},
    }
    assert "key.verify" not in str(admin.get("/v1/audit"))


def test_what_is_wrong_with_a_key_is_said_by_its_code(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=TARGETS)
    admin.post("/v1/services", slug="other", targets=TARGETS)
    made = admin.post("/v1/keys", name="ci", services=["orders"])
    key = made["key"]
    assert code_of(admin, key) is None
    assert code_of(admin, key, service="orders") is None
    assert code_of(admin, key, service="other") == "key_not_allowed"
    assert code_of(admin, key[:-1] + ("a" if key[-1] != "a" else "b")) == "invalid_key"
    assert code_of(admin, keys.new_key()[1]) == "invalid_key"
    assert code_of(admin, keys.new_key(made["prefix"][3:])[1]) == "invalid_key"
    assert code_of(admin, "anything at all") == "invalid_key"
    rotated = admin.post("/v1/keys/ci/rotate", overlap="1h")
    old = admin.post("/v1/keys/verify", key=key)
    assert (old["valid"], old["generation"]) == (True, 1)
    assert old["expires_at"] == admin.get("/v1/keys/ci")["generations"][1]["expires_at"]
    admin.post("/v1/keys/ci/revoke", generation=1)
    assert code_of(admin, key) == "revoked_key"
    admin.post("/v1/keys/ci/rotate", overlap="0")
    assert code_of(admin, rotated["key"]) == "expired_key"
    admin.patch("/v1/tenants/default", suspended=True)
    assert code_of(admin, admin.post("/v1/keys", name="second")["key"]) == "tenant_suspended"
    third = admin.post("/v1/keys", name="third")["key"]
    admin.post("/v1/keys/third/disable")
    assert code_of(admin, third) == "disabled_key"
    admin.post("/v1/keys/third/revoke")
    assert code_of(admin, third) == "revoked_key"


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"path": "/users/7"}, None),
        ({"path": "/users/7", "method": "get"}, None),
        ({"path": "/users/7", "method": "DELETE"}, "route_not_allowed"),
        ({"path": "/admin"}, "route_not_allowed"),
        ({"address": "10.1.2.3"}, None),
        ({"address": "::ffff:10.1.2.3"}, None),  # as a socket of both families has it
        ({"address": "192.0.2.1"}, "address_not_allowed"),
        ({"address": "2001:db8::1"}, None),
        ({"address": "2001:db9::1", "path": "/users/7"}, "address_not_allowed"),
    ],
)
def test_rules_and_networks_are_asked_about(admin: Admin, question: dict[str, str], code: str | None) -> None:
    made = admin.post("/v1/keys", allow=["GET /users/*"], networks=["10.0.0.0/8", "2001:db8::/32"])
    assert code_of(admin, made["key"], **question) == code


def test_rules_are_asked_about_with_a_service_too(admin: Admin) -> None:
    admin.post("/v1/services", slug="api", targets=TARGETS)
    made = admin.post("/v1/keys", allow=["GET /users/*"])
    assert code_of(admin, made["key"], service="api") is None
    assert code_of(admin, made["key"], service="api", path="/users/7") is None
    assert code_of(admin, made["key"], service="api", path="/admin") == "route_not_allowed"


def test_a_quota_that_is_used_up_refuses(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", quota=10)
    made = admin.post("/v1/keys", plan="starter")
    start, end = month_of(1_900_000_000)
    hour = now_s() // 3600 * 3600
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO cycle (id, tenant_id, period, starts_at, ends_at) VALUES (1, 1, 'now', ?, ?)", (start, end)
        )
        session.execute(
            insert(Rollup).values(
                tenant_id=1,
                hour=hour,
                cycle_id=1,
                service_id=1,
                route_id=0,
                key_id=1,
                client_id=0,
                price_id=1,
                status_class=2,
                requests=10,
                billable=10,
                errors=0,
                refused=0,
                units=10,
                bytes_in=0,
                bytes_out=0,
                latency=b"",
            )
        )
    assert code_of(admin, made["key"]) == "quota_exceeded"


def test_an_imported_key_is_verified_by_its_digest(admin: Admin) -> None:
    secret = "sk_live_1234567890abcdef"
    with admin.control.database.write() as session:
        row = {"public_id": "bbbbbbbb", "digest": keys.digest(secret.encode()), "tenant_id": 1, "created_at": 1}
        session.execute(insert(Key).values(**row, imported=True, name="theirs"))
    assert admin.post("/v1/keys/verify", key=secret)["name"] == "theirs"
    assert code_of(admin, secret + "x") == "invalid_key"


def test_a_tenant_that_is_named_knows_only_its_own(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    made = admin.post("/v1/keys")
    theirs = admin("POST", "/v1/keys?tenant=acme", {}).json()
    assert admin.post("/v1/keys/verify", key=theirs["key"])["tenant"] == "acme"
    assert admin.post("/v1/keys/verify?tenant=acme", key=theirs["key"])["valid"]
    assert admin.post("/v1/keys/verify?tenant=acme", key=made["key"]) == {
        "valid": False,
        "code": "invalid_key",
        "detail": "this API key is not known here; check that it was copied whole",
    }


def test_bad_questions_do_not_repeat_the_key(admin: Admin) -> None:
    made = admin.post("/v1/keys")
    for body in ({"key": made["key"], "address": "here"}, {"key": made["key"], "secret": 1}, {"key": [made["key"]]}):
        assert made["key"] not in str(admin.refused("invalid", "POST", "/v1/keys/verify", body))
    admin.refused("not_found", "POST", "/v1/keys/verify", {"key": made["key"], "service": "nowhere"})
