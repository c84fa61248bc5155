"""Limits as one worker meets them: slots, clients, weights, limits of routes, plans that only watch.

Control is a lessor that answers at the next turn of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest

from gatewayd.channel import (
    ClientFound,
    FindClient,
    FromControl,
    FromWorker,
    KeyFound,
    KeysChanged,
    LeaseAsked,
    LeaseGranted,
    LeaseId,
    LeaseReturned,
    Left,
    SlotsAsked,
    SlotsGranted,
    SlotsReturned,
)
from gatewayd.conf import ClientConf, KeyConf, RateConf
from gatewayd.policy.accounts import Account, Part
from gatewayd.policy.facts import Shared
from gatewayd.policy.guards import guards_for
from gatewayd.policy.leases import Lessor
from gatewayd.policy.spending import KeyEntry
from gatewayd.proxy import keybook
from gatewayd.records import ADMITTED, WOULD_REFUSE
from tests.wire.harness import OK, Upstream, Wire
from tests.wire.peer import CutShortError, Message, Peer
from tests.wire.test_tunnels import SWITCH, switches

pytestmark = pytest.mark.anyio

WORKER = b"w"
KEY_ID = 7


class Control:
    """Answers what the worker asks, by these rates and clients."""

    def __init__(self, wire: Wire) -> None:
        self.lessor = Lessor()
        self.rates: dict[Account, tuple[RateConf, ...]] = {}
        self.clients: dict[str, ClientConf | None] = {}
        self.slots: int | None = None
        self.keeps_slots = False
        self.heard: list[FromWorker] = []
        self._wire = wire
        wire.worker.keys._send = self.hear

    def hear(self, message: FromWorker) -> None:
        self.heard.append(message)
        answer = self._answer(message)
        if answer is not None:
            asyncio.get_running_loop().call_soon(self._wire.worker._on_message, answer)

    def _answer(self, message: FromWorker) -> FromControl | None:
        now_ns, now_s = time.monotonic_ns(), time.time_ns() / 1e9
        match message:
            case LeaseAsked(lease=id_):
                if id_ not in self.lessor.leases:
                    self.lessor.load(id_, [Part(each, self.rates.get(each, ())) for each in accounts_of(id_)], now_ns)
                grant = self.lessor.ask(WORKER, id_, message.count, message.spent, now_ns, now_s, message.least)
                known = self.lessor.leases[id_]
                left = tuple(Left(*each) for each in grant.left)
                return LeaseGranted(
                    id_, grant.granted, grant.surplus, left, grant.blocked_by, known.terms, known.limits
                )
            case LeaseReturned():
                self.lessor.give_back(WORKER, message.lease, message.returned, message.unused, message.spent, now_ns)
            case SlotsAsked(key_id=key_id, count=count):
                return SlotsGranted(key_id, self.lessor.take_slots(WORKER, key_id, count, self.slots), self.keeps_slots)
            case SlotsReturned():
                self.lessor.give_slots_back(WORKER, message.key_id, message.count)
            case FindClient():
                return ClientFound(message.key_id, message.name, self.clients.get(message.name))
        return None

    def of_kind(self, kind: type[FromWorker]) -> list[FromWorker]:
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def slots_taken(self) -> int:
        return sum(self.lessor.slots.get(KEY_ID, {}).values())


def accounts_of(id_: LeaseId) -> list[Account]:
    own = Account("client", id_.key_id, id_.client_id) if id_.client_id else Account("key", id_.key_id)
    shared = [Account("route", id_.route_id)] if id_.route_id else []
    return ([own] if id_.key_id else []) + shared


def minute(limit: int) -> tuple[RateConf, ...]:
    return (RateConf("minute", limit, 60, limit),)


def plan(wire: Wire, **terms: object) -> KeyEntry:
    """What the key of the test has."""
    (public_id, entry), *_ = wire.worker.keys.entries.items()
    conf: KeyConf = msgspec.structs.replace(entry.conf, **terms)
    entry = wire.worker.keys.entries[public_id] = KeyEntry(conf)
    wire.worker.keys._by_id[conf.id] = entry
    return entry


def with_policy(wire: Wire, prefix: bytes, *, route_id: int = 0, weight: int = 1) -> None:
    """The service's address as if it were a route with rates or a weight of its own."""
    snapshot = wire.worker.snapshot
    plain = snapshot.router._plain
    route = plain[prefix]
    guards = guards_for(
        tenant_suspended=False, has_body_limit=False, has_in_flight_limit=False, needs_key=route.needs_key,
        has_shared_limits=bool(route_id), weight=weight,
    )  # fmt: skip
    shared = Shared(route_id, 0) if route_id else None
    plain[prefix] = replace(route, guards=guards, weight=weight, shared=shared)


