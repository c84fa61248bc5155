"""Two million requests of every kind leave nothing behind: no descriptor, no connection, no request, no memory.

The slow one takes about three minutes, on two cores that do little else.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, wait_until
from tests.daemons import started
from tests.faults.mixed import Mixed, items
from tests.faults.process import MIB, Process

IDLE_S = 1  # of upstream connections, so that they are gone when we look
GROWTH_BYTES = 4 * MIB  # of memory that is no journal
_PORT = re.compile(r"^(\d+)$", re.MULTILINE)


def settled(house: House, worker: Process) -> tuple[int, int]:
    """Descriptors and memory once it has nothing to do. Both journal segments have been made by then."""
    time.sleep(IDLE_S + 2.5)
    wait_until(lambda: quiet(house))
    return worker.descriptors(), worker.anonymous()


def quiet(house: House) -> bool:
    (view,) = house.admin("GET", "/v1/status")["workers"]
    return (view["in_flight"], view["connections"]) == (0, 0)


@pytest.mark.parametrize(
    ("requests", "warm_up"),
    [
        pytest.param(20_000, 20_000, id="20k"),
        pytest.param(2_000_000, 100_000, id="2M", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_mixed_requests(
    new_house: NewHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: int, warm_up: int
) -> None:
    monkeypatch.setenv("GATEWAYD_UPSTREAM_IDLE_S", str(IDLE_S))
    house = new_house(workers=1)
    with started("mixed", [sys.executable, "-m", "tests.faults.mixed"], tmp_path) as upstream:
        house.gatectl.do("service", "add", "mixed", f"http://127.0.0.1:{upstream.wait_for(_PORT)[1]}")
        house.gatectl.do("plan", "add", "plenty", "--rate", "1000000/s", "--quota", "1000000000/month")
        house.gatectl.do("plan", "add", "little", "--rate", "1/day")
        key, limited = house.key("--plan", "plenty"), house.key("--plan", "little")
        assert house.call("/mixed/ok", limited).status == 200
        (pid,) = house.worker_pids()
        worker = Process(pid)
        kinds = items(key, limited)
        Mixed(house.address, kinds, warm_up).run()
        before = settled(house, worker)
        load = Mixed(house.address, kinds, requests)
        began, before_us = time.monotonic(), worker.cpu_us()
        load.run()
        took_s, cost_us = time.monotonic() - began, (worker.cpu_us() - before_us) / requests
        after = settled(house, worker)
        print(f"{requests} in {took_s:.0f} s, {cost_us:.0f} us each; {dict(load.done)}")
        print(f"descriptors {before[0]}, {after[0]}; memory {before[1] / MIB:.2f}, {after[1] / MIB:.2f} MiB")
        assert not load.wrong
        assert after[0] == before[0]
        assert after[1] - before[1] < GROWTH_BYTES
        assert house.worker_pids() == [pid]
        assert "Traceback" not in house.gateway.daemon.output()
    assert house.stop() == 0
