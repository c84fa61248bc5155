"""Interim answers: `Expect: 100-continue` goes to the upstream, its 1xx come back, and nobody waits for nothing."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.proxy.upstream import INTERIM_LIMIT
from gatewayd.records import ADMITTED
from tests.wire.harness import GET, OK, Upstream, Wire
from tests.wire.peer import Peer
from tests.wire.test_requests import BRISK_PATH, TEN, chunked, get, post, request
from tests.wire.test_responses import answer, pooled

pytestmark = pytest.mark.anyio

EXPECT = b"Expect: 100-continue"
WAITING = post(EXPECT, b"Content-Length: 10")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = answer(b"103 Early Hints", b"Link: </a.css>; rel=preload", b"X-Own: 1")
STEPS = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])


def after_head(*said: bytes, step: int = 0) -> object:
    """A script: when a head is there say these things, then read the body and answer."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        while True:
            before = peer._taken
            await peer._take_until(b"\r\n\r\n")
            for each in said:
                await peer.send(each, step)
            peer._taken = before
            upstream.requests.append(await peer.message())
            await peer.send(OK)

    return script


@STEPS
async def test_continue_comes_from_the_upstream(wire: Wire, step: int) -> None:
    wire.upstream.script = after_head(CONTINUE, step=step)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(WAITING, step)
    assert await client._take(len(CONTINUE)) == CONTINUE
    assert wire.upstream.requests == []
    await client.send(TEN, step)
    assert (await client.message()).status == 200
    (got,) = wire.upstream.requests
    assert (got.one(b"Expect"), got.body) == (b"100-continue", TEN)
    await client.send(GET)  # the connection is good, on both sides
    assert (await client.message()).status == 200
    assert len(wire.upstream.peers) == 1
    assert [record.flags for record in wire.records()] == [ADMITTED, ADMITTED]


async def test_continue_for_a_chunked_body_with_any_reason(wire: Wire) -> None:
    wire.upstream.script = after_head(answer(b"100 Go on", b"X-Own: 1", b"Connection: close"))  # type: ignore[assignment]
    client = await wire.client()
    await client.send(post(EXPECT, b"Transfer-Encoding: chunked"))
    got = await client.message(interim=True)
    assert (got.line, got.fields) == (b"HTTP/1.1 100 Go on", ((b"X-Own", b"1"),))
    await client.send(b"a\r\n0123456789\r\n0\r\n\r\n")
    assert (await client.message()).status == 200
    assert wire.upstream.requests[0].body == TEN


async def test_a_final_answer_instead_of_a_continue(wire: Wire) -> None:
    """The body may never come: the connection ends, so that no request is taken for it."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        await peer.send(answer(b"417 Expectation Failed", b"Content-Length: 2", body=b"no"))
        assert await peer.rest() == b""

    wire.upstream.script = script
    client = await wire.client()
    await client.send(WAITING)
    got = await client.message(interim=True)
    assert (got.status, got.all(b"Connection")) == (417, [b"close"])
    assert await client.rest() == b""
    await wire.settled(lambda: wire.upstream.peers[0].ended)


async def test_a_final_answer_after_the_continue(wire: Wire) -> None:
    """Asked for the body, the client will send it: it is dropped and the connection stays."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        await peer.send(CONTINUE + answer(b"403 Forbidden", b"Content-Length: 2", body=b"no"))

    wire.upstream.script = script
    client = await wire.client()
    await client.send(WAITING)
    got = await client.message()
    assert (got.status, got.all(b"Connection")) == (403, [])
    wire.upstream.script = Upstream.answer_all
    await client.send(TEN + GET)
    assert (await client.message()).body == b"ok"


async def test_a_client_that_does_not_wait(wire: Wire) -> None:
    wire.upstream.script = after_head(CONTINUE)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(WAITING + TEN + chunked(b"0\r\n\r\n").replace(b"Host", EXPECT + b"\r\nHost") + GET)
    for interims in (1, 1, 0):
        for _ in range(interims):
            assert (await client.message(interim=True)).status == 100
        assert (await client.message(interim=True)).status == 200
    assert [each.body for each in wire.upstream.requests] == [TEN, b"", b""]


async def test_no_continue_ever(wire: Wire) -> None:
    """The upstream waits for the body, the client for a word: the upstream did not answer in time."""
    client = await wire.client()
    await client.send(WAITING.replace(b"/open/", BRISK_PATH))
    got = await client.message()
    assert (got.status, got.all(b"Connection")) == (504, [b"close"])
    assert await client.rest() == b""
    assert [record.status for record in wire.records()] == [504]


