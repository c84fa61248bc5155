"""Tenants cannot see, name or change what is another's: every address of the admin API is tried with its ids."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from sqlmodel import select

from gatewayd.control.admin.operations import OPERATIONS, Operation
from gatewayd.control.tables import Cycle, Rollup, Tenant
from tests.control.conftest import Admin
from tests.control.test_tailing import record, stored

# What is made in the tenant acme, by the noun of its address: body, then the names that find it there.
MADE: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "services": ("services", {"slug": "orders", "targets": ["http://a"]}, ("id", "slug")),
    "plans": ("plans", {"name": "gold", "quota": 100}, ("id", "name")),
    "keys": ("keys", {"name": "ci", "plan": "gold"}, ("id", "name", "prefix")),
    "clients": ("clients", {"name": "app", "key": "ci"}, ("id", "name")),
    "routes": ("routes", {"path": "/mine", "service": "orders", "name": "mine"}, ("id",)),
    "alerts": ("alerts", {"quota": 80, "url": "http://127.0.0.1:9"}, ("id",)),
}
# Tenants and tokens are looked up by nobody but an operator of all; quotas are those of keys.
SAME = {"quotas": "keys"}
BODIES = {"grants": {"units": 5}, "reset": {}, "revoke": {}, "simulate": {}}
NOT_IN_TENANTS = {"tenants", "tokens"}

ADDRESSES = sorted(
    {
        (each.method, each.path)
        for each in OPERATIONS
        if "{ref}" in each.path and each.path.split("/")[2] not in NOT_IN_TENANTS
    }
)


@pytest.fixture
def acme(admin: Admin) -> dict[str, dict[str, Any]]:
    admin.post("/v1/tenants", slug="acme")
    nouns = {path.split("/")[2] for _, path in ADDRESSES}
    return {
        noun: made(admin, f"/v1/{path}?tenant=acme", body) for noun, (path, body, _) in MADE.items() if noun in nouns
    }


def made(admin: Admin, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = admin("POST", path, body)
    assert response.status_code == 201, response.text
    return dict(response.json())


def test_every_noun_is_tried() -> None:
    assert {path.split("/")[2] for _, path in ADDRESSES} <= MADE.keys() | SAME.keys()


@pytest.mark.parametrize(("method", "path"), ADDRESSES, ids=[f"{method} {path}" for method, path in ADDRESSES])
@pytest.mark.parametrize("tenant", ["default", "globex"])
def test_what_is_another_tenants_is_not_found(
    admin: Admin, acme: dict[str, dict[str, Any]], tenant: str, method: str, path: str
) -> None:
    admin.post("/v1/tenants", slug="globex")
    noun, action = path.split("/")[2], path.split("/")[-1]
    found = SAME.get(noun, noun)
    before = admin.get("/v1/audit")["items"]
    for name in MADE[found][2]:
        address = re.sub(r"\{.*?\}", str(acme[found][name]), path)
        body = None if method in ("GET", "DELETE") else BODIES.get(action, {})
        problem = admin.refused("not_found", method, address, body, params={"tenant": tenant})
        assert problem["detail"].startswith(("there is no", "no ")), problem
        assert "did_you_mean" not in problem
    assert admin.get("/v1/audit")["items"] == before


@pytest.mark.usefixtures("acme")
def test_lists_show_ones_own(admin: Admin) -> None:
    lists = {each.path for each in OPERATIONS if each.method == "GET" and "{" not in each.path}
    for noun in (MADE.keys() | SAME.keys()) & {path.removeprefix("/v1/") for path in lists}:
        assert admin.get(f"/v1/{noun}", tenant="default")["items"] == []
        assert len(admin.get(f"/v1/{noun}", tenant="acme")["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/usage?service=orders", None),
        ("GET", "/v1/usage?key=ci", None),
        ("GET", "/v1/keys?service=orders", None),
        ("GET", "/v1/keys?plan=gold", None),
        ("GET", "/v1/clients?key=ci", None),
        ("POST", "/v1/keys", {"plan": "gold"}),
        ("POST", "/v1/keys", {"services": ["orders"]}),
        ("PATCH", "/v1/keys/own", {"plan": "gold"}),
        ("PATCH", "/v1/keys/own", {"services": ["orders"]}),
        ("POST", "/v1/clients", {"name": "x", "key": "ci"}),
        ("POST", "/v1/routes", {"path": "/x", "service": "orders"}),
        ("POST", "/v1/plans/own/simulate", {"like": "gold"}),
        ("POST", "/v1/plans/own/simulate", {"keys": ["ci"]}),
        ("POST", "/v1/plans/gold/simulate", {}),
        ("POST", "/v1/alerts", {"quota": 80, "url": "http://127.0.0.1:9", "key": "ci"}),
        ("PATCH", "/v1/tenants/default", {"default_plan": "gold"}),
    ],
)
@pytest.mark.usefixtures("acme")
def test_what_is_another_tenants_cannot_be_referred_to(admin: Admin, method: str, path: str, body: Any) -> None:
    admin.post("/v1/keys", name="own")
    admin.post("/v1/plans", name="own")
    admin.refused("not_found", method, path, body)


@pytest.mark.usefixtures("acme")
def test_a_name_of_another_tenant_is_free(admin: Admin) -> None:
    for noun, (path, body, _) in MADE.items():
        if f"/v1/{noun}" in {each.path for each in OPERATIONS}:
            elsewhere = {"path": "/theirs"} if noun == "routes" else {}  # addresses are everybody's, names are not
            made(admin, f"/v1/{path}", body | elsewhere)
            assert len(admin.get(f"/v1/{path}")["items"]) == 1


# One who is bound to a tenant. Every operation is tried, with all that could lead to another's.

MARK = "globex"  # in each name of it, so that nothing of it goes by unseen; ids hold no vowels
# Answers that go on: what they say is heard for a while.
ENDLESS = {"/v1/usage/tail", "/v1/top"}
MARKED: dict[str, tuple[dict[str, Any], str]] = {
    "services": ({"slug": f"{MARK}orders", "targets": [f"http://{MARK}"]}, "slug"),
    "plans": ({"name": f"{MARK}gold", "quota": 100, "price": "1"}, "name"),
    "keys": ({"name": f"{MARK}ci", "plan": f"{MARK}gold"}, "name"),
    "clients": ({"name": f"{MARK}app", "key": f"{MARK}ci"}, "name"),
    "routes": ({"path": f"/{MARK}", "service": f"{MARK}orders", "name": f"{MARK}mine"}, "name"),
    "alerts": ({"quota": 80, "url": f"http://127.0.0.1:9/{MARK}"}, "id"),
}


@pytest.fixture
def globex(admin: Admin) -> dict[str, list[str]]:
    """Another tenant with all that a tenant can have, and the names of it by noun."""
    tenant = admin.post("/v1/tenants", slug=MARK, name=f"{MARK} corporation")
    names = {"tenants": [MARK, tenant["id"]]}
    for noun, (body, name) in MARKED.items():
        thing = made(admin, f"/v1/{noun}?tenant={MARK}", body)
        names[noun] = list(dict.fromkeys((thing["id"], thing[name])))
    names["quotas"] = names["keys"]
    admin.post(f"/v1/credits?tenant={MARK}", amount="5", reason=f"{MARK} credit")
    row: dict[str, Any] = dict.fromkeys(
        ("route_id", "client_id", "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out"), 7
    )
    now = time.time_ns() // 10**9
    with admin.control.database.write() as session:
        tenant_id = session.exec(select(Tenant.id).where(Tenant.slug == MARK)).one()
        assert tenant_id is not None
        cycle = Cycle(tenant_id=tenant_id, period="2026-01", starts_at=1767225600, ends_at=1769904000)
        session.add(cycle)
        session.flush()
        row |= {"tenant_id": tenant_id, "cycle_id": cycle.id, "service_id": 1, "key_id": 1, "price_id": 1}
        rollup = {**row, "status_class": 2, "latency": b""}
        session.add(Rollup(hour=1767225600, **rollup))
        session.add(Rollup(hour=now - now % 3600, **rollup))
        admin.control.tails.take(stored(record(tenant=tenant_id)))
    names["invoices"] = [admin.post(f"/v1/billing/close?tenant={MARK}", period="2026-01")["number"]]
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services?tenant=acme", slug="own", targets=["http://a"])
    return names


def all_of(admin: Admin, tenant: str) -> list[Any]:
    lists = [each.path for each in OPERATIONS if each.method == "GET" and "{" not in each.path]
    return [
        admin("GET", path, params={"tenant": tenant}).json()
        for path in lists
        if path.rpartition("/")[2] in {*MARKED, "quotas", "audit", "ledger", "invoices", "tenants", "cycles"}
    ]


async def asked(admin: Admin, token: str, method: str, address: str, body: bytes) -> tuple[int, str]:
    """Status and what is said; of an answer that goes on, what comes at once."""
    path, _, query = address.partition("?")
    status, said = 0, bytearray()
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"authorization", f"Bearer {token}".encode())], "server": ("gateway", 443),
        "client": ("192.0.2.1", 1), "state": {},
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        if (message := next(messages, None)) is None:
            await asyncio.sleep(60)  # nothing more is said, and nobody goes
        return message

    begun = asyncio.Event()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        said.extend(message.get("body", b""))
        begun.set()

    answering = asyncio.ensure_future(admin.app.app(scope, receive, send))
    if path in ENDLESS:
        await asyncio.wait(
            [answering, waiting := asyncio.ensure_future(begun.wait())], timeout=30, return_when="FIRST_COMPLETED"
        )
        waiting.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(answering, 0.3 if path in ENDLESS else 30)
    return status, said.decode("utf-8", "replace")


def tries(operation: Operation, names: dict[str, list[str]]) -> Iterator[tuple[str, bytes]]:
    """Addresses and bodies with which one might come to see or change what is globex's."""
    noun, action = operation.path.split("/")[2], operation.path.split("/")[-1]
    bodies = [{}, BODIES.get(action, {}), {"tenant": MARK}, {"key": names["keys"][0]}, {"name": "changed"}]
    if noun in MARKED:  # of its own, that refers to what is not
        of: dict[str, Any] = MARKED[noun][0]
        own: dict[str, Any] = {"services": {"slug": "mine", "targets": ["http://b"]}}
        bodies.append({**of, **own.get(noun, {"name": "mine"} if "name" in of else {})})
    queries = ["", f"tenant={MARK}", f"tenant={names['tenants'][1]}", "tenant=default", "everyone=true", "by=tenant"]
    queries += [f"{name}={names[f'{name}s'][0]}" for name in ("service", "key", "plan", "client", "route")]
    queries += ["lines=100", "addresses=true", f"url=/{MARK}", f"tenant=acme&tenant={MARK}", "force=true"]
    refs = ["x"] if "{" not in operation.path else [*names.get(noun, ["x"]), "default", "default%2F.."]
    for ref in refs:
        address = re.sub(r"\{.*?\}", ref, operation.path)
        for query in queries if "{" not in operation.path else ("", f"tenant={MARK}", "force=true"):
            yield f"{address}?{query}", json.dumps(bodies[0]).encode()
        if operation.method in ("POST", "PATCH"):
            for body in bodies:
                yield address, json.dumps(body).encode()


