"""Who may ask what: every operation with every role, bound to a tenant or not, and what the bound may not name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, get_args

import pytest
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin import admission
from gatewayd.control.admin.app import build_app
from gatewayd.control.admin.bounds import names_this_machine
from gatewayd.control.admin.callers import Role, caller_of
from gatewayd.control.admin.operations import OPERATIONS, Operation
from gatewayd.control.admin.peer import Peer
from tests.control.conftest import Admin, Holder
from tests.test_own_machine import own_address

RANKS = {role: rank for rank, role in enumerate(get_args(Role))}


def echo(request: Request) -> Response:
    """Instead of each handler: who came through, and with what query."""
    return Response(f"{caller_of(request).role}?{request.url.query}")


@pytest.fixture
def echoing(admin: Admin) -> Admin:
    """Admission as it is, and nothing behind it."""
    admin.post("/v1/tenants", slug="acme")
    admin.holders = {}  # type: ignore[attr-defined]
    for role in list(RANKS)[1:]:
        for tenant in (None, "acme"):
            admin.holders[role, tenant] = admin.holder(role, tenant)  # type: ignore[attr-defined]
    admin.app.app = build_app(admin.control, [replace(each, handler=echo) for each in guarded()])
    admin.handlers_are_real = False
    return admin


def guarded() -> list[Operation]:
    return [each for each in OPERATIONS if each.role != "anyone"]


def address(operation: Operation, ref: str = "x") -> str:
    return re.sub(r"\{.*?\}", ref, operation.path)


@pytest.mark.parametrize("tenant", [None, "acme"])
@pytest.mark.parametrize("role", list(RANKS)[1:])
def test_exactly_the_operations_of_a_role_pass(echoing: Admin, role: str, tenant: str | None) -> None:
    holder: Holder = echoing.holders[role, tenant]  # type: ignore[attr-defined]
    for operation in guarded():
        passes = RANKS[role] >= RANKS[operation.role] and not (tenant and operation.reach == "gateway")
        for method in (operation.method, "HEAD") if operation.method == "GET" else (operation.method,):
            response = holder(method, address(operation, "acme"))
            assert response.status_code == (200 if passes else 403), (method, operation.path)
        if not passes and operation.method != "HEAD":
            detail = holder.refused("not_permitted", operation.method, address(operation, "acme"))["detail"]
            assert "token:" in detail
            assert ("the whole gateway" if RANKS[role] >= RANKS[operation.role] else operation.role) in detail


def test_on_the_socket_the_group_is_an_operator(echoing: Admin) -> None:
    admin_socket = echoing.control.settings.admin_socket
    admin_socket.touch()
    echoing.app.peer = Peer(1, 54321, admin_socket.stat().st_gid)
    for operation in guarded():
        response = echoing(operation.method, address(operation))
        assert response.status_code == (403 if operation.role == "admin" else 200), operation.path


def test_one_who_is_bound_works_in_its_tenant(echoing: Admin) -> None:
    holder: Holder = echoing.holders["admin", "acme"]  # type: ignore[attr-defined]
    own_id = next(each for each in echoing.control.database.lookup.exec_driver_sql(
        "SELECT public_id FROM tenant WHERE slug = 'acme'").scalars())  # fmt: skip
    for operation in guarded():
        where, method = address(operation), operation.method
        if operation.reach == "tenant":
            for query in ("", "tenant=acme", f"tenant={own_id}", "tenant=acme&tenant=acme", "everyone=false"):
                shown = holder(method, f"{where}?{query}").text.partition("?")[2].split("&")
                assert [each for each in shown if each.startswith("tenant")] == ["tenant=acme"]
            assert holder(method, f"{where}?a=%26tenant%3Dx&b=%C3%A9&c=").text.endswith(
                "a=%26tenant%3Dx&b=%C3%A9&c=&tenant=acme"
            )
            for query in ("tenant=default", "tenant=", "tenant=acme&tenant=default", "t%65nant=default", "tenant=ACME"):
                detail = holder.refused("not_permitted", method, f"{where}?{query}")["detail"]
                assert "another tenant's" in detail
            for query in ("everyone=true", "everyone=1", "everyone=", "everyone=yes&tenant=acme"):
                holder.refused("not_permitted", method, f"{where}?{query}")
        if operation.reach == "itself":
            for ref in ("acme", own_id):
                assert holder(method, address(operation, ref)).status_code == 200
            for ref in ("default", "ACME", "acme%20", "x"):
                holder.refused("not_permitted", method, address(operation, ref))


def test_an_address_of_nothing_is_told_to_those_who_are_known(echoing: Admin) -> None:
    holder: Holder = echoing.holders["viewer", "acme"]  # type: ignore[attr-defined]
    holder.refused("not_found", "GET", "/nowhere")
    holder.refused("method_not_allowed", "PUT", "/v1/services")
    holder.token = "none"
    holder.refused("unauthenticated", "GET", "/nowhere")
    holder.refused("unauthenticated", "PUT", "/v1/services")


def test_no_spelling_of_an_address_comes_past_its_role(echoing: Admin) -> None:
    """A pattern that ends in `$` takes "/v1/tokens%0A" for "/v1/tokens"."""
    holder: Holder = echoing.holders["viewer", "acme"]  # type: ignore[attr-defined]
    for operation in guarded():
        if (operation.role, operation.reach) in (("viewer", "tenant"), ("viewer", "caller")):
            continue
        for end in ("%0A", "%0D", "%0D%0A", "%00", "%20", "/", "%2F", ";x", "%3Fx", "%23"):
            response = holder(operation.method, f"{address(operation)}{end}")
            assert response.status_code in (403, 404, 405), (operation.method, address(operation), end)


def test_a_handler_is_reached_only_by_who_was_let_in_to_it(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where admission takes a request for one of another operation, or of none."""
    other = next(each for each in OPERATIONS if each.path == "/v1/whoami")
    admin.handlers_are_real = False
    for taken_for in (None, other):
        monkeypatch.setattr(admission, "_finder", lambda _, found=taken_for: lambda _: (found, {}))
        admin.app.app = build_app(admin.control)
        for method in ("GET", "POST"):
            assert admin(method, "/v1/tokens", {"name": "mine", "role": "admin"}).status_code in (404, 405)
        assert admin("GET", "/v1/whoami").status_code == (404 if taken_for is None else 200)


