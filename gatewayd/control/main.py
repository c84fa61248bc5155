"""The control process: opens the database, catches up with the journals, then serves workers and operators."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from gatewayd.boot import (
    CANNOT_START,
    Boot,
    announce_ready,
    drain_with_supervisor,
    log_to_stderr,
    receive_boot,
    settings_of,
)
from gatewayd.channel import TargetSeen
from gatewayd.control.admin.app import build_app
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.peer import PeerProtocol
from gatewayd.control.admin.state import ControlState, FaringView, JournalView, LoadView, TargetView, WorkerView
from gatewayd.control.alerting import Alerting
from gatewayd.control.backup import remove_unfinished
from gatewayd.control.batches import Batch
from gatewayd.control.bearers import Bearers
from gatewayd.control.broker import Broker
from gatewayd.control.closing import close_due
from gatewayd.control.compile import snapshot
from gatewayd.control.database import Database
from gatewayd.control.days import Days
from gatewayd.control.ingest import Ingest
from gatewayd.control.levels import LevelFile, boot_id
from gatewayd.control.losses import Losses
from gatewayd.control.pressure import Pressure
from gatewayd.control.probing import Check, Prober
from gatewayd.control.remote import RemoteDoor
from gatewayd.control.retirement import retire_quiet
from gatewayd.errors import StartupError
from gatewayd.listener_tls import ListenerTls, TlsFiles
from gatewayd.serving import DrainingServer, server_config
from gatewayd.settings import Settings
from gatewayd.told import Told

LOCK_WAIT_S = 10.0  # for the control process before us to end
TIDY_S = 60.0
VISITS_S = 5.0
DRAIN_TIMEOUT_S = 5  # admin requests are short

log = logging.getLogger(__name__)


class Plane:
    """What the admin API needs of the data plane: the broker's hand on workers, ingest's on journals, the probes."""

    def __init__(self, broker: Broker, ingest: Ingest, alerting: Alerting, prober: Prober) -> None:
        self._broker = broker
        self._ingest = ingest
        self._alerting = alerting
        self._prober = prober

    async def publish_snapshot(self) -> None:
        self._alerting.tenants_changed()
        await self._broker.publish_snapshot()

    async def publish_keys(self, public_ids: Sequence[str] | None) -> None:
        self._alerting.forget()
        await self._broker.publish_keys(public_ids)

    def alert_added(self) -> None:
        self._alerting.alert_added()

    def alert_removed(self, alert_id: int) -> None:
        self._alerting.alert_removed(alert_id)

    async def catch_up(self) -> None:
        await self._ingest.catch_up()

    async def what_if(self, head: bytes, address: str, public_id: str | None, secret: bytes | None) -> Told | None:
        return await self._broker.what_if(head, address, public_id, secret)

    async def recall(self, request_id: str) -> Told | None:
        return await self._broker.recall(request_id)

    def journals_held(self) -> contextlib.AbstractContextManager[None]:
        return self._ingest.held()

    def keep_losses(self) -> None:
        self._broker.losses.write()

    def workers(self) -> list[WorkerView]:
        return self._broker.workers()

    def journal(self) -> JournalView:
        workers, lag = self._broker.workers(), self._ingest.lag()
        return JournalView(
            self._ingest.segments,
            self._ingest.torn,
            any(worker.journal_full for worker in workers),
            tuple(self._ingest.damaged),
            self._ingest.failure,
            next((worker.journal_error for worker in workers if worker.journal_error), ""),
            self._broker.journal_lost,
            waiting_records=lag.records,
            waiting_bytes=lag.size_bytes,
            waiting_s=max(0, time.time_ns() - lag.oldest_ns) // 1_000_000_000 if lag.records else 0,
        )

    def quotas(self) -> dict[int, tuple[float, int]]:
        return self._broker.leasing.quotas()

    def targets(self, service_id: int) -> list[TargetView]:
        probes = [_as_probed(check) for check in self._prober.checks(service_id)]
        return probes + [_as_seen(slot, seen) for slot, seen in self._broker.targets_seen(service_id)]

    def all_targets(self) -> dict[int, list[TargetView]]:
        found: dict[int, list[TargetView]] = {}
        for check in self._prober.all_checks():
            found.setdefault(check.service_id, []).append(_as_probed(check))
        for slot, seen in self._broker.all_targets_seen():
            found.setdefault(seen.service_id, []).append(_as_seen(slot, seen))
        return found

    def load(self) -> LoadView:
        view = LoadView()
        for loads in self._broker.loads():
            view.services.update(dict(loads.services))
            view.keys.update(dict(loads.keys))
            for target in loads.targets:
                view.targets[target.url] += target.in_flight
                faring = view.faring.setdefault(target.url, FaringView())
                faring.sent += target.requests
                faring.ended += target.ended
                faring.errors += target.errors
                faring.times.append(target.times)
        return view

    def pressures(self, keys: Collection[int]) -> dict[int, Pressure]:
        return self._broker.leasing.pressures(keys)

    def whole_until_ns(self) -> int:
        return self._ingest.whole_until_ns(time.time_ns())

    def positions(self, *, to_the_end: bool = False) -> dict[str, int]:
        return self._ingest.positions(to_the_end=to_the_end)


_PROBED = {None: "checking", True: "healthy", False: "unhealthy"}


def _as_probed(check: Check) -> TargetView:
    return TargetView("probe", check.url, _PROBED[check.healthy], check.since_s, check.error, check.error_at_s)


def _as_seen(slot: int, seen: TargetSeen) -> TargetView:
    return TargetView(f"worker-{slot}", seen.url, seen.state, seen.since_s, seen.error, seen.error_at_s, seen.in_flight)


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the folder's lock: two writers would each hand out the whole of every limit. Raises StartupError."""
    descriptor = os.open(state_dir / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_at = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise StartupError(f"another gatewayd is using {state_dir}") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


async def serve(settings: Settings, boot: Boot, supervisor: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    channel, admin, *remotes = (socket.socket(fileno=descriptor) for descriptor in boot.sockets)
    files = TlsFiles.of_admin(settings)
    tls = None if files is None else ListenerTls(files)
    database = Database.open(settings.state_dir, durable=settings.journal_sync != "process")
    journals = settings.state_dir / "journal"
    remove_unfinished(settings.state_dir)
    try:
        levels = LevelFile(settings.state_dir, time.monotonic_ns(), boot_id())
    except OSError as error:
        raise StartupError(f"the levels of limits in {settings.state_dir} cannot be kept: {error.strerror}") from None
    broker = Broker(database, settings.workers, levels)
    alerting = Alerting(database)

    def recorded(worker_id: bytes, key_id: int, count: int, hour_s: int) -> None:
        broker.leasing.lessor.recorded(worker_id, key_id, count, hour_s)
        alerting.recorded(key_id, count)

    ingest = Ingest(
        database, journals, recorded, broker.worker_gone, settings.journal_keep_bytes, on_storing=alerting.storing
    )
    # Before the first lease: what was admitted must be on the rollups, or a quota would be handed out again.
    await ingest.catch_up()
    broker.on_hello, broker.on_hello_timeout = ingest.take_until, ingest.await_nobody
    broker.expect(ingest.await_writers())
    prober = Prober(broker.tell_checked)
    broker.on_services, broker.targets_checked = prober.configure, prober.known
    prober.configure(snapshot(database.lookup).services)
    plane = Plane(broker, ingest, alerting, prober)
    started_at = time.time_ns() // 1_000_000_000
    control = ControlState(database, settings, plane, boot.listen, started_at, boot.admin_listen)
    channel_server = await loop.create_unix_server(broker.make_channel, sock=channel)
    app = build_app(control)
    server = DrainingServer(server_config(app, DRAIN_TIMEOUT_S, http=PeerProtocol))
    doors = [asyncio.create_task(RemoteDoor(app, remote, tls, server.server_state).run()) for remote in remotes]
    for door in doors:
        server.needs(door)

    def taken(batch: Batch) -> None:
        control.tails.take(batch.data)
        control.watch.take(batch)

    def drain() -> None:
        control.tails.end()
        control.watch.end()
        control.backups.stopping.set()
        for door in doors:
            door.cancel()

    server.on_drain, ingest.on_taken = drain, taken
    drain_with_supervisor(supervisor)
    ingesting = asyncio.create_task(ingest.run())
    tidying = asyncio.create_task(tidy(broker, database, plane, alerting))
    watching = asyncio.create_task(alerting.run())
    looking_after = asyncio.create_task(look_after(control.bearers, broker.losses))
    closing = asyncio.create_task(close_cycles(database, plane, settings.invoice_after_s))
    days = Days(database, ingest.rollups, settings.hourly_usage_days, settings.daily_usage_days)
    rolling = asyncio.create_task(days.run())
    gc.freeze()  # what is there now stays: to look through it again and again took a tenth of the time of ingest
    try:
        announce_ready(supervisor)
        await server.serve(sockets=[admin])
    finally:
        ingesting.cancel()
        looking_after.cancel()
        tidying.cancel()
        watching.cancel()
        closing.cancel()
        rolling.cancel()
        channel_server.close()
        await prober.close()
        await alerting.close()
        while ingest.step():  # all that the workers wrote before they ended
            pass
        levels.close()
        with going_on("writing when tokens were used"):
            control.bearers.write()
        with going_on("writing how many requests were not recorded"):
            broker.losses.write()
        database.close()


async def tidy(broker: Broker, database: Database, plane: Plane, alerting: Alerting) -> None:
    while True:
        await asyncio.sleep(TIDY_S)
        with going_on("tidying"):
            broker.tidy()
            alerting.tidy()
            await retire_quiet(database, plane)


async def look_after(bearers: Bearers, losses: Losses) -> None:
    """What streams to a token that has ended ends too; when tokens were used is written once a minute.

    What workers could not record is written as soon as there is room.
    """
    while True:
        for _ in range(round(TIDY_S / VISITS_S)):
            await asyncio.sleep(VISITS_S)
            with going_on("ending what streams to tokens that have ended"):
                bearers.end_visits(now_s())
            with going_on("writing how many requests were not recorded"):
                losses.write()
        with going_on("writing when tokens were used"):
            bearers.write()


async def close_cycles(database: Database, plane: Plane, invoice_after_s: int) -> None:
    while invoice_after_s >= 0:
        await asyncio.sleep(TIDY_S)
        with going_on("closing cycles"):
            await close_due(database, plane, time.time_ns() // 1_000_000_000, invoice_after_s)


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """What is raised is logged, for it is tried again: a task that ended would do nothing more, and nobody would know.

    Not all that can fail is the database's: a file of the journal may be, or a time zone that the machine has lost.
    """
    try:
        yield
    except Exception:
        log.exception("%s failed, and is tried again later", what)


def main() -> None:
    import uvloop

    boot, supervisor = receive_boot()
    log_to_stderr("control")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # after an hour without control there are so many segments
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = settings_of(boot)
    try:
        with only_one(settings.state_dir):
            uvloop.run(serve(settings, boot, supervisor))
    except StartupError as error:
        print(f"gatewayd: {error}", file=sys.stderr)  # noqa: T201  # before there is anything that could log
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
