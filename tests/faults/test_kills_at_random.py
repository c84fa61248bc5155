"""`kill -9` of each process at a random moment under load: received <= billed <= served, round by round.

`GATEWAYD_SEED=n` repeats a run that failed; the seed of each is printed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, alive, kill, wait_until
from tests.acceptance.load import get, run_during
from tests.faults.books import NOTHING, Books
from tests.faults.test_kills import listening

CALLERS = 16
LONGEST_S = 0.8  # from the first request to the kill, and from there to the last one
ROUNDS = [pytest.param(5, id="short"), pytest.param(50, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


def kill_nobody(house: House, dice: random.Random) -> None:
    """The round that all others are compared with."""


def kill_a_worker(house: House, dice: random.Random) -> None:
    kill(dice.choice(house.worker_pids()))


def kill_control(house: House, dice: random.Random) -> None:
    kill(house.control())


def kill_the_supervisor(house: House, dice: random.Random) -> None:
    kill(house.supervisor)


def kill_everything(house: House, dice: random.Random) -> None:
    pids = house.pids()
    dice.shuffle(pids)
    for pid in pids:
        kill(pid)


def has_ended(house: House, pids: list[int]) -> bool:
    """These, and whoever was started beside the killing: nobody holds port or socket, which a new one would refuse."""
    return not any(alive(pid) for pid in pids) and not listening(house)


Killing = Callable[[House, random.Random], None]
KILLINGS: tuple[Killing, ...] = (kill_nobody, kill_a_worker, kill_control, kill_the_supervisor, kill_everything)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_whoever_is_killed_whenever(new_house: NewHouse, rounds: int) -> None:
    seed = int(os.environ.get("GATEWAYD_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGATEWAYD_SEED={seed}")
    dice = random.Random(seed)
    house = new_house()
    house.service("api")
    house.gatectl.do("plan", "add", "unlimited", "--price", "0.000000001")
    requests = [get("/api/x", key) for key in house.keys(3, plan="unlimited")]
    books = Books(house)
    totals = dict.fromkeys(KILLINGS, NOTHING)
    happens = list(KILLINGS) * (rounds // len(KILLINGS))
    dice.shuffle(happens)
    for number, killing in enumerate(happens, start=1):
        pids = house.pids()
        load, delay_s, began = house.load(), dice.uniform(0, LONGEST_S), time.monotonic()

        def happen(killing: Killing = killing, delay_s: float = delay_s) -> None:
            time.sleep(delay_s)
            killing(house, dice)
            time.sleep(dice.uniform(0, LONGEST_S))

        run_during(happen, load, requests, CALLERS)
        if killing in (kill_the_supervisor, kill_everything):
            wait_until(partial(has_ended, house, pids), 30)  # workers whose supervisor is gone drain first
            house.stop()
            house.start()
        wait_until(house.all_workers_serve, 30)
        # A worker that has not met a key yet cannot ask about it while control is away.
        assert load.answers.keys() <= ({200} if killing in (kill_nobody, kill_a_worker) else {200, 503})
        counted = books.settle(load.ok)
        print(f"{number}. {killing.__name__} after {delay_s:.3f} s, in {time.monotonic() - began:.1f} s: {counted}")
        assert counted.holds
        assert counted.is_equal or killing is not kill_nobody
        assert counted.served <= counted.received + 3 * CALLERS, "no more than what was under way at the kill"
        totals[killing] += counted
    for killing, total in totals.items():
        print(f"{killing.__name__}: {total}")
    print(f"all {rounds} rounds: {sum(totals.values(), NOTHING)}")
    assert totals[kill_nobody].is_equal
    assert totals[kill_nobody].served > 0
    books.assert_proven()
    # What those who were killed had begun to fill is gone: of each worker that lives, one is filled and one is spare.
    wait_until(lambda: len(list((house.state_dir / "journal").glob("*.gwj"))) == 2 * house.workers)
    assert house.stop() == 0
