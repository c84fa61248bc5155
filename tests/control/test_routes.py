"""Routes over the admin API."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.conf import RateConf
from gatewayd.control.compile import snapshot
from tests.control.conftest import Admin

TARGET = "http://127.0.0.1:8001"


@pytest.fixture
def services(admin: Admin) -> Admin:
    """`orders` and `products` of the default tenant, `shop` of acme."""
    admin.post("/v1/tenants", slug="acme")
    for slug in ("orders", "products"):
        admin.post("/v1/services", slug=slug, targets=[TARGET])
    admin.post("/v1/services?tenant=acme", slug="shop", targets=[TARGET])
    admin.plane.told.clear()
    return admin


def add(admin: Admin, path: str, service: str | None = "orders", tenant: str = "default", **more: Any) -> Any:
    response = admin("POST", f"/v1/routes?tenant={tenant}", {"service": service, "path": path, **more})
    assert response.status_code == 201, response.text
    return response.json()


def test_a_route_is_added_with_defaults(services: Admin) -> None:
    added = add(services, "/v1/users/{id}/")
    assert added == {
        "id": added["id"], "name": "", "tenant": "default", "service": "orders", "host": None, "path": "/v1/users/{id}",
        "exact": False, "methods": None, "prefix": "strip", "auth": None, "rates": [], "weight": 1, "timeout_s": None,
        "first_byte_timeout_s": None, "body_limit_bytes": None, "networks": [], "created_at": added["created_at"],
    }  # fmt: skip
    assert added["id"].startswith("rte_")
    assert services.get(f"/v1/routes/{added['id']}") == added
    assert services.plane.told == ["snapshot"]
    (line,) = services.get("/v1/audit", limit=1)["items"]
    assert (line["action"], line["subject"], line["after"]) == ("route.add", added["id"], added)


def test_every_setting_is_kept_and_reaches_the_data_plane(services: Admin) -> None:
    given: dict[str, Any] = {
        "name": "reads", "host": "API.Example.com.", "exact": True, "methods": ["head", "GET"], "prefix": "/v2/",
        "auth": "none", "rates": ["100/s", "5k/min"], "weight": 5, "timeout_s": 1.5, "first_byte_timeout_s": 1,
        "body_limit_bytes": 0, "networks": ["10.0.0.0/8", "::1", "10.0.0.0/8"],
    }  # fmt: skip
    added = add(services, "/v1", **given)
    kept = {
        **given, "host": "api.example.com", "methods": ["GET", "HEAD"], "prefix": "/v2",
        "networks": ["10.0.0.0/8", "::1/128"], "rates": added["rates"],
    }  # fmt: skip
    assert {name: added[name] for name in kept} == kept
    (conf,) = snapshot(services.control.database.lookup).routes
    assert (conf.host, conf.path, conf.methods, conf.prefix) == ("api.example.com", "/v1", ("GET", "HEAD"), "/v2")
    assert conf.rates == (RateConf("second", 100, 1, 100), RateConf("minute", 5000, 60, 5000))
    assert (conf.auth, conf.weight, conf.timeout_s, conf.body_limit_bytes) == ("none", 5, 1.5, 0)
    assert conf.networks == ("10.0.0.0/8", "::1/128")
    assert services.patch("/v1/routes/reads") == added
    nothing = dict.fromkeys(("host", "methods", "auth", "timeout_s", "first_byte_timeout_s", "body_limit_bytes"))
    emptied = services.patch("/v1/routes/reads", **nothing, rates=[], networks=[], exact=False, prefix="keep", name="")
    assert {name: emptied[name] for name in nothing} == nothing
    assert (emptied["rates"], emptied["networks"], emptied["prefix"], emptied["name"]) == ([], [], "keep", "")
    line = services.get("/v1/audit", limit=1)["items"][0]
    assert (line["action"], line["before"], line["after"]) == ("route.set", added, emptied)
    assert services.patch(f"/v1/routes/{added['id']}", service=None)["service"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", "v1"), ("path", "/{a"), ("path", "/{a}b"), ("path", "/a//b"), ("path", "/../a"), ("path", "/proxy/x"),
        ("path", "/{a}" * 9), ("path", "/%41"), ("host", "*"), ("host", "a.*.b"), ("host", "a b"), ("host", "a:80"),
        ("host", ""), ("host", "[::g]"), ("methods", ["G ET"]), ("methods", ["GET", "*"]), ("prefix", "v2"),
        ("prefix", "/{id}"), ("prefix", ""), ("rates", ["5"]), ("rates", ["5/s", "6/s"]), ("rates", ["5/month"]),
        ("networks", ["10.0.0.1/8"]), ("weight", 0), ("timeout_s", 0), ("auth", "jwt"), ("name", "a\nb"), ("x", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_field(services: Admin, field: str, value: object) -> None:
    body = {"service": "orders", "path": "/v1", field: value}
    assert services.refused("invalid", "POST", "/v1/routes", body)["field"] == field
    assert services.get("/v1/routes")["items"] == []


def test_a_route_without_a_service_asks_for_a_key(services: Admin) -> None:
    body = {"service": None, "path": "/api", "auth": "none"}
    assert services.refused("invalid", "POST", "/v1/routes", body)["field"] == "auth"
    assert services.refused("invalid", "POST", "/v1/routes", {"path": "/api"})["field"] == "service"
    assert add(services, "/api", None)["service"] is None
    services.refused("not_found", "POST", "/v1/routes", {"service": "nobody", "path": "/b"})


def test_a_tenants_routes_lead_to_its_own_services_and_are_its_own(services: Admin) -> None:
    services.refused("not_found", "POST", "/v1/routes?tenant=acme", {"service": "orders", "path": "/b"})
    mine = add(services, "/v1", name="mine")
    assert services.get("/v1/routes", tenant="acme")["items"] == []
    for ref in ("mine", mine["id"]):
        for method, body in (("GET", None), ("PATCH", {"weight": 2}), ("DELETE", None)):
            services.refused("not_found", method, f"/v1/routes/{ref}?tenant=acme", body)
    add(services, "/v2", "shop", "acme", name="mine")
    services.refused("conflict", "POST", "/v1/routes", {"service": "orders", "path": "/v3", "name": "mine"})


@pytest.mark.parametrize(
    ("first", "second", "clashes"),
    [
        ({"path": "/a/{x}"}, {"path": "/a/{y}"}, True),
        ({"path": "/a"}, {"path": "/a", "methods": ["GET"]}, False),
        ({"path": "/a", "methods": ["GET", "HEAD"]}, {"path": "/a", "methods": ["HEAD", "POST"]}, True),
        ({"path": "/a", "methods": ["GET"]}, {"path": "/a", "methods": ["POST"]}, False),
        ({"path": "/a"}, {"path": "/a", "exact": True}, False),
        ({"path": "/a", "host": "a.b"}, {"path": "/a", "host": "A.B"}, True),
        ({"path": "/a", "host": "*.b"}, {"path": "/a", "host": "a.b"}, False),
    ],
)
@pytest.mark.parametrize("tenant", ["default", "acme"])
def test_ties_are_refused(
    services: Admin, first: dict[str, Any], second: dict[str, Any], clashes: bool, tenant: str
) -> None:
    add(services, **first)
    service = "orders" if tenant == "default" else "shop"
    if clashes:
        problem = services.refused("conflict", "POST", f"/v1/routes?tenant={tenant}", {"service": service, **second})
        assert "would tie with route rte_" in problem["detail"]
    else:
        other = add(services, service=service, tenant=tenant, **second)
        services.patch(f"/v1/routes/{other['id']}?tenant={tenant}", weight=2)  # not with itself
        moved = add(services, service=service, tenant=tenant, path="/elsewhere")
        back = {"host": None, "methods": None, "exact": False, **second}
        services.refused("conflict", "PATCH", f"/v1/routes/{moved['id']}?tenant={tenant}", back)


@pytest.mark.parametrize("path", ["/orders", "/default/orders", "/acme/shop"])
def test_an_address_of_a_service_is_taken(services: Admin, path: str) -> None:
    problem = services.refused("conflict", "POST", "/v1/routes", {"service": "orders", "path": path})
    assert path in problem["detail"]


def test_what_is_more_specific_than_an_address_may_stand(services: Admin) -> None:
    add(services, "/orders", exact=True)
    add(services, "/orders", methods=["GET"])
    add(services, "/orders", host="a.b")
    add(services, "/orders/{id}")


@pytest.mark.parametrize("path", ["/acme/shop/login", "/acme/shop/{x}"])
def test_nobody_takes_what_is_below_another_tenants_service(services: Admin, path: str) -> None:
    problem = services.refused("conflict", "POST", "/v1/routes", {"service": "orders", "path": path, "exact": True})
    assert "lies below /acme/shop, which is an address of service shop of tenant acme" in problem["detail"]
    add(services, path, "shop", "acme")
    add(services, "/acme/other/login")
    problem = services.refused("conflict", "POST", "/v1/services?tenant=acme", {"slug": "other", "targets": [TARGET]})
    assert "/acme/other" in problem["detail"]


def test_a_service_does_not_take_a_routes_address(services: Admin) -> None:
    add(services, "/v1", "shop", "acme", name="theirs")
    add(services, "/v2", methods=["GET"])
    body = {"slug": "new", "targets": [TARGET], "paths": ["/v1"]}
    problem = services.refused("conflict", "POST", "/v1/services", body)
    assert problem["detail"] == "the address /v1 is already that of route theirs (/v1) of tenant acme"
    services.refused("conflict", "PATCH", "/v1/services/orders", {"paths": ["/v1"]})
    services.patch("/v1/services/orders", paths=["/v2", "/"])


def test_the_list_is_in_the_order_of_trying(services: Admin) -> None:
    made: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/", {}), ("/v1", {}), ("/v1/{x}", {}), ("/v1", {"methods": ["GET"]}), ("/v1/a", {}), ("/v1", {"exact": True}),
        ("/", {"host": "*.example.com"}), ("/", {"host": "api.example.com"}), ("/", {"host": "*.eu.example.com"}),
    )  # fmt: skip
    for path, more in made:
        add(services, path, **more)
    listed = services.get("/v1/routes")
    order = [(item["host"], item["path"], item["exact"], item["methods"]) for item in listed["items"]]
    assert order == [
        ("api.example.com", "/", False, None), ("*.eu.example.com", "/", False, None),
        ("*.example.com", "/", False, None), (None, "/v1/a", False, None), (None, "/v1/{x}", False, None),
        (None, "/v1", True, None), (None, "/v1", False, ["GET"]), (None, "/v1", False, None), (None, "/", False, None),
    ]  # fmt: skip
    assert listed["next"] is None
    pages, after = [], None
    while True:
        page = services.get("/v1/routes", limit=2, **({"after": after} if after else {}))
        pages += page["items"]
        if (after := page["next"]) is None:
            break
    assert pages == listed["items"]
    after = services.get("/v1/routes", limit=2)["next"]
    services.delete(f"/v1/routes/{pages[1]['id']}")
    assert services.get("/v1/routes", after=after)["items"] == pages[2:], "though what it stood behind is gone"
    for bad in ("x", "W10", "!!", "é"):
        services.refused("invalid", "GET", "/v1/routes", params={"after": bad})


def test_addresses_of_services_are_listed_among_them(services: Admin) -> None:
    add(services, "/orders/{id}")
    items = services.get("/v1/routes", addresses=True)["items"]
    shown = [(item["path"], item["service"]) for item in items if "/proxy/" not in item["path"]]
    assert shown == [
        ("/default/orders", "orders"), ("/default/products", "products"), ("/orders/{id}", "orders"),
        ("/orders", "orders"), ("/products", "products"),
    ]  # fmt: skip
    assert [item["id"] is None for item in items].count(True) == 6
    assert len([item for item in items if item["path"].startswith("/proxy/svc_")]) == 2
    assert [item["path"] for item in services.get("/v1/routes", addresses=True, tenant="acme")["items"]][:1] == [
        "/acme/shop"
    ]


def test_a_route_is_removed(services: Admin) -> None:
    added = add(services, "/v1", name="old")
    services.plane.told.clear()
    assert services.delete("/v1/routes/old") == added
    assert services.plane.told == ["snapshot"]
    services.refused("not_found", "GET", f"/v1/routes/{added['id']}")
    assert services.get("/v1/audit", limit=1)["items"][0]["action"] == "route.remove"
    assert snapshot(services.control.database.lookup).routes == ()
    add(services, "/v1", name="old")


def test_a_misspelt_name_is_told(services: Admin) -> None:
    add(services, "/v1", name="reads")
    assert services.refused("not_found", "GET", "/v1/routes/raeds")["did_you_mean"] == "reads"


def test_a_service_that_routes_lead_to_stays_unless_forced(services: Admin) -> None:
    add(services, "/v1", name="reads")
    other = add(services, "/v2")
    problem = services.refused("conflict", "DELETE", "/v1/services/orders")
    assert (
        problem["detail"]
        == f"service 'orders' has routes that lead to it: reads, {other['id']}; force removes it with them"
    )
    assert services.refused("conflict", "DELETE", "/v1/services/orders?dry_run=true") == problem
    services.delete("/v1/services/orders?force=true&dry_run=true")
    assert len(services.get("/v1/routes")["items"]) == 2
    services.delete("/v1/services/orders?force=true")
    assert services.get("/v1/routes")["items"] == []
    services.delete("/v1/services/products")


def test_a_tenant_takes_its_routes_with_it(services: Admin) -> None:
    add(services, "/v1", "shop", "acme")
    services.delete("/v1/tenants/acme?force=true")
    add(services, "/v1")


def test_a_request_is_tried(services: Admin) -> None:
    add(services, "/v1/users/{id}", name="user", methods=["GET"])
    add(services, "/v1", "products", name="rest")
    add(services, "/v1", name="host", host="*.example.com")
    add(services, "/api", None, name="key's")
    tried = services.get("/v1/routes/test", url="/v1/users/7?x=1")
    assert (tried["winner"]["name"], tried["winner"]["reason"], tried["host"]) == ("user", "", "127.0.0.1:8080")
    reasons = {
        loser["name"] or loser["path"]: loser["reason"] for loser in tried["losers"] if "/proxy" not in loser["path"]
    }
    assert reasons == {
        "host": "another host", "rest": "less specific", "key's": "another path", "/default/orders": "another path",
        "/default/products": "another path", "/orders": "another path", "/products": "another path",
    }  # fmt: skip
    assert [loser["reason"] for loser in tried["losers"]][:2] == ["another host", "less specific"]
    tried = services.get("/v1/routes/test", url="https://a.example.com:8443/v1/users/7", method="post")
    assert (tried["winner"]["name"], tried["method"]) == ("host", "POST")
    assert {loser["name"]: loser["reason"] for loser in tried["losers"]}["user"] == "another method"
    assert services.get("/v1/routes/test", url="/api/x")["winner"]["service"] is None
    assert services.get("/v1/routes/test", url="/orders")["winner"]["id"] is None
    nothing = services.get("/v1/routes/test", url="/nothing")
    assert (nothing["winner"], nothing["other_tenant"]) == (None, False)


def test_of_another_tenants_routes_only_that_they_win_is_told(services: Admin) -> None:
    add(services, "/v1", "shop", "acme", name="secret")
    tried = services.get("/v1/routes/test", url="/v1")
    assert (tried["winner"], tried["other_tenant"]) == (None, True)
    assert "secret" not in str(tried)
    assert services.get("/v1/routes/test", url="/v1", tenant="acme")["winner"]["name"] == "secret"


@pytest.mark.parametrize("query", [{"url": "v1"}, {"url": ""}, {"url": "/a b"}, {"url": "ftp://a/b"}, {"url": "/ä"},
                                   {"url": "/a/../b"}, {"url": "/a/%2e%2E;/b"}, {"url": "/a", "method": "*"},
                                   {"url": "/a", "method": "G,H"}, {}])  # fmt: skip
def test_what_cannot_be_tried(services: Admin, query: dict[str, str]) -> None:
    services.refused("invalid", "GET", "/v1/routes/test", params=query)


def test_of_many_losers_the_nearest_are_shown(services: Admin) -> None:
    for number in range(101):
        add(services, f"/v{number}")
    add(services, "/{x}", "products")
    tried = services.get("/v1/routes/test", url="/v50/a")
    assert (tried["winner"]["path"], len(tried["losers"])) == ("/v50", 100)
    assert tried["losers"][0]["path"] == "/{x}"
    assert tried["more"] == 101 - 100 + 6
