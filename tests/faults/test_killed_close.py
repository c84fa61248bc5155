"""`kill -9` of control while it closes a cycle of many keys: all of the invoice or nothing, and numbers have no gap."""

from __future__ import annotations

import http.client
import os
import random
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, kill, wait_until
from tests.faults.books import Books

BASE_FEE = 7
CALLS = 20
SIZES = [
    pytest.param(4_000, 2, id="short"),
    pytest.param(50_000, 20, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]


def write_keys(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("secret,name,plan\n")
        file.writelines(f"sk_live_{number:032},customer-{number},based\n" for number in range(count))


def reset(house: House) -> str | None:
    """The number of the invoice, as somebody was told it; None: nobody answered."""
    try:
        return str(house.admin("POST", "/v1/billing/reset")["number"])
    except (OSError, http.client.HTTPException):
        return None


def has_begun(told: Future[str | None], database: sqlite3.Connection) -> bool:
    """Somebody holds the write lock; or it is all over, which is quick where keys are few."""
    try:
        database.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    database.execute("ROLLBACK")
    return told.done()


@pytest.mark.parametrize(("keys", "rounds"), SIZES)
def test_control_is_killed_in_the_middle_of_a_close(
    new_house: NewHouse, tmp_path: Path, keys: int, rounds: int
) -> None:
    seed = int(os.environ.get("GATEWAYD_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGATEWAYD_SEED={seed}")
    dice = random.Random(seed)
    house = new_house(workers=1)
    house.service("api")
    house.admin("POST", "/v1/plans", {"name": "based", "price": "1", "base_fee": str(BASE_FEE)})
    write_keys(tmp_path / "keys.csv", keys)
    house.gatectl.do("key", "import", str(tmp_path / "keys.csv"))
    books = Books(house)

    def use() -> None:
        for number in range(CALLS):
            assert house.call("/api/x", f"sk_live_{number:032}").status == 200

    use()
    began = time.monotonic()
    assert reset(house) == "INV-000001"
    whole_s = time.monotonic() - began
    expected, cut = [CALLS], 0
    waiting = 0
    database = sqlite3.connect(house.state_dir / "gatewayd.db", timeout=0, isolation_level=None)
    with ThreadPoolExecutor(1) as somebody:
        for number in range(1, rounds + 1):
            use()
            waiting += CALLS
            house.usage()  # ingested: who writes from here on closes
            time.sleep(1.1)  # a cycle of no whole second cannot be closed
            control = house.control()
            told = somebody.submit(reset, house)
            wait_until(partial(has_begun, told, database))
            delay_s = dice.uniform(0, whole_s)
            time.sleep(delay_s)
            kill(control)
            answered = told.result()
            wait_until(house.all_workers_serve, 30)
            issued = len(invoices(house))
            print(f"{number}. killed {delay_s:.3f} of {whole_s:.3f} s into it: answered {answered}, {issued} issued")
            assert issued - len(expected) in (0, 1)
            if issued > len(expected):
                expected.append(waiting)
                waiting = 0
            else:
                cut += 1
                assert answered is None, "an invoice that somebody was told of is there"
    database.close()
    time.sleep(1.1)
    assert reset(house) == f"INV-{len(expected) + 1:06}"
    expected.append(waiting)
    found = invoices(house)
    assert [each["number"] for each in found] == [f"INV-{number:06}" for number in range(1, len(expected) + 1)]
    assert [each["total"] for each in found] == [str(keys * BASE_FEE + requests) for requests in expected]
    cycles = house.admin("GET", "/v1/billing/cycles")["items"][::-1]
    assert [each["invoice"] for each in cycles[: len(found)]] == [each["number"] for each in found]
    assert all(before["ends_at"] == after["starts_at"] for before, after in pairwise(cycles))
    books.assert_proven()
    assert house.stop() == 0


def invoices(house: House) -> list[dict[str, str]]:
    """The oldest first."""
    return list(house.admin("GET", "/v1/invoices")["items"][::-1])