# What the bound may not name


@pytest.mark.parametrize(
    "url",
    [
        "unix:/run/app.sock", "http://127.0.0.1:9", "http://127.1", "http://2130706433", "http://0x7f000001:80",
        "http://0177.0.0.1", "http://[::1]:80", "http://[::ffff:127.0.0.1]", "http://0.0.0.0", "http://[::]",
        "http://169.254.169.254/latest", "https://[fe80::1]", "http://localhost:80", "https://a.localhost",
        "http://localhost.", "http://224.0.0.1", "http://ip6-localhost",
    ],
)  # fmt: skip
def test_the_gateways_own_machine_is_no_target_of_theirs(admin: Admin, url: str) -> None:
    assert names_this_machine(url)
    admin.post("/v1/tenants", slug="acme")
    operator = admin.holder("operator", "acme")
    new = {"slug": "orders", "targets": [url]}
    assert operator.refused("not_permitted", "POST", "/v1/services", new)["field"] == "targets"
    operator.post("/v1/services", slug="orders", targets=["http://a"])
    operator.refused("not_permitted", "PATCH", "/v1/services/orders", {"targets": ["http://a", url]})
    admin.patch("/v1/services/orders?tenant=acme", targets=["http://a", url])  # one who is not bound may
    operator.patch("/v1/services/orders", targets=[url, "http://a"])  # and what there is may stay
    if url.startswith("http"):
        alert = {"quota": 80, "url": url.replace("latest", "hook")}
        response = operator("POST", "/v1/alerts", alert)
        assert response.status_code in (403, 422), response.text


def test_nor_are_its_addresses_in_the_network() -> None:
    own = own_address()
    assert names_this_machine(f"http://{own}:9090")
    assert names_this_machine(f"http://[::ffff:{own}]:9090")


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://api.example.com", "http://a", "http://[2001:db8::1]"])
def test_others_are(url: str) -> None:
    assert not names_this_machine(url)


def test_files_of_the_machine_are_not_theirs(admin: Admin, tmp_path: Any) -> None:
    admin.post("/v1/tenants", slug="acme")
    operator = admin.holder("operator", "acme")
    operator.post("/v1/services", slug="orders", targets=["https://a"])
    for field in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        for file in ("/etc/shadow", "/nowhere", ""):
            new = {"slug": "other", "targets": ["https://a"], field: file}
            said = operator.refused("not_permitted", "POST", "/v1/services", new)
            assert said["field"] == field
            assert operator.refused("not_permitted", "PATCH", "/v1/services/orders", {field: file}) == said
    operator.patch("/v1/services/orders", tls_ca_file=None)


