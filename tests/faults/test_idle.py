"""Ten thousand connections that have been served once and say nothing more: what each costs, and what the others.

The slow one takes about a minute.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, wait_until
from tests.acceptance.load import get, run_for
from tests.daemons import started
from tests.faults.process import Process

COST_BYTES = 20 << 10
SLOWER = 1.10
CALLERS = 16
PER_ADDRESS = 1000  # connections: the fewer ports are left to an address, the longer the kernel looks for one
AT_ONCE = 50
_OPEN = re.compile(r"^open$", re.MULTILINE)


@contextmanager
def idle(house: House, key: str, count: int, folder: Path) -> Iterator[None]:
    """So many connections, held by a process of its own: its descriptors are not ours."""
    argv = [sys.executable, "-m", "tests.faults.test_idle", str(house.address[1]), key, str(count)]
    with started("idle", argv, folder) as holder:
        holder.wait_for(_OPEN)
        wait_until(lambda: connections(house) >= count)
        yield
    wait_until(lambda: connections(house) < count)


def connections(house: House) -> int:
    return int(house.admin("GET", "/v1/status")["workers"][0]["connections"])


def cost_us(house: House, worker: Process, key: str, seconds: float) -> float:
    """CPU of the worker for each request of a busy second or two."""
    load = house.load()
    before = worker.cpu_us()
    run_for(seconds, load, [get("/api/x", key)], CALLERS)
    assert load.answers.keys() == {200}
    return (worker.cpu_us() - before) / load.ok


@pytest.mark.parametrize(
    ("count", "rounds"),
    [
        pytest.param(500, 0, id="500"),
        pytest.param(10_000, 5, id="10000", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
def test_idle_connections(new_house: NewHouse, tmp_path: Path, count: int, rounds: int) -> None:
    house = new_house(workers=1)
    house.service("api")
    house.gatectl.do("plan", "add", "unlimited")
    key = house.key("--plan", "unlimited")
    worker = Process(house.worker_pids()[0])
    cost_us(house, worker, key, 1.0)  # it is warm
    before = worker.resident()
    with idle(house, key, count, tmp_path):
        each = (worker.resident() - before) / count
        print(f"{each / 1024:.1f} KiB each")
        assert each < COST_BYTES
        assert house.call("/api/x", key).status == 200
    # In turn, since what else the machine does comes and goes.
    without, beside = [], []
    for _ in range(rounds):
        without.append(cost_us(house, worker, key, 2.0))
        with idle(house, key, count, tmp_path):
            beside.append(cost_us(house, worker, key, 2.0))
    if rounds:
        print("us without:", *(f"{cost:.1f}" for cost in without), "beside:", *(f"{cost:.1f}" for cost in beside))
        assert statistics.median(beside) < SLOWER * statistics.median(without)


async def opened(port: int, request: bytes, number: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    # Other addresses in each round: a port is not free for a minute after its connection.
    sock.bind((f"127.{1 + os.getpid() % 250}.{number // PER_ADDRESS}.1", 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, request)
    assert (await loop.sock_recv(sock, 4096)).startswith(b"HTTP/1.1 200 ")
    return sock


async def hold(port: int, request: bytes, count: int) -> None:
    """Open them, be served once, and keep them until told to end."""
    held: list[socket.socket] = []
    while len(held) < count:
        batch = range(len(held), min(count, len(held) + AT_ONCE))
        held += await asyncio.gather(*(opened(port, request, number) for number in batch))
    print("open", flush=True)
    while True:
        await asyncio.sleep(1)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(hold(int(sys.argv[1]), get("/api/x", sys.argv[2]), int(sys.argv[3])))
