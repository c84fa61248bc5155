"""A table of upstream answers as bytes: what the client then receives, and whether the connection may serve again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from gatewayd.proxy.upstream import UpstreamConnection
from gatewayd.records import ADMITTED, UPSTREAM_BROKE
from tests.wire.harness import BRISK_TIMEOUT_S, GET, OK, Upstream, Wire
from tests.wire.pace import taking
from tests.wire.peer import CutShortError, Peer

pytestmark = pytest.mark.anyio

HEAD = GET.replace(b"GET", b"HEAD", 1)
OLD = GET.replace(b"1.1", b"1.0", 1)
POST = b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\nhi"
BRISK = GET.replace(b"/open/", b"/brisk/")


def answer(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + line, *fields)) + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Row:
    """`closes`: the upstream ends the connection after its answer. `reused`: the next request takes the same one."""

    name: str
    sent: bytes
    line: bytes
    fields: tuple[bytes, ...] = ()
    body: bytes = b""
    request: bytes = GET
    closes: bool = False
    reused: bool = True
    client_closes: bool = False

    def __str__(self) -> str:
        return self.name


TEN = b"0123456789"
LENGTH = b"Content-Length: 10"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"3\r\n012\r\n7;x=y\r\n3456789\r\n0\r\nTrailer: x\r\n\r\n"

FINE = b"200 OK"
NOTHING = b"204 No Content"
SAME = b"304 Not Modified"
WHOLE = [
    Row("length", answer(FINE, LENGTH, body=TEN), FINE, (LENGTH,), TEN),
    Row("no body", answer(FINE, b"Content-Length: 0"), FINE, (b"Content-Length: 0",)),
    Row("order, case, duplicates",
        answer(b"201 Made it", b"Set-Cookie: a", b"x-B: 1", b"SET-Cookie: b", LENGTH, body=TEN),
        b"201 Made it", (b"Set-Cookie: a", b"x-B: 1", b"SET-Cookie: b", LENGTH), TEN),
    Row("no reason", answer(b"200", LENGTH, body=TEN), b"200", (LENGTH,), TEN),
    Row("reason in obs-text", answer(b"200 \xfcber", LENGTH, body=TEN), b"200 \xfcber", (LENGTH,), TEN),
    Row("not found", answer(b"404 Not Found", LENGTH, body=TEN), b"404 Not Found", (LENGTH,), TEN),
    Row("server error", answer(b"503 Busy", b"Retry-After: 7", LENGTH, body=TEN), b"503 Busy",
        (b"Retry-After: 7", LENGTH), TEN),
    Row("unknown status", answer(b"299 Odd", LENGTH, body=TEN), b"299 Odd", (LENGTH,), TEN),
    Row("hop by hop", answer(FINE, b"Keep-Alive: timeout=5", b"A: 1", b"Proxy-Connection: x", b"Trailer: X",
        b"TE: x", b"Proxy-Authenticate: Basic", b"Upgrade: h2c", LENGTH, body=TEN), FINE, (b"A: 1", LENGTH), TEN),
    Row("named by Connection", answer(FINE, b"A: 1", b"Foo: 1", b"Connection: foo, BAR", b"bar: 2", LENGTH, body=TEN),
        FINE, (b"A: 1", LENGTH), TEN),
    Row("request id of its own", answer(FINE, b"X-Request-Id: theirs", LENGTH, body=TEN), FINE, (LENGTH,), TEN),
    Row("its own limits", answer(FINE, b"RateLimit: x", b"X-RateLimit-Remaining: 3", LENGTH, body=TEN), FINE,
        (b"RateLimit: x", b"X-RateLimit-Remaining: 3", LENGTH), TEN),
    Row("chunks", answer(FINE, CHUNKED, body=CHUNKS), FINE, (CHUNKED,), TEN),
    Row("chunks, none", answer(FINE, CHUNKED, body=b"0\r\n\r\n"), FINE, (CHUNKED,)),
    Row("chunks to HTTP/1.0", answer(FINE, CHUNKED, body=CHUNKS), FINE, (), TEN, OLD, client_closes=True),
    Row("length to HTTP/1.0", answer(FINE, LENGTH, body=TEN), FINE, (LENGTH,), TEN, OLD, client_closes=True),
    Row("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n" + TEN, FINE, (LENGTH,), TEN, reused=False),
    Row("HTTP/1.0 keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 10\r\n\r\n" + TEN, FINE,
        (LENGTH,), TEN),
    Row("close", answer(FINE, b"Connection: close", LENGTH, body=TEN), FINE, (LENGTH,), TEN, reused=False),
    Row("close, then keep-alive", answer(FINE, b"Connection: close", b"Connection: keep-alive", LENGTH, body=TEN),
        FINE, (LENGTH,), TEN, reused=False),
    Row("Proxy-Connection: close", answer(FINE, b"Proxy-Connection: x, Close", LENGTH, body=TEN), FINE, (LENGTH,), TEN,
        reused=False),
    Row("until close", answer(FINE, body=TEN), FINE, (CHUNKED,), TEN, closes=True, reused=False),
    Row("until close, HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n" + TEN, FINE, (CHUNKED,), TEN, closes=True, reused=False),
    Row("until close to HTTP/1.0", answer(FINE, body=TEN), FINE, (), TEN, OLD, closes=True, reused=False,
        client_closes=True),
    Row("HEAD with a length", answer(FINE, LENGTH), FINE, (LENGTH,), b"", HEAD, reused=False),
    Row("HEAD with chunks", answer(FINE, CHUNKED), FINE, (), b"", HEAD, reused=False),
    Row("HEAD with a length of 0", answer(FINE, b"Content-Length: 0"), FINE, (b"Content-Length: 0",), b"", HEAD),
    Row("HEAD with neither", answer(FINE), FINE, (), b"", HEAD),
    Row("HEAD with a body", answer(FINE, LENGTH, body=TEN), FINE, (LENGTH,), b"", HEAD, reused=False),
    Row("204", answer(NOTHING), NOTHING),
    Row("204 with a length and a body", answer(NOTHING, LENGTH, body=TEN), NOTHING, reused=False),
    Row("304", answer(SAME, b"ETag: x"), SAME, (b"ETag: x",)),
    Row("304 with a length", answer(SAME, LENGTH), SAME, (LENGTH,), reused=False),
    Row("304 with a body", answer(SAME, LENGTH, body=TEN), SAME, (LENGTH,), reused=False),
    Row("100 first", answer(b"100 Continue") + OK, FINE, (b"Content-Length: 2",), b"ok"),
    Row("103 twice first", answer(b"103 Early Hints", b"Link: a") * 2 + OK, FINE, (b"Content-Length: 2",), b"ok"),
    Row("more than its length", answer(FINE, LENGTH, body=TEN + b"more"), FINE, (LENGTH,), TEN, reused=False),
    Row("a second answer", OK + OK.replace(b"ok", b"no"), FINE, (b"Content-Length: 2",), b"ok", reused=False),
    Row("more than its last chunk", answer(FINE, CHUNKED, body=CHUNKS + OK), FINE, (CHUNKED,), TEN, reused=False),
]  # fmt: skip

INVALID = {
    "bad status line": b"HTTP/1.1 abc OK\r\n\r\n",
    "no status line": b"hello\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 99": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "NUL in the reason": answer(b"200 O\0K", b"Content-Length: 0"),
    "bare CR in the reason": answer(b"200 O\rK", b"Content-Length: 0"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare LF after a field": b"HTTP/1.1 200 OK\r\nA: 1\nContent-Length: 0\r\n\r\n",
    "bare CR in a field": answer(b"200 OK", b"A: 1\r2", b"Content-Length: 0"),
    "NUL in a field": answer(b"200 OK", b"A: 1\0", b"Content-Length: 0"),
    "obs-fold": answer(b"200 OK", b"A: 1\r\n 2", b"Content-Length: 0"),
    "space before the colon": answer(b"200 OK", b"Content-Length : 0"),
    "length and chunks": answer(b"200 OK", LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    "chunks and length": answer(b"200 OK", CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    "two lengths": answer(b"200 OK", LENGTH, b"Content-Length: 9", body=TEN),
    "length -1": answer(b"200 OK", b"Content-Length: -1"),
    "length 0x1": answer(b"200 OK", b"Content-Length: 0x1", body=b"a"),
    "gzip": answer(b"200 OK", b"Transfer-Encoding: gzip", body=TEN),
    "gzip, chunked": answer(b"200 OK", b"Transfer-Encoding: gzip, chunked", body=CHUNKS),
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "101": answer(b"101 Switching Protocols"),
    "101 with an upgrade": answer(b"101 Switching Protocols", b"Connection: upgrade", b"Upgrade: websocket"),
    "hints without end": answer(b"103 Early Hints") * 3000 + OK,
    "long head": answer(b"200 OK", *[b"A: " + b"x" * 1000] * 70, b"Content-Length: 0"),
}

CUT_SHORT = {
    "in a body with a length": answer(b"200 OK", LENGTH, body=b"01234"),
    "before a body with a length": answer(b"200 OK", LENGTH),
    "in a chunk": answer(b"200 OK", CHUNKED, body=b"a\r\n01234"),
    "between chunks": answer(b"200 OK", CHUNKED, body=b"5\r\n01234\r\n"),
    "before the last CRLF": answer(b"200 OK", CHUNKED, body=b"5\r\n01234\r\n0\r\n"),
    "malformed trailer": answer(b"200 OK", CHUNKED, body=b"5\r\n01234\r\n0\r\nA : b\r\n\r\n"),
    "folded trailer": answer(b"200 OK", CHUNKED, body=b"5\r\n01234\r\n0\r\nA: b\r\n c\r\n\r\n"),
    "malformed chunk": answer(b"200 OK", CHUNKED, body=b"5\r\n01234\r\nxyz\r\n"),
}


def says(data: bytes, step: int = 0, *, then: str = "wait") -> object:
    """A script: read a request, say this, then wait for the next, close or reset."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        while True:
            upstream.requests.append(await peer.message())
            await peer.send(data, step)
            if then == "close":
                return peer.close()
            if then == "reset":
                await asyncio.sleep(0.02)  # else the reset overtakes what was said
                return peer.reset()

    return script


