"""What a pool keeps, for how long, and who gets a connection when many wait. And where else a target may be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatewayd.conf import TargetConf, TlsConf
from gatewayd.policy.facts import Target
from gatewayd.policy.snapshot import compile_target
from gatewayd.proxy.dial import Dialer
from gatewayd.proxy.pool import Pool
from tests.wire.harness import GET, Upstream, Wire, service
from tests.wire.peer import Message, Peer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def wired(folder: Path, upstream: Upstream | None = None, **settings: Any) -> AsyncIterator[Wire]:
    async with Wire(folder, upstream, **settings) as wire:
        yield wire


def pool_of(wire: Wire) -> Pool:
    return wire.worker.pool_of(wire.worker.snapshot.services[1].targets[0])


class SocketUpstream(Upstream):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._serve, str(self.path))


@pytest.mark.parametrize(("base", "path"), [("", b"/a"), (":/v1", b"/v1/a")])
async def test_a_unix_socket(tmp_path: Path, base: str, path: bytes) -> None:
    (tmp_path / "wire").mkdir()
    upstream = SocketUpstream(tmp_path / "app.sock")
    async with wired(tmp_path / "wire", upstream) as wire:
        wire.serve(service(1, "open", f"unix:{upstream.path}{base}"))
        for _ in range(2):
            assert (await wire.ask(GET.replace(b"/open/", b"/open/a"))).body == b"ok"
        assert upstream.requests[0].line == b"GET %b HTTP/1.1" % path
        assert upstream.requests[0].one(b"host") == b"localhost"
        assert len(upstream.peers) == 1


async def test_a_unix_socket_that_is_not_there(wire: Wire, tmp_path: Path) -> None:
    wire.serve(service(1, "open", f"unix:{tmp_path}/none.sock"))
    answer = await wire.ask(GET)
    assert (answer.status, b"refused the connection (No such file or directory)" in answer.body) == (502, True)
    assert str(tmp_path).encode() not in answer.body


class SixUpstream(Upstream):
    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "::1", 0)


async def test_ipv6(tmp_path: Path) -> None:
    async with wired(tmp_path, SixUpstream()) as wire:
        wire.serve(service(1, "open", f"http://[::1]:{wire.upstream.port}/base"))
        assert (await wire.ask(GET)).body == b"ok"
        assert wire.upstream.requests[0].line == b"GET /base/ HTTP/1.1"
        assert wire.upstream.requests[0].one(b"host") == b"[::1]:%d" % wire.upstream.port


async def at_once(wire: Wire, count: int) -> list[Message]:
    return await asyncio.gather(*(wire.ask(GET) for _ in range(count)))


async def test_no_more_idle_connections_are_kept_than_the_limit(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def together(upstream: Upstream, peer: Peer) -> None:
        await gate.wait()
        await upstream.answer_all(peer)

    async with wired(tmp_path, upstream_idle_limit=2) as wire:
        wire.upstream.script = together
        asked = asyncio.create_task(at_once(wire, 5))
        await wire.settled(lambda: len(pool_of(wire)._open) == 5)
        gate.set()
        assert [answer.status for answer in await asked] == [200] * 5
        await wire.settled(lambda: len(pool_of(wire)._open) == 2)
        assert repr(pool_of(wire)).endswith("0 active, 2 idle, 0 waiting>")


async def test_an_old_connection_serves_no_further_request(wire: Wire) -> None:
    for _ in range(2):
        await wire.ask(GET)
    assert len(wire.upstream.peers) == 1
    (connection,) = pool_of(wire)._open
    assert connection.expires_at > wire.worker.loop.time() + 3590
    connection.expires_at = wire.worker.loop.time() + 0.05
    await asyncio.sleep(0.06)
    assert (await wire.ask(GET)).status == 200  # it ends after this one
    assert len(wire.upstream.peers) == 1
    await wire.settled(lambda: not pool_of(wire)._open)
    assert (await wire.ask(GET)).status == 200
    assert len(wire.upstream.peers) == 2


class Gate:
    """Holds back connects until the test lets so many through; the others may still be failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = asyncio.Semaphore(0)
        self.waiting = 0
        dial = Dialer.dial

        async def slow_dial(dialer: Dialer, *more: Any) -> Any:
            self.waiting += 1
            await self.places.acquire()
            return await dial(dialer, *more)

        monkeypatch.setattr(Dialer, "dial", slow_dial)


