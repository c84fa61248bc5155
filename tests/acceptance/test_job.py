"""The whole job, as its owner does it: register an API, mint a key, serve traffic, read usage and the bill."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.acceptance.house import House


@pytest.fixture(scope="module")
def orders(house: House) -> dict[str, Any]:
    """The service `orders` with a plan and a key, as the commands that made them answered."""
    gatectl = house.gatectl
    service = gatectl.json("service", "add", "orders", f"{house.counting.url}/orders")
    plan = gatectl.json("plan", "add", "starter", "--rate", "6000/min", "--quota", "10000/month", "--price", "0.0025")
    key = gatectl.json("key", "create", "--service", "orders", "--plan", "starter", "--name", "ci", "--expires", "90d")
    return {"service": service, "plan": plan, "key": key}


def test_from_a_service_to_its_bill(house: House, orders: dict[str, Any]) -> None:
    gatectl, secret = house.gatectl, orders["key"]["key"]
    before = house.counting.served()
    for number in range(37):
        assert house.call(f"/orders/{number}", secret).status == 200
    for _ in range(3):
        assert house.call("/orders/fail", secret).status == 500
    assert house.call("/orders/1").status == 401  # no key: nobody's bill
    assert house.counting.served() - before == 40

    total = gatectl.json("usage", "show", "--service", "orders", "--by", "service,key")["total"]
    # A 5xx is counted by limits and costs nothing; a request that no key vouched for is only refused.
    assert (total["requests"], total["billable"], total["errors"], total["refused"]) == (40, 37, 3, 1)
    assert Decimal(total["cost"]) == Decimal("0.0025") * 37

    bill = gatectl.json("billing", "show")
    [line] = [item for item in bill["items"] if item["service"] == "orders"]
    assert (line["requests"], Decimal(line["price"]), Decimal(line["cost"])) == (
        37,
        Decimal("0.0025"),
        Decimal("0.0925"),
    )
    assert bill["currency"] == "USD"
    assert Decimal(bill["total"]) == sum(Decimal(item["cost"]) for item in bill["items"])
    [of_key] = [item for item in gatectl.json("billing", "keys")["items"] if item["key"] == orders["key"]["prefix"]]
    assert (of_key["requests"], Decimal(of_key["cost"])) == (37, Decimal("0.0925"))

    shown = gatectl.json("key", "show", "ci")
    assert shown["limits"]["quota"] == {"limit": 10000, "used": 40, "remaining": 9960}
    assert shown["usage"]["billable"] == 37
    assert "key" not in shown
    actions = {item["action"] for item in gatectl.json("audit", "list")["items"]}
    assert {"service.add", "plan.add", "key.create"} <= actions
    assert secret not in gatectl.do("audit", "list", "-o", "json")
    assert secret.split("_")[2] not in house.gateway.daemon.output()


def test_json_answers_have_the_fields_that_scripts_rely_on(orders: dict[str, Any]) -> None:
    assert {"id", "slug", "tenant", "targets", "url"} <= orders["service"].keys()
    assert {"id", "name", "tenant", "rates", "quota", "price"} <= orders["plan"].keys()
    assert {"id", "key", "prefix", "tenant", "services", "plan", "expires_at"} <= orders["key"].keys()


def test_a_price_change_prices_what_comes_after_it(house: House) -> None:
    house.service("priced")
    house.gatectl.do("plan", "add", "priced", "--price", "0.001")
    key = house.key("--service", "priced", "--plan", "priced")
    for _ in range(5):
        assert house.call("/priced/", key).status == 200
    house.gatectl.do("plan", "set", "priced", "--price", "0.000000007")
    for _ in range(3):
        assert house.call("/priced/", key).status == 200
    lines = [item for item in house.gatectl.json("billing", "show")["items"] if item["service"] == "priced"]
    costs = {(item["requests"], Decimal(item["price"]), Decimal(item["cost"])) for item in lines}
    assert costs == {
        (5, Decimal("0.001"), Decimal("0.005")),
        (3, Decimal("0.000000007"), Decimal("0.000000021")),
    }


# Addresses.


def path_seen(house: House, address: str, key: str | None) -> str:
    """The request line that the upstream saw."""
    answer = house.call(address, key)
    assert answer.status == 200, answer.body
    return answer.body.split(b"\r\n")[0].decode()


def test_every_address_of_a_service_leads_to_it(house: House, orders: dict[str, Any]) -> None:
    key, id_ = orders["key"]["key"], orders["service"]["id"]
    for prefix in ("/orders", "/default/orders", f"/proxy/{id_}"):
        seen = path_seen(house, f"{prefix}/a%2Fb//c/echo?x=1&y=%20", key)
        assert seen == "GET /orders/a%2Fb//c/echo?x=1&y=%20 HTTP/1.1"
    url = orders["service"]["url"]
    assert url.startswith(house.gateway.url)
    assert house.call(url.removeprefix(house.gateway.url) + "/1", key).status == 200


def test_a_service_of_another_tenant_has_its_own_addresses(house: House, orders: dict[str, Any]) -> None:
    gatectl = house.gatectl
    gatectl.do("tenant", "add", "acme")
    gatectl.do("service", "add", "orders", f"{house.counting.url}/acme", "-t", "acme")
    key = gatectl.do("key", "create", "--service", "orders", "-t", "acme").strip()
    assert path_seen(house, "/acme/orders/echo", key) == "GET /acme/echo HTTP/1.1"
    served = house.counting.served()
    for address, with_key in (("/orders/1", key), ("/acme/orders/1", orders["key"]["key"])):
        refused = house.call(address, with_key)
        assert (refused.status, refused.json()["code"]) == (403, "key_not_allowed")
    assert house.counting.served() == served


def test_a_path_of_its_own_and_the_longest_prefix_wins(house: House) -> None:
    house.service("first", "--path", "/v1/orders", "--auth", "none")
    house.service("deep", "--path", "/v1/orders/deep", "--auth", "none")
    assert path_seen(house, "/v1/orders/echo", None) == "GET /first/echo HTTP/1.1"
    assert path_seen(house, "/v1/orders/deep/echo", None) == "GET /deep/echo HTTP/1.1"
    assert path_seen(house, "/v1/orders/deeper/echo", None) == "GET /first/deeper/echo HTTP/1.1"
    no_route = house.call("/v1/order")
    assert (no_route.status, no_route.json()["code"]) == (404, "no_route")


def test_a_service_for_the_whole_host(house: House) -> None:
    house.service("host", "--path", "/", "--auth", "none")
    assert path_seen(house, "/anything/echo?q", None) == "GET /host/anything/echo?q HTTP/1.1"
    assert path_seen(house, "/host/echo", None) == "GET /host/echo HTTP/1.1"
    house.gatectl.do("service", "remove", "host", "--yes")
    assert house.call("/anything/echo").status == 404


# Options of a service.


def test_the_host_header_is_the_targets_unless_preserved(house: House) -> None:
    house.service("hosted", "--auth", "none")
    target = house.counting.url.removeprefix("http://")
    assert f"\r\nHost: {target}\r\n".encode() in house.call("/hosted/echo", Host="shop.example").body
    house.gatectl.do("service", "set", "hosted", "--preserve-host")
    assert b"\r\nHost: shop.example\r\n" in house.call("/hosted/echo", Host="shop.example").body


def test_what_the_upstream_sees_of_a_caller(house: House, orders: dict[str, Any]) -> None:
    key = orders["key"]["key"]
    seen = house.call(
        "/orders/echo", key, X_User_Id="root", X_Gateway_Tenant="acme", X_Forwarded_For="6.6.6.6", X_Kept="yes"
    ).body.lower()
    assert b"x-kept: yes" in seen
    assert b"x-forwarded-for: 127.0.0.1" in seen
    for absent in (b"gw_", b"x-api-key", b"x-user-id", b"x-gateway-tenant", b"6.6.6.6"):
        assert absent not in seen
    bearer = house.call("/orders/echo", Authorization=f"Bearer {key}")
    assert bearer.status == 200
    assert b"gw_" not in bearer.body


def test_a_slow_upstream_is_a_504_after_the_timeout(house: House) -> None:
    house.service("late", "--auth", "none", "--timeout", "1s")
    assert house.call("/late/slow?ms=200").status == 200
    late = house.call("/late/slow?ms=4000")
    assert (late.status, late.json()["code"]) == (504, "upstream_timeout")


def test_a_body_over_the_limit_is_a_413_that_the_upstream_never_sees(house: House) -> None:
    house.service("small", "--auth", "none", "--body-limit", "1KiB")
    assert house.call("/small/x", method="POST", body=bytes(1024)).status == 200
    served = house.counting.served()
    large = house.call("/small/x", method="POST", body=bytes(1025))
    assert (large.status, large.json()["code"]) == (413, "body_too_large")
    assert house.counting.served() == served


def test_an_upstream_that_is_not_there_is_a_502(house: House) -> None:
    house.gatectl.do("service", "add", "nobody", "http://127.0.0.1:9", "--auth", "none")
    gone = house.call("/nobody/")
    assert (gone.status, gone.json()["code"]) == (502, "upstream_unreachable")
