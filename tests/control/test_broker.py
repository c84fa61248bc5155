"""The broker's answers about limits: to workers it knows, and to those that served on while there was no control."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gatewayd.channel import (
    Applied,
    ClientFound,
    FindClient,
    FromControl,
    Held,
    Hello,
    KeyHeld,
    KeysChanged,
    LeaseAsked,
    LeaseGranted,
    LeaseId,
    LeaseReturned,
    SlotsAsked,
    SlotsGranted,
    SlotsReturned,
    SnapshotChanged,
    WorkerStats,
)
from gatewayd.control import broker as broker_module
from gatewayd.control.broker import Broker
from gatewayd.control.database import Database
from gatewayd.control.levels import LevelFile
from gatewayd.control.losses import Losses
from gatewayd.control.quotas import quota_of
from gatewayd.control.tables import Client, Key, Plan, QuotaGrant, Route, Tenant
from gatewayd.policy.buckets import month_of

pytestmark = pytest.mark.anyio
MINUTE = '[["minute", 60, 60, 60]]'
KEY = LeaseId(1)


class Channel:
    """A worker's end."""

    def __init__(self, broker: Broker, name: bytes) -> None:
        self.broker = broker
        self.name = name
        self.sent: list[FromControl] = []

    def send(self, message: FromControl) -> None:
        self.sent.append(message)

    def close(self) -> None:
        raise AssertionError("it spoke out of turn")

    def say(self, message: Any) -> Any:
        """What the broker answers; None when it does not yet."""
        count = len(self.sent)
        self.broker._on_message(self, message)  # type: ignore[arg-type]
        return self.sent[-1] if len(self.sent) > count else None

    def hello(self, *held: Held, keys: tuple[KeyHeld, ...] = ()) -> None:
        self.say(Hello(self.name, 0, 1, held, 0, keys))

    def ask(self, id_: LeaseId, count: int, **more: int) -> LeaseGranted:
        answer = self.say(LeaseAsked(id_, count, 0, **more))
        assert isinstance(answer, LeaseGranted)
        return answer


