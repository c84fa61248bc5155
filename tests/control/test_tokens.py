"""Tokens of the admin API: made, shown once, used, ended; and what is said to those who have none."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd import keys
from gatewayd.control import main
from gatewayd.control.admin.changes import now_s
from gatewayd.control.bearers import Bearers
from gatewayd.control.losses import Losses
from gatewayd.policy.strangers import ADDRESSES, FAILURES, Strangers, Turnstile
from tests.control.conftest import Admin, Holder

TOKEN = re.compile(r"gwt_[a-z0-9]{8}_[0-9A-Za-z]{28}")


def dump(admin: Admin) -> str:
    with closing(sqlite3.connect(admin.control.database.path)) as connection:
        return "\n".join(connection.iterdump())


def test_a_token_is_shown_once_and_stored_nowhere(admin: Admin) -> None:
    made = admin.post("/v1/tokens", name="ci", role="operator")
    token = made.pop("token")
    assert TOKEN.fullmatch(token)
    assert made["id"] == "tok_" + token[4:12]
    assert made == {
        "id": made["id"],
        "name": "ci",
        "role": "operator",
        "tenant": None,
        "created_at": made["created_at"],
        "created_by": "root",
        "expires_at": None,
        "last_used_at": None,
        "status": "active",
    }
    assert admin.get("/v1/tokens") == {"items": [made], "next": None}
    assert admin.delete("/v1/tokens/ci")["status"] == "revoked"
    assert token not in dump(admin)
    secret = token[13:]
    assert secret not in dump(admin)
    created, revoked = (admin.get("/v1/audit", action=f"token.{verb}")["items"][0] for verb in ("create", "revoke"))
    assert (created["after"], revoked["before"]) == (made, made)
    assert keys.digest(token.encode()).hex() not in str((created, revoked))


@given(st.integers(0, 40), st.sampled_from("0123456789abcdefXYZ_"))
def test_a_mistyped_token_is_none(at: int, typed: str) -> None:
    token = "gwt_ab12cd34_5Zt0kq8m2Y7nWb1RfXc9sd"
    token += keys._checksum(token.encode())
    assert keys.is_token(token.encode())
    mistyped = token[:at] + typed + token[at + 1 :]
    assert keys.is_token(mistyped.encode()) == (mistyped == token)


def test_a_mistyped_token_costs_no_look_up(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = admin.holder("viewer")
    monkeypatch.setattr(admin.control.database, "lookup", None)
    holder.token = holder.token[:-1] + ("a" if holder.token[-1] != "a" else "b")
    holder.refused("unauthenticated", "GET", "/v1/whoami")


def test_who_one_is(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    nobody = {"tenant": None, "expires_at": None}
    assert admin.get("/v1/whoami") == {"actor": "root", "role": "admin", "via": "socket", **nobody}
    made = admin.post("/v1/tokens", name="ci", role="viewer", tenant="acme", expires_at="90d")
    assert Holder(admin, made["token"]).get("/v1/whoami") == {
        "actor": "token:ci", "role": "viewer", "tenant": "acme", "via": "token", "expires_at": made["expires_at"],
    }  # fmt: skip


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization: bearer  {}", "X-Admin-Token: {}"])
def test_where_a_token_may_stand(admin: Admin, header: str) -> None:
    name, _, value = header.partition(": ")
    holder = admin.holder("viewer")
    assert holder("GET", "/v1/whoami", headers={name: value.format(holder.token)}).status_code == 200


def headers_of_none(token: str) -> list[dict[str, str]]:
    return [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Cookie": f"token={token}"},
        {"X-Admin-Token": token[:-1]},
        {"X-Admin-Token": f"{token}\u00e9"},
        {"X-Admin-Token": token, "Authorization": "Bearer other"},
        {"X-API-Key": token},
    ]


def test_what_is_no_token_is_not_authenticated(admin: Admin) -> None:
    holder = admin.holder("admin")
    for headers in headers_of_none(holder.token):
        for method, path in (("GET", "/v1/whoami"), ("POST", "/v1/tenants"), ("GET", "/nowhere"), ("PUT", "/v1/keys")):
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            response = holder(method, path, headers=encoded)
            assert response.status_code in (401, 429), (headers, method, path)
            assert response.headers["connection"] == "close"
            assert holder.token not in response.text
            if response.status_code == 401:
                assert response.headers["www-authenticate"].startswith("Bearer")
    assert [tenant["slug"] for tenant in admin.get("/v1/tenants")["items"]] == ["default"]


def test_of_a_request_without_a_token_no_body_is_read(admin: Admin) -> None:
    read = False

    async def body() -> Any:
        nonlocal read
        read = True
        yield b"{}"

    holder = Holder(admin, "none")
    assert holder("POST", "/v1/tenants", content=body()).status_code == 401
    assert not read


def test_what_is_for_anyone_asks_for_no_token(admin: Admin) -> None:
    stranger = Holder(admin, "none")
    assert stranger.get("/healthz") == {"status": "ok"}
    assert stranger.get("/readyz") == {"status": "ready"}


def test_a_revoked_token_is_refused_at_the_next_request_and_told_so(admin: Admin) -> None:
    holder = admin.holder("viewer")
    name = holder.get("/v1/whoami")["actor"].removeprefix("token:")
    admin.delete(f"/v1/tokens/{name}")
    for _ in range(FAILURES * 2):  # its holder is no stranger: it hears why each time
        assert holder.refused("unauthenticated", "GET", "/v1/whoami")["detail"] == f"token {name!r} was revoked"


def test_an_expired_token_is_refused_and_told_so(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = admin.holder("viewer", expires_at="1h")
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert "expired at 2" in holder.refused("unauthenticated", "GET", "/v1/whoami")["detail"]
    assert admin.get("/v1/tokens")["items"][0]["status"] == "expired"


def test_a_token_of_a_tenant_ends_with_it(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    holder = admin.holder("admin", "acme")
    admin.delete("/v1/tenants/acme")
    admin.post("/v1/tenants", slug="acme")  # another one of its name
    assert "the tenant 'acme'" in holder.refused("unauthenticated", "GET", "/v1/services")["detail"]


def test_a_name_is_free_again_when_its_token_has_ended(admin: Admin) -> None:
    first = admin.post("/v1/tokens", name="ci", role="viewer")
    admin.refused("conflict", "POST", "/v1/tokens", {"name": "ci", "role": "admin"})
    admin.delete("/v1/tokens/ci")
    second = admin.post("/v1/tokens", name="ci", role="admin")
    assert admin.delete("/v1/tokens/ci")["id"] == second["id"]
    assert "was revoked at" in admin.refused("conflict", "DELETE", "/v1/tokens/ci")["detail"]
    admin.refused("conflict", "DELETE", f"/v1/tokens/{first['id']}")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "  ", "role": "viewer"}, "name"),
        ({"name": "a\nb", "role": "viewer"}, "name"),
        ({"name": "gwt_ab12cd34_5Zt0kq8m2Y7nWb1RfXc9sd3JgHxVq4", "role": "viewer"}, "name"),
        ({"name": "ci"}, "role"),
        ({"name": "ci", "role": "anyone"}, "role"),
        ({"name": "ci", "role": "root"}, "role"),
        ({"name": "ci", "role": "viewer", "expires_at": "2020-01-01"}, "expires_at"),
        ({"name": "ci", "role": "viewer", "expires_at": "soon"}, "expires_at"),
        ({"name": "ci", "role": "viewer", "token": "mine"}, "token"),
    ],
)
def test_what_makes_no_token(admin: Admin, body: dict[str, Any], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/tokens", body)
    assert problem["field"] == field
    assert "5Zt0kq8m2Y7n" not in str(problem)


def test_a_whole_token_is_not_a_name_for_it(admin: Admin) -> None:
    token = admin.post("/v1/tokens", name="ci", role="viewer")["token"]
    problem = admin.refused("invalid", "DELETE", f"/v1/tokens/{token}")
    assert token[13:] not in str(problem)
    assert "did_you_mean" not in admin.refused("not_found", "DELETE", "/v1/tokens/zz")
    assert admin.refused("not_found", "DELETE", "/v1/tokens/cii")["did_you_mean"] == "ci"


def test_a_revocation_can_be_tried(admin: Admin) -> None:
    holder = admin.holder("viewer")
    name = admin.get("/v1/tokens")["items"][0]["name"]
    assert admin.delete(f"/v1/tokens/{name}?dry_run=true")["status"] == "revoked"
    assert holder.get("/v1/whoami")["role"] == "viewer"


# When it was used


def test_the_last_use_is_known_at_once_and_written_once_a_minute(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, bearers = admin.holder("viewer"), admin.control.bearers
    minute = 1_788_264_000
    clock = [minute]
    monkeypatch.setattr("gatewayd.control.admin.admission.now_s", lambda: clock[0])

    def stored() -> list[Any]:
        with admin.control.database.read() as session:
            return list(session.connection().exec_driver_sql("SELECT last_used_at FROM token").scalars())

    for later in range(0, 60, 7):
        clock[0] = minute + later
        holder.get("/v1/whoami")
    assert stored() == [None]  # no request writes
    assert admin.get("/v1/tokens")["items"][0]["last_used_at"] == "2026-09-01T12:00:00Z"
    bearers.write()
    assert stored() == [minute]
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql("UPDATE token SET last_used_at = 1")
    bearers.write()  # there is nothing new
    assert stored() == [1]
    clock[0] = minute + 60
    holder.get("/v1/whoami")
    with admin.control.database.lent():
        bearers.write()  # later
    bearers.write()
    assert stored() == [minute + 60]
    assert Bearers(admin.control.database).last_used(1, stored()[0]) == minute + 60


# What is under way when it ends


def test_what_is_under_way_with_a_token_ends_with_it(admin: Admin) -> None:
    holder = admin.holder("viewer")
    bearers, cut = admin.control.bearers, []
    found = bearers.find(holder.token.encode(), now_s())
    assert not isinstance(found, str)
    assert found.token_id is not None
    with bearers.visit(found.token_id, lambda: cut.append("stream")), bearers.visit(999, lambda: cut.append("gone")):
        bearers.end_visits(now_s())
        assert cut == ["gone"]
        admin.delete(f"/v1/tokens/{admin.get('/v1/tokens')['items'][0]['id']}")
        assert sorted(cut) == ["gone", "gone", "stream"]
    cut.clear()
    bearers.end_visits(now_s())
    assert cut == []


def test_a_failure_does_not_end_the_looking_after(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()
    looks = iter((OSError("the disk"), None))

    def look(_: int) -> None:
        if (failure := next(looks)) is not None:
            raise failure
        asked.set()

    monkeypatch.setattr(main, "VISITS_S", 0.001)
    monkeypatch.setattr(admin.control.bearers, "end_visits", look)

    async def wait() -> None:
        looking = asyncio.create_task(main.look_after(admin.control.bearers, Losses(admin.control.database)))
        await asyncio.wait(
            (looking, asyncio.create_task(asked.wait())), return_when=asyncio.FIRST_COMPLETED, timeout=10
        )
        looking.cancel()

    asyncio.run(wait())
    assert asked.is_set()


# Strangers


def test_wrong_tokens_are_bounded_by_address_and_a_right_one_is_heard(admin: Admin) -> None:
    holder = admin.holder("viewer")
    stranger = Holder(admin, "gwt_nonsense")
    for _ in range(FAILURES):
        stranger.refused("unauthenticated", "GET", "/v1/whoami")
    response = stranger("GET", "/v1/whoami")
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert holder.get("/v1/whoami")["role"] == "viewer"  # nobody can lock others out


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=60))
def test_failures_are_counted_by_address_and_minute(failures: list[tuple[int, float]]) -> None:
    strangers, now, seen = Strangers(), 100.0, dict[str, tuple[float, int]]()
    for number, later in failures:
        now += later
        address = f"10.0.0.{number}"
        since, count = seen.get(address, (now, 0))
        if now - since >= 60:
            since, count = now, 0
        seen[address] = since, count + 1
        wait_s = strangers.failed(address, now)
        assert (wait_s > 0) == (count + 1 > FAILURES)
        assert wait_s <= 60


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_never_more_come_in_than_the_turnstile_lets_through(pauses: list[float]) -> None:
    turnstile, now, entered = Turnstile(10, 5), 0.0, list[float]()
    for pause in pauses:
        now += pause
        entered.append(now)
        now += turnstile.wait_s(now)  # until then nobody is let in
    for first, since in enumerate(entered):
        for count, until in enumerate(entered[first:], 1):
            assert count <= 5 + 1 + 10 * (until - since) + 1e-6
    assert Turnstile(10, 5).wait_s(now) == 0


def test_a_network_of_ipv6_is_one_stranger_and_memory_is_bounded() -> None:
    strangers = Strangers()
    for number in range(FAILURES + 1):
        last = strangers.failed(f"2001:db8::{number:x}", 0.0)
    assert last > 0
    assert strangers.failed("2001:db8:0:1::1", 0.0) == 0
    for number in range(ADDRESSES + 5):
        strangers.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert repr(strangers) == f"<Strangers {ADDRESSES} addresses>"


def test_wrong_tokens_never_stand_in_the_log(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    token = keys.new_token("ab12cd34")
    Holder(admin, token).refused("unauthenticated", "GET", "/v1/whoami")
    assert "refused a token" in caplog.text
    assert token[13:] not in caplog.text
