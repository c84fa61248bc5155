"""The broker: control's end of every channel. Tells workers what changed, answers their look-ups, hands out leases.

Everything here runs on the event loop's thread and never waits between reading the database and sending, so what a
worker hears comes in the order in which it became true.

A control that begins anew finds workers that served on meanwhile. It gives out no token until each of them has said
what it holds: the lessor has forgotten, and they have not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gatewayd.channel import (
    Applied,
    Explained,
    Finding,
    FindKey,
    FrameProtocol,
    FromWorker,
    Greeting,
    Held,
    Hello,
    Inquiry,
    KeyFound,
    KeysChanged,
    LeaseAsked,
    LeaseGranted,
    LeaseReturned,
    Left,
    Recall,
    ServiceConf,
    SnapshotChanged,
    TargetsChecked,
    TargetSeen,
    TargetsSeen,
    Told,
    Welcome,
    WhatIf,
    WorkerStats,
)
from gatewayd.control.admin.state import WorkerView
from gatewayd.control.compile import find_key, find_key_by_id, snapshot
from gatewayd.control.database import Database
from gatewayd.control.inquiries import Inquiries
from gatewayd.control.quotas import quota_of
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.leases import Lessor, LimitLeft, Rate

# A worker that has not applied a change by then is stuck; the change is stored, and it will apply it before any other.
APPLY_TIMEOUT_S = 2.0
# A living worker that has not said Hello by then is stuck: the others do not wait for it any longer.
HELLO_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Connected:
    """A worker that has said Hello."""

    channel: FrameProtocol
    hello: Hello
    stats: WorkerStats = field(default_factory=lambda: WorkerStats(0, 0, 0, 0, False))
    targets: tuple[TargetSeen, ...] = ()


@dataclass(slots=True, eq=False)
class _Change:
    """On its way to the workers; `applied` once none is missing."""

    message: SnapshotChanged | KeysChanged
    missing: set[FrameProtocol]
    applied: asyncio.Event = field(default_factory=asyncio.Event)


class Broker:
    """Knows the workers that are connected. Times of limits are taken here, once per message."""

    def __init__(self, database: Database, slots: int) -> None:
        self._database = database
        self._slots = slots
        self._workers: dict[FrameProtocol, _Connected] = {}
        self._changes = 0
        self._greeted: set[FrameProtocol] = set()  # connected, not yet heard of
        self._unapplied: dict[int, _Change] = {}
        self._current: set[int] = set()  # keys whose limits at the lessor are as the database has them
        self._expected: set[bytes] = set()
        self._deferred: list[tuple[FrameProtocol, LeaseAsked]] = []
        self._held: dict[int, list[tuple[bytes, Held, int]]] = {}  # by key: who said what, when
        self.on_hello: Callable[[bytes, int], None] = lambda worker_id, records: None
        self.on_hello_timeout: Callable[[], None] = lambda: None
        self._inquiries = Inquiries()
        self.on_services: Callable[[Sequence[ServiceConf]], None] = lambda services: None
        self.targets_checked: Callable[[], TargetsChecked] = lambda: TargetsChecked(())
        self.lessor = Lessor()
        self.lessor.workers = slots

    def __repr__(self) -> str:
        return f"<Broker {len(self._workers)} of {self._slots} workers, {self._changes} changes, {self.lessor}>"

    def make_channel(self) -> FrameProtocol:
        """For each connection that a worker opens."""
        return FrameProtocol(FromWorker, self._on_message, self._on_lost, self._greet)

    def expect(self, workers: set[bytes]) -> None:
        """Before the first connection: these served on while there was no control."""
        self._expected = set(workers)
        if workers:
            asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._stop_expecting)

    def _greet(self, channel: FrameProtocol) -> None:
        self._greeted.add(channel)
        channel.send(Greeting())

    # Changes.

    async def publish_snapshot(self) -> None:
        """Tenants or services changed: push, and wait until every worker serves from it."""
        configuration = snapshot(self._database.lookup)
        self._changes += 1
        self.on_services(configuration.services)
        await self._publish(SnapshotChanged(self._changes, *configuration))

    def tell_checked(self, message: TargetsChecked) -> None:
        """News of targets, which nobody waits for."""
        for channel in self._workers:
            channel.send(message)

    async def publish_keys(self, public_ids: Sequence[str] | None) -> None:
        """These keys changed (None: any may have): wait until every worker has forgotten them."""
        if public_ids is None:
            self._current.clear()
        else:
            for public_id in public_ids:
                key = find_key(self._database.lookup, public_id)
                if key is not None:
                    self._current.discard(key.id)
        self._changes += 1
        await self._publish(KeysChanged(self._changes, None if public_ids is None else tuple(public_ids)))

    async def _publish(self, message: SnapshotChanged | KeysChanged) -> None:
        if not self._workers and not self._greeted:
            return
        # One that is greeted may serve from what it knew before; it is told as soon as it has said Hello.
        change = self._unapplied[message.change] = _Change(message, {*self._workers, *self._greeted})
        for channel in self._workers:
            channel.send(message)
        try:
            async with asyncio.timeout(APPLY_TIMEOUT_S):
                await change.applied.wait()
        except TimeoutError:
            log.warning("change %d is not yet in force on every worker", message.change)
        finally:
            self._unapplied.pop(message.change, None)

    def _settle(self, number: int, channel: FrameProtocol) -> None:
        change = self._unapplied.get(number)
        if change is None:
            return
        change.missing.discard(channel)
        if not change.missing:
            change.applied.set()

    # Messages.

    def _on_message(self, channel: FrameProtocol, message: Any) -> None:
        if isinstance(message, Hello):
            self._welcome(channel, message)
            return
        worker = self._workers.get(channel)
        if worker is None:  # it spoke before it said who it is
            channel.close()
            return
        match message:
            case LeaseAsked() if self._expected:
                self._deferred.append((channel, message))
            case LeaseAsked():
                channel.send(self._lease(worker.hello.worker_id, message))
            case LeaseReturned():
                self.lessor.give_back(
                    worker.hello.worker_id,
                    message.key_id,
                    message.returned,
                    message.unused,
                    message.spent,
                    time.monotonic_ns(),
                )
            case FindKey():
                channel.send(self._find(message.public_id))
            case Inquiry():
                channel.send(Finding(message.ask, self._answer_without_charge(message.question)))
            case Explained():
                self._inquiries.answered(channel, message)
            case Applied():
                self._settle(message.change, channel)
            case WorkerStats():
                worker.stats = message
            case TargetsSeen():
                worker.targets = message.targets

    def _welcome(self, channel: FrameProtocol, hello: Hello) -> None:
        self._greeted.discard(channel)
        self._workers[channel] = _Connected(channel, hello)
        self.on_hello(hello.worker_id, hello.records)
        now_ns = time.monotonic_ns()
        for held in hello.held:
            if not (held.unspent or held.in_flight or held.key_id in self._current):
                # Nothing but old news of its limits: kept until the key is asked for, since there may be many.
                self._held.setdefault(held.key_id, []).append((hello.worker_id, held, now_ns))
            elif self._ensure_current(held.key_id):
                self._resume(hello.worker_id, held, now_ns)
        channel.send(Welcome(*snapshot(self._database.lookup)))
        channel.send(self.targets_checked())
        for change in self._unapplied.values():
            if channel in change.missing:
                channel.send(change.message)
        log.info("worker %d (pid %d) is connected", hello.slot, hello.pid)
        self._no_longer_expect(hello.worker_id)

    def _resume(self, worker_id: bytes, held: Held, told_ns: int) -> None:
        age_s = (time.monotonic_ns() - told_ns) / 1e9
        left = tuple(LimitLeft(limit.remaining, limit.more_in_s - age_s) for limit in held.left)
        self.lessor.resume(worker_id, held.key_id, held.unspent, held.in_flight, left)

    def _no_longer_expect(self, worker_id: bytes) -> None:
        if worker_id in self._expected:
            self._expected.discard(worker_id)
            if not self._expected:
                self._answer_deferred()

    def _stop_expecting(self) -> None:
        if self._expected:
            log.warning("%d workers have not said what they hold; going on without them", len(self._expected))
            self._expected.clear()
            self._answer_deferred()
            self.on_hello_timeout()

    def _answer_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for channel, message in deferred:
            if worker := self._workers.get(channel):
                channel.send(self._lease(worker.hello.worker_id, message))

    def worker_gone(self, worker_id: bytes) -> None:
        """Ingest's word: the worker is dead and all that it has recorded is on the rollups."""
        self.lessor.worker_gone(worker_id)
        self._no_longer_expect(worker_id)

    def _find(self, public_id: str) -> KeyFound:
        return KeyFound(public_id, find_key(self._database.lookup, public_id))

    def _lease(self, worker_id: bytes, message: LeaseAsked) -> LeaseGranted:
        if not self._ensure_current(message.key_id):  # its limits were lifted while requests waited for them
            return LeaseGranted(message.key_id, message.count, 0, (), None)
        grant = self.lessor.ask(
            worker_id, message.key_id, message.count, message.spent, time.monotonic_ns(), time.time_ns() / 1e9
        )
        left = tuple(Left(*limit) for limit in grant.left)
        return LeaseGranted(message.key_id, grant.granted, grant.surplus, left, grant.blocked_by)

    def _answer_without_charge(self, question: FindKey | LeaseAsked) -> KeyFound | LeaseGranted:
        """What a request would be told that asked this now."""
        if isinstance(question, FindKey):
            return self._find(question.public_id)
        if not self._ensure_current(question.key_id):
            return LeaseGranted(question.key_id, question.count, 0, (), None)
        peek = self.lessor.peek(question.key_id, question.count, time.monotonic_ns(), time.time_ns() / 1e9)
        left = tuple(Left(*limit) for limit in peek.left)
        return LeaseGranted(question.key_id, peek.granted, 0, left, peek.blocked_by)

    def _ensure_current(self, key_id: int) -> bool:
        """The lessor has this key's limits as the database has them. False for a key that has none, or is gone."""
        now_s = time.time_ns() / 1e9
        if key_id in self._current and not self.lessor.month_passed(key_id, now_s):
            return True
        key = find_key_by_id(self._database.lookup, key_id)
        if key is None or not (key.rates or key.quota is not None):
            return False
        rates = tuple(Rate(rate.limit, rate.window_s, rate.burst) for rate in key.rates)
        quota = None if key.quota is None else quota_of(self._database.lookup, key_id, key.quota, now_s)
        limit, used = (None, 0) if quota is None else (quota.limit, quota.used)
        self.lessor.load(key_id, rates, limit, used, time.monotonic_ns(), now_s)
        self._current.add(key_id)
        for worker_id, held, told_ns in self._held.pop(key_id, ()):
            self._resume(worker_id, held, told_ns)
        return True

    def _on_lost(self, channel: FrameProtocol) -> None:
        self._greeted.discard(channel)
        worker = self._workers.pop(channel, None)
        self._inquiries.lost(channel)
        for change in list(self._unapplied):
            self._settle(change, channel)
        if worker is not None:
            self.lessor.channel_lost(worker.hello.worker_id, time.monotonic_ns())
            log.info("worker %d (pid %d) has gone", worker.hello.slot, worker.hello.pid)

    def tidy(self) -> None:
        """Forget the limits of keys that nobody has used for long enough to be full again. Called once a minute."""
        self._current.difference_update(self.lessor.forget_full(time.monotonic_ns()))

    # For explain.

    async def what_if(self, head: bytes, address: str, public_id: str | None, secret: bytes | None) -> Told | None:
        """What a living worker would do with this request."""
        if self._expected:
            raise GatewayError(UNAVAILABLE, "control has just begun: it does not know yet what the workers hold")
        workers = sorted(self._workers.values(), key=lambda worker: worker.hello.slot)
        channels = [worker.channel for worker in workers[:1]]
        return await self._inquiries.ask(channels, lambda ask: WhatIf(ask, head, address, public_id, secret))

    async def recall(self, request_id: str) -> Told | None:
        """What became of a request, from whichever worker remembers it."""
        return await self._inquiries.ask(list(self._workers), lambda ask: Recall(ask, request_id))

    # For status.

    def workers(self) -> list[WorkerView]:
        """One view a slot: who serves it, or that nobody does."""
        serving = {worker.hello.slot: worker for worker in self._workers.values()}
        return [self._view(slot, serving.get(slot)) for slot in range(self._slots)]

    def targets_seen(self, service_id: int) -> list[tuple[int, TargetSeen]]:
        """What workers, by their slots, have told of the targets of a service."""
        return [
            (worker.hello.slot, seen)
            for worker in self._workers.values()
            for seen in worker.targets
            if seen.service_id == service_id
        ]

    def _view(self, slot: int, worker: _Connected | None) -> WorkerView:
        if worker is None:
            return WorkerView(slot, 0, "gone", 0, 0, 0, 0, False)
        stats = worker.stats
        return WorkerView(
            slot,
            worker.hello.pid,
            "serving",
            stats.requests,
            stats.in_flight,
            stats.connections,
            stats.cached_keys,
            stats.journal_full,
        )
