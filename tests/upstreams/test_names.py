"""Targets by name: resolved off the path and again after a while; every address tried, none held after it is gone."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from tests.wire.harness import GET, Upstream, Wire, service
from tests.wire.pace import taking
from tests.wire.peer import Peer

pytestmark = pytest.mark.anyio


class Dns:
    """Stands at the loop's getaddrinfo. `answers` are addresses, or what went wrong."""

    def __init__(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers: list[str] | OSError = ["127.0.0.1"]
        self.delay_s = 0.0
        self.wire = wire
        real = wire.worker.loop.getaddrinfo

        async def getaddrinfo(host: str, port: int, **more: Any) -> Any:
            if not host.endswith(".example"):
                return await real(host, port, **more)
            self.asked.append(host)
            await asyncio.sleep(self.delay_s)
            if isinstance(self.answers, OSError):
                raise self.answers
            families = [socket.AF_INET6 if ":" in answer else socket.AF_INET for answer in self.answers]
            return [(family, 1, 6, "", (answer, port)) for family, answer in zip(families, self.answers, strict=True)]

        monkeypatch.setattr(wire.worker.resolver, "_loop", _Loop(wire.worker.loop, getaddrinfo))

    def forget(self) -> None:
        """As if everything had been asked long ago."""
        for name in self.wire.worker.resolver._names.values():
            name.asked_at = -1e9


class _Loop:
    def __init__(self, loop: asyncio.AbstractEventLoop, getaddrinfo: Any) -> None:
        self.getaddrinfo = getaddrinfo
        self.time = loop.time
        self.create_task = loop.create_task


@pytest.fixture
def dns(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Dns:
    wire.serve(service(1, "open", f"http://api.example:{wire.upstream.port}"))
    return Dns(wire, monkeypatch)


async def close_after_answer(upstream: Upstream, peer: Peer) -> None:
    upstream.requests.append(await peer.message())
    await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    await peer.rest()


async def status(wire: Wire) -> int:
    return (await wire.ask(GET)).status


async def test_a_name_is_asked_for_once_and_remembered(wire: Wire, dns: Dns) -> None:
    wire.upstream.script = close_after_answer
    dns.delay_s = 0.02
    assert await asyncio.gather(*(status(wire) for _ in range(5))) == [200] * 5
    assert await status(wire) == 200
    assert dns.asked == ["api.example"]
    assert wire.upstream.requests[0].one(b"host") == b"api.example:%d" % wire.upstream.port
    dns.delay_s = 0.0
    dns.forget()
    assert await status(wire) == 200
    assert len(dns.asked) == 2


async def test_an_address_is_never_asked_for(wire: Wire, dns: Dns) -> None:
    wire.serve(service(1, "open", f"http://127.0.0.1:{wire.upstream.port}"))
    assert await status(wire) == 200
    assert wire.worker.resolver._names == {}


async def test_a_name_without_an_address(wire: Wire, dns: Dns) -> None:
    dns.answers = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    answer = await wire.ask(GET)
    assert answer.status == 502
    assert b"the upstream's name has no address (Name or service not known)" in answer.body
    dns.answers = ["127.0.0.1"]
    assert await status(wire) == 200


async def test_a_real_name(wire: Wire) -> None:
    wire.serve(service(1, "open", f"http://localhost:{wire.upstream.port}"))
    assert await status(wire) == 200


async def test_old_addresses_are_better_than_none(
    wire: Wire, dns: Dns, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "gatewayd.proxy.resolver")
    wire.upstream.script = close_after_answer
    assert await status(wire) == 200
    dns.answers = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    for _ in range(3):
        dns.forget()
        assert await status(wire) == 200
    assert len(dns.asked) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "its last addresses are kept" in caplog.records[0].message
    dns.answers = ["127.0.0.1"]
    dns.forget()
    assert await status(wire) == 200
    assert caplog.records[-1].message == "api.example can be looked up again"


async def test_a_name_server_that_says_nothing_is_not_waited_for_for_long(
    wire: Wire, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.proxy.resolver.PATIENCE_S", 0.05)
    wire.upstream.script = close_after_answer
    assert await status(wire) == 200
    dns.forget()
    dns.delay_s = 3600
    async with taking(0.05):
        assert [await status(wire) for _ in range(5)] == [200] * 5
    assert len(dns.asked) == 2


@pytest.mark.parametrize("dead", ["127.0.0.9", "::1"])
async def test_every_address_is_tried(wire: Wire, dns: Dns, dead: str) -> None:
    dns.answers = [dead, "127.0.0.1"]  # nobody listens at the first on this port
    wire.upstream.script = close_after_answer
    assert [await status(wire) for _ in range(4)] == [200] * 4
    dns.answers = [dead]
    dns.forget()
    answer = await wire.ask(GET)
    assert (answer.status, b"refused the connection (Connection refused)" in answer.body) == (502, True)


async def test_addresses_are_taken_in_turn(wire: Wire, dns: Dns) -> None:
    dns.answers = ["127.0.0.1", "127.0.0.2"]
    second = await asyncio.start_server(wire.upstream._serve, "127.0.0.2", wire.upstream.port)
    wire.upstream.script = close_after_answer
    for _ in range(6):
        assert await status(wire) == 200
    second.close()
    at = [peer._writer.get_extra_info("sockname")[0] for peer in wire.upstream.peers]
    assert at.count("127.0.0.1") == at.count("127.0.0.2") == 3


async def test_an_address_where_nobody_answers_does_not_eat_the_time_of_the_others(
    wire: Wire, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.proxy.dial.ATTEMPT_S", 0.1)
    with socket.socket() as full:  # a listener whose queue is full lets SYNs go unanswered
        full.bind(("127.0.0.3", wire.upstream.port))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        dns.answers = ["127.0.0.1", "127.0.0.3"]
        wire.upstream.script = close_after_answer
        async with taking(0.1):  # once, and after that it is tried last
            assert [await status(wire) for _ in range(10)] == [200] * 10
        for filler in fillers:
            filler.close()


async def test_connections_leave_an_address_that_the_name_has_left(wire: Wire, dns: Dns) -> None:
    gate = asyncio.Event()

    async def slow_at_first(upstream: Upstream, peer: Peer) -> None:
        if len(upstream.peers) == 1:
            await gate.wait()
        await upstream.answer_all(peer)

    wire.upstream.script = slow_at_first
    second = await asyncio.start_server(wire.upstream._serve, "127.0.0.2", wire.upstream.port)
    (pool,) = [wire.worker.pool_of(wire.worker.snapshot.services[1].targets[0])]
    busy = asyncio.create_task(wire.ask(GET))
    await wire.settled(lambda: len(pool._open) == 1)
    assert await status(wire) == 200  # on a second connection, which is idle now
    pool.sweep()
    assert (len(pool._open), len(pool._idle)) == (2, 1)
    dns.answers = ["127.0.0.2"]
    dns.forget()
    pool.sweep()
    await wire.settled(lambda: wire.worker.resolver.refresh("api.example") == ("127.0.0.2",))
    pool.sweep()
    await wire.settled(lambda: len(pool._open) == 1)
    gate.set()
    assert (await busy).status == 200
    await wire.settled(lambda: len(pool._open) == 0)
    assert await status(wire) == 200
    assert wire.upstream.peers[-1]._writer.get_extra_info("sockname")[0] == "127.0.0.2"
    second.close()


async def test_answers_in_another_order_change_nothing(wire: Wire, dns: Dns) -> None:
    dns.answers = ["127.0.0.1", "127.0.0.2"]
    assert await status(wire) == 200
    before = wire.worker.resolver.refresh("api.example")
    dns.answers = ["127.0.0.2", "127.0.0.1"]
    dns.forget()
    wire.worker.resolver.refresh("api.example")
    await wire.settled(lambda: len(dns.asked) == 2)
    assert wire.worker.resolver.refresh("api.example") is before
    wire.serve()
    assert wire.worker.resolver._names == {}