def keyed(wire: Wire, *fields: bytes, path: bytes = b"/keyed/") -> bytes:
    lines = [b"GET %b HTTP/1.1" % path, b"Host: api", b"X-API-Key: " + wire.key, *fields]
    return b"\r\n".join([*lines, b"", b""])


def told(answer: Message) -> dict[str, int]:
    """`RateLimit` as name: r."""
    items = [item.split(b";") for item in answer.one(b"ratelimit").split(b", ")]
    return {item[0].strip(b'"').decode(): int(item[1].removeprefix(b"r=")) for item in items}


def at_rest(wire: Wire, control: Control) -> None:
    """Nothing is in flight any more."""
    entry = wire.worker.keys._by_id[KEY_ID]
    assert entry.in_flight == 0
    assert entry.more is None or (not entry.more.slots.in_use and not entry.more.let_pass)
    assert control.slots_taken == (0 if entry.more is None else entry.more.slots.free)
    assert wire.worker.keys._waiting == 0


# Slots.


async def test_beyond_its_slots_a_key_is_refused_and_a_slot_comes_back(wire: Wire) -> None:
    control = Control(wire)
    control.slots = 2
    plan(wire, in_flight_limit=2)
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        while True:
            await peer.message()
            await gate.wait()
            await peer.send(OK)

    wire.upstream.script = script
    clients = [await wire.client() for _ in range(2)]
    for client in clients:
        await client.send(keyed(wire))
    await wire.settled(lambda: len(wire.upstream.peers) == 2)
    refused = await wire.ask(keyed(wire))
    assert (refused.status, refused.one(b"retry-after")) == (429, b"1")
    assert b'"code":"too_many_in_flight"' in refused.body
    gate.set()
    assert [(await client.message()).status for client in clients] == [200, 200]
    assert (await wire.ask(keyed(wire))).status == 200
    at_rest(wire, control)
    assert sorted((each.status, each.flags) for each in wire.records()) == [(200, 1), (200, 1), (200, 1), (429, 0)]


async def leave_early(wire: Wire, client: Peer) -> None:
    await wire.settled(lambda: len(wire.upstream.requests) == 1)
    client.reset()


async def read_to_the_end(wire: Wire, client: Peer) -> None:
    await client.message()


async def end_the_worker(wire: Wire, client: Peer) -> None:
    await wire.settled(lambda: len(wire.upstream.requests) == 1)
    for exchange in list(wire.worker.exchanges):
        exchange.worker_ends()


