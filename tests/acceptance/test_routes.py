"""Routes through real processes: in force when the command returns, found as `route test` says, counted by name."""

from __future__ import annotations

import http.client

import pytest

from tests.acceptance.house import House

ROUTES = (
    "--path /v1 --name v1",
    "--path /v1/users/{id} --name user",
    "--path /v1/users/{id} --method GET --method HEAD --name user-read",
    "--path /v1/users/me --exact --name me",
    "--host api.example.com --name api",
    "--host api.example.com --path /v1/users --name api-users",
    "--host *.example.com --path /v1 --name wild",
)
ASKED = (
    ("GET", None, "/v1", "v1"),
    ("GET", None, "/v1/users/7/posts", "user-read"),
    ("POST", None, "/v1/users/7", "user"),
    ("PUT", None, "/v1/users/me", "me"),
    ("GET", None, "/v1/users/me/x", "user-read"),
    ("GET", "api.example.com", "/v1/users/7", "api-users"),
    ("GET", "API.example.com.:99", "/v2", "api"),
    ("GET", "www.example.com", "/v1/users/7", "wild"),
    ("GET", "www.example.com", "/v2", None),
    ("GET", "example.com", "/v1", "v1"),
    ("GET", None, "/v2", None),
)


def ask(house: House, method: str, host: str | None, path: str) -> int:
    """The status. With a Host of its own, where one is given."""
    connection = http.client.HTTPConnection(*house.address, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=host is not None)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@pytest.fixture(scope="module")
def routed(house: House) -> House:
    """An open service, and a route for each name that leads to a path of that name."""
    house.service("open", "--auth", "none")
    for options in ROUTES:
        name = options.split()[-1]
        house.gatectl.do("route", "add", "--to", "open", "--prefix", f"/{name}", *options.split())
    return house


@pytest.mark.parametrize(("method", "host", "path", "name"), ASKED)
def test_a_request_goes_where_route_test_says(
    routed: House, method: str, host: str | None, path: str, name: str | None
) -> None:
    url = path if host is None else f"http://{host}{path}"
    tried = routed.gatectl.json("route", "test", method, url)
    assert (tried["winner"] or {"name": None})["name"] == name
    before = routed.counting.counts()
    assert ask(routed, method, host, path) == (404 if name is None else 200)
    after = routed.counting.counts()
    served = {path for path, count in after.items() if count != before.get(path, 0)}
    if name is None:
        assert served == set()
    else:
        assert [path.startswith(f"/open/{name}") for path in served] == [True]


def test_usage_has_the_names_of_routes(routed: House) -> None:
    routed.call("/v1/users/7")
    items = routed.gatectl.json("usage", "show", "--by", "route")["items"]
    assert {item["route"] for item in items} >= {"user-read"}


def test_a_change_is_in_force_on_every_worker_when_the_command_returns(routed: House) -> None:
    for number in range(5):
        path = f"/new{number}"
        routed.gatectl.do("route", "add", "--path", path, "--to", "open", "--name", "new")
        assert [routed.call(path).status for _ in range(8)] == [200] * 8
        routed.gatectl.do("route", "set", "new", "--network", "10.0.0.0/8")
        assert {routed.call(path).json()["code"] for _ in range(8)} == {"address_not_allowed"}
        routed.gatectl.do("route", "remove", "new", "--yes")
        assert [routed.call(path).status for _ in range(8)] == [404] * 8


def test_the_list_is_the_order(routed: House) -> None:
    names = [item["name"] for item in routed.gatectl.json("route", "list")["items"]]
    assert names == ["api-users", "api", "wild", "me", "user-read", "user", "v1"]
    listed = routed.gatectl.json("route", "list", "--addresses")["items"]
    assert "/open" in [item["path"] for item in listed if item["id"] is None]


def test_the_keys_own_service_answers(house: House) -> None:
    for name in ("first", "second"):
        house.service(name)
    house.gatectl.do("route", "add", "--path", "/api", "--to", "key")
    keys = {name: house.key("--service", name) for name in ("first", "second")}
    for name, key in keys.items():
        before = house.counting.served(f"/{name}/x")
        assert house.call("/api/x", key).status == 200
        assert house.counting.served(f"/{name}/x") == before + 1
    assert house.call("/api/x").json()["code"] == "missing_key"
    both = house.key("--service", "first", "--service", "second")
    for key in (both, house.key()):
        refused = house.call("/api/x", key)
        assert (refused.status, refused.json()["code"]) == (403, "key_not_allowed")
        assert "exactly one" in refused.json()["detail"]


def test_a_service_that_routes_lead_to(house: House) -> None:
    house.service("gone", "--auth", "none")
    house.gatectl.do("route", "add", "--path", "/gone-too", "--to", "gone", "--name", "leads")
    refused = house.gatectl.run("service", "remove", "gone", "--yes")
    assert refused.returncode == 4
    assert "has a route that leads to it: leads" in refused.stderr
    assert house.call("/gone-too").status == 200
    house.gatectl.do("service", "remove", "gone", "--force", "--yes")
    assert house.call("/gone-too").status == 404
