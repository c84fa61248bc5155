"""A large configuration is compiled beside the requests, in the order in which control sent what it sent."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Any

import msgspec
import pytest

from gatewayd.channel import Applied, SnapshotChanged, TargetChecked, TargetsChecked
from gatewayd.conf import RouteConf, TenantConf
from gatewayd.policy.balancing import Rotation
from gatewayd.policy.snapshot import compile_snapshot
from gatewayd.proxy import installing
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.exchange import Exchange
from gatewayd.proxy.installing import Installing
from tests.wire.harness import Wire, service

pytestmark = pytest.mark.anyio
BALANCES = ("round-robin", "least-outstanding", "hash")
TENANTS = (TenantConf(1, "default", False),)


def many(url: str, count: int = 200, begin: int = 100) -> tuple[Any, ...]:
    return tuple(service(begin + number, f"s{begin + number}", url) for number in range(count))


def change(number: int, *services: Any) -> SnapshotChanged:
    return SnapshotChanged(number, TENANTS, services)


@pytest.fixture
def applied(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What control is told to be in force."""
    told: list[Any] = []
    monkeypatch.setattr(wire.worker.link, "send", lambda said: told.append(said) if isinstance(said, Applied) else None)
    return told


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """The collector goes through all of this process again afterwards."""
    yield
    gc.unfreeze()


async def installed(wire: Wire) -> None:
    async with asyncio.timeout(30):
        while wire.worker.installing._task is not None:
            await asyncio.sleep(0)


