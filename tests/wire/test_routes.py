"""Routes on the wire: by host and method, what is left of the path, what a route, a tenant and a key allow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatewayd.channel import KeyFound, KeysChanged, SnapshotChanged
from gatewayd.conf import KeyConf, RouteConf, ServiceConf, TenantConf
from gatewayd.errors import BODY_TOO_LARGE
from gatewayd.keys import digest
from gatewayd.policy.guards import body_fits
from gatewayd.policy.spending import KeyEntry
from tests.wire.harness import OK, Wire, services
from tests.wire.peer import Message
from tests.wire.test_requests import get
from tests.wire.test_tunnels import UPGRADE, echoed, ended, switched

pytestmark = pytest.mark.anyio

OPEN, KEYED, BASED, THEIRS, SMALL, OWN = 1, 2, 3, 4, 6, 9
LIMIT = 100


def route(number: int, path: str, service_id: int | None = OPEN, **more: Any) -> RouteConf:
    return RouteConf(number, f"rte_{number}", more.pop("tenant_id", 1), service_id, path, **more)


def install(wire: Wire, *routes: RouteConf, **tenant: Any) -> None:
    tenants = (TenantConf(1, "default", tenant.pop("suspended", False), **tenant), TenantConf(2, "acme", False))
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    wire.worker._install(SnapshotChanged(1, tenants, confs, routes))


def give_key(wire: Wire, **changes: Any) -> None:
    """The key of the wire, changed."""
    (entry,) = wire.worker.keys.entries.values()
    conf = msgspec.structs.replace(entry.conf, **changes)
    wire.worker.keys.entries[conf.public_id] = KeyEntry(conf)


async def asked(wire: Wire, request: bytes) -> Message:
    """What the upstream was asked."""
    got = await wire.ask(request)
    assert got.status == 200, got
    return wire.upstream.requests[-1]


def to(host: bytes, path: bytes = b"/", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, path, host)


# Where it goes.


async def test_hosts(wire: Wire) -> None:
    install(
        wire,
        route(1, "/", host="api.example.com", prefix="/exact"),
        route(2, "/", host="*.example.com", prefix="/wild"),
        route(3, "/", host="*.eu.example.com", prefix="/longer"),
    )
    for host, line in (
        (b"api.example.com", b"GET /exact/x HTTP/1.1"),
        (b"API.Example.com.:8080", b"GET /exact/x HTTP/1.1"),
        (b"www.example.com", b"GET /wild/x HTTP/1.1"),
        (b"a.b.example.com", b"GET /wild/x HTTP/1.1"),
        (b"a.eu.example.com:80", b"GET /longer/x HTTP/1.1"),
    ):
        assert (await asked(wire, to(host, b"/x"))).line == line
    for host in (b"example.com", b"eu.example.org", b"xexample.com"):
        assert (await wire.ask(to(host, b"/x"))).problem == "no_route"
    assert (await asked(wire, to(b"other", b"/open/x"))).line == b"GET /x HTTP/1.1"
    assert (await asked(wire, to(b"www.example.com", b"/open/x"))).line == b"GET /wild/open/x HTTP/1.1"


async def test_the_host_of_an_absolute_target_is_the_hosts(wire: Wire) -> None:
    install(wire, route(1, "/", host="api.example.com"))
    sent = b"GET http://api.example.com/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
    assert (await asked(wire, sent)).line == b"GET /x HTTP/1.1"


async def test_methods(wire: Wire) -> None:
    install(
        wire,
        route(1, "/v1/a", methods=("GET", "HEAD"), prefix="/read"),
        route(2, "/v1/a", methods=("POST",), prefix="/write"),
        route(3, "/v1", prefix="/rest"),
        route(4, "/v2", methods=("GET",)),
    )
    for method, line in ((b"GET", b"GET /read"), (b"DELETE", b"DELETE /rest/a")):
        assert (await asked(wire, to(b"h", b"/v1/a", method))).line == line + b" HTTP/1.1"
    assert (await wire.ask(to(b"h", b"/v2", b"DELETE"))).problem == "no_route"
    assert [record.route for record in wire.records()] == [1, 3]


@pytest.mark.parametrize(
    ("conf", "path", "line", "nothing_left"),
    [
        ({"path": "/v1"}, b"/v1", b"/", True),
        ({"path": "/v1"}, b"/v1/", b"/", False),
        ({"path": "/v1"}, b"/v1?q=%2F", b"/?q=%2F", True),
        ({"path": "/v1"}, b"/v1//a/%2f%41?x", b"//a/%2f%41?x", False),
        ({"path": "/v1", "prefix": "keep"}, b"/v1/a%20b", b"/v1/a%20b", False),
        ({"path": "/v1", "prefix": "/v2"}, b"/v1/a", b"/v2/a", False),
        ({"path": "/v1", "prefix": "/v2"}, b"/v1", b"/v2", False),
        ({"path": "/v1", "prefix": "/v2"}, b"/v1/", b"/v2/", False),
        ({"path": "/v1", "prefix": "/v2/x"}, b"/v1?a", b"/v2/x?a", False),
        ({"path": "/u/{id}", "prefix": "strip"}, b"/u/7/posts", b"/posts", False),
        ({"path": "/u/{id}", "prefix": "strip"}, b"/u/%37", b"/", True),
        ({"path": "/u/{id}", "prefix": "strip"}, b"/u/7/", b"/", False),
        ({"path": "/u/{id}", "prefix": "keep"}, b"/u/7/posts", b"/u/7/posts", False),
        ({"path": "/u/{id}", "prefix": "/user"}, b"/u/7/posts?a=b", b"/user/posts?a=b", False),
        ({"path": "/u/{id}/p", "prefix": "/user", "exact": True}, b"/u/7/p", b"/user", False),
        ({"path": "/", "prefix": "/v2"}, b"/a", b"/v2/a", False),
        ({"path": "/", "prefix": "/v2"}, b"/", b"/v2/", False),
        ({"path": "/v1", "exact": True}, b"/v1", b"/", True),
    ],
)
async def test_what_is_left_of_the_path(
    wire: Wire, conf: dict[str, Any], path: bytes, line: bytes, nothing_left: bool
) -> None:
    install(wire, route(1, **conf), route(2, host="based", service_id=BASED, **conf))
    assert (await asked(wire, to(b"h", path))).line == b"GET %b HTTP/1.1" % line
    below = line[1:] if nothing_left else line  # nothing is what is added to a base, and `/` where there is none
    assert (await asked(wire, to(b"based", path))).line == b"GET /base%b HTTP/1.1" % below


async def test_a_route_is_in_the_records(wire: Wire) -> None:
    install(wire, route(7, "/v1", weight=5))
    await wire.ask(to(b"h", b"/v1"))
    await wire.ask(to(b"h", b"/open"))
    assert [(record.route, record.units) for record in wire.records()] == [(7, 5), (0, 1)]


# Under what policy.


async def test_auth(wire: Wire) -> None:
    install(wire, route(1, "/free", KEYED, auth="none"), route(2, "/closed", OPEN, auth="key"))
    assert (await wire.ask(to(b"h", b"/free"))).status == 200
    assert (await wire.ask(to(b"h", b"/closed"))).problem == "missing_key"
    assert (await wire.ask(get(b"/closed", b"X-API-Key: " + wire.key))).status == 200
    assert (await wire.ask(to(b"h", b"/keyed"))).problem == "missing_key"
    assert (await wire.ask(to(b"h", b"/open"))).status == 200


async def test_a_body_limit(wire: Wire) -> None:
    install(wire, route(1, "/tight", body_limit_bytes=3), route(2, "/wide", SMALL, body_limit_bytes=1000))
    post = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b"
    assert (await wire.ask(post % (b"/tight", 4, b"aaaa"))).problem == "body_too_large"
    assert (await wire.ask(post % (b"/tight", 3, b"aaa"))).status == 200
    assert (await wire.ask(post % (b"/wide", 200, b"a" * 200))).status == 200
    assert (await wire.ask(post % (b"/small", 200, b"a" * 200))).problem == "body_too_large"


async def test_timeouts(wire: Wire) -> None:
    async def silent(upstream: object, peer: Any) -> None:
        await peer.rest()

    wire.upstream.script = silent
    install(wire, route(1, "/slow", timeout_s=0.2), route(2, "/late", first_byte_timeout_s=0.2))
    assert (await wire.ask(to(b"h", b"/slow"))).problem == "upstream_timeout"
    assert (await wire.ask(to(b"h", b"/late"))).problem == "upstream_timeout"


@pytest.mark.parametrize(
    ("networks", "status"),
    [(("127.0.0.0/8",), 200), (("10.0.0.0/8", "127.0.0.1/32"), 200), (("10.0.0.0/8", "::/0"), 403)],
)
async def test_networks_of_a_route(wire: Wire, networks: tuple[str, ...], status: int) -> None:
    install(wire, route(1, "/near", networks=networks), route(2, "/keyed2", KEYED, networks=networks))
    got = await wire.ask(to(b"h", b"/near"))
    assert got.status == status
    assert (await wire.ask(to(b"h", b"/open"))).status == 200
    if status == 403:
        assert got.problem == "address_not_allowed"
        assert (await wire.ask(to(b"h", b"/keyed2"))).problem == "address_not_allowed", "before a key is asked for"


async def test_networks_see_through_a_trusted_proxy(tmp_path: Path) -> None:
    async with Wire(tmp_path, trusted_proxies="127.0.0.1") as wire:
        install(wire, route(1, "/near", networks=("192.0.2.0/24",)))
        assert (await wire.ask(get(b"/near", b"X-Forwarded-For: 192.0.2.7"))).status == 200
        assert (await wire.ask(get(b"/near", b"X-Forwarded-For: 192.0.2.7, 198.51.100.1"))).status == 403
        assert (await wire.ask(get(b"/near"))).problem == "address_not_allowed"


async def test_what_a_tenant_allows(wire: Wire) -> None:
    install(
        wire,
        route(1, "/api", prefix="/v1"),
        route(2, "/whole", prefix="keep"),
        allow=("GET /v1/users/*", "POST /v1/users", "GET /whole/{x}"),
    )
    for request in (
        to(b"h", b"/open/v1/users/7?x"), to(b"h", b"/api/users/7"), to(b"h", b"/api/users", b"POST"),
        to(b"h", b"/whole/a"), to(b"h", b"/acme/theirs/x"),
    ):  # fmt: skip
        assert (await wire.ask(request)).status == 200, request
    for request in (
        to(b"h", b"/open/v1/users"), to(b"h", b"/api/users/7", b"DELETE"), to(b"h", b"/api"), to(b"h", b"/whole"),
        to(b"h", b"/keyed/x"), to(b"h", b"/open/v1/%75sers/7"),
    ):  # fmt: skip
        assert (await wire.ask(request)).problem == "route_not_allowed", request
    assert [record.problem for record in wire.records()][-1] == 25


async def test_what_a_key_allows(wire: Wire) -> None:
    give_key(wire, allow=("GET /v1/*",))
    for path, problem in ((b"/keyed/v1/a", None), (b"/keyed/v2", "route_not_allowed")):
        got = await wire.ask(get(path, b"X-API-Key: " + wire.key))
        assert (got.status, got.problem) == ((200, None) if problem is None else (403, problem))
    assert (await wire.ask(get(b"/keyed/v2"))).problem == "missing_key"
    assert (await wire.ask(get(b"/open/v2"))).status == 200


async def test_where_a_key_may_come_from(wire: Wire) -> None:
    for networks, problem in ((("127.0.0.1/32",), None), (("10.0.0.0/8",), "address_not_allowed")):
        give_key(wire, networks=networks, allow=("* /*",))
        client = await wire.client()
        for _ in range(2):
            await client.send(get(b"/keyed", b"X-API-Key: " + wire.key))
            assert (await client.message()).problem == problem
        client.close()
    assert [record.key for record in wire.records()] == [7] * 4


async def test_a_key_that_changes_while_it_is_used(wire: Wire) -> None:
    """A request in flight refers to what the worker remembers of it, so that changes in place."""
    gate = asyncio.Event()

    async def held(upstream: Any, peer: Any) -> None:
        await peer.message()
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = held
    (entry,) = wire.worker.keys.entries.values()
    conf = entry.conf
    wire.worker.keys.forget(None)
    clients = [await wire.client() for _ in range(2)]
    for client, found in zip(clients, (conf, msgspec.structs.replace(conf, allow=("GET /v2",))), strict=True):
        wire.worker._on_message(KeysChanged(1, (conf.public_id,)))
        await client.send(get(b"/keyed/v1", b"X-API-Key: " + wire.key))
        await wire.settled(lambda: any(not exchange.admitted for exchange in wire.worker.exchanges))
        wire.worker._on_message(KeyFound(conf.public_id, found))
    assert (await clients[1].message()).problem == "route_not_allowed"
    gate.set()
    assert (await clients[0].message()).status == 200


# The key's own service.


async def test_the_keys_own_service_answers(wire: Wire) -> None:
    install(wire, route(5, "/api", None, prefix="/v1"))
    for service, line in ((KEYED, b"GET /v1/x HTTP/1.1"), (BASED, b"GET /base/v1/x HTTP/1.1")):
        give_key(wire, services=frozenset({service}))
        client = await wire.client()
        for _ in range(2):
            await client.send(get(b"/api/x", b"X-API-Key: " + wire.key, b"X-Own-Key: theirs"))
            assert (await client.message()).status == 200
            assert wire.upstream.requests[-1].line == line
            assert (wire.upstream.requests[-1].all(b"X-API-Key"), wire.key in wire.upstream.received) == ([], False)
        client.close()
    assert [(record.service, record.route, record.key) for record in wire.records()] == [(2, 5, 7)] * 2 + [
        (3, 5, 7)
    ] * 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"services": None}, "key_not_allowed"),
        ({"services": frozenset({1, 2})}, "key_not_allowed"),
        ({"services": frozenset()}, "key_not_allowed"),
        ({"services": frozenset({THEIRS})}, "key_not_allowed"),
        ({"services": frozenset({99})}, "key_not_allowed"),
        ({"tenant_id": 2, "services": frozenset({THEIRS})}, "key_not_allowed"),
        ({"services": frozenset({KEYED}), "revoked": True}, "revoked_key"),
        ({"services": frozenset({KEYED}), "allow": ("GET /v2",)}, "route_not_allowed"),
        ({"services": frozenset({OPEN}), "allow": ("GET /v2",)}, "route_not_allowed"),
        ({"services": frozenset({KEYED}), "networks": ("10.0.0.0/8",)}, "address_not_allowed"),
    ],
)
async def test_keys_that_choose_nothing(wire: Wire, changes: dict[str, Any], problem: str) -> None:
    install(wire, route(5, "/api", None, prefix="/v1"))
    give_key(wire, **changes)
    got = await wire.ask(get(b"/api/x", b"X-API-Key: " + wire.key))
    assert got.problem == problem
    assert (b"not for this service" in got.body) == ("tenant_id" in changes)
    assert wire.upstream.requests == []
    (record,) = wire.records()
    assert (record.tenant, record.route, record.key) == (1, 5, 7)


async def test_without_a_key_nothing_is_chosen(wire: Wire) -> None:
    install(wire, route(5, "/api", None))
    assert (await wire.ask(get(b"/api/x"))).problem == "missing_key"
    (record,) = wire.records()
    assert (record.tenant, record.service, record.route) == (1, 0, 5)


async def test_the_policy_of_the_chosen_service_holds(wire: Wire) -> None:
    install(wire, route(5, "/api", None), suspended=True)
    give_key(wire, services=frozenset({KEYED}))
    assert (await wire.ask(get(b"/api/x", b"X-API-Key: " + wire.key))).problem == "tenant_suspended"
    install(wire, route(5, "/api", None))
    give_key(wire, services=frozenset({SMALL}))
    big = b"POST /api HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nContent-Length: 101\r\n\r\n%b" % (wire.key, b"a" * 101)
    assert (await wire.ask(big)).problem == "body_too_large"


async def test_the_default_limit_of_bodies_is_for_services_without_their_own(tmp_path: Path) -> None:
    async with Wire(tmp_path, body_limit_bytes=LIMIT // 2) as wire:
        install(wire, route(5, "/api", None), route(6, "/tight", None, body_limit_bytes=LIMIT // 4))
        for service_id, path, size, problem in (
            (SMALL, b"/api", LIMIT, None),
            (SMALL, b"/api", LIMIT + 1, "body_too_large"),
            (KEYED, b"/api", LIMIT // 2 + 1, "body_too_large"),
            (SMALL, b"/tight", LIMIT // 4 + 1, "body_too_large"),
        ):
            give_key(wire, services=frozenset({service_id}))
            head = b"POST %b HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n"
            assert (await wire.ask(head % (path, wire.key, size) + b"a" * size)).problem == problem


async def test_a_full_service_is_full_for_its_keys_too(wire: Wire) -> None:
    gate = asyncio.Event()

    async def held(upstream: Any, peer: Any) -> None:
        await peer.message()
        await gate.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    wire.upstream.script = held
    install_full(wire)
    give_key(wire, services=frozenset({KEYED}))
    first = await wire.client()
    await first.send(get(b"/api/x", b"X-API-Key: " + wire.key))
    await wire.settled(lambda: bool(wire.upstream.peers))
    for path in (b"/api/x", b"/keyed/x"):
        assert (await wire.ask(get(path, b"X-API-Key: " + wire.key))).problem == "overloaded"
    gate.set()
    assert (await first.message()).status == 200
    (service,) = [service for service in wire.worker.snapshot.services.values() if service.id == KEYED]
    assert service.in_flight == set()


def install_full(wire: Wire) -> None:
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    full = tuple(msgspec.structs.replace(conf, in_flight_limit=1) if conf.id == KEYED else conf for conf in confs)
    wire.worker._install(SnapshotChanged(1, (TenantConf(1, "default", False),), full, (route(5, "/api", None),)))


async def test_a_key_that_must_be_looked_up_chooses_too(wire: Wire) -> None:
    """Chunks that come meanwhile are under the chosen service's limit."""
    install(wire, route(5, "/api", None))
    (entry,) = wire.worker.keys.entries.values()
    conf = msgspec.structs.replace(entry.conf, services=frozenset({SMALL}))
    wire.worker.keys.forget(None)
    for size, problem in ((LIMIT, None), (LIMIT + 1, "body_too_large")):
        wire.worker.keys.forget(None)
        client = await wire.client()
        head = b"POST /api/x HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % wire.key
        await client.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size))
        await wire.settled(lambda: any(exchange.request_received for exchange in wire.worker.exchanges))
        wire.worker._on_message(KeyFound(conf.public_id, conf))
        assert (await client.message()).problem == problem
        client.close()
    ((*_, refused_by, _, _, _, _),) = wire.worker.recent._refused[BODY_TOO_LARGE.number]
    assert refused_by is body_fits  # so `explain` does not take it for the gateway's own limits


