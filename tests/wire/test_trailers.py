"""Trailer fields: which pass, in which direction, to whom; the rule stands in `gatewayd.proxy.trailers`."""

from __future__ import annotations

import pytest

from gatewayd.proxy.trailers import passed_on
from tests.wire.harness import GET, OK, Upstream, Wire
from tests.wire.peer import Peer
from tests.wire.test_requests import chunked, get, post
from tests.wire.test_responses import CHUNKED, LENGTH, TEN, answer, says

pytestmark = pytest.mark.anyio

STEPS = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])
TE = b"TE: trailers"
Pairs = tuple[tuple[bytes, bytes], ...]

PASS = (
    b"X-Checksum: 1", b"ETag: \"a\"", b"Server-Timing: db;dur=1", b"Content-Digest: sha-256=:x:", b"Grpc-Status: 0",
    b"x-checksum:  2", b"X-Users: fine", b"Hostess: x", b"Teapot: x", b"Empty:", b"A: \xc3\xbc",
)  # fmt: skip
DROP = (
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Type: a/b", b"CONTENT-ENCODING: gzip",
    b"Content_Type: a/b", b"Content-Digest-X: 1", b"Host: evil", b"Via: 1.1 a", b"Max-Forwards: 1", b"Forwarded: for=1",
    b"X-Forwarded-For: 1", b"X_Forwarded_For: 1", b"X-User-Id: root", b"x-gateway-a: 1", b"X-Tenant-A: 1",
    b"X-KEY-Id: 1", b"X-Key_Id: 1", b"Authorization: Basic a", b"X-API-Key: a", b"x_api_key: a", b"X-Own-Key: a",
    b"X_Own_Key: a",
    b"WWW-Authenticate: a", b"Proxy-Authorization: a", b"Cookie: a", b"Set-Cookie: a", b"Connection: close",
    b"Keep-Alive: 1", b"Upgrade: h2c", b"TE: trailers", b"Trailer: a", b"HTTP2-Settings: a", b"If-Match: a",
    b"If-None-Match: a", b"Range: bytes=0-1", b"Cache-Control: no-store", b"Age: 1", b"Expires: 0", b"Date: x",
    b"Location: /", b"Retry-After: 1", b"Vary: *", b"Warning: 1", b"Expect: 100-continue", b"RateLimit: x",
    b"X-RateLimit-Remaining: 5", b"X-Request-Id: a", b"Foo: named by Connection",
)  # fmt: skip


def body(*lines: bytes) -> bytes:
    return b"a\r\n0123456789\r\n0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def pairs(*lines: bytes) -> Pairs:
    return tuple((name, value.strip()) for name, _, value in (line.partition(b":") for line in lines))


def mixed() -> list[bytes]:
    """What passes, each between two that do not."""
    return [line for index, each in enumerate(PASS) for line in (DROP[index], each, DROP[-index - 1])] + list(DROP)


def test_the_rule_line_by_line() -> None:
    keys = {b"x-api-key", b"x-own-key", b"authorization"}
    for line in PASS:
        assert passed_on((line,), (b"foo",), keys) == line + b"\r\n"
    for line in DROP:
        assert passed_on((line,), (b"foo",), keys) == b"", line


@STEPS
async def test_of_a_request(wire: Wire, step: int) -> None:
    client = await wire.client()
    sent = post(b"Trailer: X-Checksum", b"Connection: foo", b"Transfer-Encoding: chunked", b"trailer: ETag",
                body=body(*mixed()))  # fmt: skip
    await client.send(sent + get(b"/open/next"), step)
    assert (await client.message()).status == (await client.message()).status == 200
    got, following = wire.upstream.requests
    assert (got.body, got.trailers) == (TEN, pairs(*PASS))
    assert got.all(b"Trailer") == [b"X-Checksum,ETag"]
    assert following.line == b"GET /next HTTP/1.1"


