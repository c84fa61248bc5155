"""Metering at full speed and without control: what callers have counted is what is shown and billed, exactly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, alive, kill, wait_until
from tests.acceptance.load import Load, get, run_during, run_for
from tests.faults.books import Books
from tests.faults.process import Process

CALLERS = 16
MOST_SHARE = 0.5  # of a core: what ingest may take while two workers are at full speed


_LONG = [pytest.mark.slow, pytest.mark.timeout(300)]


def furnished(house: House) -> list[bytes]:
    """Requests of some keys without limits."""
    house.service("api")
    house.admin("POST", "/v1/plans", {"name": "unlimited"})
    return [get("/api/x", key) for key in house.keys(4, plan="unlimited")]


def assert_whole(load: Load) -> None:
    assert load.answers.keys() == {200}
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [pytest.param(3.0, id="short"), pytest.param(60.0, id="minute", marks=_LONG)])
def test_what_is_shown_after_the_last_response_is_what_was_received(new_house: NewHouse, seconds: float) -> None:
    house = new_house()
    requests, load = furnished(house), house.load()
    control = Process(house.control())
    workers = [Process(pid) for pid in house.worker_pids()]
    before_us = [each.cpu_us() for each in (control, *workers)]
    took_s = run_for(seconds, load, requests, CALLERS)
    shown = house.usage("--service", "api")
    spent_us = [each.cpu_us() - before for each, before in zip((control, *workers), before_us, strict=True)]
    share, *busy = (us / took_s / 1e6 for us in spent_us)
    print(f"\n{load.ok} requests in {took_s:.1f} s, {load.ok / took_s:.0f}/s")
    print(f"workers {busy[0]:.3f} and {busy[1]:.3f} of a core")
    print(f"control {share:.3f} of a core, {spent_us[0] / load.ok:.2f} us a request")
    assert (shown["requests"], shown["billable"]) == (load.ok, load.ok)
    assert house.counting.served() == load.ok
    assert_whole(load)
    assert share < MOST_SHARE
    assert house.stop() == 0


Act = Callable[[House], None]


def hang(house: House) -> None:
    os.kill(house.control(), signal.SIGSTOP)


def come_to(house: House) -> None:
    os.kill(house.control(), signal.SIGCONT)


def stay_away(house: House) -> None:
    """Killed, by somebody who keeps the supervisor from starting it again."""
    killed = house.control()
    os.kill(house.supervisor, signal.SIGSTOP)
    kill(killed)
    wait_until(lambda: not alive(killed))


def return_(house: House) -> None:
    os.kill(house.supervisor, signal.SIGCONT)


@pytest.mark.parametrize(
    ("seconds", "leave", "come_back"),
    [
        pytest.param(5.0, stay_away, return_, id="killed"),
        pytest.param(60.0, stay_away, return_, id="killed-minute", marks=_LONG),
        pytest.param(60.0, hang, come_to, id="hung-minute", marks=_LONG),
    ],
)
def test_control_is_away(new_house: NewHouse, seconds: float, leave: Act, come_back: Act) -> None:
    house = new_house()
    requests, load = furnished(house), house.load()
    books = Books(house)
    each_second: list[int] = []

    def happen() -> None:
        wait_until(lambda: load.ok > 100)
        leave(house)
        try:
            for _ in range(int(seconds)):
                before = load.ok
                time.sleep(1.0)
                each_second.append(load.ok - before)
        finally:
            come_back(house)
        time.sleep(0.3)

    run_during(happen, load, requests, CALLERS)
    wait_until(house.all_workers_serve, 30)
    counted = books.settle(load.ok)
    print(f"\naway for {seconds} s, {min(each_second)} to {max(each_second)} answered a second: {counted}")
    assert min(each_second) > 0, "traffic goes on all the time that control is away"
    assert_whole(load)
    assert counted.is_equal
    books.assert_proven()
    assert house.stop() == 0