# Tunnels.


async def test_a_tunnel_stands_on_its_host_and_method(wire: Wire) -> None:
    by_host = route(1, "/", host="api", methods=("GET",))
    install(wire, by_host)
    client = await switched(wire, UPGRADE.replace(b"/open/", b"/ws"))
    install(wire, by_host, route(2, "/", KEYED, host="other"), route(3, "/ws", KEYED, host="api", methods=("POST",)))
    await echoed(client, b"still")
    install(wire, route(2, "/", host="other"))
    await ended(wire)


async def test_a_tunnel_of_the_keys_own_service(wire: Wire) -> None:
    install(wire, route(5, "/api", None))
    give_key(wire, services=frozenset({KEYED}))
    asked_for = UPGRADE.replace(b"/open/", b"/api/").replace(b"Host:", b"X-API-Key: %b\r\nHost:" % wire.key)
    client = await switched(wire, asked_for)
    install(wire, route(5, "/api", None), route(6, "/other"))
    await echoed(client, b"still")
    (entry,) = wire.worker.keys.entries.values()
    changed = msgspec.structs.replace(entry.conf, services=frozenset({OPEN}))
    wire.worker._on_message(KeysChanged(1, (changed.public_id,)))
    wire.worker._on_message(KeyFound(changed.public_id, changed))
    await ended(wire)
    assert {(record.service, record.route, record.key) for record in wire.records()} == {(KEYED, 5, 7)}
    assert sum(record.bytes_in for record in wire.records()) == len(b"still")


