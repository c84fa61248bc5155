"""Targets that somebody bound to a tenant has named: no connection to the gateway's own machine, wherever DNS leads."""

from __future__ import annotations

import pytest

from gatewayd.conf import ServiceConf, TargetConf
from gatewayd.own_machine import MOST_JUDGED
from gatewayd.proxy import dial
from tests.upstreams.test_names import Dns, close_after_answer, status
from tests.wire.harness import GET, Wire, service
from tests.wire.test_explain import Control

pytestmark = pytest.mark.anyio


def to(wire: Wire, *hosts: str, number: int = 1, slug: str = "open", bound: bool = True) -> ServiceConf:
    targets = tuple(TargetConf(f"http://{host}:{wire.upstream.port}", 1, False, bound) for host in hosts)
    return service(number, slug, "", targets)


@pytest.fixture
def dns(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Dns:
    wire.serve(to(wire, "api.example"))
    return Dns(wire, monkeypatch)


@pytest.fixture
def one_own_address(monkeypatch: pytest.MonkeyPatch) -> str:
    """As if 127.0.0.1 were elsewhere: a test has no other machine to connect to."""
    monkeypatch.setattr(dial, "is_of_this_machine", lambda address: address != "127.0.0.1")
    return "127.0.0.2"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_home_is_unreachable(wire: Wire, dns: Dns, address: str) -> None:
    dns.answers = [address]
    answer = await wire.ask(GET)
    assert answer.status == 502
    assert b'"code":"upstream_unreachable"' in answer.body
    assert b"its address is of the gateway's own machine or network link" in answer.body
    assert address.encode() not in answer.body
    assert b"api.example" not in answer.body
    assert wire.upstream.peers == []
    (member,) = wire.worker.snapshot.services[1].rotation.members
    assert "own machine" in member.standing.error  # which `service health` shows


async def test_nor_does_an_address_that_the_machine_has_meanwhile(wire: Wire) -> None:
    wire.serve(to(wire, "127.0.0.1"))
    assert await status(wire) == 502
    assert wire.upstream.peers == []


async def test_a_socket_of_the_machine_is_none_of_theirs(wire: Wire) -> None:
    wire.serve(service(1, "open", "", (TargetConf(f"unix:{wire.folder}/app.sock", 1, False, True),)))
    answer = await wire.ask(GET)
    assert (answer.status, b"own machine" in answer.body) == (502, True)


async def test_a_name_that_is_moved_there_later(wire: Wire, dns: Dns, one_own_address: str) -> None:
    wire.upstream.script = close_after_answer
    assert await status(wire) == 200
    dns.answers = [one_own_address]
    dns.forget()
    assert await status(wire) == 502
    dns.answers = ["127.0.0.1"]
    dns.forget()
    assert await status(wire) == 200


async def test_of_several_addresses_the_others_are_tried(wire: Wire, dns: Dns, one_own_address: str) -> None:
    wire.upstream.script = close_after_answer
    dns.answers = [one_own_address, "127.0.0.1", "::1"]
    assert [await status(wire) for _ in range(6)] == [200] * 6
    assert {peer._writer.get_extra_info("sockname")[0] for peer in wire.upstream.peers} == {"127.0.0.1"}


async def test_a_name_of_a_thousand_addresses_does_not_hold_the_loop(
    wire: Wire, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To judge them all took 20 ms, at each request, in which this worker served nobody."""
    judged: list[str] = []

    def judge(address: str) -> bool:
        judged.append(address)
        return True

    monkeypatch.setattr(dial, "is_of_this_machine", judge)
    dns.answers = [f"192.0.2.{low}" for low in range(256)]
    assert await status(wire) == 502
    assert judged == dns.answers[:MOST_JUDGED]


async def test_a_connection_of_one_who_may_serves_nobody_who_may_not(wire: Wire, dns: Dns) -> None:
    wire.serve(to(wire, "api.example"), to(wire, "api.example", number=2, slug="free", bound=False))
    free = GET.replace(b"/open", b"/free")
    assert free != GET
    assert (await wire.ask(free)).status == 200  # and its connection waits for another request
    assert await status(wire) == 502
    assert (await wire.ask(free)).status == 200
    assert len(wire.upstream.peers) == 1


async def test_who_may_answers_for_it_from_the_next_request_on(wire: Wire, dns: Dns) -> None:
    assert await status(wire) == 502
    wire.serve(to(wire, "api.example", bound=False))
    assert await status(wire) == 200
    wire.serve(to(wire, "api.example"))
    assert await status(wire) == 502


async def test_it_is_explained(wire: Wire, dns: Dns) -> None:
    control = Control(wire)
    assert (
        control.what_if(GET)
        .steps[-1]
        .detail.endswith("has its turn, where it leads outside of the gateway's own machine")
    )
    answer = await wire.ask(GET)
    assert "its address is of the gateway's own machine" in str(control.recall(answer))