def test_how_the_gateway_treats_the_tenant_is_not_theirs(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    bound = admin.holder("admin", "acme")
    admin.patch("/v1/tenants/acme", suspended=True, rates=["5/s"])
    wrong: tuple[dict[str, Any], ...] = ({"suspended": False}, {"rates": []}, {"burst": 9}, {"name": "x", "rates": []})
    for body in wrong:
        bound.refused("not_permitted", "PATCH", "/v1/tenants/acme", body)
    assert bound.patch("/v1/tenants/acme", contact="ops@acme.example")["suspended"]


def test_addresses_of_theirs_are_below_their_name(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services", slug="orders", targets=["http://a"])
    operator = admin.holder("operator", "acme")
    operator.post("/v1/services", slug="mine", targets=["http://a"], paths=["/acme/other"])
    operator.post("/v1/routes", service="mine", path="/acme/v2", name="v2")
    for path in ("/", "/orders/secret", "/acmes", "/{any}/v2", "/globex/x"):
        code = "conflict" if path.startswith("/orders/") else "not_permitted"  # below a service of another's
        operator.refused(code, "POST", "/v1/routes", {"service": "mine", "path": path})
        operator.refused(code, "PATCH", "/v1/routes/v2", {"path": path})
        if "{" not in path:
            new = {"slug": "second", "targets": ["http://a"], "paths": [path]}
            operator.refused("not_permitted", "POST", "/v1/services", new)
            operator.refused("not_permitted", "PATCH", "/v1/services/mine", {"paths": [path]})
    operator.patch("/v1/routes/v2", path="/acme/v3", weight=2)
    admin.patch("/v1/routes/v2?tenant=acme", path="/shop")
    operator.patch("/v1/routes/v2", weight=3, path="/shop")  # given by one who may, and kept
    operator.refused("not_permitted", "PATCH", "/v1/routes/v2", {"path": "/shop/orders"})


def test_a_host_is_theirs_when_they_alone_were_given_it(admin: Admin) -> None:
    for tenant in ("acme", "globex"):
        admin.post("/v1/tenants", slug=tenant)
        admin.post(f"/v1/services?tenant={tenant}", slug="api", targets=["http://a"])
        admin.post(f"/v1/routes?tenant={tenant}", service="api", path=f"/{tenant}", host="shared.example")
    admin.post("/v1/routes?tenant=acme", service="api", path="/", host="acme.example", name="root")
    operator = admin.holder("operator", "acme")
    operator.post("/v1/routes", service="api", path="/v1", host="acme.example", name="v1")
    for host in ("shared.example", "*.example", "globex.example", "a.acme.example"):
        body = {"service": "api", "path": "/globex/keys", "host": host}
        operator.refused("not_permitted", "POST", "/v1/routes", body)
        operator.refused("not_permitted", "PATCH", "/v1/routes/v1", {"host": host})
    operator.refused("not_permitted", "PATCH", "/v1/routes/v1", {"host": None})
    operator.patch("/v1/routes/v1", path="/v2", host="acme.example")


def test_a_clash_with_anothers_address_names_nobody(admin: Admin) -> None:
    admin.post("/v1/tenants", slug="acme")
    admin.post("/v1/services", slug="orders", targets=["http://a"], paths=["/acme/taken"])
    operator = admin.holder("operator", "acme")
    new = {"slug": "mine", "targets": ["http://a"], "paths": ["/acme/taken"]}
    assert operator.refused("conflict", "POST", "/v1/services", new)["detail"] == (
        "that address is another tenant's already"
    )
    assert "service orders" in admin.refused("conflict", "POST", "/v1/services?tenant=acme", new)["detail"]


def test_the_admin_apis_own_address_is_nobodys_target(admin: Admin) -> None:
    admin.control = replace(admin.control, admin_listen="127.0.0.1:9443")
    admin.app.app = build_app(admin.control)
    admin.handlers_are_real = True
    for target in ("http://127.0.0.1:9443", "https://127.0.0.1:9443/v1", f"unix:{admin.control.settings.admin_socket}"):
        admin.refused("invalid", "POST", "/v1/services", {"slug": "a", "targets": [target]})