async def test_more_connects_than_the_limit_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with wired(tmp_path, connecting_limit=3) as wire:
        waiting = asyncio.create_task(at_once(wire, 3))
        await wire.settled(lambda: gate.waiting == 3)
        refused = await wire.ask(GET)
        assert (refused.status, refused.one(b"retry-after")) == (503, b"1")
        assert b'"code":"overloaded"' in refused.body
        for _ in range(3):
            gate.places.release()
        assert [answer.status for answer in await waiting] == [200] * 3
        assert (await wire.ask(GET)).status == 200


async def test_a_connection_that_comes_back_goes_to_whoever_has_waited_longest(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    order: list[int] = []

    async def ask(number: int) -> None:
        assert (await wire.ask(GET)).status == 200
        order.append(number)

    asked = []
    for number in range(4):
        asked.append(asyncio.create_task(ask(number)))
        await wire.settled(lambda count=number + 1: gate.waiting == count)  # type: ignore[misc]
    gate.places.release()  # one connection serves all four
    await asyncio.gather(*asked)
    assert order == [0, 1, 2, 3]
    assert len(wire.upstream.peers) == 1
    pool = pool_of(wire)
    assert (len(pool._connecting), pool._waiting) == (3, {})
    gate.places.release()  # a connect that nobody needs any more is kept
    await wire.settled(lambda: len(pool._idle) == 2)
    for _ in range(2):
        gate.places.release()


async def test_a_connect_whose_exchange_has_gone_serves_the_next(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    leaver = await wire.client()
    await leaver.send(GET)
    await wire.settled(lambda: gate.waiting == 1)
    waiter = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: gate.waiting == 2)
    leaver.reset()
    await wire.settled(lambda: len(wire.worker.exchanges) == 1)
    gate.places.release()
    assert (await waiter).status == 200
    assert len(wire.upstream.requests) == 1
    gate.places.release()
    await wire.settled(lambda: len(pool_of(wire)._idle) == 2)


async def test_a_connect_that_fails_concerns_its_own_exchange_alone(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait; the first connect is refused, the second succeeds."""
    refusals = [True, False]
    dial = Dialer.dial
    gate = asyncio.Event()

    async def first_refused(dialer: Dialer, *more: Any) -> Any:
        refused = refusals.pop(0)
        await gate.wait()
        if refused:
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                dialer._target = service_target(nobody.getsockname()[1])
                return await dial(dialer, *more)
        await asyncio.sleep(0.05)
        dialer._target = service_target(wire.upstream.port)
        return await dial(dialer, *more)

    def service_target(port: int) -> Target:
        return compile_target(f"http://127.0.0.1:{port}", TlsConf())

    monkeypatch.setattr(Dialer, "dial", first_refused)
    first, second = asyncio.create_task(wire.ask(GET)), asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: not refusals)
    gate.set()
    assert sorted([(await first).status, (await second).status]) == [200, 502]


async def test_an_upstream_that_restarts_is_no_error(wire: Wire) -> None:
    """Its end takes idle connections out, and where it comes with the request, the request is sent again."""
    for hard in (False, True):
        before = len(wire.upstream.peers)
        assert [answer.status for answer in await at_once(wire, 5)] == [200] * 5
        for peer in wire.upstream.peers[before:]:
            peer.reset() if hard else peer.close()
        assert [answer.status for answer in await at_once(wire, 5)] == [200] * 5


async def test_a_request_that_finds_its_connection_dying_is_sent_again_on_a_new_one(wire: Wire) -> None:
    count = 0

    async def die_at_the_second(upstream: Upstream, peer: Peer) -> None:
        nonlocal count
        count += 1
        await peer.message()
        await peer.send(upstream.answer)
        if count <= 3:
            await peer.message()
            peer.close()
        else:
            await upstream.answer_all(peer)

    wire.upstream.script = die_at_the_second
    assert [answer.status for answer in await at_once(wire, 3)] == [200] * 3
    assert [answer.status for answer in await at_once(wire, 3)] == [200] * 3


async def test_a_request_that_is_sent_again_gets_no_connection_that_has_served(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pooled one might be as stale as the first."""
    slow = asyncio.Event()

    async def first_dies_second_is_slow(upstream: Upstream, peer: Peer) -> None:
        number = len(upstream.peers)
        upstream.requests.append(await peer.message())
        if number == 2:
            await slow.wait()
        await peer.send(upstream.answer)
        if number == 1:
            await peer.message()
            peer.close()
        else:
            await upstream.answer_all(peer)

    wire.upstream.script = first_dies_second_is_slow
    first = wire.worker.pool_of(wire.worker.snapshot.services[1].targets[0])
    assert (await wire.ask(GET)).status == 200
    (idle,) = first._idle
    del first._idle[idle]  # out of the way of the next, which shall open a second one
    other = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: len(wire.upstream.requests) == 2)
    first._idle[idle] = None
    gate = Gate(monkeypatch)
    again = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: gate.waiting == 1)
    slow.set()
    assert (await other).status == 200
    await wire.settled(lambda: len(first._idle) == 1)
    assert not again.done()
    gate.places.release()
    assert (await again).status == 200
    assert len(wire.upstream.peers) == 3


