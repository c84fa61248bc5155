"""Upgrades: which requests become tunnels, that bytes pass both ways and are counted, and everything that ends one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.channel import FindKey, KeyFound, KeysChanged, SnapshotChanged, Welcome
from gatewayd.conf import KeyConf, OlderConf, TenantConf
from gatewayd.keys import digest
from gatewayd.policy.spending import KeyEntry
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.journal import Journal
from gatewayd.proxy.tunnel import REPORT_S, Tunnel
from gatewayd.records import ADMITTED, MORE_BYTES, Record
from tests.wire.harness import GET, OK, Upstream, Wire, services
from tests.wire.peer import CutShortError, Peer
from tests.wire.test_chunked import pieces_of
from tests.wire.test_requests import TEN, get, request
from tests.wire.test_responses import answer

pytestmark = pytest.mark.anyio

ASKED = (b"Connection: Upgrade", b"Upgrade: WebSocket")
UPGRADE = get(b"/open/", *ASKED, b"Sec-WebSocket-Key: a")
SWITCH = answer(b"101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: b")
STEPS = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])
MIB = 1 << 20


def switches(said: bytes = SWITCH, *, step: int = 0) -> object:
    """A script: agree, then send back whatever comes until the end."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await peer.send(said, step)
        while await peer.more():
            data, peer._taken = bytes(peer.received[peer._taken :]), len(peer.received)
            await peer.send(data)
        peer.close()

    return script


async def switched(wire: Wire, sent: bytes = UPGRADE, script: object = None, step: int = 0) -> Peer:
    """A client whose connection has become a tunnel."""
    wire.upstream.script = script or switches()  # type: ignore[assignment]
    client = await wire.client()
    await client.send(sent, step)
    got = await client.message(interim=True)
    assert got.status == 101, got
    return client


def keyed(wire: Wire) -> bytes:
    return get(b"/keyed/", *ASKED, b"X-API-Key: " + wire.key)


def tunnel_of(wire: Wire) -> Tunnel:
    (tunnel,) = wire.state.connections
    assert isinstance(tunnel, Tunnel)
    return tunnel


async def echoed(client: Peer, data: bytes) -> None:
    await client.send(data)
    assert await client._take(len(data)) == data


def carried(records: list[Record]) -> tuple[int, int]:
    """Bytes in and out of all records."""
    return sum(record.bytes_in for record in records), sum(record.bytes_out for record in records)


async def ended(wire: Wire) -> None:
    await wire.settled(lambda: wire.held() == [])


# Switching.


@STEPS
async def test_switches_and_carries(wire: Wire, step: int) -> None:
    client = await wire.client()
    wire.upstream.script = switches(step=step)  # type: ignore[assignment]
    await client.send(UPGRADE, step)
    got = await client.message(interim=True)
    assert got.line == b"HTTP/1.1 101 Switching Protocols"
    assert got.without(b"x-request-id") == [
        (b"Sec-WebSocket-Accept", b"b"), (b"Connection", b"upgrade"), (b"Upgrade", b"websocket")
    ]  # fmt: skip
    (asked,) = wire.upstream.requests
    assert (asked.one(b"Connection"), asked.one(b"Upgrade")) == (b"upgrade", b"WebSocket")
    assert asked.one(b"Sec-WebSocket-Key") == b"a"
    assert asked.one(b"X-Request-Id") == got.one(b"X-Request-Id")
    for data in (b"a", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 3000, b"\x00"):
        await echoed(client, data)
    client.close()
    await ended(wire)
    first, *more = wire.records()
    assert (first.status, first.flags, first.units, carried([first])) == (101, ADMITTED, 1, (0, 0))
    assert {(record.status, record.flags, record.units, record.service) for record in more} == {(101, MORE_BYTES, 0, 1)}
    assert carried(more) == (768020, 768020)
    assert {record.request_id for record in more} == {first.request_id}
    assert wire.worker.requests == 1


