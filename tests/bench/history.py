"""A history of many requests, made the honest way: segments of a journal, taken by control's own ingest.

    python -m tests.bench.history [--requests 100_000_000] [--tenants 100] [--keys 1000] [--days 90] [--folder DIR]

Another process writes the segments and waits while too many lie there, so the disk stays bounded; each is removed once
it is taken. Days are rolled as they end, with the clock of the history. Traffic is as it is: a few tenants and keys
make most of it, nights are quiet, 94% succeed, latencies are log-normal. Then it prints the rate of the ingest, the
size of the database, and how long `usage show --since 30d --by key --interval day` takes a tenant with many keys and
one in the middle: the answer over the admin socket, and the whole of gatectl.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from multiprocessing.context import SpawnProcess
from pathlib import Path

import httpx
import uvicorn

from gatewayd.control.admin.app import build_app
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.peer import PeerProtocol
from gatewayd.control.admin.state import ControlState
from gatewayd.control.batches import batch_of
from gatewayd.control.database import Database
from gatewayd.control.days import Days
from gatewayd.control.ingest import Ingest
from gatewayd.control.tables import Key, Service, Tenant
from gatewayd.records import (
    ADMITTED,
    SEGMENT_BYTES,
    SEGMENT_SUFFIX,
    SLOT_BYTES,
    SLOTS_PER_SEGMENT,
    pack_header,
    pack_record,
)
from gatewayd.settings import Settings
from tests.control.conftest import FakePlane

DAY_S, HOUR_S = 86400, 3600
WAITING = 8  # segments
STEP_S = 1.0  # of ingest: nobody waits for a lease here
KEEP_HOURS_DAYS, KEEP_DAYS_DAYS = 90, 1100
SHOW = ("usage", "show", "--since", "30d", "--by", "key", "--interval", "day")


class Mix:
    """Who calls. Tenant n and the n-th key of a tenant have a share of 1/n, as is usual."""

    def __init__(self, tenants: int, keys: int) -> None:
        weights = [1 / number for number in range(1, tenants + 1)]
        self.keys_of = [max(1, round(keys * weight / sum(weights))) for weight in weights]
        self.keys: list[tuple[int, int]] = []  # tenant and key, as they are numbered
        shares: list[float] = []
        for tenant, count in enumerate(self.keys_of, 1):
            whole = sum(1 / (place + 3) for place in range(count))
            for place in range(count):
                self.keys.append((tenant, len(self.keys) + 1))
                shares.append(weights[tenant - 1] / (place + 3) / whole)
        self.shares = list(accumulate(shares))


def moments(requests: int, first: int, days: int) -> Iterator[tuple[int, int]]:
    """Each hour and how many requests were made in it: at night a third of what there is at noon."""
    shape = [1 + abs(12 - abs(hour - 14)) / 6 for hour in range(24)]
    due = 1e-6  # a sum of fractions may end just below the whole
    for hour in range(days * 24):
        due += requests / days * shape[hour % 24] / sum(shape)
        yield first + hour * HOUR_S, int(due)
        due -= int(due)


def write(folder: Path, mix: Mix, requests: int, first: int, days: int, seed: int) -> None:
    """The generator's process."""
    draw = random.Random(seed)  # a history, no secret
    micros = [int(draw.lognormvariate(9.2, 0.7)) for _ in range(9973)]
    sizes = [int(draw.lognormvariate(7, 1)) for _ in range(9967)]
    statuses = [200] * 88 + [201] * 4 + [304] * 2 + [404] * 4 + [500, 429]
    segment, number, made = bytearray(), 0, 0

    def flush() -> None:
        nonlocal number
        while len(list(folder.glob("*" + SEGMENT_SUFFIX))) >= WAITING:
            time.sleep(0.01)
        path = folder / f"{first:020d}-00000000-{number:06d}"
        path.write_bytes((pack_header(first, b"h" * 16) + segment).ljust(SEGMENT_BYTES, b"\0"))
        path.rename(path.with_suffix(SEGMENT_SUFFIX))
        segment.clear()
        number += 1

    for hour, count in moments(requests, first, days):
        callers = draw.choices(mix.keys, cum_weights=mix.shares, k=count)
        step_ns = HOUR_S * 10**9 // max(1, count)
        time_ns = hour * 10**9
        for tenant, key in callers:
            made += 1
            status = statuses[made * 7 % 100]
            segment += pack_record(
                ADMITTED if status != 429 else 0, time_ns, tenant, tenant, 0, key, 0, 0, 1, status,
                0 if status != 429 else 6, 1, sizes[made % 997], sizes[made % 9967], 120 + made % 64,
                micros[made % 9973], b"synthetic-------", 1,
            )  # fmt: skip
            time_ns += step_ns
            if len(segment) == SLOTS_PER_SEGMENT * SLOT_BYTES:
                flush()
    flush()