async def test_bytes_on_an_idle_connection_take_it_out(wire: Wire) -> None:
    await wire.ask(GET)
    await wire.upstream.peers[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    await wire.settled(lambda: not pool_of(wire)._open)
    assert (await wire.ask(GET)).body == b"ok"


async def test_a_target_that_nobody_uses_any_more(wire: Wire) -> None:
    gate = asyncio.Event()

    async def slow_at_first(upstream: Upstream, peer: Peer) -> None:
        if len(upstream.peers) == 1:
            await gate.wait()
        await upstream.answer_all(peer)

    wire.upstream.script = slow_at_first
    pool = pool_of(wire)
    busy = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: len(pool._open) == 1)
    await wire.ask(GET)
    wire.serve(service(2, "other", "http://127.0.0.1:1"))
    await wire.settled(lambda: len(pool._open) == 1)
    gate.set()
    assert (await busy).status == 200
    await wire.settled(lambda: not pool._open)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 3), (9, 1)])
async def test_every_other_target_is_tried_once_before_a_request_is_refused(
    wire: Wire, weights: tuple[int, int]
) -> None:
    """Whatever the weights say, and whoever else takes a turn meanwhile."""
    dead, live = weights
    conf = service(1, "open", "http://127.0.0.1:1")
    targets = (TargetConf("http://127.0.0.1:1", dead), TargetConf(f"http://127.0.0.1:{wire.upstream.port}", live))
    wire.serve(msgspec.structs.replace(conf, targets=targets))
    for _ in range(4):
        answers = await at_once(wire, 5)
        assert [answer.status for answer in answers] == [200] * 5
    wire.serve(msgspec.structs.replace(conf, targets=(targets[0], TargetConf("http://127.0.0.1:2", live))))
    assert [answer.status for answer in await at_once(wire, 5)] == [502] * 5


async def test_an_earlier_connect_that_fails_ends_no_later_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is handed a pooled connection, which dies; it waits anew while its first connect is still under way."""
    dial = Dialer.dial
    second_waits, earlier, later = asyncio.Event(), asyncio.Event(), asyncio.Event()
    dialled = 0

    async def first_two_fail(dialer: Dialer, *more: Any) -> Any:
        nonlocal dialled
        dialled += 1
        if dialled == 2:
            second_waits.set()
            await earlier.wait()
            raise TimeoutError
        if dialled == 3:
            await later.wait()
        return await dial(dialer, *more)

    async def first_dies_at_the_second(upstream: Upstream, peer: Peer) -> None:
        if len(upstream.peers) > 1:
            await upstream.answer_all(peer)
        upstream.requests.append(await peer.message())
        await second_waits.wait()
        await peer.send(upstream.answer)
        await peer.message()
        peer.close()

    monkeypatch.setattr(Dialer, "dial", first_two_fail)
    wire.upstream.script = first_dies_at_the_second
    first = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: len(wire.upstream.requests) == 1)
    second = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: dialled == 3)
    assert (await first).status == 200
    earlier.set()
    await wire.settled(lambda: len(pool_of(wire)._connecting) == 1)
    later.set()
    assert (await second).status == 200
