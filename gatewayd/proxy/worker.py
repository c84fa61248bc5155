"""A worker: one process of the data plane. What it holds it can lose, but for the journal.

uvicorn runs the server (accepting, signals, draining); this module gives it our protocol class and keeps what all
connections share: the snapshot, the memory of keys, the pools, the journal, the link to control, and the sweeper, one
timer that looks after every deadline, since a timer per request would cost more than most requests do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from gatewayd.boot import (
    CANNOT_START,
    announce_ready,
    drain_with_supervisor,
    log_to_stderr,
    receive_boot,
    settings_of,
)
from gatewayd.channel import (
    Applied,
    ClientFound,
    Finding,
    FromControl,
    Hello,
    KeyFound,
    KeysChanged,
    LeaseGranted,
    Recall,
    SlotsGranted,
    SnapshotChanged,
    TargetsChecked,
    Welcome,
    WhatIf,
    WorkerStats,
)
from gatewayd.errors import Refusal, StartupError
from gatewayd.listener_tls import ListenerTls, TlsFiles
from gatewayd.policy.facts import Target
from gatewayd.policy.snapshot import EMPTY, Compiling, Snapshot
from gatewayd.proxy.arrival import first_protocol
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.dial import Dialer
from gatewayd.proxy.door import Door, fit_to_descriptors
from gatewayd.proxy.exchange import Exchange
from gatewayd.proxy.explain import Explainer
from gatewayd.proxy.faring import Faring
from gatewayd.proxy.head import request_pattern
from gatewayd.proxy.installing import Installing
from gatewayd.proxy.journal import Journal
from gatewayd.proxy.keybook import KeyBook
from gatewayd.proxy.link import Link
from gatewayd.proxy.loads import NO_LOADS, loads_of
from gatewayd.proxy.pool import Pool
from gatewayd.proxy.problems import render
from gatewayd.proxy.recent import Recent
from gatewayd.proxy.resolver import Resolver
from gatewayd.proxy.sightings import Sightings
from gatewayd.proxy.syncing import Syncing
from gatewayd.proxy.target_tls import Contexts
from gatewayd.proxy.tunnel import Tunnels
from gatewayd.serving import DrainingServer, server_config
from gatewayd.settings import Settings

SWEEP_S = 0.1  # how late a timeout may come
TICKS_PER_SECOND = round(1 / SWEEP_S)
TICKS_PER_SYNC = 5  # twice a second: `journal_sync = "second"` is kept though a sync takes its time

log = logging.getLogger(__name__)


class Attended(Protocol):
    """One of the server's connections: a client's, one that has not arrived yet, a tunnel."""

    def check_time(self, now: float) -> None: ...


class Worker:
    """What all connections of this process share."""

    def __init__(self, settings: Settings, slot: int, server_connections: set[Attended]) -> None:
        self.settings = settings
        self.slot = slot
        self.loop = asyncio.get_running_loop()
        self.now = time.monotonic
        self.connections = server_connections
        self.id = secrets.token_bytes(16)
        self.journal = Journal(
            settings.state_dir / "journal",
            self.id,
            time.time_ns(),
            settings.journal_bound_bytes,
            synced=settings.journal_sync != "process",
        )
        self.syncing = Syncing(self.journal, self.loop)
        # What a response's last bytes are given to; they leave at once where there is none.
        self.hold = self.syncing.hold if settings.journal_sync == "record" else None
        self.link = Link(settings.state_dir, self._on_connected, self._on_message)
        self.installing = Installing()
        self.keys = KeyBook(self.link.send, settings.cached_keys)
        self.snapshot: Snapshot = EMPTY
        self.head_pattern = request_pattern(EMPTY.key_headers)
        self.credential_headers: frozenset[bytes] = frozenset()
        self.exchanges: set[Exchange] = set()
        self.tunnels = Tunnels(server_connections, self.keys)
        self.in_flight_limit = settings.in_flight_limit
        self.recent = Recent()
        self.explainer = Explainer(self, self.link.send)
        self.door = Door(self, settings.connections_limit)
        self.requests = 0
        self._unrecorded = 0  # when control was last told
        self.draining = False
        self.welcomed = asyncio.Event()
        self.resolver = Resolver(self.loop, settings.resolve_s)
        self.contexts = Contexts(self.loop)
        self._pools: dict[str, Pool] = {}  # by the target's identity
        self.sightings = Sightings(self.link.send, self.load_of)
        self._loads = NO_LOADS  # as control was last told
        self._serves_unrecorded = settings.on_full == "serve"
        # 16 characters, which is what a record keeps of an id: 8 for this worker's life, 8 that count.
        self._request_id_prefix = secrets.token_hex(4).encode()
        self._request_id_count = secrets.randbits(32)

    def __repr__(self) -> str:
        return (
            f"<Worker {self.slot} {self.snapshot} {len(self.exchanges)} in flight, {len(self.connections)} connections>"
        )

    # For exchanges.

    def new_request_id(self) -> bytes:
        self._request_id_count = (self._request_id_count + 1) & 0xFFFFFFFF
        return b"%b%08x" % (self._request_id_prefix, self._request_id_count)

    def has_journal_room(self) -> bool:
        return self.journal.has_room(len(self.exchanges)) or self._serves_unrecorded

    def pool_of(self, target: Target) -> Pool:
        pool = self._pools.get(target.identity)
        if pool is None:
            dialer = Dialer(target, self.loop, self.resolver, self.contexts)
            pool = self._pools[target.identity] = Pool(target, self.loop, dialer, self.settings)
        return pool

    def load_of(self, target: Target) -> int:
        """Requests that it has in flight there."""
        pool = self._pools.get(target.identity)
        return 0 if pool is None else pool.busy

    def faring_of(self, identity: str) -> Faring | None:
        """How the target of this identity fares. None: no service uses it any more."""
        pool = self._pools.get(identity)
        return None if pool is None else pool.faring

    def requests_within(self, identity: str, window_s: float, now: float) -> int:
        """How many the target of this identity has got."""
        pool = self._pools.get(identity)
        return 0 if pool is None else pool.requests_within(window_s, now)

    def shed_idle_upstreams(self) -> None:
        """Descriptors are short: whoever needs an upstream next is worth more than who may come again."""
        for pool in self._pools.values():
            pool.close_idle(math.inf)

    def render_rejection(self, refusal: Refusal) -> bytes:
        request_id = self.new_request_id()
        self.recent.keep_rejected(request_id, refusal)
        return render(refusal, request_id, b"", head_only=False, close=True)[0]

    # The channel.

    def _on_connected(self) -> None:
        self.installing.drop()
        self.explainer.reconnected()
        held, keys = self.keys.reconnected()
        self.sightings.begin_anew()
        self._loads = NO_LOADS
        self.link.send(Hello(self.id, self.slot, os.getpid(), tuple(held), self.journal.records, tuple(keys)))

    def _on_message(self, message: FromControl) -> None:
        match message:
            case LeaseGranted():
                self.keys.granted(message, time.monotonic())
            case KeyFound():
                self.keys.found(message, time.monotonic())
            case SlotsGranted():
                self.keys.slots_granted(message, time.monotonic())
            case ClientFound():
                self.keys.client_found(message, time.monotonic())
            case KeysChanged():
                self.keys.forget(message.public_ids)
                self.tunnels.keys_changed(message.public_ids)
                self.link.send(Applied(message.change))
            case TargetsChecked():
                self.installing.put(lambda: self._believe(message))
            case SnapshotChanged():
                self.installing.put(lambda: self._change(message))
            case WhatIf():
                self.explainer.asked(message)
            case Finding():
                self.explainer.found(message)
            case Recall():
                self.explainer.recall(message)
            case Welcome():
                if self.welcomed.is_set():
                    self.installing.put(lambda: self._install_by_steps(message))
                else:  # nobody waits but for this
                    self._install(message)
                self.keys.ask_again()
                self.tunnels.control_returned()
                self.welcomed.set()

    def _change(self, message: SnapshotChanged) -> Iterator[None]:
        yield from self._install_by_steps(message)
        self.keys.shared_limits_changed()
        self.keys.look_ups.forget(None)  # keys may have been imported that were none before
        self.link.send(Applied(message.change))

    def _install(self, message: Welcome | SnapshotChanged) -> None:
        for _ in self._install_by_steps(message):
            pass

    def _install_by_steps(self, message: Welcome | SnapshotChanged) -> Iterator[None]:
        compiling = Compiling(
            self.snapshot.version + 1,
            message.tenants,
            message.services,
            message.routes,
            self.settings.body_limit_bytes,
            self.snapshot,
        )
        yield from compiling.steps()
        snapshot = compiling.snapshot
        if snapshot.key_headers != self.snapshot.key_headers:
            self.head_pattern = request_pattern(snapshot.key_headers)
        self.credential_headers = frozenset(name.encode() for name in snapshot.key_headers) | {b"authorization"}
        self.snapshot = snapshot
        wanted = {target.identity for service in snapshot.services.values() for target in service.targets}
        for identity in self._pools.keys() - wanted:
            self._pools.pop(identity).retire()
        self.resolver.keep(pool.target.host for pool in self._pools.values())
        self.sightings.note_drained(snapshot.services)
        self.tunnels.snapshot_changed()

    def _believe(self, message: TargetsChecked) -> Iterator[None]:
        for checked in message.targets:
            yield
            service = self.snapshot.services.get(checked.service_id)
            if service is not None:
                service.rotation.told(checked.url, checked.healthy, time.monotonic())
                self.sightings.note(service)

    # Time.

    async def sweep(self) -> None:
        """Every deadline of this process, looked at ten times a second."""
        tick = 0
        while True:
            await asyncio.sleep(SWEEP_S)
            tick += 1
            now = time.monotonic()
            for exchange in [exchange for exchange in self.exchanges if exchange.deadline <= now]:
                exchange.check_time(now)
            self.journal.prepare()
            if tick % TICKS_PER_SYNC == 0:
                self.syncing.begin()
            self.keys.return_idle(now)
            if tick % TICKS_PER_SECOND == 0:
                self._sweep_slowly(now)

    def _sweep_slowly(self, now: float) -> None:
        for connection in list(self.connections):
            connection.check_time(now)
        self.tunnels.sweep()
        self.door.check_time(now)
        for pool in self._pools.values():
            pool.sweep()
        self.contexts.look_after(pool.target.tls for pool in self._pools.values() if pool.target.tls is not None)
        self.sightings.tell(self.snapshot.services, now)
        loads = loads_of(self.exchanges, self._pools.values(), now)
        if loads != self._loads:
            self._loads = loads
            self.link.send(loads)
        self._tell_stats()

    def _tell_stats(self) -> None:
        unrecorded = self.journal.lost + self.journal.lost_refusals
        journal_full = unrecorded > self._unrecorded or not self.journal.has_room(len(self.exchanges))
        self._unrecorded = unrecorded
        self.link.send(
            WorkerStats(
                self.requests,
                len(self.exchanges),
                len(self.connections),
                len(self.keys.entries),
                journal_full,
                self.journal.lost,
                self.journal.error or self.syncing.error,
            )
        )

    def drain(self) -> None:
        """From now on responses say `Connection: close`."""
        self.draining = self.keys.draining = True

    def close(self) -> None:
        """End what the drain has left, while there is a journal. Nothing more is read; what is written still goes."""
        self.installing.drop()
        for exchange in list(self.exchanges):
            exchange.worker_ends()
        self.syncing.close()
        for connection in list(self.connections):
            if isinstance(connection, ClientConnection):  # there are tunnels and arrivals among them
                connection.transport.close()
        self.door.close()
        for pool in self._pools.values():
            pool.close()
        self.tunnels.close()
        self.resolver.close()
        self.contexts.close()
        self._tell_stats()  # or nobody would know what the last second's requests, or these, have lost
        self.journal.close()


async def serve(settings: Settings, slot: int, sockets: list[socket.socket], supervisor: socket.socket) -> None:
    """Serve until told to stop, then until what is in flight has ended (at most `drain_timeout_s`)."""
    files = TlsFiles.of_data_plane(settings)
    tls = None if files is None else ListenerTls(files)
    config = server_config(_no_app, settings.drain_timeout_s, date_header=False, backlog=4096)
    server = DrainingServer(config)
    worker = Worker(settings, slot, server.server_state.connections)  # type: ignore[arg-type]
    server.on_drain = worker.drain
    config.load()
    worker.door.admit, worker.door.speaks = first_protocol(worker, tls), tls is None
    config.http_protocol_class = worker.door  # type: ignore[assignment]
    drain_with_supervisor(supervisor)
    tasks = [asyncio.create_task(worker.link.run()), asyncio.create_task(worker.sweep())]
    if tls is not None:
        tasks.append(asyncio.create_task(tls.watch()))
    for task in tasks:
        server.needs(task)
    try:
        await worker.welcomed.wait()
        gc.freeze()  # see `installing`
        announce_ready(supervisor)
        await server.serve(sockets=sockets)
    finally:
        for task in tasks:
            task.cancel()
        worker.close()


async def _no_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("the data plane's protocol class calls no ASGI app")


def main() -> None:
    import uvloop

    boot, supervisor = receive_boot()
    log_to_stderr(f"worker-{boot.slot}")
    sockets = [socket.socket(fileno=descriptor) for descriptor in boot.sockets]
    try:
        uvloop.run(serve(fit_to_descriptors(settings_of(boot)), boot.slot, sockets, supervisor))
    except StartupError as error:
        log.error("%s", error)
        sys.exit(CANNOT_START)
