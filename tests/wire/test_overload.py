"""Bounds on connections and on requests in flight: what is beyond them is told so at once, and costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gatewayd.channel import Welcome
from gatewayd.conf import TenantConf
from gatewayd.errors import OVERLOADED
from gatewayd.keys import new_key
from gatewayd.proxy import door
from gatewayd.proxy.door import RESERVED_DESCRIPTORS, connections_that_fit
from gatewayd.proxy.exchange import NO_RESPONSE
from gatewayd.records import ADMITTED
from tests.wire.harness import GET, OK, Upstream, Wire, service
from tests.wire.peer import CutShortError, Message, Peer

pytestmark = pytest.mark.anyio

LIMITED = b"GET /limited/ HTTP/1.1\r\nHost: api\r\n\r\n"


def limit(wire: Wire, places: int, **other: Any) -> None:
    """The snapshot with one more service, `limited`, that takes so many requests at once."""
    url = f"http://127.0.0.1:{wire.upstream.port}"
    limited = service(20, "limited", url, in_flight_limit=places, **other)
    wire.worker._on_message(Welcome((TenantConf(1, "default", False),), (service(1, "open", url), limited)))


def assert_overloaded(answer: Message) -> None:
    assert answer.status == 503
    assert answer.one(b"retry-after") == b"1"
    assert b'"code":"overloaded"' in answer.body


async def hold(upstream: Upstream, peer: Peer) -> None:
    """Takes requests and says nothing."""
    while True:
        upstream.requests.append(await peer.message())


async def held(wire: Wire, request: bytes, count: int = 1) -> Peer:
    """A client whose request is with the upstream."""
    client = await wire.client()
    await client.send(request)
    await wire.settled(lambda: len(wire.upstream.requests) == count)
    return client


# Connections.


async def test_a_connection_too_many_hears_503_before_it_has_said_anything(wire: Wire) -> None:
    wire.worker.door.limit = 2
    first, second = await wire.client(), await wire.client()
    await wire.settled(lambda: len(wire.state.connections) == 2)
    third = await wire.client()
    answer = await third.message()
    assert_overloaded(answer)
    assert answer.one(b"connection") == b"close"
    assert await third.rest() == b""
    for client in (first, second):  # who is in is served
        await client.send(GET)
        assert (await client.message()).status == 200
    await first.closed()
    await wire.settled(lambda: len(wire.state.connections) == 1)
    assert (await wire.ask(GET)).status == 200
    assert len(wire.records()) == 3


async def test_it_hears_it_though_its_request_was_on_its_way(wire: Wire) -> None:
    """Closing a socket with unread bytes is a reset, which would destroy the answer."""
    wire.worker.door.limit = 0
    for _ in range(20):
        client = await wire.client()
        await client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 300000\r\n\r\n" + bytes(300000))
        assert_overloaded(await client.message())
        assert await client.rest() == b""
    assert wire.upstream.received == b""


async def test_where_http_is_not_the_first_thing_to_be_said_nothing_is(wire: Wire) -> None:
    wire.worker.door.limit = 0
    wire.worker.door.speaks = False
    client = await wire.client()
    with contextlib.suppress(CutShortError):
        assert await client.rest() == b""
    assert client.ended


async def test_those_that_do_not_go_are_bounded_in_number(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LEAVING_LIMIT", 3)
    wire.worker.door.limit = 0
    leaving: list[int] = []
    has_left = wire.worker.door.has_left

    def noted(connection: door.TurnedAway) -> None:
        leaving.append(len(wire.worker.door._leaving))
        has_left(connection)

    monkeypatch.setattr(wire.worker.door, "has_left", noted)
    socks = [socket.create_connection(("127.0.0.1", wire.port)) for _ in range(8)]  # accepted in one turn of the loop
    await wire.settled(lambda: wire.worker.door.turned_away == 8)
    assert len(wire.worker.door._leaving) == 3
    await wire.settled(lambda: len(leaving) == 5)
    assert max(leaving) == 3
    assert socks[-1].recv(4096).startswith(b"HTTP/1.1 503 ")
    for sock in socks:
        sock.close()


async def test_those_that_do_not_go_are_bounded_in_time(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LEAVING_S", 0.7)
    wire.worker.door.limit = 0
    client = await wire.client()
    assert_overloaded(await client.message())
    assert len(wire.worker.door._leaving) == 1
    with pytest.raises(CutShortError):
        while True:  # it goes on sending, and is cut off
            await client.send(b"x")
            await asyncio.sleep(0.02)
            if client._writer.transport.is_closing():
                raise CutShortError
    await wire.settled(lambda: not wire.worker.door._leaving)


@pytest.mark.parametrize(
    ("wanted", "in_flight", "descriptors", "fits"),
    [
        (16384, 8192, 1 << 20, 16384),
        (16384, 8192, 20000, 20000 - RESERVED_DESCRIPTORS - 8192),
        (16384, 8192, 1024, (1024 - RESERVED_DESCRIPTORS) // 2),
        (100, 8192, 1024, 100),
        (16384, 8192, 64, 1),
    ],
)
def test_connections_leave_descriptors_for_upstreams(wanted: int, in_flight: int, descriptors: int, fits: int) -> None:
    assert connections_that_fit(wanted, in_flight, descriptors) == fits


# Requests in flight.


async def test_a_request_too_many_of_the_worker(wire: Wire) -> None:
    wire.worker.in_flight_limit = 1
    wire.upstream.script = hold
    client = await held(wire, GET)
    other = await wire.client()
    await other.send(GET)
    assert_overloaded(await other.message())
    client.reset()
    await wire.settled(lambda: not wire.worker.exchanges)
    wire.upstream.script = Upstream.answer_all
    await other.send(GET)  # the connection that was refused has stayed
    assert (await other.message()).status == 200
    refused = wire.records()[0]
    assert (refused.status, refused.problem, refused.service, refused.flags) == (503, OVERLOADED.number, 1, 0)


async def test_an_upstream_that_no_descriptor_is_left_for(wire: Wire) -> None:
    client = await wire.client()
    await client.send(GET)
    assert (await client.message()).status == 200  # one idle upstream connection
    await client.send(GET.replace(b"/open/", b"/nowhere/"))
    assert (await client.message()).status == 502
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        await client.send(GET.replace(b"/open/", b"/nowhere/"))
        assert_overloaded(await client.message())
        await wire.settled(lambda: not wire.worker._pools[f"http://127.0.0.1:{wire.upstream.port}"]._open)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await client.send(GET)
    assert (await client.message()).status == 200
    assert wire.records()[2].flags == ADMITTED


async def test_a_request_too_many_of_a_service(wire: Wire) -> None:
    limit(wire, 2)
    wire.upstream.script = hold
    clients = [await held(wire, LIMITED), await held(wire, LIMITED, 2)]
    assert_overloaded(await wire.ask(LIMITED))
    assert [(each.status, each.flags) for each in wire.records()] == [(503, 0)]
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(GET)).status == 200  # others are not its concern
    for client in clients:
        client.reset()


async def test_a_full_service_spends_no_look_up_and_no_token(wire: Wire) -> None:
    limit(wire, 1, auth="key")
    with_key = LIMITED[:-2] + b"X-API-Key: %b\r\n\r\n"
    asked: list[object] = []
    wire.worker.keys.look_ups._send = asked.append
    wire.upstream.script = hold
    client = await held(wire, with_key % wire.key)
    assert_overloaded(await wire.ask(with_key % new_key()[1].encode()))
    assert_overloaded(await wire.ask(with_key % wire.key))
    assert asked == []
    assert [(each.status, each.key, each.flags & ADMITTED) for each in wire.records()] == [(503, 0, 0)] * 2
    client.reset()


async def test_only_who_has_a_key_takes_a_place(wire: Wire) -> None:
    """Control is away: what waits for its word must not keep those out whom it need not be asked about."""
    limit(wire, 1, auth="key")
    with_key = LIMITED[:-2] + b"X-API-Key: %b\r\n\r\n"
    unknown = await wire.client()
    await unknown.send(with_key % new_key()[1].encode())
    await wire.settled(lambda: len(wire.worker.exchanges) == 1)
    assert (await wire.ask(with_key % wire.key)).status == 200
    unknown.reset()


async def test_a_new_snapshot_does_not_forget_who_is_in_flight(wire: Wire) -> None:
    limit(wire, 1)
    wire.upstream.script = hold
    client = await held(wire, LIMITED)
    limit(wire, 1)
    assert_overloaded(await wire.ask(LIMITED))
    client.reset()
    await wire.settled(lambda: not wire.worker.exchanges)
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(LIMITED)).status == 200


async def dies(upstream: Upstream, peer: Peer) -> None:
    await peer.message()
    peer.close()


async def lies(upstream: Upstream, peer: Peer) -> None:
    await peer.message()
    await peer.send(b"nonsense\r\n\r\n")


async def breaks(upstream: Upstream, peer: Peer) -> None:
    await peer.message()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    peer.reset()


async def streams(upstream: Upstream, peer: Peer) -> None:
    await peer.message()
    for part in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"):
        await peer.send(part)
        await asyncio.sleep(0.01)
    peer.close()


async def dies_once_it_is_stale(upstream: Upstream, peer: Peer) -> None:
    await peer.message()
    await peer.send(OK)
    if len(upstream.peers) == 1:
        await peer.message()
        peer.close()
    else:
        await upstream.answer_all(peer)


async def read(client: Peer) -> None:
    await client.message()


async def read_twice(client: Peer) -> None:
    await client.message()
    await client.send(LIMITED)
    assert (await client.message()).status == 200


async def see_it_broken(client: Peer) -> None:
    with pytest.raises(CutShortError):
        await client.message()


async def leave(client: Peer) -> None:
    client.reset()


async def half_close(client: Peer) -> None:
    client.half_close()
    await client.message()


POST = b"POST /limited/ HTTP/1.1\r\nHost: api\r\nContent-Length: 9\r\n\r\nabc"


@pytest.mark.parametrize(
    ("request_", "script", "end", "statuses"),
    [
        pytest.param(LIMITED, Upstream.answer_all, read, [200], id="answered"),
        pytest.param(LIMITED, streams, read, [200], id="streamed"),
        pytest.param(LIMITED, Upstream.answer_all, half_close, [200], id="half-closed"),
        pytest.param(LIMITED, hold, leave, [NO_RESPONSE], id="client-left"),
        pytest.param(POST, hold, leave, [NO_RESPONSE], id="client-left-in-the-body"),
        pytest.param(LIMITED, hold, read, [504], id="timed-out"),
        pytest.param(POST, hold, read, [408], id="body-timed-out"),
        pytest.param(LIMITED, dies, read, [502], id="upstream-died"),
        pytest.param(LIMITED, lies, read, [502], id="upstream-invalid"),
        pytest.param(LIMITED, breaks, see_it_broken, [200], id="upstream-broke"),
        pytest.param(LIMITED, dies_once_it_is_stale, read_twice, [200, 200], id="retried"),
    ],
)
async def test_a_place_comes_back_however_the_request_ends(
    wire: Wire,
    request_: bytes,
    script: Callable[[Upstream, Peer], Awaitable[None]],
    end: Callable[[Peer], Awaitable[None]],
    statuses: list[int],
) -> None:
    limit(wire, 1, timeout_s=1.0)
    wire.upstream.script = script
    client = await wire.client()
    await client.send(request_)
    await wire.settled(lambda: bool(wire.upstream.peers))
    await end(client)
    await wire.settled(lambda: len(wire.records()) == len(statuses))
    assert [record.status for record in wire.records()] == statuses
    assert wire.worker.snapshot.services[20].in_flight == set()
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(LIMITED)).status == 200


async def test_a_place_comes_back_where_no_upstream_answers(wire: Wire) -> None:
    url = "http://127.0.0.1:1"
    limited = service(20, "limited", url, in_flight_limit=1)
    wire.worker._on_message(Welcome((TenantConf(1, "default", False),), (limited,)))
    for _ in range(3):
        answer = await wire.ask(LIMITED)
        assert b'"code":"upstream_unreachable"' in answer.body