def furnish(database: Database, mix: Mix) -> None:
    """Tenants, each with a service, and keys."""
    with database.write() as session:
        for tenant in range(1, len(mix.keys_of) + 1):
            slug = f"tenant-{tenant}"
            if tenant > 1:
                session.add(Tenant(id=tenant, public_id=f"ten_{tenant:08d}", slug=slug, created_at=0))
            session.flush()
            session.add(Service(id=tenant, public_id=f"svc_{tenant:08d}", tenant_id=tenant, slug=slug, created_at=0))
        session.flush()
        for tenant, key in mix.keys:
            digest = key.to_bytes(32)
            session.add(Key(id=key, public_id=f"{key:08d}", digest=digest, tenant_id=tenant, created_at=0))


async def take(database: Database, folder: Path, writer: SpawnProcess, requests: int) -> float:
    """Ingest until the writer has ended and nothing is left. CPU seconds of the ingest alone."""
    newest = [0]
    ingest = Ingest(database, folder, lambda *_: None, lambda _: None, step_s=STEP_S)
    ingest.on_taken = lambda batch: newest.append(max(newest.pop(), batch_of(batch.data[-SLOT_BYTES:]).groups[0].hour))
    days = Days(database, ingest.rollups, KEEP_HOURS_DAYS, KEEP_DAYS_DAYS)
    used_s, rolled, began, told = 0.0, 0, time.monotonic(), 0
    while True:
        ended = not writer.is_alive()
        before = time.process_time()
        more = ingest.step()
        used_s += time.process_time() - before
        if newest[0] // DAY_S > rolled:  # a day is over
            rolled = newest[0] // DAY_S
            await days.step(newest[0])
        taken_s = time.monotonic() - began
        if taken_s > told + 30:
            told = int(taken_s)
            (found,) = database.lookup.exec_driver_sql("SELECT sum(requests + refused) FROM tally").one()
            print(f"  {told:5} s: {found:,} of {requests:,}, {database.size_bytes() >> 20} MiB", flush=True)
        if not more:
            if ended and not ingest.segments:
                break
            await asyncio.sleep(0.002)
    await days.step(now_s())
    return used_s


async def ask(database: Database, folder: Path, tenant: str) -> None:
    """Time the query, over the admin socket and as a command."""
    path = folder / "admin.sock"
    path.unlink(missing_ok=True)
    settings = Settings(state_dir=folder, admin_socket=path, workers=1)
    control = ControlState(database, settings, FakePlane(), "127.0.0.1:1", 0)
    config = uvicorn.Config(build_app(control), uds=str(path), http=PeerProtocol, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s() - 30 * DAY_S))
    query = {"since": since, "by": "key", "interval": "day", "tenant": tenant}
    answers, commands, items = [], [], 0
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://admin") as client:
        for _ in range(7):
            began = time.perf_counter()
            answer = await client.get("/v1/usage", params=query, timeout=60)
            answers.append(time.perf_counter() - began)
            items = len(answer.json()["items"])
    for _ in range(7):
        began = time.perf_counter()
        command = [sys.executable, "-m", "gatectl", "--socket", str(path), *SHOW, "--tenant", tenant]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        if await process.wait():
            raise SystemExit("gatectl failed")
        commands.append(time.perf_counter() - began)
    server.should_exit = True
    await serving
    shown = [
        f"{statistics.median(times) * 1000:.0f} ms (best {min(times) * 1000:.0f})" for times in (answers, commands)
    ]
    print(f"{tenant}: {items} lines; admin API {shown[0]}, gatectl {shown[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--folder", type=Path, help="keep the database here; one that is there is asked again")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="gatewayd-history-"))
    mix = Mix(options.tenants, options.keys)
    is_new = not (folder / "gatewayd.db").exists()
    database = Database.open(folder)
    gc.freeze()  # as control does once it has begun
    try:
        if is_new:
            make(database, folder, mix, options)
        sums = database.lookup.exec_driver_sql("SELECT sum(requests), sum(refused) FROM tally").one()
        rows = [
            database.lookup.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in ("rollup", "rollup_day")
        ]
        of = f"{options.tenants} tenants, {options.keys} keys, {options.days} days"
        print(f"{sum(sums):,} requests of {of}: {rows[0]:,} rows by the hour, {rows[1]:,} by the day")
        print(f"database {database.size_bytes() / 2**30:.2f} GiB")
        for tenant in ("default", f"tenant-{options.tenants // 2}"):
            asyncio.run(ask(database, folder, tenant))
    finally:
        database.close()
        if options.folder is None:
            shutil.rmtree(folder)


def make(database: Database, folder: Path, mix: Mix, options: argparse.Namespace) -> None:
    journals = folder / "journal"
    journals.mkdir(exist_ok=True)
    furnish(database, mix)
    first = now_s() // DAY_S * DAY_S - (options.days - 1) * DAY_S
    arguments = (journals, mix, options.requests, first, options.days, 5)
    gc.freeze()  # as control does once it has begun
    writer = multiprocessing.get_context("spawn").Process(target=write, args=arguments, daemon=True)
    began = time.monotonic()
    writer.start()
    used_s = asyncio.run(take(database, journals, writer, options.requests))
    took_s = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"ingested {options.requests:,} in {took_s:.0f} s: {options.requests / took_s:,.0f} a second with its writer "
        f"beside it; {used_s / options.requests * 1e6:.2f} µs of CPU each, {options.requests / used_s:,.0f} a second "
        f"of one core; {peak} MiB of memory"
    )


if __name__ == "__main__":
    main()
