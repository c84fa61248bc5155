"""Several targets of a service on the wire: failover, circuits, ejection, and header rules, between real sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewayd.conf import BreakerConf, HeaderRuleConf, HealthConf, TargetConf
from gatewayd.policy.balancing import Rotation
from gatewayd.proxy.dial import Dialer
from gatewayd.proxy.sightings import Sightings
from tests.wire.harness import GET, OK, Upstream, Wire, service
from tests.wire.peer import Message, Peer

pytestmark = pytest.mark.anyio

DEAD = "http://127.0.0.1:1"
FAIL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"
BREAKING = BreakerConf(failures=3, ratio=0.5, window_s=10.0, open_s=5.0)


@asynccontextmanager
async def upstreams(count: int) -> AsyncIterator[list[Upstream]]:
    opened = [await Upstream().__aenter__() for _ in range(count)]
    try:
        yield opened
    finally:
        for upstream in opened:
            await upstream.__aexit__()


def url_of(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.port}"


def serve(wire: Wire, *urls: str, drained: str = "", weights: tuple[int, ...] = (), **more: Any) -> Rotation:
    weights = weights or (1,) * len(urls)
    targets = tuple(TargetConf(url, weight, url == drained) for url, weight in zip(urls, weights, strict=True))
    wire.serve(service(1, "open", "", targets, **more))
    return wire.worker.snapshot.services[1].rotation


class Clock:
    """The worker's clock, which a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self.ahead_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def statuses(wire: Wire, times: int, request: bytes = GET) -> Counter[int]:
    return Counter([(await wire.ask(request)).status for _ in range(times)])


def code(answer: Message) -> bytes:
    return answer.body.partition(b'"code":"')[2].partition(b'"')[0]


async def test_requests_go_round_by_weight(wire: Wire) -> None:
    async with upstreams(2) as others:
        serve(wire, url_of(wire.upstream), *map(url_of, others), weights=(3, 2, 1))
        assert await statuses(wire, 12) == {200: 12}
        assert [len(each.requests) for each in (wire.upstream, *others)] == [6, 4, 2]


async def test_a_request_goes_where_fewest_are_in_flight(wire: Wire) -> None:
    gate = asyncio.Event()

    async def late(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)

    async with upstreams(1) as (other,):
        wire.upstream.script = late
        serve(wire, url_of(wire.upstream), url_of(other), balance="least-outstanding")
        asked: list[asyncio.Task[Message]] = []
        while not wire.upstream.requests:
            asked.append(asyncio.create_task(wire.ask(GET)))
            await asyncio.sleep(0.02)
        await statuses(wire, 5)  # one after the other, so the other target is always the idle one
        assert len(wire.upstream.requests) == 1
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}


@pytest.mark.parametrize("on", ["header:X-Who", "client", "address"])
async def test_who_asks_again_meets_the_same_target(wire: Wire, on: str) -> None:
    async with upstreams(2) as others:
        serve(wire, url_of(wire.upstream), *map(url_of, others), balance="hash", hash_on=on)
        met = []
        for who in range(12):
            before = [len(each.requests) for each in (wire.upstream, *others)]
            fields = b"x-who: w%d\r\nX-Client-Id: c%d\r\n" % (who, who)
            await statuses(wire, 3, GET.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n"))
            after = [len(each.requests) for each in (wire.upstream, *others)]
            met.append([now - was for now, was in zip(after, before, strict=True)])
        assert all(sorted(counts) == [0, 0, 3] for counts in met)
        assert (len({tuple(counts) for counts in met}) > 1) is (on != "address")


async def test_a_drained_target_finishes_what_it_has(wire: Wire) -> None:
    gate = asyncio.Event()

    async def late(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = late
    async with upstreams(1) as (other,):
        serve(wire, url_of(wire.upstream))
        asked = asyncio.create_task(wire.ask(GET))
        await wire.settled(lambda: bool(wire.upstream.requests))
        serve(wire, url_of(wire.upstream), url_of(other), drained=url_of(wire.upstream))
        assert await statuses(wire, 5) == {200: 5}
        assert (len(wire.upstream.requests), len(other.requests)) == (1, 5)
        gate.set()
        assert (await asked).status == 200


async def test_where_every_target_is_drained_nothing_is_charged(wire: Wire) -> None:
    serve(wire, url_of(wire.upstream), drained=url_of(wire.upstream))
    answer = await wire.ask(GET)
    assert (answer.status, code(answer), answer.one(b"retry-after")) == (503, b"no_healthy_target", b"1")
    (record,) = wire.records()
    assert record.problem == 18
    assert not record.flags & 1  # not admitted
    assert not wire.upstream.requests


async def test_a_dead_target_is_not_noticed(wire: Wire) -> None:
    serve(wire, DEAD, url_of(wire.upstream))
    assert await statuses(wire, 10) == {200: 10}
    assert await statuses(wire, 4, GET.replace(b"GET", b"POST")) == {200: 4}


async def drop(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    peer.cut()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, 200),
        (GET.replace(b"GET", b"DELETE"), 200),
        (GET.replace(b"GET", b"POST"), 502),
        (b"PUT /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\nok", 502),
    ],
)
async def test_a_target_that_dies_with_a_request(wire: Wire, request_: bytes, status: int) -> None:
    """What may be repeated is, on a connection that is new too; the rest may have happened."""
    async with upstreams(1) as (dying,):
        dying.script = drop
        serve(wire, url_of(dying), url_of(wire.upstream))
        assert await statuses(wire, 1, request_) + await statuses(wire, 1, request_) == (
            {200: 2} if status == 200 else {200: 1, 502: 1}
        )
        assert (len(dying.requests), len(wire.upstream.requests)) == (1, 2 if status == 200 else 1)