async def test_a_body_that_was_asked_for_and_does_not_come(wire: Wire) -> None:
    wire.upstream.script = after_head(CONTINUE)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(WAITING.replace(b"/open/", BRISK_PATH))
    assert (await client.message()).status == 408


@pytest.mark.parametrize(
    ("path", "status"), [(b"/keyed/", 401), (b"/small/", 413), (b"/nothing/", 404), (b"/nowhere/", 502)]
)
async def test_a_refusal_needs_no_continue(wire: Wire, path: bytes, status: int) -> None:
    client = await wire.client()
    await client.send(post(EXPECT, b"Content-Length: 101", path=path))
    got = await client.message(interim=True)
    assert (got.status, got.all(b"Connection")) == (status, [b"close"])
    assert await client.rest() == b""
    assert wire.upstream.received == b""


@STEPS
async def test_hints_come_at_once_and_without_fields_of_ours(wire: Wire, step: int) -> None:
    gate = asyncio.Event()

    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(HINTS.replace(b"X-Own", b"Connection: x-mine\r\nX-Mine: 2\r\nRateLimit: x\r\nX-Own"), step)
        await gate.wait()
        await peer.send(answer(b"102 Processing") + answer(b"199 Odd") + OK)

    wire.upstream.script = script
    client = await wire.client()
    await client.send(get(b"/keyed/", b"X-API-Key: " + wire.key))
    assert await client._take(len(HINTS)) == HINTS
    gate.set()
    statuses = [(await client.message(interim=True)).status for _ in range(3)]
    assert statuses == [102, 199, 200]
    (record,) = wire.records()
    assert (record.status, record.bytes_out) == (200, 2)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (request(b"GET /open/ HTTP/1.0"), HINTS),
        (request(b"POST /open/ HTTP/1.0", EXPECT, b"Content-Length: 0"), CONTINUE),
        (GET, CONTINUE),
        (post(b"Content-Length: 10", body=TEN), CONTINUE),
        (post(EXPECT, b"Content-Length: 0"), CONTINUE),
    ],
    ids=["hints to HTTP/1.0", "100 to HTTP/1.0", "100 to a GET", "100 unasked", "100 without a body"],
)
async def test_interim_answers_that_nobody_can_use(wire: Wire, sent: bytes, said: bytes) -> None:
    wire.upstream.script = after_head(said)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(sent)
    assert (await client.message(interim=True)).status == 200
    assert client.received.count(b"HTTP/1.1") == 1


async def test_a_second_continue_is_one_too_many(wire: Wire) -> None:
    wire.upstream.script = after_head(CONTINUE * 3)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(WAITING + TEN)
    assert (await client.message()).status == 200
    assert client.received.count(b"HTTP/1.1 100") == 1


@pytest.mark.parametrize(("count", "status"), [(INTERIM_LIMIT, 200), (INTERIM_LIMIT + 1, 502)])
async def test_hints_have_a_limit(wire: Wire, count: int, status: int) -> None:
    wire.upstream.script = after_head(HINTS * count)  # type: ignore[assignment]
    client = await wire.client()
    for _ in range(2):  # of each request, not of the connection
        await client.send(GET)
        assert (await client.message()).status == status
    assert client.received.count(b"HTTP/1.1 103") == 2 * INTERIM_LIMIT


async def test_hints_behind_another_answer(wire: Wire) -> None:
    """Pipelined: what belongs to the second request comes after the first one's last byte."""
    wire.upstream.script = after_head(HINTS)  # type: ignore[assignment]
    client = await wire.client()
    await client.send(GET * 4)
    statuses = [(await client.message(interim=True)).status for _ in range(8)]
    assert statuses == [103, 200] * 4


async def test_a_body_that_is_withheld_can_be_announced_again(wire: Wire) -> None:
    """A stale connection took the head alone: nothing is lost by sending it once more."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        if len(upstream.peers) == 1:
            await peer.message()
            await peer.send(OK)
            await peer._take_until(b"\r\n\r\n")
            peer.close()
        else:
            await after_head(CONTINUE)(upstream, peer)  # type: ignore[operator]

    wire.upstream.script = script
    await pooled(wire, 1)
    client = await wire.client()
    await client.send(WAITING.replace(b"POST", b"PUT"))
    assert (await client.message(interim=True)).status == 100
    await client.send(TEN)
    assert (await client.message()).status == 200
    assert wire.upstream.requests[-1].body == TEN
    assert len(wire.upstream.peers) == 2