async def test_what_is_sent_ahead_waits_for_the_answer(wire: Wire) -> None:
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        await gate.wait()
        assert len(peer.received) == peer._taken, "it must not come before the protocol is switched"
        await peer.send(SWITCH + b"first")
        assert await peer._take(10) == TEN
        await peer.send(b"second")
        await peer.rest()
        peer.close()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(UPGRADE + TEN[:5])
    await client.send(TEN[5:], 1)
    await asyncio.sleep(0.02)
    gate.set()
    assert (await client.message(interim=True)).status == 101
    assert await client._take(11) == b"firstsecond"
    client.close()
    await ended(wire)
    assert carried(wire.records()) == (10, 11)


async def test_much_is_sent_ahead(wire: Wire) -> None:
    """It waits in a bounded buffer, then all of it passes."""
    gate = asyncio.Event()
    data = bytes(range(256)) * 16384

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        await gate.wait()
        await peer.send(SWITCH)
        assert await peer._take(len(data)) == data
        await peer.send(b"ok")

    wire.upstream.script = script
    client = await wire.client()
    sending = asyncio.ensure_future(client.send(UPGRADE + data))
    await wire.settled(lambda: bool(wire.worker.exchanges))
    (connection,) = wire.state.connections
    assert isinstance(connection, ClientConnection)
    await wire.settled(lambda: connection.reading_paused)
    assert len(connection._buffer) < MIB
    gate.set()
    await client.message(interim=True)
    await sending
    assert await client._take(2) == b"ok"


async def test_behind_another_request(wire: Wire) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(OK)
        await switches()(upstream, peer)  # type: ignore[operator]

    wire.upstream.script = script
    client = await wire.client()
    await client.send(GET + UPGRADE + TEN)
    assert (await client.message()).status == 200
    assert (await client.message(interim=True)).status == 101
    assert await client._take(10) == TEN
    assert [record.status for record in wire.records()] == [200, 101]


@pytest.mark.parametrize(
    "said", [OK, answer(b"426 Upgrade Required", b"Upgrade: foo", b"Content-Length: 2", body=b"ok")]
)
async def test_an_answer_that_does_not_switch(wire: Wire, said: bytes) -> None:
    """What was sent ahead is the next request."""
    wire.upstream.answer = said
    client = await wire.client()
    await client.send(UPGRADE + GET)
    got = await client.message(interim=True)
    assert (got.status, got.body, got.all(b"Upgrade")) == (int(said[9:12]), b"ok", [])
    await client.message()
    await client.send(GET)
    await client.message()
    assert [each.line for each in wire.upstream.requests] == [b"GET / HTTP/1.1"] * 3
    assert len(wire.upstream.peers) == 1