class Place:
    """A state folder, on which one control follows another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database.open(folder)
        with self.database.write() as session:
            plan = Plan(
                id=1, public_id="pln_1", tenant_id=1, name="p", rates=MINUTE, quota=100, price_id=1, created_at=0
            )
            session.add(plan)
            session.flush()
            session.add(Key(id=1, public_id="ab12cd34", digest=b"1", tenant_id=1, plan_id=1, created_at=0))
            session.add(Key(id=2, public_id="ab12cd35", digest=b"2", tenant_id=1, plan_id=1, created_at=0))

    def broker(self, expected: set[bytes] = frozenset(), slots: int = 2) -> Broker:  # type: ignore[assignment]
        broker = Broker(self.database, slots, LevelFile(self.folder, time.monotonic_ns(), b"b" * 16))
        broker.expect(set(expected))
        return broker

    def change(self, row: type, id_: int, **values: Any) -> None:
        with self.database.write() as session:
            found = session.get(row, id_)
            for name, value in values.items():
                setattr(found, name, value)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    place.database.close()


def worker_of(broker: Broker, name: bytes = b"a", *held: Held, keys: tuple[KeyHeld, ...] = ()) -> Channel:
    channel = Channel(broker, name)
    channel.hello(*held, keys=keys)
    return channel


def names(grant: LeaseGranted) -> list[str] | None:
    return None if grant.limits is None else [limit.name for limit in grant.limits]


async def test_a_grant_names_its_limits_to_who_knows_others(place: Place) -> None:
    broker = place.broker()
    worker = worker_of(broker)
    first = worker.ask(KEY, 1)
    assert (names(first), [left.remaining for left in first.left]) == (["minute", "month"], [59, 99])
    assert names(worker.ask(KEY, 1, terms=first.terms)) is None
    place.change(Plan, 1, rates='[["minute", 60, 60, 60], ["hour", 90, 3600, 90]]')
    broker.leasing.keys_changed(None)  # as `publish_keys` does
    assert names(worker.ask(KEY, 1, terms=first.terms)) == ["minute", "hour", "month"]


async def test_routes_and_tenants_are_charged_with_the_key(place: Place) -> None:
    with place.database.write() as session:
        session.add(Route(id=3, public_id="rte_3", tenant_id=1, path="/x", rates='[["second", 5, 1, 5]]', created_at=0))
    place.change(Tenant, 1, rates='[["minute", 7, 60, 7]]')
    worker = worker_of(place.broker())
    grant = worker.ask(LeaseId(1, 0, 3, 1), 9)
    assert names(grant) == ["minute", "route-second", "tenant-minute", "month"]
    assert (grant.granted, grant.blocked_by) == (5, 1)
    other = worker.ask(LeaseId(2, 0, 0, 1), 9)
    assert (other.granted, other.blocked_by) == (2, 1)


async def test_limits_that_were_lifted_hold_nobody_up(place: Place) -> None:
    worker = worker_of(place.broker())
    grant = worker.ask(LeaseId(0, 0, 99, 0), 4)
    assert (grant.granted, grant.surplus, grant.left, grant.limits, grant.blocked_by) == (4, 0, (), (), None)


async def test_a_control_that_begins_anew_goes_on_where_the_last_one_was_killed(place: Place) -> None:
    worker = worker_of(place.broker())
    assert worker.ask(KEY, 40).granted == 40
    again = worker_of(place.broker({b"a"}), b"a")
    grant = again.ask(KEY, 60)
    assert (grant.granted, grant.blocked_by) == (20, 0)


async def test_a_window_that_a_plan_has_again_goes_on_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "APPLY_TIMEOUT_S", 0.01)
    hour, both = '[["hour", 60, 3600, 60]]', '[["minute", 60, 60, 60], ["hour", 60, 3600, 60]]'
    place.change(Plan, 1, rates=hour, quota=None)
    assert worker_of(place.broker()).ask(KEY, 50).granted == 50
    broker = place.broker()
    worker = worker_of(broker)
    place.change(Plan, 1, rates=MINUTE)
    assert worker.ask(KEY, 1).granted == 1
    place.change(Plan, 1, rates=both)
    await broker.publish_keys(["ab12cd34"])
    assert worker.ask(KEY, 60).granted == 10
    assert worker_of(place.broker()).ask(KEY, 60).granted == 0


async def test_nothing_is_given_out_before_all_have_said_what_they_hold(place: Place) -> None:
    place.change(Plan, 1, rates='[["second", 1000, 1, 1000]]', quota=5000)
    old = worker_of(place.broker())
    grant = old.ask(KEY, 1)
    assert grant.surplus
    broker = place.broker({b"a", b"b"})
    fresh = worker_of(broker, b"c")
    assert fresh.say(LeaseAsked(KEY, 2000, 0)) is None
    assert fresh.say(SlotsAsked(1, 1)) is None
    worker_of(broker, b"a", Held(KEY, grant.surplus), keys=(KeyHeld(1, grant.surplus + 1, 3),))
    broker.worker_gone(b"b")
    granted, slots = fresh.sent[-2:]
    assert isinstance(granted, LeaseGranted)
    assert 900 <= granted.granted <= 1000 - grant.surplus
    assert granted.left[-1].remaining == 5000 - granted.granted - grant.surplus - 1
    assert slots == SlotsGranted(1, 1, False)
    assert sum(broker.leasing.lessor.slots[1].values()) == 4


async def test_one_that_stays_silent_is_not_waited_for_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "HELLO_TIMEOUT_S", 0.05)
    broker = place.broker({b"a"})
    fresh = worker_of(broker, b"c")
    assert fresh.say(LeaseAsked(KEY, 1, 0)) is None
    await asyncio.sleep(0.1)
    assert isinstance(fresh.sent[-1], LeaseGranted)
    assert broker.leasing.lessor._settled_ns is None  # it may speak yet
    broker.worker_gone(b"a")
    assert broker.leasing.lessor._settled_ns is not None


async def test_slots_are_exact_over_all_workers_and_freed_by_a_death(place: Place) -> None:
    place.change(Plan, 1, in_flight_limit=3)
    broker = place.broker()
    first, second = worker_of(broker, b"a"), worker_of(broker, b"b")
    assert first.say(SlotsAsked(1, 2)) == SlotsGranted(1, 2, False)
    assert second.say(SlotsAsked(1, 2)) == SlotsGranted(1, 1, False)
    assert second.say(SlotsAsked(2, 2)) == SlotsGranted(2, 2, False)  # another key
    first.say(SlotsReturned(1, 1))
    assert second.say(SlotsAsked(1, 2)) == SlotsGranted(1, 1, False)
    broker._on_lost(first)  # type: ignore[arg-type]
    assert second.say(SlotsAsked(1, 1)) == SlotsGranted(1, 0, False)
    broker.worker_gone(b"a")
    assert second.say(SlotsAsked(1, 1)) == SlotsGranted(1, 1, False)
    alone = place.broker(slots=1)
    assert worker_of(alone).say(SlotsAsked(1, 1)) == SlotsGranted(1, 1, True)


async def test_a_grant_of_quota_counts_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "APPLY_TIMEOUT_S", 0.01)  # this worker never says that it has heard
    place.change(Plan, 1, rates="[]")
    broker = place.broker()
    worker = worker_of(broker)
    assert worker.ask(KEY, 200).granted == 100
    worker.say(LeaseReturned(KEY, 0, 0, 0))
    start, _ = month_of(time.time_ns() / 1e9)
    with place.database.write() as session:
        session.add(QuotaGrant(public_id="qgr_1", key_id=1, month=start, units=30, created_at=0))
    await broker.publish_keys(["ab12cd34"])
    grant = worker.ask(KEY, 200)
    assert (grant.granted, grant.limits and grant.limits[0].limit) == (30, 130)
    assert quota_of(place.database.lookup, 1, 100, time.time_ns() / 1e9).limit == 130


async def test_a_grant_of_quota_that_ends_takes_its_units_along(place: Place) -> None:
    broker = place.broker()
    worker = worker_of(broker)
    now_s = time.time_ns() // 10**9
    with place.database.write() as session:
        grant = QuotaGrant(
            id=1, public_id="qgr_1", key_id=1, month=month_of(now_s)[0], units=30, until=now_s + 60, created_at=0
        )  # fmt: skip
        session.add(grant)
    first = worker.ask(KEY, 1)
    assert first.limits is not None and first.limits[-1].limit == 130
    assert broker.leasing.lessor.quotas[1].changes_at == now_s + 60
    place.change(QuotaGrant, 1, until=now_s)
    broker.leasing.lessor.quotas[1].changes_at = now_s  # as if the minute had passed
    second = worker.ask(KEY, 1, terms=first.terms)
    assert second.limits is not None and second.limits[-1].limit == 100
    assert second.left[-1].remaining == 98


# Clients.


async def test_a_plan_accepts_unknown_clients_up_to_its_number(place: Place) -> None:
    place.change(Plan, 1, clients_limit=2)
    worker = worker_of(place.broker())
    found = [worker.say(FindClient(1, name)) for name in ("a", "b", "c", "a")]
    assert all(isinstance(each, ClientFound) for each in found)
    assert [each.client is not None for each in found] == [True, True, False, True]
    assert found[3].client == found[0].client
    assert worker.say(FindClient(2, "c")).client is not None  # each key has its own
    assert [each.client.limited for each in found[:2]] == [True, True]
    grant = worker.ask(LeaseId(1, found[0].client.id), 100)
    assert (names(grant), grant.granted) == (["client-minute", "month"], 60)
    assert worker.ask(LeaseId(1, found[1].client.id), 100).granted == 40  # the quota is the key's


async def test_a_client_that_comes_while_keys_are_imported_is_accepted_later(place: Place) -> None:
    place.change(Plan, 1, clients_limit=2)
    broker = place.broker()
    worker = worker_of(broker)
    assert worker.say(FindClient(1, "a")).client is not None
    with place.database.lent():
        assert worker.say(FindClient(1, "a")).client is not None  # one that is known
        assert worker.say(FindClient(1, "b")) == ClientFound(1, "b", None)
        broker.tidy()
        assert worker.sent[-1] == ClientFound(1, "b", None)  # it would be so again
    broker.tidy()
    changed = worker.sent[-1]
    assert isinstance(changed, KeysChanged)  # workers forget that it was not accepted
    assert changed.public_ids == ("ab12cd34",)
    assert worker.say(FindClient(1, "b")).client is not None
    broker.tidy()
    assert isinstance(worker.sent[-1], ClientFound)


async def test_registered_clients_come_first_and_may_have_rates_of_their_own(place: Place) -> None:
    with place.database.write() as session:
        for id_, key_id, name, rates, removed in (
            (11, None, "ann", '[["second", 3, 1, 3]]', None), (12, 1, "bob", None, None), (13, None, "bob", "[]", None),
            (14, None, "gone", None, 1), (15, 2, "theirs", None, None),
        ):  # fmt: skip
            client = Client(
                id=id_, public_id=f"cli_{id_}", tenant_id=1, key_id=key_id, name=name, rates=rates, created_at=0,
                removed_at=removed,
            )  # fmt: skip
            session.add(client)
    worker = worker_of(place.broker())
    found = {name: worker.say(FindClient(1, name)).client for name in ("ann", "bob", "gone", "theirs", "nobody")}
    assert {name: client and client.id for name, client in found.items()} == {
        "ann": 11, "bob": 12, "gone": None, "theirs": None, "nobody": None,
    }  # fmt: skip
    assert names(worker.ask(LeaseId(1, 11), 1)) == ["client-second", "month"]
    assert worker.say(FindClient(2, "bob")).client.limited is False  # rates of its own: none


async def test_what_was_not_recorded_stays_counted_whoever_ends(place: Place) -> None:
    broker = place.broker()
    worker, other = worker_of(broker), worker_of(broker, b"b")
    for channel, lost in ((worker, 3), (other, 4), (worker, 5), (worker, 5)):
        channel.say(WorkerStats(9, 0, 0, 0, journal_full=True, journal_lost=lost, journal_error=""))
    assert broker.journal_lost == 9, "each tells its own sum"
    with place.database.lent():
        broker.losses.write()
    assert Losses(place.database).total == 0
    broker.losses.write()
    again = Losses(place.database)
    again.told(b"a", 5)
    assert (again.total, repr(again)) == (9, "<Losses 9 requests of 2 workers>"), "a worker that lives tells it again"
    again.told(b"a", 7)
    again.write()
    assert Losses(place.database).total == 11


async def test_a_database_that_takes_nothing_puts_off_what_is_written_of_it(place: Place) -> None:
    losses = Losses(place.database)
    losses.told(b"a", 3)
    with closing(sqlite3.connect(place.database.path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        losses.write()
    assert Losses(place.database).total == 0
    losses.write()
    assert Losses(place.database).total == 3


async def test_changes_that_come_together_are_read_and_sent_together(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred of them are no hundred configurations for each worker to compile, and none is told of too early."""
    broker = place.broker()
    worker = worker_of(broker)
    begun, go_on, readings = asyncio.Event(), threading.Event(), 0
    loop, read = asyncio.get_running_loop(), broker._read_snapshot

    def slowly() -> Any:
        nonlocal readings
        readings += 1
        found = read()
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(broker, "_read_snapshot", slowly)
    first = asyncio.ensure_future(broker.publish_snapshot())
    await begun.wait()
    place.change(Tenant, 1, slug="renamed")
    others = [asyncio.ensure_future(broker.publish_snapshot()) for _ in range(20)]
    await asyncio.sleep(0)
    others.pop().cancel()  # the change is stored, whoever waited for it
    go_on.set()
    heard: list[SnapshotChanged] = []
    async with asyncio.timeout(30):
        while len(heard) < 2:
            await asyncio.sleep(0.001)
            heard = [message for message in worker.sent if isinstance(message, SnapshotChanged)]
        assert [message.tenants[0].slug for message in heard] == ["default", "renamed"]
        worker.say(Applied(heard[0].change))
        await first
        assert not any(other.done() for other in others)
        worker.say(Applied(heard[1].change))
        await asyncio.gather(*others)
    assert readings == 2


async def test_a_change_reaches_workers_though_whoever_made_it_has_left(place: Place) -> None:
    broker = place.broker()
    worker = worker_of(broker)
    publishing = asyncio.ensure_future(broker.publish_snapshot())
    await asyncio.sleep(0)
    publishing.cancel()
    async with asyncio.timeout(30):
        while not isinstance(worker.sent[-1], SnapshotChanged):
            await asyncio.sleep(0.001)
        worker.say(Applied(worker.sent[-1].change))
        while broker._unapplied:
            await asyncio.sleep(0.001)
