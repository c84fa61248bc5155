"""A body of 1 GiB each way, with a peer on either side that is slower than the other: the worker's memory stays.

The slow ones take about three minutes in all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import product

import pytest

from tests.acceptance.house import House
from tests.faults.bodies import BodyServer, Pace, body_server, download, upload
from tests.faults.process import MIB, Process

GROWTH_BYTES = 32 * MIB
SIZES = [
    pytest.param(64 * MIB, Pace(0.05), id="64MiB"),
    pytest.param(1024 * MIB, Pace(0.1), id="1GiB", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
]


@pytest.fixture(scope="module")
def server(house: House) -> Iterator[BodyServer]:
    with body_server() as server:
        house.gatectl.do("service", "add", "bodies", server.url, "--auth", "none", "--timeout", "10m")
        yield server


class Watched:
    """Workers of which each one's memory is read fifty times a second."""

    def __init__(self, house: House) -> None:
        self._workers = [Process(pid) for pid in house.worker_pids()]
        self._before = {worker: worker.resident() for worker in self._workers}
        self._most = dict(self._before)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for worker in self._workers:
                self._most[worker] = max(self._most[worker], worker.resident())

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth_bytes(self) -> int:
        return max(self._most[worker] - before for worker, before in self._before.items())


@pytest.mark.parametrize(("chunked", "slow"), list(product([False, True], ["client", "upstream"])))
@pytest.mark.parametrize(("length", "pace"), SIZES)
def test_download(house: House, server: BodyServer, length: int, pace: Pace, chunked: bool, slow: str) -> None:
    server.pace = pace if slow == "upstream" else Pace()
    began = time.monotonic()
    with Watched(house) as watched:
        taken = download(house.address, "/bodies", length, chunked, pace if slow == "client" else Pace())
    print(f"{watched.growth_bytes / MIB:.1f} MiB more, {time.monotonic() - began:.1f} s")
    assert taken == length
    assert watched.growth_bytes < GROWTH_BYTES


@pytest.mark.parametrize(("chunked", "slow"), list(product([False, True], ["client", "upstream"])))
@pytest.mark.parametrize(("length", "pace"), SIZES)
def test_upload(house: House, server: BodyServer, length: int, pace: Pace, chunked: bool, slow: str) -> None:
    server.pace = pace if slow == "upstream" else Pace()
    server.taken.clear()
    began = time.monotonic()
    with Watched(house) as watched:
        upload(house.address, "/bodies", length, chunked, pace if slow == "client" else Pace())
    print(f"{watched.growth_bytes / MIB:.1f} MiB more, {time.monotonic() - began:.1f} s")
    assert server.taken == [length]
    assert watched.growth_bytes < GROWTH_BYTES