HINTS = answer(b"103 Early Hints", b"Link: a")
FINE = {
    "one of several": (b"Upgrade: foo, Ws/13,bar", answer(b"101 Ok", b"Connection: x, upgrade", b"Upgrade: Foo")),
    "two of them": (b"Upgrade: foo, bar", answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: bar, foo")),
    "after hints": (b"Upgrade: foo", HINTS + answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: foo")),
    "with a length": (b"Upgrade: foo", answer(b"101", b"Connection: upgrade", b"Upgrade: foo", b"Content-Length: 5")),
    "without a reason": (b"Upgrade: foo", answer(b"101", b"Connection: upgrade", b"Upgrade: foo")),
}  # fmt: skip
INVALID = {
    "another protocol": answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: other"),
    "another version": answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: websocket/2"),
    "another protocol beside": answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: websocket, other"),
    "one that was asked for and does not pass": answer(b"101 Ok", b"Connection: upgrade", b"Upgrade: h2c"),
    "no protocol": answer(b"101 Ok", b"Connection: upgrade"),
    "an empty protocol": answer(b"101 Ok", b"Connection: upgrade", b"Upgrade:"),
    "no Connection": answer(b"101 Ok", b"Upgrade: websocket"),
    "Connection: close": answer(b"101 Ok", b"Connection: close", b"Upgrade: websocket"),
    "HTTP/1.0": SWITCH.replace(b"1.1", b"1.0"),
    "neither": answer(b"101 Ok"),
}


@STEPS
@pytest.mark.parametrize("name", FINE)
async def test_switches_that_are_fine(wire: Wire, name: str, step: int) -> None:
    protocols, said = FINE[name]
    wire.upstream.script = switches(said, step=step)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(get(b"/open/", b"Connection: upgrade", protocols))
    got = await client.message(interim=True)
    got = await client.message(interim=True) if got.status == 103 else got
    assert (got.status, got.all(b"Connection"), got.all(b"Content-Length")) == (101, [b"upgrade"], [])
    await echoed(client, TEN)


@STEPS
@pytest.mark.parametrize("name", INVALID)
async def test_switches_that_are_not(wire: Wire, name: str, step: int) -> None:
    wire.upstream.script = switches(INVALID[name] + TEN, step=step)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(get(b"/open/", b"Connection: upgrade", b"Upgrade: websocket, h2c"))
    got = await client.message(interim=True)
    assert (got.status, b'"upstream_invalid"' in got.body) == (502, True)
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    wire.upstream.script = Upstream.answer_all
    await client.send(GET)
    assert (await client.message()).body == b"ok"
    assert [record.status for record in wire.records()] == [502, 200]


UNASKED = {
    "GET": GET,
    "h2c": get(b"/open/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM"),
    "not named by Connection": get(b"/open/", b"Upgrade: websocket"),
    "HTTP/1.0": request(b"GET /open/ HTTP/1.0", *ASKED),
    "with a body": get(b"/open/", *ASKED, b"Content-Length: 10") + TEN,
    "with chunks": get(b"/open/", *ASKED, b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("name", UNASKED)
async def test_a_switch_that_nobody_asked_for(wire: Wire, name: str) -> None:
    wire.upstream.script = switches(SWITCH.replace(b"websocket", b"h2c") if name == "h2c" else SWITCH)  # type: ignore[assignment]
    assert (await wire.ask(UNASKED[name])).status == 502
    assert b"pgrade" not in wire.upstream.received


async def test_refused_before_the_upstream_hears_of_it(wire: Wire) -> None:
    client = await wire.client()
    await client.send(get(b"/keyed/", *ASKED) + TEN)
    assert (await client.message(interim=True)).status == 401
    assert wire.upstream.received == b""


async def test_limits_are_said_in_the_answer(wire: Wire) -> None:
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    client.close()
    await ended(wire)
    assert {(record.key, record.price, record.tenant, record.service) for record in wire.records()} == {(7, 3, 1, 2)}
    assert carried(wire.records()) == (10, 10)


async def test_record_stands_before_the_answer_leaves(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    write = ClientConnection.write
    stood: list[int] = []

    def writing(connection: ClientConnection, data: bytes) -> None:
        stood.extend(record.status for record in wire.records())
        write(connection, data)

    monkeypatch.setattr(ClientConnection, "write", writing)
    await switched(wire)
    assert stood == [101]


# Carrying.


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_half_closed(wire: Wire, side: str) -> None:
    """The other way stays open for as long as it is wanted."""
    upstream: list[Peer] = []

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(SWITCH)
        upstream.append(peer)
        await asyncio.sleep(3600)

    client = await switched(wire, script=script)
    await wire.settled(lambda: bool(upstream))
    first, second = (client, upstream[0]) if side == "client" else (upstream[0], client)
    await first.send(TEN)
    first.half_close()
    assert await second.rest() == TEN
    await second.send(b"still")
    assert await first._take(5) == b"still"
    second.half_close()
    assert await first.rest() == b""
    await ended(wire)
    assert sorted(carried(wire.records())) == [5, 10]


async def test_half_closed_before_the_answer(wire: Wire) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await asyncio.sleep(0.02)
        await peer.send(SWITCH)
        assert await peer.rest() == TEN
        await peer.send(b"done")
        peer.close()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(UPGRADE + TEN)
    client.half_close()
    assert (await client.message(interim=True)).status == 101
    assert await client.rest() == b"done"


@pytest.mark.parametrize("how", [Peer.close, Peer.reset])
@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_the_end_of_one_side_ends_the_other(wire: Wire, side: str, how: Callable[[Peer], None]) -> None:
    client = await switched(wire)
    await echoed(client, TEN)
    how(client if side == "client" else wire.upstream.peers[0])
    if side == "upstream":
        assert await client.rest() == b""
        client.close()
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    await ended(wire)
    assert carried(wire.records()) == (10, 10)


async def test_what_is_unsent_goes_first(wire: Wire) -> None:
    """An upstream that says much and leaves; its client is slow."""
    data = bytes(range(256)) * 4096

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(SWITCH + data)
        peer.close()

    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=16384)
    await client.send(UPGRADE)
    await client.message(interim=True)
    await asyncio.sleep(0.1)
    assert await client.rest() == data
    client.close()
    await ended(wire)
    assert carried(wire.records()) == (0, len(data))


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_side_that_does_not_read_makes_the_other_wait(wire: Wire, side: str) -> None:
    data = bytes(range(256)) * 256
    count = 256
    upstream: list[Peer] = []

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(SWITCH)
        upstream.append(peer)
        await asyncio.sleep(3600)

    wire.upstream.narrow(16384)
    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=16384)
    await client.send(UPGRADE)
    await client.message(interim=True)
    await wire.settled(lambda: bool(upstream))
    writer, reader = (client, upstream[0]) if side == "upstream" else (upstream[0], client)
    tunnel = tunnel_of(wire)
    ends = (tunnel._client, tunnel._upstream)
    for end in ends:
        end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sending = asyncio.ensure_future(writer.send(data * count))
    calm, last, most = 0, -1, 0
    while calm < 20:
        await asyncio.sleep(0.005)
        most = max(most, *(end.transport.get_write_buffer_size() for end in ends))
        received = sum(end.received for end in ends)
        calm, last = (calm + 1 if received == last else 0), received
    assert most < MIB and last < count * len(data)
    await reader.send(b"the other way is free")
    assert await writer._take(21) == b"the other way is free"
    assert await reader._take(count * len(data)) == data * count
    await sending


async def paused(wire: Wire) -> tuple[Peer, Tunnel]:
    """A tunnel whose client does not take what its upstream says, which is much."""

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(SWITCH + bytes(32 * MIB))
        await peer.rest()

    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=65536)
    await client.send(keyed(wire))
    await client.message(interim=True)
    tunnel = tunnel_of(wire)
    await wire.settled(lambda: tunnel._client.writing_paused)
    return client, tunnel


async def test_held_while_it_waits_for_a_slow_side(wire: Wire) -> None:
    """The slow side catches up: that is no reason to go on before the key is known."""
    client, tunnel = await paused(wire)
    changed(wire)
    received = tunnel._upstream.received
    while tunnel._client.transport.get_write_buffer_size() or tunnel._client.writing_paused:
        await client.more()
    await asyncio.sleep(0.05)
    assert tunnel._upstream.received == received
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), conf_of(wire)))
    await wire.settled(lambda: tunnel._upstream.received > received)
    client.reset()