STEPS = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])


@STEPS
@pytest.mark.parametrize("row", WHOLE, ids=str)
async def test_answer(wire: Wire, row: Row, step: int) -> None:
    wire.upstream.script = says(row.sent, step, then="close" if row.closes else "wait")  # type: ignore[assignment]
    client = await wire.client()
    await client.send(row.request)
    got = await client.message(bodiless=row.request is HEAD)
    assert got.line == b"HTTP/1.1 " + row.line
    assert [b"%b: %b" % pair for pair in got.without(b"x-request-id", b"connection", b"date")] == list(row.fields)
    assert got.body == row.body
    assert got.one(b"X-Request-Id") == wire.upstream.requests[0].one(b"X-Request-Id")
    (record,) = wire.records()
    assert (record.status, record.flags, record.bytes_out) == (got.status, ADMITTED, len(row.body))
    if row.client_closes:
        assert await client.rest() == b""
    await asyncio.sleep(0.005)  # what came too much must have been seen before the next request goes out
    wire.upstream.script = Upstream.answer_all
    again = await wire.ask(GET) if row.reused is False else None
    if again is not None:
        assert (again.status, again.body) == (200, b"ok"), "bytes of one answer became those of the next"
        assert len(wire.upstream.peers) == 2
    else:
        await wire.ask(row.request)
        assert len(wire.upstream.peers) == 1