async def answers(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.send(OK)


async def streams(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"x" * 20, step=7)


async def dies(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    peer.reset()


async def breaks(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nxx")
    peer.reset()


async def talks_nonsense(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n")


async def is_silent(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.more()


Act = Callable[[Wire, Peer], Awaitable[None]]


async def hear_it_break(wire: Wire, client: Peer) -> None:
    with pytest.raises(CutShortError):
        await client.message()


ENDS = {
    "answered": (answers, read_to_the_end),
    "streamed": (streams, read_to_the_end),
    "the client leaves": (is_silent, leave_early),
    "the upstream resets": (dies, read_to_the_end),
    "the upstream breaks off": (breaks, hear_it_break),
    "the upstream is invalid": (talks_nonsense, read_to_the_end),
    "the worker ends": (is_silent, end_the_worker),
}


@pytest.mark.parametrize(("script", "act"), ENDS.values(), ids=ENDS.keys())
async def test_a_slot_comes_back_however_a_request_ends(
    wire: Wire, script: Callable[[Upstream, Peer], Awaitable[None]], act: Act
) -> None:
    control = Control(wire)
    control.slots = 1
    control.rates[Account("key", KEY_ID)] = minute(5)
    plan(wire, in_flight_limit=1, rates=minute(5))
    wire.upstream.script = script
    client = await wire.client()
    await client.send(keyed(wire))
    await act(wire, client)
    await wire.settled(lambda: not wire.worker.exchanges)
    at_rest(wire, control)


async def test_a_slot_comes_back_from_who_is_refused_for_want_of_tokens(wire: Wire) -> None:
    control = Control(wire)
    control.slots = 1
    control.rates[Account("key", KEY_ID)] = minute(1)
    plan(wire, in_flight_limit=1, rates=minute(1))
    assert [(await wire.ask(keyed(wire))).status for _ in range(3)] == [200, 429, 429]
    at_rest(wire, control)


async def test_a_slot_comes_back_from_who_leaves_while_control_is_silent(wire: Wire) -> None:
    control = Control(wire)
    control.slots = 1
    plan(wire, in_flight_limit=1, rates=minute(1))
    answers: list[FromWorker] = []
    wire.worker.keys._send = answers.append
    client = await wire.client()
    await client.send(keyed(wire))
    await wire.settled(lambda: bool(answers))
    client.reset()
    await wire.settled(lambda: not wire.worker.exchanges)
    wire.worker.keys._send = control.hear
    control.hear(answers[0])
    await wire.settled(lambda: control.of_kind(SlotsReturned) != [])
    at_rest(wire, control)
    assert [each.key for each in wire.records()] == [KEY_ID]  # whose request it was is known


async def test_a_tunnel_keeps_its_slot_until_it_ends(wire: Wire) -> None:
    control = Control(wire)
    control.slots = 1
    plan(wire, in_flight_limit=1)
    wire.upstream.script = switches(SWITCH)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(keyed(wire, b"Connection: Upgrade", b"Upgrade: WebSocket"))
    assert (await client.message(interim=True)).status == 101
    assert (await wire.ask(keyed(wire))).status == 429
    client.close()
    await wire.settled(lambda: len(wire.worker.tunnels) == 0)
    at_rest(wire, control)


async def test_a_worker_that_is_alone_keeps_slots_for_a_while(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keybook, "IDLE_RETURN_S", 0.2)
    control = Control(wire)
    control.slots, control.keeps_slots = 1, True
    plan(wire, in_flight_limit=1)
    for _ in range(3):
        assert (await wire.ask(keyed(wire))).status == 200
    assert len(control.of_kind(SlotsAsked)) == 1
    assert control.slots_taken == 1
    await wire.settled(lambda: control.slots_taken == 0)
    assert (await wire.ask(keyed(wire))).status == 200
    wire.worker.drain()
    await wire.settled(lambda: control.slots_taken == 0)
    at_rest(wire, control)


async def test_slots_that_a_plan_takes_away_are_kept_by_nobody(wire: Wire) -> None:
    control = Control(wire)
    control.slots, control.keeps_slots = 4, True
    entry = plan(wire, in_flight_limit=4)
    gates = [asyncio.Event() for _ in range(4)]

    async def script(upstream: Upstream, peer: Peer) -> None:
        gate = gates[len(upstream.peers) - 1]
        while True:
            await peer.message()
            await gate.wait()
            await peer.send(OK)

    wire.upstream.script = script
    clients = [await wire.client() for _ in range(4)]

    def connected(count: int) -> Callable[[], bool]:
        return lambda: len(wire.upstream.peers) == count

    for number, client in enumerate(clients):
        await client.send(keyed(wire))
        await wire.settled(connected(number + 1))
    control.slots = 1
    less = msgspec.structs.replace(entry.conf, in_flight_limit=1)
    wire.worker._on_message(KeysChanged(1, (entry.conf.public_id,)))
    wire.worker._on_message(KeyFound(entry.conf.public_id, less))
    assert (await wire.ask(keyed(wire))).status == 429  # and was told so by control
    for gate, client in zip(gates, clients, strict=True):
        before = control.slots_taken
        gate.set()
        assert (await client.message()).status == 200
        assert control.slots_taken == before - 1
    assert [(await wire.ask(keyed(wire))).status for _ in range(2)] == [200, 200]
    assert control.slots_taken == 1, "it is kept again"
    at_rest(wire, control)


async def test_a_surplus_that_comes_for_a_key_that_is_forgotten_goes_back(wire: Wire) -> None:
    control = Control(wire)
    second = (RateConf("second", 1000, 1, 1000),)
    control.slots, control.rates[Account("key", KEY_ID)] = 5, second
    entry = plan(wire, in_flight_limit=5, rates=second)
    keys = wire.worker.keys

    def hear(message: FromWorker) -> None:
        control.hear(message)
        if isinstance(message, LeaseAsked):
            keys.forget((entry.conf.public_id,))  # its grant is on the way

    keys._send = hear
    assert (await wire.ask(keyed(wire))).status == 200
    assert keys._by_id == {}
    assert not any(control.lessor.leases[LeaseId(KEY_ID)].away.values())
    assert control.slots_taken == 0


async def test_what_it_holds_is_told_to_a_control_that_begins_anew(wire: Wire) -> None:
    control = Control(wire)
    control.slots = 5
    control.rates[Account("key", KEY_ID)] = (RateConf("second", 1000, 1, 1000),)
    plan(wire, in_flight_limit=5, rates=(RateConf("second", 1000, 1, 1000),))
    wire.upstream.script = is_silent
    client = await wire.client()
    await client.send(keyed(wire))
    await wire.settled(lambda: len(wire.upstream.requests) == 1)
    held, keys = wire.worker.keys.reconnected()
    (lease,) = held
    assert (lease.lease, lease.unspent) == (LeaseId(KEY_ID), sum(control.lessor.leases[LeaseId(KEY_ID)].away.values()))
    assert [(each.key_id, each.out, each.slots) for each in keys] == [(KEY_ID, 1 + lease.unspent, 1)]


# Clients.


async def test_a_client_has_buckets_of_its_own_and_is_on_the_record(wire: Wire) -> None:
    control = Control(wire)
    control.clients = {"ann": ClientConf(31, True), "bob": ClientConf(32, True)}
    for account in (Account("key", KEY_ID), Account("client", KEY_ID, 31), Account("client", KEY_ID, 32)):
        control.rates[account] = minute(2)
    plan(wire, rates=minute(2), has_clients=True)
    for name in (b"ann", b"bob"):
        statuses = [(await wire.ask(keyed(wire, b"X-Client-ID: " + name))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
    # Who is not accepted, and who is nobody, has what the key has.
    assert (await wire.ask(keyed(wire, b"X-Client-ID: made-up"))).status == 200
    answer = await wire.ask(keyed(wire))
    assert (answer.status, told(answer)) == (200, {"minute": 0})
    assert (await wire.ask(keyed(wire, b"x-client-id: more"))).status == 429
    assert len(control.of_kind(FindClient)) <= 4
    assert [each.client for each in wire.records()] == [31, 31, 31, 32, 32, 32, 0, 0, 0]
    assert wire.upstream.requests[0].one(b"x-client-id") == b"ann"
    at_rest(wire, control)


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-Client-ID: a b",),
        (b"X-Client-ID: " + b"a" * 129,),
        (b"X-Client-ID:",),
        (b"X-Client-ID: ann", b"X-Client-ID: bob"),
        (b"X-Client-ID: \xe4",),
    ],
    ids=["space", "long", "empty", "two", "latin"],
)
async def test_what_is_no_name_counts_as_none(wire: Wire, fields: tuple[bytes, ...]) -> None:
    control = Control(wire)
    control.rates[Account("key", KEY_ID)] = minute(2)
    plan(wire, rates=minute(2), has_clients=True)
    answer = await wire.ask(keyed(wire, *fields))
    assert (answer.status, told(answer)) == (200, {"minute": 1})
    assert control.of_kind(FindClient) == []


async def test_made_up_clients_are_rationed(wire: Wire) -> None:
    control = Control(wire)
    control.rates[Account("key", KEY_ID)] = (RateConf("second", 10**6, 1, 10**6),)
    plan(wire, rates=control.rates[Account("key", KEY_ID)], has_clients=True)
    client = await wire.client()
    began = time.monotonic()
    for number in range(400):
        await client.send(keyed(wire, b"X-Client-ID: %d" % number))
        assert (await client.message()).status == 200
    elapsed_s = time.monotonic() - began
    assert len(control.of_kind(FindClient)) <= 2 + elapsed_s / keybook.CLIENT_MISS_PAUSE_S


async def test_what_is_remembered_of_clients_is_bounded(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keybook, "CLIENTS_LIMIT", 3)
    monkeypatch.setattr(keybook, "LEASES_LIMIT", 3)
    control = Control(wire)
    rates = (RateConf("second", 1000, 1, 1000),)
    for number in range(1, 9):
        control.clients[f"c{number}"] = ClientConf(number, True)
        control.rates[Account("client", KEY_ID, number)] = rates
    entry = plan(wire, rates=rates, has_clients=True)
    for number in [*range(1, 9)] * 2:
        assert (await wire.ask(keyed(wire, b"X-Client-ID: c%d" % number))).status == 200
        assert entry.more is not None
        assert len(entry.more.clients) <= 3 and len(entry.leases) <= 3
        assert len(wire.worker.keys._leases) <= 3
    held = {lease.id: lease.surplus for lease in entry.leases.values()}
    away = {id_: sum(lease.away.values()) for id_, lease in control.lessor.leases.items()}
    assert {id_: count for id_, count in away.items() if count} == held  # the others' have come back
    at_rest(wire, control)


async def test_a_client_has_nothing_to_say_where_there_are_none(wire: Wire) -> None:
    control = Control(wire)
    control.rates[Account("key", KEY_ID)] = minute(2)
    plan(wire, rates=minute(2))
    assert (await wire.ask(keyed(wire, b"X-Client-ID: ann"))).status == 200
    assert control.of_kind(FindClient) == []


# Routes.


async def test_a_route_has_limits_for_all_its_callers_with_or_without_a_key(wire: Wire) -> None:
    control = Control(wire)
    control.rates = {Account("route", 3): minute(3), Account("key", KEY_ID): minute(10)}
    plan(wire, rates=minute(10))
    with_policy(wire, b"/keyed", route_id=3)
    with_policy(wire, b"/open", route_id=3)
    answer = await wire.ask(keyed(wire))
    assert told(answer) == {"minute": 9, "route-minute": 2}
    assert answer.one(b"x-ratelimit-limit") == b"3"
    open_one = await wire.ask(b"GET /open/ HTTP/1.1\r\nHost: api\r\n\r\n")
    assert (open_one.status, told(open_one)) == (200, {"route-minute": 1})
    assert (await wire.ask(keyed(wire))).status == 200
    refused = await wire.ask(keyed(wire))
    assert refused.status == 429
    assert b"3 requests per minute of this route are used up" in refused.body
    assert told(refused) == {"minute": 8, "route-minute": 0}  # the key keeps what the route refused
    assert (await wire.ask(b"GET /open/ HTTP/1.1\r\nHost: api\r\n\r\n")).status == 429
    at_rest(wire, control)


async def test_a_request_takes_as_many_units_as_its_route_weighs(wire: Wire) -> None:
    control = Control(wire)
    control.rates[Account("key", KEY_ID)] = minute(10)
    plan(wire, rates=minute(10))
    with_policy(wire, b"/keyed", weight=4)
    answers = [await wire.ask(keyed(wire)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [told(answer)["minute"] for answer in answers] == [6, 2, 2]
    assert 7 <= int(answers[2].one(b"retry-after")) <= 12  # 2 are left; two more come in 12 s
    assert b"counts as 4" in answers[2].body
    with_policy(wire, b"/keyed", weight=1)
    assert [(await wire.ask(keyed(wire))).status for _ in range(3)] == [200, 200, 429]
    assert [each.units for each in wire.records() if each.flags & ADMITTED] == [4, 4, 1, 1]
    at_rest(wire, control)


# Shadow.


async def test_a_plan_that_only_watches_refuses_nothing_and_flags_what_it_would(wire: Wire) -> None:
    control = Control(wire)
    control.rates[Account("key", KEY_ID)] = minute(2)
    control.slots = 1
    plan(wire, rates=minute(2), shadow=True, in_flight_limit=1)
    answers = [await wire.ask(keyed(wire)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [told(answer)["minute"] for answer in answers] == [1, 0, 0, 0]
    assert [each.flags for each in wire.records()] == [ADMITTED, ADMITTED, *[ADMITTED | WOULD_REFUSE] * 2]
    at_rest(wire, control)


async def test_a_plan_that_only_watches_does_not_lift_the_limits_of_others(wire: Wire) -> None:
    control = Control(wire)
    control.rates = {Account("key", KEY_ID): minute(1), Account("route", 3): minute(3)}
    plan(wire, rates=minute(1), shadow=True)
    with_policy(wire, b"/keyed", route_id=3)
    assert [(await wire.ask(keyed(wire))).status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert [each.flags for each in wire.records()] == [1, *[ADMITTED | WOULD_REFUSE] * 2, 0, 0]
    at_rest(wire, control)