async def test_requests_are_answered_between_the_slices(
    wire: Wire, applied: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice is one step here: hundreds of turns of the loop, in any of which a request may come."""
    monkeypatch.setattr(installing, "SLICE_S", 0.0)
    worker, url = wire.worker, f"http://127.0.0.1:{wire.upstream.port}"
    before = worker.snapshot
    worker._on_message(change(7, *many(url)))
    assert worker.snapshot is before, "too much to be done at once"
    assert applied == []
    client = await wire.client()
    await client.send(b"GET /nothing/here HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.message()).status == 404
    await installed(wire)
    assert worker.snapshot.router.match(b"/s299", b"", b"GET") is not None
    assert applied == [Applied(7)]


async def test_what_is_small_is_in_force_at_once(wire: Wire, applied: list[Any]) -> None:
    url = f"http://127.0.0.1:{wire.upstream.port}"
    wire.worker._on_message(change(7, *many(url, 3)))
    assert wire.worker.snapshot.router.match(b"/s102", b"", b"GET") is not None
    assert applied == [Applied(7)]


async def test_news_comes_into_force_in_the_order_in_which_it_was_sent(wire: Wire, applied: list[Any]) -> None:
    """The news of a target is of a service that is only being compiled, and the last configuration is what holds."""
    worker, url = wire.worker, f"http://127.0.0.1:{wire.upstream.port}"
    worker._on_message(change(7, *many(url)))
    worker._on_message(TargetsChecked((TargetChecked(299, url, healthy=False),)))
    worker._on_message(change(8, *many(url), *many(url, 1, begin=900)))
    worker._on_message(change(9, *many(url, 150, begin=150)))
    assert repr(worker.installing) == "<Installing 1 under way, 3 waiting>"
    await installed(wire)
    assert applied == [Applied(7), Applied(8), Applied(9)]
    assert worker.snapshot.services.keys() == set(range(150, 300))
    (member,) = worker.snapshot.services[299].rotation.members
    assert not member.standing.healthy


async def test_targets_change_with_the_configuration_and_not_before(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "SLICE_S", 0.0)
    worker, url = wire.worker, f"http://127.0.0.1:{wire.upstream.port}"
    worker._install(change(1, *many(url)))
    rotation = worker.snapshot.services[100].rotation
    moved = tuple(msgspec.structs.replace(each, targets=many("http://127.0.0.1:9", 1)[0].targets) for each in many(url))
    worker._on_message(change(2, *moved))
    await asyncio.sleep(0)
    assert [member.target.url for member in rotation.members] == [url]
    await installed(wire)
    assert worker.snapshot.services[100].rotation is rotation
    assert [member.target.url for member in rotation.members] == ["http://127.0.0.1:9"]


async def test_a_control_that_begins_anew_is_told_of_no_change_of_the_one_before(
    wire: Wire, applied: list[Any]
) -> None:
    worker, url = wire.worker, f"http://127.0.0.1:{wire.upstream.port}"
    before = worker.snapshot
    worker._on_message(change(7, *many(url)))
    worker._on_message(change(8, *many(url)))
    worker._on_connected()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert worker.snapshot is before
    assert applied == []
    worker._on_message(change(1, *many(url)))
    await installed(wire)
    assert applied == [Applied(1)]


async def test_what_fails_leaves_things_as_they_are_and_stops_nothing() -> None:
    done: list[str] = []

    def works(name: str, fails: bool) -> Any:
        def steps() -> Any:
            for _ in range(2 * installing.STEPS_AT_ONCE):
                yield
            if fails:
                raise ValueError(name)
            done.append(name)

        return steps

    installer = Installing()
    for name in ("a", "b", "c"):
        installer.put(works(name, name == "b"))
    async with asyncio.timeout(30):
        while installer._task is not None:
            await asyncio.sleep(0)
    assert done == ["a", "c"]


async def test_what_fails_at_once_leaves_the_channel_as_it_is_and_stops_nothing() -> None:
    """What is raised to it would end the connection, on which control sends the same again, for ever."""
    done: list[str] = []

    def steps(name: str) -> Any:
        if name == "a":
            raise ValueError(name)
        done.append(name)
        yield

    installer = Installing()
    for name in ("a", "b"):
        installer.put(partial(steps, name))
    assert done == ["b"]
    assert repr(installer) == "<Installing 0 under way, 0 waiting>"


async def test_no_garbage_is_looked_for_while_requests_wait_for_a_slice(
    wire: Wire, applied: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To go through all services takes longer than many slices."""
    monkeypatch.setattr(installing, "SLICE_S", 0.0)
    worker, url = wire.worker, f"http://127.0.0.1:{wire.upstream.port}"
    message, frozen = change(7, *many(url)), gc.get_freeze_count()
    assert gc.isenabled()
    worker._on_message(message)
    assert not gc.isenabled()
    await installed(wire)
    assert applied == [Applied(7)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    worker._on_message(change(8, *many(url, 300)))
    assert not gc.isenabled()
    worker._on_connected()
    assert gc.isenabled()


def test_what_a_removed_service_had_is_freed_at_once() -> None:
    """The collector no longer comes by."""

    def count() -> int:
        return sum(isinstance(each, Rotation) for each in gc.get_objects())

    url = "http://127.0.0.1:1"
    routes = (RouteConf(5, "rte5", 1, None, "/chosen"),)
    confs = [service(number, f"s{number}", url, balance=balance) for number, balance in enumerate(BALANCES)]
    gc.collect()
    gc.disable()
    try:
        before = count()
        snapshot = compile_snapshot(1, TENANTS, confs, routes)
        assert count() == before + 4
        for each in snapshot.services.values():
            each.rotation.refusal(1.0)
        snapshot = compile_snapshot(2, TENANTS, confs[:1], (), None, snapshot)
        del each
        assert count() == before + 1
    finally:
        gc.enable()


async def test_a_request_leaves_nothing_to_the_collector(wire: Wire) -> None:
    """What waits for it while a configuration is compiled would stay for good: no connection is held by its errors."""
    url = f"http://127.0.0.1:{wire.upstream.port}"
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(0)
    filling = socket.create_connection(silent.getsockname())
    full = f"http://127.0.0.1:{silent.getsockname()[1]}"
    wire.serve(
        service(1, "open", url),
        service(2, "refused", "http://127.0.0.1:1"),
        service(3, "full", full, connect_timeout_s=0.05),
    )
    gc.collect()
    gc.disable()
    try:
        with silent, filling:
            for path, status in (("open", 200), ("refused", 502), ("full", 504), ("none", 404)):
                client = await wire.client()
                await client.send(b"GET /%b/ HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
                assert (await client.message()).status == status, path
                await client.closed()
        await wire.settled(lambda: not wire.state.connections and not wire.worker.exchanges)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, Exchange | ClientConnection)]
        frames = [each.tb_frame for each in gc.garbage if isinstance(each, TracebackType)]
        assert not [frame for frame in frames if "gatewayd" in frame.f_globals.get("__name__", "")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
