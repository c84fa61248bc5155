"""The broker: control's end of every channel. Tells workers what changed, and answers them.

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

from sqlalchemy.exc import DBAPIError

from gatewayd.channel import (
    Applied,
    ClientFound,
    Explained,
    FindClient,
    Finding,
    FindKey,
    Found,
    FromWorker,
    Greeting,
    Hello,
    Inquiry,
    KeyFound,
    KeysChanged,
    LeaseAsked,
    LeaseReturned,
    Loads,
    Recall,
    SlotsAsked,
    SlotsReturned,
    SnapshotChanged,
    TargetsChecked,
    TargetSeen,
    TargetsSeen,
    Welcome,
    WhatIf,
    WorkerStats,
)
from gatewayd.conf import ServiceConf
from gatewayd.control.admin.state import WorkerView
from gatewayd.control.clients import accept_client, conf_of, find_client
from gatewayd.control.compile import Configuration, find_key, find_key_by_id, snapshot
from gatewayd.control.database import Database
from gatewayd.control.inquiries import Inquiries
from gatewayd.control.leasing import Leasing
from gatewayd.control.levels import LevelFile
from gatewayd.control.losses import Losses
from gatewayd.control.short_turns import short_turns
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.frames import FrameProtocol
from gatewayd.told import Told

# A worker that has not applied a change by then is stuck; the change is stored, and it will apply it before any other.
APPLY_TIMEOUT_S = 2.0
# More for each service and route: a worker compiles one in 20 us, but gives the requests it has their turns meanwhile.
COMPILE_TIMEOUT_S = 0.001
# A living worker that has not said Hello by then is stuck: the others do not wait for it any longer.
HELLO_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Connected:
    """A worker that has said Hello."""

    channel: FrameProtocol
    hello: Hello
    stats: WorkerStats = field(default_factory=lambda: WorkerStats(0, 0, 0, 0, False, 0, ""))
    targets: tuple[TargetSeen, ...] = ()
    loads: Loads = field(default_factory=lambda: Loads((), (), ()))


@dataclass(slots=True, eq=False)
class _Change:
    """On its way to the workers; `applied` once none is missing."""

    message: SnapshotChanged | KeysChanged
    missing: set[FrameProtocol]
    applied: asyncio.Event = field(default_factory=asyncio.Event)


class Broker:
    """Knows the workers that are connected."""

    def __init__(self, database: Database, slots: int, levels: LevelFile) -> None:
        self._database = database
        self._slots = slots
        self._workers: dict[FrameProtocol, _Connected] = {}
        self._changes = 0
        self._reading = asyncio.Lock()
        self._to_read: asyncio.Task[None] | None = None  # will publish what there is when it begins to read
        self._greeted: set[FrameProtocol] = set()  # connected, not yet heard of
        self._unapplied: dict[int, _Change] = {}
        self._expected: set[bytes] = set()  # workers of before that have neither said Hello nor died
        self._deferring = False  # no limit is given out until they have, or the time for it is over
        self._deferred: list[tuple[FrameProtocol, LeaseAsked | SlotsAsked]] = []
        self.on_hello: Callable[[bytes, int], None] = lambda worker_id, records: None
        self.on_hello_timeout: Callable[[], None] = lambda: None
        self._turned_away: set[str] = set()  # keys of which clients could not be stored
        self.losses = Losses(database)
        self._inquiries = Inquiries()
        self.on_services: Callable[[Sequence[ServiceConf]], None] = lambda services: None
        self.targets_checked: Callable[[], TargetsChecked] = lambda: TargetsChecked(())
        self.leasing = Leasing(database, levels, slots)

    def __repr__(self) -> str:
        return f"<Broker {len(self._workers)} of {self._slots} workers, {self._changes} changes, {self.leasing}>"

    def make_channel(self) -> FrameProtocol:
        """For each connection that a worker opens."""
        return FrameProtocol(FromWorker, self._on_message, self._on_lost, self._greet)

    def expect(self, workers: set[bytes]) -> None:
        """Before the first connection: these served on while there was no control."""
        self._expected = set(workers)
        self._deferring = bool(workers)
        if not workers:
            self._all_heard()
        else:
            asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._stop_expecting)

    def _greet(self, channel: FrameProtocol) -> None:
        self._greeted.add(channel)
        channel.send(Greeting())

    # Changes.

    async def publish_snapshot(self) -> None:
        """Tenants or services changed: push, and wait until every worker serves from it.

        Thousands of rows take a thread some time. All who come until it begins to read are served by the one reading,
        so that a hundred changes at once are two configurations to compile. It goes on where one of them leaves.
        """
        if self._to_read is None:
            self._to_read = asyncio.get_running_loop().create_task(self._publish_snapshot())
        await asyncio.shield(self._to_read)

    async def _publish_snapshot(self) -> None:
        """One after another: whoever publishes next reads after that, so workers are told last what there was last."""
        async with self._reading:
            self._to_read = None
            configuration = await asyncio.to_thread(self._read_snapshot)
            self.leasing.shared_limits_changed()
            self._changes += 1
            self.on_services(configuration.services)
            change = self._push(SnapshotChanged(self._changes, *configuration))
        size = len(configuration.services) + len(configuration.routes)
        await self._until_applied(change, APPLY_TIMEOUT_S + size * COMPILE_TIMEOUT_S)

    def _read_snapshot(self) -> Configuration:
        with short_turns(), self._database.read() as session:
            return snapshot(session.connection())

    def tell_checked(self, message: TargetsChecked) -> None:
        """News of targets, which nobody waits for."""
        for channel in self._workers:
            channel.send(message)

    async def publish_keys(self, public_ids: Sequence[str] | None) -> None:
        """These keys changed (None: any may have): wait until every worker has forgotten them."""
        if public_ids is None:
            self.leasing.keys_changed(None)
        else:
            found = [find_key(self._database.lookup, public_id) for public_id in public_ids]
            self.leasing.keys_changed({key.id for key in found if key is not None})
        self._changes += 1
        names = None if public_ids is None else tuple(public_ids)
        await self._until_applied(self._push(KeysChanged(self._changes, names)), APPLY_TIMEOUT_S)

    def _push(self, message: SnapshotChanged | KeysChanged) -> _Change:
        """One that is greeted may serve from what it knew before; it is told as soon as it has said Hello."""
        change = self._unapplied[message.change] = _Change(message, {*self._workers, *self._greeted})
        for channel in self._workers:
            channel.send(message)
        return change

    async def _until_applied(self, change: _Change, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                if change.missing:
                    await change.applied.wait()
        except TimeoutError:
            log.warning("change %d is not yet in force on every worker", change.message.change)
        finally:
            self._unapplied.pop(change.message.change, None)

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
            case LeaseAsked() | SlotsAsked():
                self._answer(channel, message)
            case LeaseReturned() | SlotsReturned():
                self.leasing.give_back(worker.hello.worker_id, message)
            case FindClient():
                channel.send(self._find_client(message))
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
                if message.journal_lost:
                    self.losses.told(worker.hello.worker_id, message.journal_lost)
            case TargetsSeen():
                worker.targets = message.targets
            case Loads():
                worker.loads = message

    def _welcome(self, channel: FrameProtocol, hello: Hello) -> None:
        self._greeted.discard(channel)
        self._workers[channel] = _Connected(channel, hello)
        self.on_hello(hello.worker_id, hello.records)
        self.leasing.resume(hello)
        channel.send(Welcome(*snapshot(self._database.lookup)))
        channel.send(self.targets_checked())
        for change in self._unapplied.values():
            if channel in change.missing:
                channel.send(change.message)
        log.info("worker %d (pid %d) is connected", hello.slot, hello.pid)
        self._no_longer_expect(hello.worker_id)

    def _no_longer_expect(self, worker_id: bytes) -> None:
        if worker_id in self._expected:
            self._expected.discard(worker_id)
            if not self._expected:
                self._all_heard()

    def _stop_expecting(self) -> None:
        if self._expected:
            log.warning("%d workers have not said what they hold; going on without them", len(self._expected))
            self._answer_deferred()  # what the silent ones hold stays unclaimed until they speak or die
            self.on_hello_timeout()

    def _all_heard(self) -> None:
        self.leasing.settle()
        self._answer_deferred()

    def _answer_deferred(self) -> None:
        self._deferring = False
        deferred, self._deferred = self._deferred, []
        for channel, message in deferred:
            if channel in self._workers:
                self._answer(channel, message)

    def worker_gone(self, worker_id: bytes) -> None:
        """Ingest's word: the worker is dead and all that it has recorded is on the rollups."""
        self.leasing.worker_gone(worker_id)
        self._no_longer_expect(worker_id)

    def _find(self, public_id: str) -> KeyFound:
        return KeyFound(public_id, find_key(self._database.lookup, public_id))

    def _find_client(self, message: FindClient) -> ClientFound:
        key = find_key_by_id(self._database.lookup, message.key_id)
        try:
            found = (
                None
                if key is None
                else accept_client(self._database, key, message.name, time.time_ns() // 1_000_000_000)
            )
        except (DBAPIError, GatewayError) as error:  # not accepted for the moment; `tidy` says when it may be again
            log.error("a client cannot be stored: %s", error.orig if isinstance(error, DBAPIError) else error)
            found = None
            assert key is not None  # else nothing was stored
            self._turned_away.add(key.public_id)
        client = None if found is None or key is None else conf_of(found, key)
        return ClientFound(message.key_id, message.name, client)

    def _known_client(self, question: FindClient) -> ClientFound:
        """As `_find_client`, but nobody is accepted by it."""
        key = find_key_by_id(self._database.lookup, question.key_id)
        found = None if key is None else find_client(self._database.lookup, key, question.name)
        client = None if found is None or key is None else conf_of(found, key)
        return ClientFound(question.key_id, question.name, client)

    # Limits.

    def _answer(self, channel: FrameProtocol, message: LeaseAsked | SlotsAsked) -> None:
        if self._deferring:
            self._deferred.append((channel, message))
            return
        worker_id = self._workers[channel].hello.worker_id
        if isinstance(message, LeaseAsked):
            channel.send(self.leasing.lease(worker_id, message))
        else:
            channel.send(self.leasing.slots(worker_id, message))

    def _answer_without_charge(self, question: FindKey | FindClient | LeaseAsked | SlotsAsked) -> Found:
        """What a request would be told that asked this now."""
        match question:
            case FindKey():
                return self._find(question.public_id)
            case FindClient():
                return self._known_client(question)
            case SlotsAsked():
                return self.leasing.peek_slots(question)
            case LeaseAsked():
                return self.leasing.peek(question)

    def _on_lost(self, channel: FrameProtocol) -> None:
        self._greeted.discard(channel)
        worker = self._workers.pop(channel, None)
        self._inquiries.lost(channel)
        for change in list(self._unapplied):
            self._settle(change, channel)
        if worker is not None:
            self.leasing.channel_lost(worker.hello.worker_id)
            log.info("worker %d (pid %d) has gone", worker.hello.slot, worker.hello.pid)

    def tidy(self) -> None:
        """Forget the limits of keys that nobody has used for long enough to be full again. Called once a minute."""
        self.leasing.forget_full()
        if self._turned_away and not self._database.is_lent:
            self._changes += 1
            message = KeysChanged(self._changes, tuple(self._turned_away))
            self._turned_away.clear()
            for channel in self._workers:  # nobody waits for it
                channel.send(message)

    # For explain.

    async def what_if(self, head: bytes, address: str, public_id: str | None, secret: bytes | None) -> Told | None:
        """What a living worker would do with this request."""
        if self._deferring:
            raise GatewayError(UNAVAILABLE, "control has just begun: it does not know yet what the workers hold")
        workers = sorted(self._workers.values(), key=lambda worker: worker.hello.slot)
        channels = [worker.channel for worker in workers[:1]]
        return await self._inquiries.ask(channels, lambda ask: WhatIf(ask, head, address, public_id, secret))

    async def recall(self, request_id: str) -> Told | None:
        """What became of a request, from whichever worker remembers it."""
        return await self._inquiries.ask(list(self._workers), lambda ask: Recall(ask, request_id))

    # For status.

    @property
    def journal_lost(self) -> int:
        """Requests that workers have served and not recorded, those that have gone among them."""
        return self.losses.total

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

    def all_targets_seen(self) -> list[tuple[int, TargetSeen]]:
        """The same of every service."""
        return [(worker.hello.slot, seen) for worker in self._workers.values() for seen in worker.targets]

    def loads(self) -> list[Loads]:
        """Where requests are in flight, of each worker."""
        return [worker.loads for worker in self._workers.values()]

    def _view(self, slot: int, worker: _Connected | None) -> WorkerView:
        if worker is None:
            return WorkerView(slot, 0, "gone", 0, 0, 0, 0, False, 0, "")
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
            stats.journal_lost,
            stats.journal_error,
        )
