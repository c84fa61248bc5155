"""Clients that leave, close half, read or write slowly; and how much the worker holds for them meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from gatewayd.proxy.client import LINGER_S, SLOWEST_READ_BYTES, ClientConnection
from gatewayd.proxy.exchange import Exchange
from gatewayd.proxy.journal import Journal
from gatewayd.proxy.pool import Pool
from gatewayd.proxy.upstream import UpstreamConnection
from gatewayd.records import ADMITTED, CLIENT_LEFT
from tests.wire.harness import GET, OK, Upstream, Wire
from tests.wire.peer import CutShortError, Peer

pytestmark = pytest.mark.anyio

POST = b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST /open/ HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 1 << 20
NARROW_BYTES = 16384  # of a kernel's buffer, so that little is on its way between the two sides
HELD_BYTES = MIB  # that a worker may hold of one body: the loop reads up to 256 KiB at once


def connection_of(wire: Wire) -> ClientConnection:
    (connection,) = wire.state.connections
    assert isinstance(connection, ClientConnection)
    return connection


async def silent(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.rest()


async def unread(upstream: Upstream, peer: Peer) -> None:
    """Takes the connection and never reads from it."""
    await asyncio.sleep(3600)


# Leaving.


async def test_leaves_before_the_answer(wire: Wire) -> None:
    wire.upstream.script = silent
    client = await wire.client()
    await client.send(GET)
    await wire.settled(lambda: bool(wire.upstream.requests))
    client.reset()
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    (record,) = wire.records()
    assert (record.status, record.flags) == (499, ADMITTED | CLIENT_LEFT)


@pytest.mark.parametrize("leave", [Peer.reset, Peer.close, Peer.half_close])
@pytest.mark.parametrize("sent", [POST + b"01234", CHUNKED + b"a\r\n01234"], ids=["length", "chunks"])
async def test_leaves_in_its_body(wire: Wire, sent: bytes, leave: Callable[[Peer], None]) -> None:
    """The upstream must not take what has come for the whole."""
    client = await wire.client()
    await client.send(sent)
    await wire.settled(lambda: b"01234" in wire.upstream.received)
    leave(client)
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    assert wire.upstream.requests == []
    (record,) = wire.records()
    assert (record.status, record.flags, record.bytes_in) == (499, ADMITTED | CLIENT_LEFT, 5)


async def test_leaves_in_the_answer(wire: Wire) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        await peer.rest()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(GET)
    await client._take_until(b"01234")
    client.reset()
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    (record,) = wire.records()
    assert (record.status, record.flags, record.bytes_out) == (200, ADMITTED | CLIENT_LEFT, 5)


@pytest.mark.parametrize("path", [b"/nowhere/", b"/open/"])
async def test_leaves_at_once(wire: Wire, path: bytes) -> None:
    """Gone before there is a connection to the upstream."""
    for _ in range(10):
        client = await wire.client()
        await client.send(GET.replace(b"/open/", path))
        client.reset()
    await wire.settled(lambda: not wire.state.connections and not wire.worker.exchanges)
    assert len(wire.records()) <= 10


# Closing half.


async def test_half_closed_after_a_request(wire: Wire) -> None:
    client = await wire.client()
    await client.send(GET)
    client.half_close()
    answer = await client.message()
    assert (answer.status, answer.body) == (200, b"ok")
    assert await client.rest() == b""
    assert wire.records()[0].flags == ADMITTED


async def test_half_closed_long_before_the_answer(wire: Wire) -> None:
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = script
    client = await wire.client()
    await client.send(GET)
    client.half_close()
    await asyncio.sleep(0.02)
    gate.set()
    answer = await client.message()
    assert (answer.status, answer.all(b"Connection")) == (200, [b"close"])
    assert await client.rest() == b""


@pytest.mark.parametrize("tail", [b"", b"GET /open/ HT", b"\r\n"], ids=["whole", "cut", "empty line"])
async def test_half_closed_after_several_requests(wire: Wire, tail: bytes) -> None:
    client = await wire.client()
    await client.send(GET * 3 + tail)
    client.half_close()
    for _ in range(3):
        assert (await client.message()).status == 200
    assert await client.rest() == b""
    assert len(wire.records()) == 3


@pytest.mark.parametrize("sent", [b"", b"GET /open/ HTTP/1.1\r\nHost: a"])
async def test_half_closed_without_a_request(wire: Wire, sent: bytes) -> None:
    client = await wire.client()
    await client.send(sent)
    client.half_close()
    assert await client.rest() == b""
    assert wire.upstream.peers == []


# Slow ends.


async def pumped(wire: Wire, held: Callable[[], int], still: Callable[[], int]) -> int:
    """Watch `held` until nothing moves any more; the most that it was."""
    most, last, calm = 0, -1, 0
    while calm < 20:
        await asyncio.sleep(0.005)
        most = max(most, held())
        calm = calm + 1 if still() == last else 0
        last = still()
    return most


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_slow_reader(wire: Wire, chunked: bool) -> None:
    """What the client does not take is not fetched: the upstream is made to wait."""
    piece = bytes(range(256)) * 256
    count = 512
    sent = 0

    async def script(upstream: Upstream, peer: Peer) -> None:
        nonlocal sent
        await peer.message()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (count * len(piece))
        await peer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        for sent in range(1, count + 1):  # noqa: B007
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await peer.send(b"0\r\n\r\n" if chunked else b"")
        await upstream.answer_all(peer)

    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=NARROW_BYTES)
    await client.send(GET)
    await client.more()
    connection = connection_of(wire)
    most = await pumped(wire, connection.transport.get_write_buffer_size, lambda: sent)
    assert most < HELD_BYTES
    assert sent < count
    answer = await client.message()
    assert answer.body == piece * count
    assert wire.records()[0].bytes_out == len(answer.body)
    await client.send(GET)  # nothing is left paused on either side
    assert (await client.message()).body == b"ok"
    assert len(wire.upstream.peers) == 1


@pytest.mark.parametrize("pooled", [False, True], ids=["fresh", "pooled"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_upstream_that_does_not_read(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, chunked: bool, pooled: bool
) -> None:
    """What the upstream does not take is not read from the client, however much has come before the connection."""
    connect, made = Pool.connect, UpstreamConnection.connection_made

    def connect_late(pool: Pool, exchange: Exchange, *, fresh: bool) -> bool:
        asyncio.get_running_loop().call_later(0.02, lambda: connect(pool, exchange, fresh=fresh))
        return True

    def made_narrow(connection: UpstreamConnection, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW_BYTES)
        made(connection, transport)

    wire.upstream.narrow(NARROW_BYTES)
    monkeypatch.setattr(Pool, "connect", connect_late)
    monkeypatch.setattr(UpstreamConnection, "connection_made", made_narrow)
    gate = asyncio.Event()
    piece = bytes(range(256)) * 256
    count = 48

    async def script(upstream: Upstream, peer: Peer) -> None:
        if pooled:
            await peer.message()
            await peer.send(OK)
        await gate.wait()
        await upstream.answer_all(peer)

    wire.upstream.script = script
    client = await wire.client()
    if pooled:
        await client.send(GET)
        await client.message()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (count * len(piece))
    data = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    end = b"0\r\n\r\n" if chunked else b""
    sending = asyncio.ensure_future(
        client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\n" + framing + b"\r\n\r\n" + data * count + end)
    )
    await wire.settled(lambda: bool(wire.upstream.peers) and bool(wire.worker.exchanges))
    (exchange,) = wire.worker.exchanges
    await wire.settled(lambda: exchange.upstream is not None)
    assert exchange.upstream is not None
    most = await pumped(wire, exchange.upstream.transport.get_write_buffer_size, lambda: exchange.bytes_in)
    assert most < HELD_BYTES
    assert exchange.bytes_in < count * len(piece)
    gate.set()
    assert (await client.message()).status == 200
    await sending
    assert wire.upstream.requests[0].body == piece * count
    assert wire.records()[-1].bytes_in == count * len(piece)


async def test_an_early_answer_to_a_body_that_was_not_taken(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is written and some of it still here: the next caller's request does not queue up behind it."""
    made = UpstreamConnection.connection_made

    def made_narrow(connection: UpstreamConnection, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW_BYTES)
        made(connection, transport)

    wire.upstream.narrow(NARROW_BYTES)
    monkeypatch.setattr(UpstreamConnection, "connection_made", made_narrow)
    deaf, gate = asyncio.Event(), asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        if upstream.peers[0] is not peer:
            return await upstream.answer_all(peer)
        peer._writer.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.set()
        await gate.wait()
        return await peer.send(OK)

    wire.upstream.script = script
    client = await wire.client()
    body = b"x" * 60_000  # less than what pauses a writer
    await client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % len(body))
    await deaf.wait()
    await client.send(body)
    await wire.settled(lambda: any(exchange.body_sent for exchange in wire.worker.exchanges))
    (exchange,) = wire.worker.exchanges
    assert exchange.upstream is not None
    assert exchange.upstream.transport.get_write_buffer_size() > 0
    gate.set()
    assert (await client.message()).body == b"ok"
    await client.send(GET)
    assert (await client.message()).body == b"ok"
    assert len(wire.upstream.peers) == 2


