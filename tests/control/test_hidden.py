"""What a viewer is not shown: no answer of any operation holds a credential, planted wherever there may be one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.control.admin.callers import Role
from gatewayd.control.admin.operations import OPERATIONS, Operation
from gatewayd.policy.header_rules import HIDDEN
from tests.control.conftest import Admin, Holder
from tests.control.test_config import applied
from tests.control.test_isolation import asked
from tests.control.test_targets import A, B

SECRET, OLD = "hush-Zq8vN2", "hush-Older1"
RULES = [
    {"action": "set", "name": "X-Upstream-Token", "value": SECRET},
    {"action": "add", "name": "X-Team", "value": SECRET},
    {"action": "remove", "name": "Cookie", "value": ""},
]
MASKED = [{**rule, "value": HIDDEN} if rule["value"] else rule for rule in RULES]
HOOK = f"https://hooks.example/services/{SECRET}"
HEALTH = {"path": f"/up?token={SECRET}"}
Q = "?tenant=acme"
NOT_ONE = f"{HIDDEN} stands for the value of X-Upstream-Token, and is none; give the value itself"


@pytest.fixture
def acme(admin: Admin) -> dict[str, str]:
    """A tenant with credentials in all that there is and was of it. Names by noun."""
    admin.post("/v1/tenants", slug="acme")
    old = [{**RULES[0], "value": OLD}]
    admin.post(f"/v1/services{Q}", slug="gone", targets=[A], request_headers=old)
    admin.delete(f"/v1/services/gone{Q}")
    service = admin.post(
        f"/v1/services{Q}", slug="orders", targets=[A], request_headers=old, health={"path": f"/up?{OLD}"}
    )
    admin.patch(f"/v1/services/orders{Q}", request_headers=RULES, health=HEALTH)
    admin.post(f"/v1/targets/drain{Q}", target=A)
    admin.post(f"/v1/routes{Q}", service="orders", path="/acme/v2", name="v2")
    alerts = [admin.post(f"/v1/alerts{Q}", quota=80, url=url)["id"] for url in (HOOK, f"http://h.example/?k={SECRET}")]
    admin.delete(f"/v1/alerts/{alerts.pop()}{Q}")
    document = admin.get("/v1/config")
    document["tenants"][0]["services"][0]["timeout_s"] = 5
    document["tenants"][0]["services"].append({"slug": "more", "targets": [B], "request_headers": RULES})
    applied(admin, document)
    admin.post("/v1/config/rollback", number=1)
    return {"services": service["id"], "alerts": alerts[0], "routes": "v2", "tenants": "acme"}


def tries(operation: Operation, names: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Addresses and bodies that a viewer may come up with."""
    noun = (*operation.path.split("/"), "", "")[2]
    refs = ("1", "2", "3") if "{number}" in operation.path else (names.get(noun, "x"),)
    queries: tuple[str, ...] = ("tenant=acme", "", "prune=true", "tenant=acme&addresses=true", "action=service")
    queries += {
        "/v1/names": ("tenant=acme&of=service", "tenant=acme&of=alert"),
        "/v1/routes/test": ("url=/acme/orders/",),
    }.get(operation.path, ())
    for ref in refs:
        address = re.sub(r"\{.*?\}", ref, operation.path)
        for query in queries if operation.method == "GET" or noun == "config" else queries[:1]:
            for body in bodies(operation.path) if operation.method == "POST" else [None]:
                yield f"{address}?{query}", b"" if body is None else json.dumps(body).encode()


def bodies(path: str) -> list[Any]:
    changed = {"slug": "orders", "targets": [B], "request_headers": [{**RULES[0], "value": "guessed"}]}
    if path.startswith("/v1/config"):
        sections: tuple[list[Any], ...] = ([], [changed], [{"slug": "x", "targets": [A]}])
        return [{"version": 1, "tenants": [{"slug": "acme", "services": services}]} for services in sections]
    return [{"method": "GET", "path": "/acme/orders/"}]


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_nothing_that_a_viewer_can_ask_tells_a_credential(
    admin: Admin, acme: dict[str, str], tenant: str | None
) -> None:
    viewer = admin.holder("viewer", tenant)
    answered: set[str] = set()

    async def ask_all() -> None:
        for operation in OPERATIONS:
            for address, body in tries(operation, acme):
                status, said = await asked(admin, viewer.token, operation.method, address, body)
                assert SECRET not in said, (operation, address)
                assert OLD not in said, (operation, address)
                if status == 200:
                    answered.add(f"{operation.method} {operation.path}")

    admin.run(ask_all())
    lists = [each for each in OPERATIONS if each.method == "GET" and each.role == "viewer" and "{" not in each.path]
    expected = {f"GET {each.path}" for each in lists if tenant is None or each.reach != "gateway"}
    expected |= {"GET /v1/services/{ref}", "GET /v1/alerts/{ref}"}
    if tenant is None:
        expected |= {"GET /v1/config/revisions/{number}", "POST /v1/config/diff"}
    assert expected <= answered


