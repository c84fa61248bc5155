"""What control is told of how targets fare: which answers are errors, and how long each took to begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pytest

from gatewayd.channel import LOAD_S, TargetLoad
from gatewayd.policy.histogram import Histogram
from gatewayd.proxy.faring import Faring
from gatewayd.proxy.loads import loads_of
from tests.wire.harness import BRISK_TIMEOUT_S, GET, OK, Upstream, Wire
from tests.wire.peer import CutShortError, Message, Peer
from tests.wire.test_faults import CHUNKS, LONG
from tests.wire.test_requests import get, post
from tests.wire.test_responses import answer, says
from tests.wire.test_tunnels import switched

pytestmark = pytest.mark.anyio

WITHIN: Final = 1 / 14  # how exact a histogram is
NO_TARGET: Final = TargetLoad("", 0, 0)


def told(wire: Wire) -> dict[str, TargetLoad]:
    """What control would be told now, by URL."""
    pools = wire.worker._pools.values()
    for pool in pools:
        pool.sweep()
    return {load.url: load for load in loads_of((), pools, time.monotonic()).targets}


def fares(wire: Wire) -> TargetLoad:
    """Of the upstream, under whichever URL."""
    every = list(told(wire).values())
    return every[0] if every else NO_TARGET


def took_s(load: TargetLoad) -> float:
    """The longest."""
    longest = Histogram.unpack(load.times).quantile(1)
    assert longest is not None
    return longest / 1e6


@dataclass(frozen=True)
class Case:
    """An upstream that says this and then does `then`, one request to it, and what is told: an error, or none."""

    name: str
    said: bytes
    errors: int
    then: str = "wait"
    path: bytes = b"/open/"


CASES = [
    Case("well", OK, 0),
    Case("not found", answer(b"404 Not Found", b"Content-Length: 0"), 0),
    Case("fails", answer(b"503 Service Unavailable", b"Content-Length: 0"), 1),
    Case("fails in chunks", answer(b"500 No", b"Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n"), 1),
    Case("closes", b"", 1, "close"),
    Case("resets", b"", 1, "reset"),
    Case("is no HTTP", b"hello\r\n\r\n", 1),
    Case("cut in the head", OK[:20], 1, "close"),
    Case("cut in the body", LONG + b"12345", 1, "close"),
    Case("bad chunk", CHUNKS + b"x\r\n", 1),
    Case("fails and is cut", answer(b"500 No", b"Content-Length: 5", body=b"ab"), 1, "close"),
    Case("silent", b"", 1, path=b"/brisk/"),
    Case("stalls", LONG + b"12345", 1, path=b"/endless/"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_each_answer_counts_once(wire: Wire, case: Case) -> None:
    wire.upstream.script = says(case.said, then=case.then)  # type: ignore[assignment]
    with suppress(CutShortError):
        await wire.ask(get(case.path))
    await wire.settled(lambda: not wire.worker.exchanges)
    load = fares(wire)
    assert (load.ended, load.errors) == (1, case.errors)
    assert Histogram.unpack(load.times).total == 1
    if case.name == "silent":
        assert took_s(load) >= (BRISK_TIMEOUT_S - 0.1) * (1 - WITHIN), "what a request waited in vain"


async def test_a_target_that_cannot_be_reached(wire: Wire) -> None:
    assert (await wire.ask(get(b"/nowhere/"))).status == 502
    load = fares(wire)
    assert (load.url, load.ended, load.errors, load.times) == ("http://127.0.0.1:1", 1, 1, b"")


async def test_a_connection_that_was_stale_is_no_error(wire: Wire) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(OK)
        if upstream.peers[0] is peer:
            await peer.message()
            peer.close()

    wire.upstream.script = script
    client = await wire.client()
    for _ in range(2):
        await client.send(GET)
        assert (await client.message()).status == 200
    load = fares(wire)
    assert (load.ended, load.errors) == (2, 0)


async def test_time_runs_to_the_head_of_a_stream(wire: Wire) -> None:
    go_on = asyncio.Event()

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(LONG)
        await go_on.wait()
        await peer.send(b"0123456789")

    wire.upstream.script = script
    client = await wire.client()
    began = time.monotonic()
    await client.send(GET)
    while b"\r\n\r\n" not in client.received:
        await client.more()
    most_s = time.monotonic() - began
    load = fares(wire)
    assert (load.ended, load.errors) == (1, 0)
    assert took_s(load) <= most_s * (1 + WITHIN)
    go_on.set()
    assert (await client.message()).body == b"0123456789"
    assert fares(wire).ended == 1


async def test_a_tunnel_counts_when_it_opens(wire: Wire) -> None:
    client = await switched(wire)
    load = fares(wire)
    assert (load.ended, load.errors) == (1, 0)
    await client.closed()


async def test_a_slow_answer(wire: Wire) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await asyncio.sleep(0.1)
        await peer.send(OK)

    wire.upstream.script = script
    assert (await wire.ask(GET)).status == 200
    assert took_s(fares(wire)) >= 0.09 * (1 - WITHIN)


async def test_a_slow_upload_is_not_held_against_it(wire: Wire) -> None:
    client = await wire.client()
    await client.send(post(b"Content-Length: 2", body=b"a"))
    await wire.settled(lambda: bool(wire.upstream.peers and wire.upstream.peers[0].received))
    await asyncio.sleep(0.2)
    ended_at = time.monotonic()
    await client.send(b"b")
    assert (await client.message()).status == 200
    assert took_s(fares(wire)) <= (time.monotonic() - ended_at) * (1 + WITHIN)


async def left(wire: Wire, sent: bytes, reached: Callable[[], bool]) -> TargetLoad:
    """A caller sends this to a target that is silent, and leaves a moment after it has got there."""
    wire.upstream.script = says(b"")  # type: ignore[assignment]
    client = await wire.client()
    await client.send(sent)
    await wire.settled(reached)
    await asyncio.sleep(0.1)
    client.reset()
    await wire.settled(lambda: not wire.worker.exchanges)
    return fares(wire)


async def test_who_leaves_has_waited_so_long_at_least(wire: Wire) -> None:
    load = await left(wire, GET, lambda: len(wire.upstream.requests) == 1)
    assert (load.ended, load.errors) == (1, 0)
    assert took_s(load) >= 0.09 * (1 - WITHIN)


async def test_who_leaves_while_uploading_has_not_waited(wire: Wire) -> None:
    sent = post(b"Content-Length: 2", body=b"a")
    load = await left(wire, sent, lambda: bool(wire.upstream.peers and wire.upstream.peers[0].received))
    assert (load.ended, load.errors) == (0, 0)


def test_ten_seconds() -> None:
    faring = Faring()
    faring.answered(0.5, 500)
    faring.sweep()
    for _ in range(round(LOAD_S) - 1):
        faring.answered(0.001, 200)
        faring.sweep()
    assert (faring.ended, faring.errors, Histogram.unpack(faring.packed()).total) == (10, 1, 10)
    faring.sweep()
    assert (faring.ended, faring.errors) == (9, 0)
    assert Histogram.unpack(faring.packed()).quantile(1) == pytest.approx(1000, rel=WITHIN)
    for _ in range(round(LOAD_S)):
        faring.sweep()
    assert (faring.ended, faring.packed(), repr(faring)) == (0, b"", "<Faring 0 ended, 0 errors>")


async def test_what_failed_later_than_ten_seconds_is_told_too(wire: Wire) -> None:
    """Its request was sent before, and nothing is in flight."""
    wire.upstream.answer = answer(b"500 No", b"Content-Length: 0")
    got: Message = await wire.ask(GET)
    assert got.status == 500
    (pool,) = wire.worker._pools.values()
    pool.sweep()
    (load,) = loads_of((), [pool], time.monotonic() + LOAD_S).targets
    assert (load.in_flight, load.requests, load.ended, load.errors) == (0, 0, 1, 1)