async def test_released_while_it_waits_for_a_slow_side(wire: Wire) -> None:
    """The key is good: that is no reason to read more than the slow side takes."""
    client, tunnel = await paused(wire)
    received = tunnel._upstream.received
    for _ in range(20):
        changed(wire, conf_of(wire))
        await asyncio.sleep(0.005)
    assert tunnel._upstream.received == received
    client.reset()


async def test_a_client_that_does_not_even_take_the_answer(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    write = ClientConnection.write

    def write_to_a_slow_client(connection: ClientConnection, data: bytes) -> None:
        write(connection, data)
        connection.pause_writing()

    monkeypatch.setattr(ClientConnection, "write", write_to_a_slow_client)
    client = await switched(wire)
    tunnel = tunnel_of(wire)
    await client.send(TEN)
    await wire.settled(lambda: wire.upstream.peers[0].received.endswith(TEN))
    await asyncio.sleep(0.02)
    assert tunnel._upstream.received == 0
    tunnel._client.resume_writing()
    assert await client._take(10) == TEN


# Ended by the gateway.


def changed(wire: Wire, *conf: KeyConf) -> None:
    """The key has changed, as control tells it; without a word on how, the look-up is left unanswered."""
    public_id = wire.key[3:11].decode()
    wire.worker._on_message(KeysChanged(1, (public_id,)))
    for each in conf:
        wire.worker._on_message(KeyFound(public_id, each))


def conf_of(wire: Wire, **changes: object) -> KeyConf:
    conf = KeyConf(7, wire.key[3:11].decode(), digest(wire.key), 1, None, False, None, (), None, 3)
    return msgspec.structs.replace(conf, **changes)


LOST: dict[str, dict[str, object]] = {
    "revoked": {"revoked": True},
    "expired": {"expires_at": 1.0},
    "for another service": {"services": frozenset({1})},
    "of another tenant": {"tenant_id": 2},
    "with another secret": {"digest": b"x" * 32},
}


async def cut_off(wire: Wire, client: Peer) -> None:
    """Both sides have ended, and what was carried is on the journal."""
    with contextlib.suppress(CutShortError):
        assert await client.rest() == b""
    client.close()
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    await ended(wire)
    assert len([record for record in wire.records() if record.flags & ADMITTED]) == 1
    assert carried(wire.records()) == (10, 10)


async def test_a_key_that_is_rotated_goes_on_for_its_overlap(wire: Wire) -> None:
    """The tunnel stands on the older secret, and ends with it."""
    client = await switched(wire, keyed(wire))
    now_s = time.time_ns() / 1e9
    older = OlderConf(1, digest(wire.key), now_s + 60)
    changed(wire, conf_of(wire, digest=b"x" * 32, generation=2, older=(older,)))
    await echoed(client, TEN)
    client.close()
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    await ended(wire)
    assert {record.generation for record in wire.records()} == {1}


@pytest.mark.parametrize("older", [(0.0, False), (2e9, True)], ids=["without an overlap", "then revoked"])
async def test_a_key_that_is_rotated_and_ended(wire: Wire, older: tuple[float, bool]) -> None:
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    until, was_ended = older
    generations = (OlderConf(1, digest(wire.key), until, was_ended),)
    changed(wire, conf_of(wire, digest=b"x" * 32, generation=2, older=generations))
    await cut_off(wire, client)


@pytest.mark.parametrize("name", LOST)
async def test_a_key_that_is_no_longer_good(wire: Wire, name: str) -> None:
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    changed(wire, conf_of(wire, **LOST[name]))
    await cut_off(wire, client)


@pytest.mark.parametrize("name", LOST)
async def test_a_key_that_is_no_longer_good_while_others_use_it(wire: Wire, name: str) -> None:
    """A request in flight keeps the worker's entry of the key, which then changes in place."""
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    entry = wire.worker.keys.entries[wire.key[3:11].decode()]
    assert entry is not None
    wire.worker.keys._by_id[7] = entry
    entry.in_flight = 1
    changed(wire, conf_of(wire, **LOST[name]))
    assert wire.worker.keys.entries[wire.key[3:11].decode()] is entry
    await cut_off(wire, client)


async def test_a_key_that_is_gone(wire: Wire) -> None:
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    changed(wire)
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), None))
    await cut_off(wire, client)