async def test_a_request_that_kills_is_not_carried_on_and_on(wire: Wire) -> None:
    async with upstreams(3) as dying:
        for each in dying:
            each.script = drop
        serve(wire, *map(url_of, dying))
        assert (await wire.ask(GET)).status == 502
        assert sum(len(each.requests) for each in dying) == 2


async def test_a_target_that_accepts_nobody_is_left_in_time(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    dial = Dialer.dial

    async def in_vain(dialer: Dialer, *more: Any) -> Any:
        if dialer._target.url == DEAD:
            await asyncio.sleep(1.0)  # beyond the time for a connect, as where every packet is dropped
        return await dial(dialer, *more)

    monkeypatch.setattr(Dialer, "dial", in_vain)
    serve(wire, DEAD, url_of(wire.upstream), connect_timeout_s=0.6)
    assert await asyncio.wait_for(statuses(wire, 2), 5) == {200: 2}
    await asyncio.sleep(0.8)  # the late connects fail for nobody
    assert len(wire.upstream.requests) == 2


async def test_a_connection_that_comes_too_late_sends_nothing_twice(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = Dialer.dial
    made = asyncio.Event()

    async def late(dialer: Dialer, *more: Any) -> Any:
        if dialer._target.url != url_of(slow):
            return await dial(dialer, *more)
        await asyncio.sleep(0.9)
        made.set()
        return await dial(dialer, *more)

    async def answer_when_made(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await made.wait()
        await asyncio.sleep(0.1)
        await peer.send(OK)

    monkeypatch.setattr(Dialer, "dial", late)
    wire.upstream.script = answer_when_made
    async with upstreams(1) as (slow,):
        serve(wire, url_of(wire.upstream), url_of(slow), connect_timeout_s=0.6)
        assert (await wire.ask(GET)).status == 200
        await wire.settled(lambda: bool(slow.peers))
        assert (len(slow.peers), slow.requests, len(wire.upstream.requests)) == (1, [], 1)
        assert wire.worker.load_of(wire.worker.snapshot.services[1].targets[1]) == 0


async def test_a_circuit_opens_lets_one_through_and_closes(wire: Wire, clock: Clock) -> None:
    wire.upstream.script = drop
    rotation = serve(wire, url_of(wire.upstream), breaker=BREAKING)
    assert await statuses(wire, 3) == {502: 3}
    answer = await wire.ask(GET)
    assert (answer.status, code(answer), answer.one(b"retry-after")) == (503, b"circuit_open", b"5")
    assert len(wire.upstream.requests) == 3
    assert not wire.records()[-1].flags & 1

    clock.ahead_s += 5  # half-open: one tries, and fails
    assert (await wire.ask(GET)).status == 502
    assert await statuses(wire, 3) == {503: 3}
    assert len(wire.upstream.requests) == 4

    gate = asyncio.Event()

    async def late(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)
        await upstream.answer_all(peer)

    wire.upstream.script = late
    clock.ahead_s += 5
    trial = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: len(wire.upstream.requests) == 5)
    assert await statuses(wire, 3) == {503: 3}
    gate.set()
    assert (await trial).status == 200
    assert await statuses(wire, 5) == {200: 5}
    assert rotation.only is not None


async def test_a_few_failures_among_many_answers_open_nothing(wire: Wire) -> None:
    serve(wire, url_of(wire.upstream), breaker=BREAKING)
    client = await wire.client()
    for _ in range(20):
        await client.send(GET)
        assert (await client.message()).status == 200

    wire.upstream.script = drop
    wire.worker.shed_idle_upstreams()
    assert await statuses(wire, 10) == {502: 10}
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(GET)).status == 200


async def test_an_open_circuit_of_one_target_is_no_callers_affair(wire: Wire) -> None:
    async with upstreams(1) as (bad,):
        bad.script = drop
        serve(wire, url_of(wire.upstream), url_of(bad), breaker=BREAKING)
        post = GET.replace(b"GET", b"POST")
        assert await statuses(wire, 30, post) == {200: 27, 502: 3}


async def test_a_target_that_answers_5xx_in_a_row_is_ejected(wire: Wire, clock: Clock) -> None:
    async with upstreams(1) as (bad,):
        bad.answer = FAIL
        serve(wire, url_of(wire.upstream), url_of(bad), health=HealthConf(eject_after=3, eject_s=30.0))
        assert await statuses(wire, 20) == {200: 17, 500: 3}
        clock.ahead_s += 30
        bad.answer = OK
        await statuses(wire, 10)
        assert len(bad.requests) == 8


async def test_what_control_says_of_a_target(wire: Wire) -> None:
    health = HealthConf(path="/health")
    async with upstreams(1) as (other,):
        rotation = serve(wire, url_of(wire.upstream), url_of(other), health=health)
        rotation.told(url_of(other), False, time.monotonic())
        assert await statuses(wire, 6) == {200: 6}
        assert not other.requests
        serve(wire, url_of(wire.upstream), url_of(other), health=health, timeout_s=1.0)  # a reload forgets nothing
        assert await statuses(wire, 6) == {200: 6}
        assert not other.requests
        rotation.told(url_of(other), True, time.monotonic())
        await statuses(wire, 6)
        assert len(other.requests) == 3


def rules(*each: tuple[str, str, str, str]) -> tuple[HeaderRuleConf, ...]:
    return tuple(HeaderRuleConf(*one) for one in each)  # type: ignore[arg-type]


RULES = rules(
    ("request", "set", "X-Env", "prod"),
    ("request", "remove", "Cookie", ""),
    ("request", "add", "X-User-Tier", "gold"),
    ("response", "remove", "Server", ""),
    ("response", "set", "Cache-Control", "no-store"),
    ("response", "add", "Vary", "X-Env"),
)


async def test_header_rules_on_both_sides(wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nserver: a/1\r\nCACHE-CONTROL: public\r\nVary: A\r\nX-Kept: 1\r\n"
    wire.upstream.answer = head + b"Content-Length: 2\r\n\r\nok"
    serve(wire, url_of(wire.upstream), header_rules=RULES)
    fields = b"x_env: mine\r\nX-Env: mine too\r\ncookie: a=b\r\nX-User-Tier: platinum\r\nA: b\r\n"
    client = await wire.client()
    for _ in range(3):  # also where heads repeat, on both sides
        await client.send(b"GET /open/ HTTP/1.1\r\nHost: api\r\n" + fields + b"\r\n")
        answer = await client.message()
        sent = wire.upstream.requests[-1].without(b"host", b"x-request-id", b"forwarded")
        sent = [(name, value) for name, value in sent if not name.startswith(b"X-Forwarded")]
        assert sent == [(b"A", b"b"), (b"X-Env", b"prod"), (b"X-User-Tier", b"gold")]
        assert answer.without(b"x-request-id", b"content-length", b"date") == [
            (b"Vary", b"A"), (b"X-Kept", b"1"), (b"Cache-Control", b"no-store"), (b"Vary", b"X-Env")
        ]  # fmt: skip
        assert answer.body == b"ok"


async def test_rules_of_one_service_are_not_those_of_another(wire: Wire) -> None:
    wire.upstream.answer = b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 2\r\n\r\nok"
    url = url_of(wire.upstream)
    wire.serve(service(1, "open", url, header_rules=RULES), service(2, "other", url))
    client = await wire.client()
    for path, server in ((b"open", []), (b"other", [b"a"]), (b"open", [])):
        await client.send(b"GET /%b/ HTTP/1.1\r\nHost: api\r\nCookie: a\r\n\r\n" % path)
        assert (await client.message()).all(b"server") == server
    assert [request.all(b"cookie") for request in wire.upstream.requests] == [[], [b"a"], []]


async def test_a_header_of_keys_that_is_not_this_services_can_be_removed(wire: Wire) -> None:
    url = url_of(wire.upstream)
    removed = rules(("request", "remove", "X-Own-Key", ""))
    wire.serve(
        service(1, "open", url, header_rules=removed), service(2, "own", url, auth="key", key_header="X-Own-Key")
    )
    await wire.ask(GET.replace(b"\r\n\r\n", b"\r\nX-Own-Key: theirs\r\nAuthorization: Basic a\r\n\r\n"))
    (request,) = wire.upstream.requests
    assert (request.all(b"x-own-key"), request.one(b"authorization")) == ([], b"Basic a")


async def test_rules_where_there_is_next_to_nothing_to_rule(wire: Wire) -> None:
    wire.upstream.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    serve(wire, url_of(wire.upstream), header_rules=RULES)
    answer = await wire.ask(b"GET /open/ HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.one(b"cache-control"), answer.one(b"vary")) == (204, b"no-store", b"X-Env")
    assert wire.upstream.requests[0].one(b"x-env") == b"prod"


@pytest.mark.parametrize(
    "framing", [b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"Connection: close\r\n\r\nok"]
)
async def test_rules_on_an_answer_that_streams(wire: Wire, framing: bytes) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nServer: a\r\n" + framing)
        peer.close()

    wire.upstream.script = script
    serve(wire, url_of(wire.upstream), header_rules=RULES)
    answer = await wire.ask(GET)
    assert (answer.body, answer.all(b"server"), answer.one(b"vary")) == (b"ok", [], b"X-Env")


async def test_rules_reach_trailers_and_interim_answers(wire: Wire) -> None:
    """What a rule removes is not to pass by another door, nor is what it sets to be said otherwise there."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        hints = b"HTTP/1.1 103 Early Hints\r\nServer: a\r\nLink: b\r\nCache-Control: c\r\n\r\n"
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await peer.send(hints + head + b"2\r\nok\r\n0\r\nSERVER: a\r\nX-Sum: 1\r\n\r\n")

    wire.upstream.script = script
    serve(wire, url_of(wire.upstream), header_rules=RULES)
    client = await wire.client()
    await client.send(
        b"POST /open/ HTTP/1.1\r\nHost: api\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nx_env: mine\r\nX-Sum: 2\r\nX-Env: mine\r\n\r\n"
    )
    hints = await client.message(interim=True)
    assert (hints.status, hints.fields) == (103, ((b"Link", b"b"),))
    answer = await client.message()
    assert (answer.body, answer.trailers, answer.all(b"vary")) == (b"ok", ((b"X-Sum", b"1"),), [b"X-Env"])
    (request,) = wire.upstream.requests
    assert (request.trailers, request.all(b"x-env")) == (((b"X-Sum", b"2"),), [b"prod"])


async def test_control_is_told_who_is_not_well_and_nothing_twice(wire: Wire, clock: Clock) -> None:
    told: list[Any] = []
    wire.worker.sightings = Sightings(told.append, wire.worker.load_of)

    def tell() -> list[tuple[str, str, str, int]]:
        told.clear()
        wire.worker.sightings.tell(wire.worker.snapshot.services, time.monotonic())
        assert len(told) <= 1
        return [(each.url, each.state, each.error, each.in_flight) for each in told[0].targets] if told else []

    async with upstreams(1) as (bad,):
        serve(wire, url_of(wire.upstream), url_of(bad), breaker=BREAKING)
        await statuses(wire, 2)
        assert tell() == []
        bad.script = drop
        wire.worker.shed_idle_upstreams()
        await statuses(wire, 6, GET.replace(b"GET", b"POST"))
        why = "it closed the connection without an answer"
        assert tell() == [(url_of(bad), "open", why, 0)]
        (seen,) = told[0].targets
        assert abs(seen.since_s - time.time_ns() // 1_000_000_000) < 3
        assert tell() == []
        wire.worker.sightings.begin_anew()  # another control
        assert tell() == [(url_of(bad), "open", why, 0)]
        clock.ahead_s += 5
        assert tell() == [(url_of(bad), "half-open", why, 0)]
        bad.script = Upstream.answer_all
        await statuses(wire, 4)
        assert tell() == [(url_of(bad), "healthy", why, 0)]  # the last error stays known
        serve(wire, url_of(wire.upstream))
        wire.worker.sightings.tell(wire.worker.snapshot.services, time.monotonic())
        assert told[-1].targets == ()


async def test_control_is_told_what_a_drained_target_still_has(wire: Wire) -> None:
    told: list[Any] = []
    gate = asyncio.Event()

    async def late(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = late
    serve(wire, url_of(wire.upstream))
    asked = [asyncio.create_task(wire.ask(GET)) for _ in range(2)]
    await wire.settled(lambda: len(wire.upstream.requests) == 2)
    wire.worker.sightings = Sightings(told.append, wire.worker.load_of)
    serve(wire, url_of(wire.upstream), drained=url_of(wire.upstream))
    wire.worker.sightings.tell(wire.worker.snapshot.services, time.monotonic())
    assert [(each.state, each.in_flight) for each in told[-1].targets] == [("drained", 2)]
    gate.set()
    await asyncio.gather(*asked)
    wire.worker.sightings.tell(wire.worker.snapshot.services, time.monotonic())
    assert [(each.state, each.in_flight) for each in told[-1].targets] == [("drained", 0)]