async def test_pipelines_and_does_not_read(wire: Wire) -> None:
    """Requests are cheap to send: their answers must not pile up here."""
    wire.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536
    count = 600
    client = await wire.client(limit=4096)
    await client.send(GET * count)
    await wire.settled(lambda: bool(wire.state.connections))
    connection = connection_of(wire)
    most = await pumped(wire, connection.transport.get_write_buffer_size, lambda: len(wire.upstream.requests))
    assert most < HELD_BYTES
    assert len(wire.upstream.requests) < count
    for _ in range(count):
        assert len((await client.message()).body) == 65536
    assert len(wire.records()) == count


async def test_every_write_pauses(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no client ever took a byte at once: each pause is followed by a resume, and nobody inherits one."""
    write = ClientConnection.write

    def write_to_a_slow_client(connection: ClientConnection, data: bytes) -> None:
        write(connection, data)
        if not connection.writing_paused:
            connection.pause_writing()
            connection.worker.loop.call_later(0.001, connection.resume_writing)

    monkeypatch.setattr(ClientConnection, "write", write_to_a_slow_client)
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"a\r\n0123456789\r\n" * 3 + b"0\r\n\r\n"
    wire.upstream.answer = chunks
    client = await wire.client()
    for _ in range(3):
        await client.send(GET * 5 + GET.replace(b"/open/", b"/none/") + POST + b"0123456789")
        answers = [await client.message() for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [404, 200]
    assert len(wire.upstream.peers) == 1


async def test_body_that_trickles_until_the_deadline(wire: Wire) -> None:
    client = await wire.client()
    await client.send(POST.replace(b"/open/", b"/brisk/") + b"01234")
    answer = await client.message()
    assert (answer.status, answer.one(b"Connection")) == (408, b"close")
    assert wire.records()[0].status == 408
    await wire.settled(lambda: wire.upstream.peers[0].ended)


# Time, looked at from outside: `check_time` is called once a second with what the clock says.


async def at(wire: Wire, seconds: float) -> ClientConnection:
    await wire.settled(lambda: bool(wire.state.connections))
    await asyncio.sleep(0.01)
    connection = connection_of(wire)
    connection.check_time(wire.worker.now() + seconds)
    return connection


async def test_head_that_does_not_end(wire: Wire) -> None:
    client = await wire.client()
    await client.send(b"GET /open/ HT")
    await at(wire, wire.worker.settings.head_timeout_s - 1)
    await client.send(b"TP/1.1\r\n")  # what trickles in buys no time
    await at(wire, wire.worker.settings.head_timeout_s + 1)
    assert (await client.message()).status == 408
    assert await client.rest() == b""


@pytest.mark.parametrize("step", [0, 1000], ids=["whole", "in pieces"])
@pytest.mark.parametrize(("target", "head", "status"), [(0, 0, 200), (1, 0, 414), (0, 1, 431), (-20, 1, 431)])
async def test_limits_to_the_byte(wire: Wire, target: int, head: int, status: int, step: int) -> None:
    """At both limits, and so many bytes over or below one of them: the same however it comes."""
    settings = wire.worker.settings
    path = b"/open/".ljust(settings.target_limit_bytes + target, b"a")
    begun = b"GET %b HTTP/1.1\r\nHost: api\r\nA: " % path
    sent = begun.ljust(settings.head_limit_bytes + head - 4, b"b") + b"\r\n\r\n"
    assert (await wire.ask(sent, step)).status == status


async def test_a_head_that_comes_byte_by_byte_costs_the_same_for_each(wire: Wire) -> None:
    """Searched from its start for each byte, the last thousand would cost twenty times the first."""

    def cost_ns(count: int) -> int:
        began = time.process_time_ns()
        for _ in range(count):
            connection.data_received(b"x")
        return time.process_time_ns() - began

    ratios = []
    for _ in range(3):
        client = await wire.client()
        await wire.settled(lambda: bool(wire.state.connections))
        connection = connection_of(wire)
        connection.data_received(b"GET /open/ HTTP/1.1\r\nHost: api\r\nX-Long: ")
        first_ns = cost_ns(1000)
        connection.data_received(b"x" * 29000)
        ratios.append(cost_ns(1000) / first_ns)
        connection.data_received(b"\r\n\r")
        connection.data_received(b"\n")
        assert (await client.message()).status == 200
        await client.closed()
        await wire.settled(lambda: not wire.state.connections)
    assert min(ratios) < 6, ratios


async def test_idle_connection(wire: Wire) -> None:
    client = await wire.client()
    await client.send(GET)
    await client.message()
    await at(wire, wire.worker.settings.keep_alive_s - 1)
    await client.send(GET)
    await client.message()
    await at(wire, wire.worker.settings.keep_alive_s + 1)
    assert await client.rest() == b""


async def test_refused_client_that_does_not_leave(wire: Wire) -> None:
    client = await wire.client()
    await client.send(b"rubbish\r\n\r\n")
    await client.message()
    await at(wire, LINGER_S + 1)
    await wire.settled(lambda: not wire.state.connections)


async def test_body_to_be_dropped_that_does_not_come(wire: Wire) -> None:
    client = await wire.client()
    await client.send(POST.replace(b"/open/", b"/none/"))
    assert (await client.message()).status == 404
    await at(wire, 1)
    assert wire.state.connections
    await at(wire, wire.worker.settings.head_timeout_s + 1)
    await wire.settled(lambda: not wire.state.connections)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_answer_that_nobody_takes(wire: Wire, version: bytes) -> None:
    """It is given the time of an idle connection for every SLOWEST_READ_BYTES that it takes."""
    wire.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    client = await wire.client(limit=4096, receives=4096)
    await client.send(b"\r\n")
    await wire.settled(lambda: bool(wire.state.connections))
    connection = connection_of(wire)
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection.transport.set_write_buffer_limits(high=1 << 20)  # so that the exchange ends before the client reads
    await client.send(GET.replace(b"1.1", version))
    await pumped(wire, lambda: 0, connection.transport.get_write_buffer_size)
    assert connection.transport.get_write_buffer_size() and not wire.worker.exchanges
    now, patience_s = wire.worker.now(), wire.worker.settings.keep_alive_s
    connection.check_time(now)
    connection.check_time(now + patience_s - 1)
    assert wire.state.connections
    unsent = connection.transport.get_write_buffer_size()
    while connection.transport.get_write_buffer_size() > unsent - SLOWEST_READ_BYTES:
        await client.more()
        await pumped(wire, lambda: 0, connection.transport.get_write_buffer_size)
    connection.check_time(now + patience_s + 1)
    assert wire.state.connections, "it has taken some"
    await client.more()
    await pumped(wire, lambda: 0, connection.transport.get_write_buffer_size)
    connection.check_time(now + 2 * patience_s + 2)  # a little more buys no time
    await wire.settled(lambda: not wire.state.connections)
    with pytest.raises(CutShortError):
        await client.message()


# Draining.


async def test_drain(wire: Wire) -> None:
    """An idle connection closes, one that is being served is served to the end and told so."""
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = script
    idle, busy = await wire.client(), await wire.client()
    await busy.send(GET)
    await wire.settled(lambda: len(wire.state.connections) == 2 and bool(wire.upstream.peers))
    wire.worker.drain()
    for connection in list(wire.state.connections):
        assert isinstance(connection, ClientConnection)
        connection.shutdown()
    assert await idle.rest() == b""
    gate.set()
    answer = await busy.message()
    assert (answer.status, answer.all(b"Connection")) == (200, [b"close"])
    assert await busy.rest() == b""


async def test_drain_while_a_body_is_dropped(wire: Wire) -> None:
    client = await wire.client()
    await client.send(POST.replace(b"/open/", b"/none/") + b"01234")
    assert (await client.message()).status == 404
    connection_of(wire).shutdown()
    await client.send(b"56789")
    assert await client.rest() == b""


# The journal.


ANSWERS = {
    "whole": OK,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "too much": OK + b"more",
}


def noted(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens from now on: "record" for one in the file, "write" for bytes to the client."""
    events: list[str] = []
    append, write, end_answer = Journal.append, ClientConnection.write, ClientConnection.end_answer

    def appending(journal: Journal, record: bytes) -> None:
        before = len(wire.records())
        append(journal, record)
        assert len(wire.records()) == before + 1, "the record is in the file when append returns"
        events.append("record")

    def writing(connection: ClientConnection, data: bytes) -> None:
        events.append("write")
        write(connection, data)

    def ending(connection: ClientConnection, data: bytes, *others: Any) -> None:
        if data:
            events.append("write")
        end_answer(connection, data, *others)

    monkeypatch.setattr(Journal, "append", appending)
    monkeypatch.setattr(ClientConnection, "write", writing)
    monkeypatch.setattr(ClientConnection, "end_answer", ending)
    return events


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_recorded_before_the_last_byte(wire: Wire, monkeypatch: pytest.MonkeyPatch, name: str, step: int) -> None:
    events = noted(wire, monkeypatch)

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(ANSWERS[name], step)

    wire.upstream.script = script
    answer = await wire.ask(GET)
    assert answer.status in (200, 204)
    assert events[-2:] == ["record", "write"]
    assert events.count("record") == 1


@pytest.mark.parametrize("path", [b"/keyed/", b"/nowhere/"])
async def test_refusals_are_recorded_before_their_last_byte(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    events = noted(wire, monkeypatch)
    await wire.ask(GET.replace(b"/open/", path))
    assert events == ["record", "write"]


async def test_what_a_record_says(wire: Wire) -> None:
    request = POST.replace(b"/open/", b"/keyed/").replace(
        b"Host", b"X-Request-Id: abc\r\nX-API-Key: %b\r\nHost" % wire.key
    )
    await wire.ask(request + b"0123456789")
    await wire.ask(GET.replace(b"/open/", b"/keyed/"))
    await wire.ask(GET.replace(b"/open/", b"/none/"))
    used, refused = wire.records()
    assert (used.tenant, used.service, used.key, used.price) == (1, 2, 7, 3)
    assert (used.status, used.problem, used.flags, used.units) == (200, 0, ADMITTED, 1)
    assert (used.bytes_in, used.bytes_out, used.request_id.rstrip(b"\0")) == (10, 2, b"abc")
    assert (refused.status, refused.problem, refused.flags, refused.key, refused.service) == (401, 2, 0, 0, 2)
    assert wire.worker.requests == 3
    entry = next(iter(wire.worker.keys.entries.values()))
    assert entry is not None and entry.in_flight == 0


async def test_record_of_an_exchange_that_took_hours(wire: Wire) -> None:
    """A record's durations end at 71 minutes, a timeout may be longer."""
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await gate.wait()
        await peer.send(OK)

    wire.upstream.script = script
    asked = asyncio.ensure_future(wire.ask(GET))
    await wire.settled(lambda: bool(wire.upstream.requests))
    (exchange,) = wire.worker.exchanges
    exchange.started_at -= 80000
    exchange.forwarded_at -= 79000
    exchange.deadline += 80000
    gate.set()
    assert (await asked).status == 200
    assert wire.records()[0].upstream_us == 0xFFFFFFFF