async def test_of_a_request_that_came_before_the_connection(wire: Wire) -> None:
    """Whole in one packet, or after its head: there are two ways to the upstream."""
    for pause in (True, False):
        client = await wire.client()
        data = chunked(body(b"X-Checksum: 1"))
        if pause:
            await client.send(data[:60])
            await client.send(data[60:-5], 1)
            await client.send(data[-5:])
        else:
            await client.send(data)
        assert (await client.message()).status == 200
        assert wire.upstream.requests[-1].trailers == ((b"X-Checksum", b"1"),)


async def test_trailer_header_without_chunks_or_named_by_connection(wire: Wire) -> None:
    await wire.ask(get(b"/open/", b"Trailer: X"))
    await wire.ask(post(b"Trailer: X", b"Content-Length: 10", body=TEN))
    await wire.ask(post(b"Trailer: X", b"Connection: Trailer", b"Transfer-Encoding: chunked", body=body()))
    assert [got.all(b"Trailer") for got in wire.upstream.requests] == [[], [], []]


@STEPS
@pytest.mark.parametrize("connection", [b"A: 1", b"Connection: TE"])
async def test_of_an_answer(wire: Wire, connection: bytes, step: int) -> None:
    said = answer(b"200 OK", b"Trailer: X-Checksum", b"Connection: foo", CHUNKED, b"Trailer: ETag",
                  body=body(*mixed()))  # fmt: skip
    wire.upstream.script = says(said, step)  # type: ignore[assignment]
    client = await wire.client()
    for _ in range(2):
        await client.send(get(b"/keyed/", TE, connection, b"X-API-Key: " + wire.key))
        got = await client.message()
        assert (got.body, got.trailers, got.all(b"Trailer")) == (TEN, pairs(*PASS), [b"X-Checksum,ETag"])
    asked = wire.upstream.requests[0]
    assert (asked.all(b"TE"), asked.all(b"Connection")) == ([b"trailers"], [b"TE"])
    assert len(wire.upstream.peers) == 1
    assert [record.bytes_out for record in wire.records()] == [10, 10]


@pytest.mark.parametrize(
    "request_", [GET, get(b"/open/", b"TE: gzip"), GET.replace(b"1.1\r\n", b"1.0\r\nTE: trailers\r\n")],
    ids=["no TE", "another TE", "HTTP/1.0"],
)  # fmt: skip
async def test_of_an_answer_to_one_who_has_not_asked(wire: Wire, request_: bytes) -> None:
    wire.upstream.script = says(answer(b"200 OK", b"Trailer: A", CHUNKED, body=body(b"A: 1")))  # type: ignore[assignment]
    got = await wire.ask(request_)
    assert (got.body, got.trailers, got.all(b"Trailer")) == (TEN, (), [])
    assert wire.upstream.requests[0].all(b"TE") == []


async def test_none_behind_a_length_or_an_end(wire: Wire) -> None:
    for said, then in ((answer(b"200 OK", b"Trailer: A", LENGTH, body=TEN), "wait"),
                       (answer(b"200 OK", b"Trailer: A", body=TEN), "close")):  # fmt: skip
        wire.upstream.script = says(said, then=then)  # type: ignore[assignment]
        got = await wire.ask(get(b"/open/", TE))
        assert (got.body, got.trailers, got.all(b"Trailer")) == (TEN, (), [])


async def test_a_stale_connection_takes_none_with_it(wire: Wire) -> None:
    """A chunked body of nothing but trailers has streamed nothing: repeated, it has them still."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        if len(upstream.peers) > 1:
            await upstream.answer_all(peer)
        await peer.message()
        await peer.send(OK)
        await peer.message()
        peer.close()

    wire.upstream.script = script
    client = await wire.client()
    await client.send(GET)
    await client.message()
    await client.send(chunked(b"0\r\nX-Checksum: 1\r\n\r\n").replace(b"POST", b"PUT"))
    assert (await client.message()).status == 200
    assert wire.upstream.requests[0].trailers == ((b"X-Checksum", b"1"),)