@STEPS
@pytest.mark.parametrize("name", INVALID)
async def test_invalid_answer(wire: Wire, name: str, step: int) -> None:
    data = INVALID[name]
    wire.upstream.script = says(data, step and max(1, len(data) // 500))  # type: ignore[assignment]
    client = await wire.client()
    await client.send(GET)
    got = await client.message()
    assert (got.status, b'"upstream_invalid"' in got.body) == (502, True)
    (record,) = wire.records()
    assert (record.status, record.problem, record.flags) == (502, 17, ADMITTED)
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    wire.upstream.script = Upstream.answer_all
    await client.send(GET)
    assert (await client.message()).status == 200


@pytest.mark.parametrize("request_", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("name", CUT_SHORT)
async def test_answer_cut_short(wire: Wire, name: str, how: str, request_: bytes) -> None:
    """The client must see a broken message, never a short one that looks whole."""
    wire.upstream.script = says(CUT_SHORT[name], then=how)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(request_)
    with pytest.raises(CutShortError):
        await client.message()
    assert b" 200 OK" in client.received or not client.received  # a reset may take what was not read yet
    (record,) = wire.records()
    assert (record.status, record.flags) == (200, ADMITTED | UPSTREAM_BROKE)


async def test_until_close_and_reset(wire: Wire) -> None:
    wire.upstream.script = says(answer(b"200 OK", body=TEN), then="reset")  # type: ignore[assignment]
    with pytest.raises(CutShortError):
        await wire.ask(GET)
    assert wire.records()[0].flags == ADMITTED | UPSTREAM_BROKE


async def test_refused(wire: Wire) -> None:
    got = await wire.ask(GET.replace(b"/open/", b"/nowhere/"))
    assert (got.status, b'"upstream_unreachable"' in got.body) == (502, True)
    (record,) = wire.records()
    assert (record.status, record.flags, record.upstream_us) == (502, ADMITTED, 0)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["before a byte", "in the head"])
@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_upstream_leaves(wire: Wire, request_: bytes, sent: bytes, how: str) -> None:
    wire.upstream.script = says(sent, then=how)  # type: ignore[assignment]
    got = await wire.ask(request_)
    assert (got.status, b'"upstream_reset"' in got.body) == (502, True)
    assert len(wire.upstream.requests) == 1, "a fresh connection's death is no reason to repeat"
    assert [record.status for record in wire.records()] == [502]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_upstream_leaves_at_once(wire: Wire, how: str) -> None:
    """It accepts and is gone before anything could be sent: no wait for a timeout."""

    async def script(_: Upstream, peer: Peer) -> None:
        peer.close() if how == "close" else peer.reset()

    wire.upstream.script = script
    for _ in range(20):
        assert (await wire.ask(GET)).status == 502
    assert len(wire.records()) == 20


async def test_upstream_that_is_gone_before_the_connect_returns(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost before whoever waits for it has its turn: there is no other news of its end to come."""
    made = UpstreamConnection.connection_made

    def made_and_gone(connection: UpstreamConnection, transport: asyncio.Transport) -> None:
        made(connection, transport)
        transport.abort()

    monkeypatch.setattr(UpstreamConnection, "connection_made", made_and_gone)
    assert (await wire.ask(GET)).status == 502


def dies_on_reuse(answer: bytes = b"") -> object:
    """Connections serve one request and die of the second without a word; those opened afterwards are well."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        upstream.requests.append(await peer.message())
        await peer.send(OK)
        if len(upstream.peers) <= 2:
            upstream.requests.append(await peer.message())
            await peer.send(answer)
            peer.close()
        else:
            await upstream.answer_all(peer)

    return script


async def pooled(wire: Wire, count: int) -> None:
    """Leave this many idle connections in the pool."""
    gate = asyncio.Event()
    script = wire.upstream.script

    async def gated(upstream: Upstream, peer: Peer) -> None:
        await gate.wait()
        await script(upstream, peer)

    wire.upstream.script = gated
    asked = [asyncio.ensure_future(wire.ask(GET)) for _ in range(count)]
    await wire.settled(lambda: len(wire.upstream.peers) == count)
    gate.set()
    await asyncio.gather(*asked)
    wire.upstream.script = script
    wire.upstream.requests.clear()


async def test_stale_connection_is_tried_once_more(wire: Wire) -> None:
    wire.upstream.script = dies_on_reuse()  # type: ignore[assignment]
    await pooled(wire, 2)
    assert (await wire.ask(GET)).status == 200
    assert len(wire.upstream.requests) == 2, "the second time on a fresh connection, not on another old one"
    assert len(wire.records()) == 3


async def test_stale_connection_and_post(wire: Wire) -> None:
    wire.upstream.script = dies_on_reuse()  # type: ignore[assignment]
    await pooled(wire, 1)
    assert (await wire.ask(POST)).status == 502
    assert [request.line for request in wire.upstream.requests] == [b"POST / HTTP/1.1"]


async def test_stale_connection_and_put_whose_body_is_gone(wire: Wire) -> None:
    wire.upstream.script = dies_on_reuse()  # type: ignore[assignment]
    await pooled(wire, 1)
    assert (await wire.ask(POST.replace(b"POST", b"PUT"))).status == 502
    assert len(wire.upstream.requests) == 1


async def test_interim_answer_is_a_byte_of_an_answer(wire: Wire) -> None:
    """An upstream that has said 100 has begun to work: the request is not repeated."""
    wire.upstream.script = dies_on_reuse(answer(b"100 Continue"))  # type: ignore[assignment]
    await pooled(wire, 1)
    assert (await wire.ask(GET)).status == 502
    assert len(wire.upstream.requests) == 1


async def test_bytes_while_idle(wire: Wire) -> None:
    """Nobody asked: they must not become the answer to the next request."""
    await wire.ask(GET)
    await wire.upstream.peers[0].send(OK.replace(b"ok", b"no"))
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    assert (await wire.ask(GET)).body == b"ok"
    assert len(wire.upstream.peers) == 2


@pytest.mark.parametrize("status", [FINE, SAME, NOTHING])
async def test_a_body_that_should_not_be_and_comes_late(wire: Wire, status: bytes) -> None:
    """An upstream that sends what its head declares, though none may follow: no other caller gets that as an answer."""
    late = OK.replace(b"ok", b"no")
    head = answer(status, b"Content-Length: %d" % len(late))

    async def script(upstream: Upstream, peer: Peer) -> None:
        if upstream.peers[0] is not peer:
            return await upstream.answer_all(peer)
        await peer.message()
        await peer.send(head)
        while b"next" not in wire.upstream.received and not peer.ended:
            await peer.more()
        return await peer.send(late)

    wire.upstream.script = script
    client = await wire.client()
    method = b"HEAD" if status is FINE else b"GET"
    await client.send(GET.replace(b"GET", method) + GET.replace(b"/open/", b"/open/next"))
    assert (await client.message(bodiless=True)).line == b"HTTP/1.1 " + status
    assert (await client.message()).body == b"ok"


async def test_stalls(wire: Wire) -> None:
    wire.upstream.script = says(b"")  # type: ignore[assignment]
    async with taking(BRISK_TIMEOUT_S):
        got = await wire.ask(BRISK)
    assert (got.status, b'"upstream_timeout"' in got.body) == (504, True)
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    assert [record.status for record in wire.records()] == [504]


async def test_stalls_in_its_head(wire: Wire) -> None:
    wire.upstream.script = says(b"HTTP/1.1 200 OK\r\n")  # type: ignore[assignment]
    assert (await wire.ask(BRISK)).status == 504


async def test_stalls_in_its_body(wire: Wire) -> None:
    wire.upstream.script = says(answer(b"200 OK", LENGTH, body=b"01234"))  # type: ignore[assignment]
    with pytest.raises(CutShortError):
        await wire.ask(BRISK)
    (record,) = wire.records()
    assert (record.status, record.flags, record.bytes_out) == (200, ADMITTED | UPSTREAM_BROKE, 5)


async def test_answer_before_the_request_has_ended(wire: Wire) -> None:
    """The answer passes at once; the upstream's connection has half a request on it and is not used again."""
    early = answer(b"403 Forbidden", b"Content-Length: 2", body=b"no")

    async def script(_: Upstream, peer: Peer) -> None:
        while b"01234" not in peer.received:
            await peer.more()
        await peer.send(early)

    wire.upstream.script = script
    client = await wire.client()
    await client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n01234")
    got = await client.message()
    assert (got.status, got.all(b"Connection")) == (403, [])
    wire.upstream.script = Upstream.answer_all
    await client.send(b"56789" + GET)  # the rest is short: it is dropped, and the connection stays
    assert (await client.message()).body == b"ok"
    assert len(wire.upstream.peers) == 2
    assert bytes(wire.upstream.peers[0].received).endswith(b"01234")


async def test_early_answer_to_a_long_request(wire: Wire) -> None:
    wire.upstream.script = says(b"")  # type: ignore[assignment]

    async def script(_: Upstream, peer: Peer) -> None:
        while b"01234" not in peer.received:
            await peer.more()
        await peer.send(OK)

    wire.upstream.script = script
    client = await wire.client()
    await client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\nContent-Length: 9999999\r\n\r\n01234")
    got = await client.message()
    assert (got.status, got.all(b"Connection")) == (200, [b"close"])
    await client.send(GET * 100)
    assert await client.rest() == b""
    assert len(wire.upstream.peers) == 1


async def test_both_bodies_at_once(wire: Wire) -> None:
    """An upstream that answers as it reads: each piece passes before the next is sent."""

    async def script(_: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        await peer.send(answer(b"200 OK", CHUNKED))
        while size := int(await peer._take_until(b"\r\n"), 16):
            await peer.send(b"%x\r\n%b\r\n" % (size, await peer._take(size)))
            await peer._take(2)
        await peer.send(b"0\r\n\r\n")

    wire.upstream.script = script
    client = await wire.client()
    await client.send(b"POST /open/ HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client._take_until(b"\r\n\r\n")
    for word in (b"one", b"two", b"three"):
        await client.send(b"%x\r\n%b\r\n" % (len(word), word))
        assert await client._take_until(word + b"\r\n") == b"%x\r\n%b\r\n" % (len(word), word)
    await client.send(b"0\r\n\r\n")
    assert await client._take_until(b"0\r\n\r\n") == b"0\r\n\r\n"