@pytest.mark.parametrize("change", ["networks", "allow", "route networks", "tenant allow"])
async def test_a_tunnel_ends_when_what_allowed_it_does(wire: Wire, change: str) -> None:
    install(wire, route(5, "/api", KEYED))
    asked_for = UPGRADE.replace(b"/open/", b"/api/x").replace(b"Host:", b"X-API-Key: %b\r\nHost:" % wire.key)
    client = await switched(wire, asked_for)
    await echoed(client, b"still")
    (entry,) = wire.worker.keys.entries.values()
    key: KeyConf = entry.conf
    assert key.digest == digest(wire.key)
    if change == "route networks":
        install(wire, route(5, "/api", KEYED, networks=("10.0.0.0/8",)))
    elif change == "tenant allow":
        install(wire, route(5, "/api", KEYED), allow=("GET /y",))
    else:
        value = ("10.0.0.0/8",) if change == "networks" else ("GET /y",)
        wire.worker._on_message(KeysChanged(1, (key.public_id,)))
        wire.worker._on_message(KeyFound(key.public_id, msgspec.structs.replace(key, **{change: value})))
    await ended(wire)


def test_the_harness_has_these_services() -> None:
    by_id: dict[int, ServiceConf] = {conf.id: conf for conf in services("http://a")}
    names = {OPEN: "open", KEYED: "keyed", BASED: "based", THEIRS: "theirs", SMALL: "small", OWN: "own"}
    assert {number: by_id[number].slug for number in names} == names