async def test_nothing_passes_until_a_changed_key_is_known(wire: Wire) -> None:
    client, other = await switched(wire, keyed(wire)), await switched(wire)
    await echoed(client, TEN)
    changed(wire)
    await client.send(b"more")
    await wire.upstream.peers[0].send(b"back")
    await echoed(other, TEN)  # a tunnel without that key is not held
    await asyncio.sleep(0.02)
    assert wire.upstream.peers[0].received.endswith(TEN) and client.received.endswith(TEN)
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), conf_of(wire)))
    assert await client._take(8) == b"backmore"
    changed(wire, conf_of(wire))
    await echoed(client, TEN)


async def test_every_key_may_have_changed(wire: Wire) -> None:
    client = await switched(wire, keyed(wire))
    wire.worker._on_message(KeysChanged(1, None))
    wire.worker._on_message(KeysChanged(2, None))  # asked for already: once is enough
    assert repr(tunnel_of(wire)).endswith("held>")
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), conf_of(wire)))
    await echoed(client, TEN)


async def test_a_key_that_changed_between_request_and_answer(wire: Wire) -> None:
    """The news came before there was a tunnel to tell."""
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(SWITCH)
        await peer.rest()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(keyed(wire))
    await wire.settled(lambda: bool(wire.upstream.requests))
    wire.worker._on_message(KeysChanged(1, (wire.key[3:11].decode(),)))
    gate.set()
    assert (await client.message(interim=True)).status == 101
    assert tunnel_of(wire).held
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), conf_of(wire, revoked=True)))
    await ended(wire)


