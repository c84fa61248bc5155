"""Upstreams that misbehave: what the caller who meets the fault gets, and that nobody else gets any of it.

Well connections answer with the path that they were asked for, so that an answer given to the wrong caller shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.wire.harness import BRISK_TIMEOUT_S, OK, Script, Upstream, Wire
from tests.wire.peer import CutShortError, Message, Peer

pytestmark = pytest.mark.anyio

CUT = 0  # in place of a status: the caller sees a broken message
DRIP_S = 0.002  # between two bytes; a second, scaled down
Fault = Callable[[Peer], Awaitable[object]]

LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NO = OK.replace(b"ok", b"no")


def get(path: bytes, method: bytes = b"GET", service: bytes = b"open") -> bytes:
    return b"%b /%b/%b HTTP/1.1\r\nHost: api\r\n\r\n" % (method, service, path)


def echo(request: Message) -> bytes:
    path = request.line.split(b" ")[1]
    body = b"" if request.line.startswith(b"HEAD") else path
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), body)


async def well(upstream: Upstream, peer: Peer) -> None:
    while True:
        request = await peer.message()
        upstream.requests.append(request)
        await peer.send(echo(request))


def fails(fault: Fault, *, served: int = 0, asked: bool = True) -> Script:
    """The first connection fails after this many good answers, the others are well."""

    async def script(upstream: Upstream, peer: Peer) -> None:
        if upstream.peers[0] is not peer:
            return await well(upstream, peer)
        for _ in range(served):
            await peer.send(echo(await peer.message()))
        if asked:
            await peer.message()
        await fault(peer)
        return await well(upstream, peer)

    return script


def says(data: bytes, end: Callable[[Peer], None] | None = None, pause_s: float = 0.01) -> Fault:
    """Say this, then end the connection: a moment later, so that a reset does not overtake what was said."""

    async def fault(peer: Peer) -> None:
        await peer.send(data)
        if end is not None:
            await asyncio.sleep(pause_s)
            end(peer)

    return fault


def drips(data: bytes, pause_s: float) -> Fault:
    async def fault(peer: Peer) -> None:
        for at in range(len(data)):
            await peer.send(data[at : at + 1])
            await asyncio.sleep(pause_s)
            if peer.ended:
                return

    return fault


@dataclass(frozen=True)
class Row:
    """`status`: what the caller gets who meets the fault on a fresh connection; `pooled`: on one that has served."""

    name: str
    fault: Fault
    status: int
    pooled: int | None = None
    body: bytes | None = None
    method: bytes = b"GET"

    def __str__(self) -> str:
        return self.name

    @property
    def service(self) -> bytes:
        """One that is not waited for long only where that is the point: a busy machine stalls, too."""
        timed = self.status == 504 or self.name.startswith(("stalls", "drips its"))
        return b"brisk" if timed else b"open"


ROWS = [
    Row("closes before a byte", says(b"", Peer.close), 502, pooled=200),
    Row("resets before a byte", says(b"", Peer.reset), 502, pooled=200),
    Row("half closes before a byte", says(b"", Peer.half_close), 502, pooled=200),
    Row("closes in its head", says(b"HTTP/1.1 200 OK\r\nContent-", Peer.close), 502),
    Row("resets in its head", says(b"HTTP/1.1 200 OK\r\nContent-", Peer.reset), 502),
    Row("closes in its body", says(LONG + b"01234", Peer.close), CUT),
    Row("resets in its body", says(LONG + b"01234", Peer.reset), CUT),
    Row("half closes in its body", says(LONG + b"01234", Peer.half_close), CUT),
    Row("closes in a chunk", says(CHUNKS + b"a\r\n01234", Peer.close), CUT),
    Row("resets in a chunk", says(CHUNKS + b"a\r\n01234", Peer.reset), CUT),
    Row("closes before the last chunk", says(CHUNKS + b"5\r\n01234\r\n", Peer.close), CUT),
    Row("stalls before a byte", says(b""), 504),
    Row("stalls in its head", says(b"HTTP/1.1 200 OK\r\nContent-"), 504),
    Row("stalls in its body", says(LONG + b"01234"), CUT),
    Row("stalls in a chunk", says(CHUNKS + b"a\r\n01234"), CUT),
    Row("stalls before the last chunk", says(CHUNKS + b"5\r\n01234\r\n"), CUT),
    Row("stalls after an interim answer", says(b"HTTP/1.1 103 Early Hints\r\n\r\n"), 504),
    Row("drips its head for too long", drips(LONG + b"0123456789", BRISK_TIMEOUT_S / 10), 504),
    Row("drips its body for too long", says(LONG), CUT),
    Row("drips, but in time", drips(OK, DRIP_S), 200, body=b"ok"),
    Row("sends more than its length", says(LONG + b"0123456789" + NO), 200, body=b"0123456789"),
    Row("sends more than its last chunk", says(CHUNKS + b"2\r\nhi\r\n0\r\n\r\n" + NO), 200, body=b"hi"),
    Row("sends a body with 204", says(b"HTTP/1.1 204 No Content\r\n\r\n" + NO), 204, body=b""),
    Row("sends a body with 304", says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 38\r\n\r\n" + NO), 304, body=b""),
    Row("sends a body to a HEAD", says(OK + NO), 200, body=b"", method=b"HEAD"),
    Row("sends another answer", says(OK + NO), 200, body=b"ok"),
    Row("sends an empty line too many", says(OK + b"\r\n"), 200, body=b"ok"),
    Row("closes after its answer", says(OK, Peer.close), 200, body=b"ok"),
    Row("resets after its answer", says(OK, Peer.reset), 200, body=b"ok"),
    Row("closes with its answer", says(OK, Peer.close, 0), 200, body=b"ok"),
    Row("says nonsense", says(b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), 502),
    Row("says nonsense without end", says(b"\x16\x03\x01\x02\x00\x01"), 504),
    Row("says nonsense in its chunks", says(CHUNKS + b"5\r\n01234\r\nHTTP/1.1 200 OK\r\n\r\n"), CUT),
]


async def outcome(wire: Wire, request: bytes) -> Message | None:
    """The answer; None for a broken one."""
    try:
        return await wire.ask(request)
    except CutShortError:
        return None


async def own_answers(wire: Wire, count: int = 3) -> None:
    """So many callers at once, then as many again on what is pooled by then: each gets its own answer."""
    for turn in range(2):
        paths = [b"mine-%d-%d" % (turn, number) for number in range(count)]
        answers = await asyncio.gather(*(wire.ask(get(path)) for path in paths))
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"/" + path) for path in paths]


@pytest.mark.parametrize("served", [0, 1], ids=["fresh", "pooled"])
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_the_next_caller_gets_its_own_answer(wire: Wire, row: Row, served: int) -> None:
    wire.upstream.script = fails(row.fault, served=served)
    for number in range(served):
        assert (await wire.ask(get(b"before-%d" % number))).body == b"/before-%d" % number
    met = asyncio.ensure_future(outcome(wire, get(b"met", row.method, row.service)))
    await wire.settled(lambda: bool(wire.upstream.peers) and b"/met" in wire.upstream.received)
    await own_answers(wire)  # beside it
    answer = await met
    expected = row.pooled if served and row.pooled is not None else row.status
    assert (answer.status if answer else CUT) == expected
    if answer and answer.status < 400:
        assert answer.body == (b"/met" if row.body is None else row.body)
    await own_answers(wire)  # and after it
    if row.name != "drips, but in time":
        await wire.settled(lambda: wire.upstream.peers[0].ended or wire.upstream.peers[0]._writer.is_closing())
    assert len(wire.records()) == served + 1 + 12


async def test_talks_first(wire: Wire) -> None:
    """A fresh connection that says something before it is asked is not asked again."""
    wire.upstream.script = fails(says(NO), asked=False)
    await outcome(wire, get(b"met"))  # who cannot tell what was said first from its answer
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    await own_answers(wire)


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunks"])
async def test_never_reads(wire: Wire, length: bool) -> None:
    """A body that the upstream does not take: 504 in time, and the next caller is served elsewhere."""

    async def deaf(_: Peer) -> None:
        await asyncio.sleep(10 * BRISK_TIMEOUT_S)

    async def script(upstream: Upstream, peer: Peer) -> None:
        await (deaf(peer) if upstream.peers[0] is peer else well(upstream, peer))

    wire.upstream.narrow(4096)
    wire.upstream.script = script
    body = b"x" * (1 << 20)
    framing = b"Content-Length: %d" % len(body) if length else b"Transfer-Encoding: chunked"
    data = body if length else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client = await wire.client()
    sending = asyncio.ensure_future(client.send(b"POST /brisk/ HTTP/1.1\r\nHost: api\r\n%b\r\n\r\n" % framing + data))
    await wire.settled(lambda: bool(wire.upstream.peers))
    await own_answers(wire)
    answer = await client.message()
    assert (answer.status, b'"upstream_timeout"' in answer.body) == (504, True)
    sending.cancel()
    await own_answers(wire)


async def test_refuses_and_then_listens(wire: Wire) -> None:
    """A port where nobody listens is 502 at once, and no state is left that would spoil the next try."""
    wire.upstream.script = well
    for _ in range(3):
        assert (await wire.ask(get(b"a", service=b"nowhere"))).status == 502
        await own_answers(wire, 1)