def test_one_who_is_bound_neither_sees_nor_changes_what_is_anothers(admin: Admin, globex: dict[str, list[str]]) -> None:
    token = admin.holder("admin", "acme").token
    ids = {name for noun, of in globex.items() for name in of if noun != "invoices"}
    before = [all_of(admin, tenant) for tenant in (MARK, "default")]

    async def ask_all() -> None:
        for operation in (each for each in OPERATIONS if each.role != "anyone"):
            for address, body in tries(operation, globex):
                status, said = await asked(admin, token, operation.method, address, body)
                assert status, (operation, address)
                where = (operation.method, address, body, status, said)
                own_words = {
                    *re.findall(rf"\w*{MARK}\w*", address + body.decode()),
                    *ids & set(re.split(r"[/?=&]", address)),
                }
                for word in sorted(own_words, key=len, reverse=True) if status >= 400 else ():
                    said = said.replace(word, "")  # an error may say what it was asked for
                if operation.path == "/v1/routes/test":
                    said = said.replace(f'"path":"/{MARK}"', "", 1)  # which was asked for
                assert MARK not in said, where
                assert not [each for each in ids if each in said], where
                if operation.reach == "gateway":
                    assert status in (403, 404), where

    admin.run(ask_all())
    assert [all_of(admin, tenant) for tenant in (MARK, "default")] == before
    assert all_of(admin, MARK) != all_of(admin, "acme")