def test_who_could_send_them_anywhere_sees_them(admin: Admin, acme: dict[str, str]) -> None:
    roles: dict[Role, Any] = {"viewer": MASKED, "operator": RULES, "admin": RULES}
    for role, rules in roles.items():
        who, hook = admin.holder(role), f"https://hooks.example/{HIDDEN}" if role == "viewer" else HOOK
        assert who.get("/v1/services/orders", tenant="acme")["request_headers"] == rules
        assert who.get("/v1/services", tenant="acme")["items"][-1]["request_headers"] == rules
        assert who.get(f"/v1/alerts/{acme['alerts']}", tenant="acme")["url"] == hook
        (alert,) = who.get("/v1/alerts", tenant="acme")["items"]
        assert alert["url"] == hook
        documents = [who.get("/v1/config"), who.get("/v1/config/revisions/2")["document"]]
        for document in documents:
            *_, service = (each for each in document["tenants"][0]["services"] if each["slug"] in ("orders", "more"))
            assert [rule.get("value", "") for rule in service["request_headers"]] == [rule["value"] for rule in rules]
        lines = who.get("/v1/audit", tenant="acme", action="service.set")["items"]
        assert lines[-1]["after"]["request_headers"] == rules
        *_, added = who.get("/v1/audit", tenant="acme", action="alert.add")["items"]
        assert added["after"]["url"] == hook
        for what in (who.get("/v1/config"), who.get("/v1/config/revisions/1")):
            assert (SECRET in str(what)) is (role != "viewer")


def test_all_else_is_as_everybody_sees_it(admin: Admin, acme: dict[str, str]) -> None:
    """The document and its revisions too, byte by byte."""
    viewer = admin.holder("viewer")
    for path in ("/v1/config", "/v1/config/revisions/1", "/v1/config/revisions/2", f"/v1/audit{Q}&limit=1000"):
        whole, shown = admin("GET", path).text, viewer("GET", path).text
        for written in (SECRET, OLD):
            whole = whole.replace(f'"value":"{written}"', f'"value":"{HIDDEN}"')
            whole = whole.replace(f"/services/{written}", f"/{HIDDEN}").replace(f"/?k={written}", f"/{HIDDEN}")
            whole = whole.replace(f"/up?token={written}", f"/up?{HIDDEN}").replace(f"/up?{written}", f"/up?{HIDDEN}")
        assert shown == whole, path
    bare = admin.post(f"/v1/alerts{Q}", quota=80, url="https://hooks.example")["id"]
    assert viewer.get(f"/v1/alerts/{bare}", tenant="acme")["url"] == "https://hooks.example"


def test_a_viewer_is_told_that_something_differs(admin: Admin, acme: dict[str, str]) -> None:
    viewer = admin.holder("viewer")
    wanted = [{"action": "set", "name": "X-Upstream-Token", "value": "other"}]
    service = {"slug": "orders", "targets": [A], "request_headers": wanted}
    body = {"version": 1, "tenants": [{"slug": "acme", "services": [service]}]}
    (difference,) = viewer.post("/v1/config/diff", **body)["differences"]
    (field,) = (each for each in difference["fields"] if each["field"] == "request_headers")
    hidden = [{"action": rule["action"], "name": rule["name"], **({"value": HIDDEN} if rule["value"] else {})}
              for rule in RULES]  # fmt: skip
    assert field == {"field": "request_headers", "before": hidden, "after": wanted}
    assert not viewer.get("/v1/audit/verify")["differences"]


def test_what_is_masked_is_not_applied(admin: Admin, acme: dict[str, str]) -> None:
    admin.patch(f"/v1/services/orders{Q}", health={"path": None})  # of which the first mistake would be told
    masked = admin.holder("viewer").get("/v1/config")
    before = admin.get("/v1/config")
    for operation in ("diff", "apply"):
        problem = admin.refused("invalid", "POST", f"/v1/config/{operation}", masked)
        assert problem["errors"][0] == {
            "pointer": "/tenants/0/services/0/request_headers",
            "detail": f"request_headers: {NOT_ONE}",
        }
    assert admin.get("/v1/config") == before

    # Nor is such a rule set.
    operator: Holder = admin.holder("operator")
    shown = admin.holder("viewer").get("/v1/services/orders", tenant="acme")["request_headers"]
    problem = operator.refused("invalid", "PATCH", f"/v1/services/orders{Q}", {"request_headers": shown})
    assert (problem["field"], problem["detail"]) == ("request_headers", f"request_headers: {NOT_ONE}")
    new = {"slug": "new", "targets": [A], "request_headers": shown}
    operator.refused("invalid", "POST", f"/v1/services{Q}", new)
    assert operator.get("/v1/services/orders", tenant="acme")["request_headers"] == RULES


def test_the_query_of_a_health_check_may_be_a_credential_too(admin: Admin, acme: dict[str, str]) -> None:
    viewer, operator = admin.holder("viewer"), admin.holder("operator")
    admin.post(f"/v1/services{Q}", slug="checked", targets=[A], health=HEALTH)
    shown = f"/up?{HIDDEN}"
    assert viewer.get("/v1/services/checked", tenant="acme")["health"]["path"] == shown
    assert operator.get("/v1/services/checked", tenant="acme")["health"]["path"] == HEALTH["path"]
    service = {"slug": "checked", "targets": [A], "health": {"path": "/up"}}
    document = {"version": 1, "tenants": [{"slug": "acme", "services": [service]}]}
    (difference,) = viewer.post("/v1/config/diff", **document)["differences"]
    assert difference["fields"] == [{"field": "health", "before": {"path": shown}, "after": {"path": "/up"}}]
    service["health"] = {"path": shown}
    problem = admin.refused("invalid", "POST", "/v1/config/apply", document)
    assert HIDDEN in problem["errors"][0]["detail"]
    problem = operator.refused("invalid", "PATCH", f"/v1/services/checked{Q}", {"health": {"path": shown}})
    detail = f"{HIDDEN} stands for the query of the path, and is none; give the query itself"
    assert (problem["field"], problem["detail"]) == ("health.path", f"health.path: {detail}")
    operator.patch(f"/v1/services/checked{Q}", health={"path": "/up"})
    assert viewer.get("/v1/services/checked", tenant="acme")["health"]["path"] == "/up"