async def test_control_comes_back(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes may have been missed: the key is looked up, and the tunnel is carried on meanwhile."""
    client = await switched(wire, keyed(wire))
    asked: list[object] = []
    monkeypatch.setattr(wire.worker.keys.look_ups, "_send", asked.append)
    wire.worker._on_connected()
    tenants = (TenantConf(1, "default", False),)
    wire.worker._on_message(Welcome(tenants, services(f"http://127.0.0.1:{wire.upstream.port}")))
    assert asked == [FindKey(wire.key[3:11].decode())]
    await echoed(client, TEN)
    wire.worker._on_message(KeyFound(wire.key[3:11].decode(), conf_of(wire, revoked=True)))
    await cut_off(wire, client)


def install(wire: Wire, *, suspended: bool = False, without: int = 0, **changes: object) -> None:
    confs = services(f"http://127.0.0.1:{wire.upstream.port}")
    kept = tuple(msgspec.structs.replace(conf, **changes) for conf in confs if conf.id != without)
    tenants = (TenantConf(1, "default", suspended), TenantConf(2, "acme", False))
    wire.worker._on_message(SnapshotChanged(1, tenants, kept))


CHANGES: dict[str, dict[str, object]] = {
    "tenant suspended": {"suspended": True},
    "service removed": {"without": 1},
    "a key is needed now": {"auth": "key"},
}


@pytest.mark.parametrize("name", CHANGES)
async def test_configuration_that_ends_it(wire: Wire, name: str) -> None:
    client = await switched(wire)
    await echoed(client, TEN)
    install(wire, **CHANGES[name])  # type: ignore[arg-type]
    await cut_off(wire, client)


async def test_configuration_that_does_not(wire: Wire) -> None:
    client, other = await switched(wire), await switched(wire, keyed(wire))
    install(wire, without=8, idle_timeout_s=7.0)
    for peer in (client, other):
        await echoed(peer, TEN)
    assert {tunnel.facts.service.conf.idle_timeout_s for tunnel in wire.worker.tunnels._open} == {7.0}


async def test_suspended_between_request_and_answer(wire: Wire) -> None:
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(SWITCH)
        await peer.rest()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(UPGRADE)
    await wire.settled(lambda: bool(wire.upstream.requests))
    install(wire, suspended=True)
    gate.set()
    assert (await client.message(interim=True)).status == 403


async def test_drain(wire: Wire) -> None:
    client = await switched(wire)
    await echoed(client, TEN)
    wire.worker.drain()
    tunnel_of(wire).shutdown()
    await cut_off(wire, client)


async def test_no_tunnel_is_begun_while_draining(wire: Wire) -> None:
    client = await wire.client()
    await client.send(GET)
    await client.message()
    wire.worker.drain()
    wire.upstream.script = switches()  # type: ignore[assignment]
    await client.send(UPGRADE)
    wire.upstream.peers[0].close()
    got = await client.message(interim=True)
    assert (got.status, b'"draining"' in got.body, got.all(b"Retry-After")) == (503, True, [b"1"])


# Time, looked at from outside: `check_time` is called once a second with what the clock says.


async def test_idle(wire: Wire) -> None:
    client = await switched(wire)
    await echoed(client, TEN)
    tunnel, now = tunnel_of(wire), wire.worker.now()
    idle_s = tunnel.facts.service.conf.idle_timeout_s
    tunnel.check_time(now)
    tunnel.check_time(now + idle_s - 1)
    tunnel.check_time(now + idle_s + 1)
    await cut_off(wire, client)


async def test_a_byte_either_way_is_not_idle(wire: Wire) -> None:
    client = await switched(wire)
    tunnel, now = tunnel_of(wire), wire.worker.now()
    idle_s = tunnel.facts.service.conf.idle_timeout_s
    for turn in range(1, 4):
        await (client if turn % 2 else wire.upstream.peers[0]).send(b"a")
        await client._take(1)
        tunnel.check_time(now + turn * (idle_s - 1))
    await echoed(client, TEN)


@pytest.mark.parametrize("lifetime_s", [100.0, None])
async def test_lifetime(wire: Wire, lifetime_s: float | None) -> None:
    client = await switched(wire)
    install(wire, tunnel_lifetime_s=lifetime_s)
    tunnel, now = tunnel_of(wire), wire.worker.now()
    tunnel.check_time(now + 99)
    await echoed(client, TEN)
    tunnel.check_time(now + 101)
    if lifetime_s is None:
        await echoed(client, TEN)
    else:
        await cut_off(wire, client)


async def test_key_expires(wire: Wire) -> None:
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    tunnel = tunnel_of(wire)
    tunnel.check_time(wire.worker.now())
    await echoed(client, b"")
    entry = wire.worker.keys.entries[wire.key[3:11].decode()]
    wire.worker.keys._renew(entry, KeyEntry(conf_of(wire, expires_at=1000.0)))
    tunnel.check_time(wire.worker.now())
    await cut_off(wire, client)


async def test_over_and_not_taken(wire: Wire) -> None:
    """What is unsent is dropped once nobody has taken any for a while."""
    data = b"x" * (8 * MIB)

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(SWITCH + data)
        await asyncio.sleep(3600)

    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=4096)
    await client.send(UPGRADE)
    await client.message(interim=True)
    tunnel, now = tunnel_of(wire), wire.worker.now()
    await wire.settled(lambda: tunnel._client.writing_paused)
    tunnel.shutdown()
    patience_s = wire.worker.settings.keep_alive_s
    tunnel.check_time(now)
    tunnel.check_time(now + patience_s - 1)
    await asyncio.sleep(0.02)
    assert wire.state.connections
    tunnel.check_time(now + patience_s + 1)
    await ended(wire)


# Counted.


async def test_bytes_are_recorded_every_few_seconds(wire: Wire) -> None:
    client = await switched(wire, keyed(wire))
    tunnel, now = tunnel_of(wire), wire.worker.now()
    await echoed(client, TEN)
    tunnel.check_time(now + REPORT_S - 1)
    assert len(wire.records()) == 1
    tunnel.check_time(now + REPORT_S + 1)
    assert carried(wire.records()) == (10, 10)
    tunnel.check_time(now + 2 * REPORT_S + 2)
    assert len(wire.records()) == 2, "nothing new, nothing to say"
    await wire.upstream.peers[0].send(b"abc")
    await client._take(3)
    tunnel.check_time(now + 3 * REPORT_S + 3)
    assert [(each.flags, each.bytes_in, each.bytes_out) for each in wire.records()] == [
        (ADMITTED, 0, 0), (MORE_BYTES, 10, 10), (MORE_BYTES, 0, 3)
    ]  # fmt: skip


async def test_bytes_wait_while_the_journal_is_full(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await switched(wire)
    tunnel, now = tunnel_of(wire), wire.worker.now()
    await echoed(client, TEN)
    with monkeypatch.context() as full:
        full.setattr(Journal, "has_room", lambda *_: False)
        tunnel.check_time(now + REPORT_S + 1)
        assert len(wire.records()) == 1
        client.close()
        await ended(wire)
        wire.worker.tunnels.sweep()
        assert len(wire.records()) == 1
    wire.worker.tunnels.sweep()
    wire.worker.tunnels.sweep()
    assert carried(wire.records()) == (10, 10)
    assert len(wire.records()) == 2


async def test_worker_that_ends_records_what_is_open(wire: Wire) -> None:
    client = await switched(wire)
    await echoed(client, TEN)
    wire.worker.tunnels.close()
    assert carried(wire.records()) == (10, 10)
    await cut_off(wire, client)


async def test_key_that_was_forgotten_for_want_of_room(wire: Wire) -> None:
    """Its last record still says whose it was."""
    client = await switched(wire, keyed(wire))
    await echoed(client, TEN)
    wire.worker.keys.entries.clear()
    wire.worker.keys.entries["other"] = KeyEntry(conf_of(wire, id=8))
    client.close()
    await ended(wire)
    assert {record.key for record in wire.records()} == {7}


PIECES = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=2000)), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, cuts=st.lists(st.integers(0, 300), max_size=5), ahead=st.binary(max_size=50), how=st.booleans())
def test_random_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[bool, bytes]], cuts: list[int], ahead: bytes, how: bool
) -> None:
    """Both ways at once: what arrives is what was sent, and what was counted is what arrived."""
    uvloop.run(check_random(tmp_path_factory.mktemp("wire"), pieces, cuts, ahead, how))


async def check_random(
    folder: Path, pieces: list[tuple[bool, bytes]], cuts: list[int], ahead: bytes, client_ends: bool
) -> None:
    up = [data for upwards, data in pieces if upwards]
    down = [data for upwards, data in pieces if not upwards]
    sent_up, sent_down = ahead + b"".join(up), b"".join(down)

    async def talk(peer: Peer, said: list[bytes], expected: int, ends: bool) -> bytes:
        sending = asyncio.ensure_future(say(peer, said))
        heard = await peer._take(expected)
        await sending
        peer.half_close() if ends else None
        assert await peer.rest() == b""
        peer.close()
        return heard

    async def say(peer: Peer, said: list[bytes]) -> None:
        for data in said:
            await peer.send(data)

    heard: list[bytes] = []

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        for piece in pieces_of(SWITCH, cuts):
            await peer.send(piece)
            await asyncio.sleep(0)
        heard.append(await talk(peer, down, len(sent_up), not client_ends))

    async with Wire(folder) as wire:
        wire.upstream.script = script
        client = await wire.client()
        for piece in pieces_of(UPGRADE + ahead, cuts):
            await client.send(piece)
        assert (await client.message(interim=True)).status == 101
        assert await talk(client, up, len(sent_down), client_ends) == sent_down
        await ended(wire)
        await wire.settled(lambda: bool(heard))
        assert heard == [sent_up]
        assert carried(wire.records()) == (len(sent_up), len(sent_down))
        assert [record.flags for record in wire.records()][:1] == [ADMITTED]
