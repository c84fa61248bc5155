"""Limits and quotas are exact across workers, and every count is the same count."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from math import ceil

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, kill, wait_until
from tests.acceptance.load import Answer, get, run_during, run_for

CONNECTIONS = 64
LENGTHS = [
    pytest.param(3.0, id="short"),
    pytest.param(70.0, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


def change_rows(house: House, *statements: str) -> None:
    """What has no command yet, while nobody has the database open."""
    assert house.stop() == 0
    with closing(sqlite3.connect(house.state_dir / "gatewayd.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    house.start()


def assert_within(answers: Sequence[Answer], burst: int, per_s: float) -> None:
    """Over any interval at most burst + rate * t. Each was admitted somewhere between its two times."""
    answers = sorted((answer for answer in answers if answer.status == 200), key=lambda answer: answer.ended)
    for since in sorted({answer.began for answer in answers})[:: max(1, len(answers) // 400)]:
        admitted = 0
        for answer in answers:
            if answer.began >= since:
                admitted += 1
                assert admitted <= burst + per_s * (answer.ended - since)


def assert_spent_as_it_refills(answers: Sequence[Answer], part: float, per_s: float) -> None:
    """From where the bucket was seen empty for the first time to where for the last: what it gets outside may be lost.

    A machine that stands still lets it fill, which is spent when the callers come back, if they do.
    """
    refused = [answer for answer in answers if answer.status == 429]
    empty_at, until = min(answer.ended for answer in refused), max(answer.began for answer in refused)
    admitted = sum(answer.status == 200 and empty_at <= answer.began <= until for answer in answers)
    elapsed_s = until - empty_at
    print(f"{admitted} admitted in {elapsed_s:.2f} s, of {per_s * elapsed_s:.0f} that came")
    assert elapsed_s > 1
    assert admitted >= part * per_s * elapsed_s - 3  # those under way, and the last, which may come after all requests


def assert_one_number(house: House, path: str, key: str, received: int) -> None:
    """What callers received, what the upstream served and what `usage show` says."""
    served = house.counting.served(path)
    requests = house.usage("--key", key[:11])["requests"]
    assert (served, requests) == (received, received)


def test_two_workers_admit_exactly_what_the_limit_says(house: House) -> None:
    house.service("hundred")
    house.gatectl.do("plan", "add", "hundred", "--rate", "100/min")
    key = house.key("--service", "hundred", "--plan", "hundred")
    load = house.load()
    elapsed_s = run_for(3.0, load, [get("/hundred/x", key)], callers=50)
    print(f"{load.ok} admitted in {elapsed_s:.2f} s, {load.answers[429]} refused")
    assert len(load.workers) == 2
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)
    assert load.answers.keys() == {200, 429}
    assert 100 <= load.ok <= 100 + ceil(100 / 60 * elapsed_s)
    # Refill is used, too: floor less one, since the last token may come after the last request.
    assert load.ok >= 100 + int(100 / 60 * 3.0) - 1
    assert_one_number(house, "/hundred/x", key, load.ok)
    assert house.usage("--key", key[:11])["refused"] == load.answers[429]


def test_four_workers_spend_a_fast_limit_nearly_whole_and_never_more(new_house: NewHouse) -> None:
    house = new_house(workers=4)
    house.service("fast")
    house.gatectl.do("plan", "add", "fast", "--rate", "200/s", "--burst", "200")
    key = house.key("--service", "fast", "--plan", "fast")
    load = house.load()
    answers: list[Answer] = []
    load.on_answer = answers.append
    elapsed_s = run_for(3.0, load, [get("/fast/x", key)], callers=40)
    print(f"{load.ok} admitted in {elapsed_s:.2f} s, of at most {200 + 200 * elapsed_s:.0f}")
    assert len(load.workers) == 4
    assert load.ok <= 200 + 200 * elapsed_s
    assert load.ok >= 200
    assert_spent_as_it_refills(answers, 0.95, 200)
    assert_one_number(house, "/fast/x", key, load.ok)


def test_keys_do_not_spend_each_others_tokens(house: House) -> None:
    house.service("apart")
    house.gatectl.do("plan", "add", "apart", "--rate", "20/min")
    keys = [house.key("--service", "apart", "--plan", "apart") for _ in range(3)]
    load = house.load()
    elapsed_s = run_for(1.0, load, [get("/apart/x", key) for key in keys], callers=12)
    assert 60 <= load.ok <= 60 + 3 * ceil(20 / 60 * elapsed_s)


def test_a_monthly_quota_is_exact_and_outlives_stop_and_kill(new_house: NewHouse) -> None:
    house = new_house()
    house.service("monthly")
    house.gatectl.do("plan", "add", "monthly", "--quota", "50/month")
    key = house.key("--service", "monthly", "--plan", "monthly")
    load = house.load()
    run_for(1.5, load, [get("/monthly/x", key)], callers=30)
    assert len(load.workers) == 2
    assert load.ok == 50
    assert load.answers.keys() == {200, 429}

    def assert_used_up() -> None:
        refused = house.call("/monthly/x", key)
        assert (refused.status, refused.json()["title"]) == (429, "Monthly rate limit exceeded")
        assert refused.json()["code"] == "quota_exceeded"
        assert house.gatectl.json("key", "show", key[:11])["limits"]["quota"]["used"] == 50
        assert_one_number(house, "/monthly/x", key, 50)

    assert_used_up()
    assert house.stop() == 0
    house.start()
    assert_used_up()
    for pid in house.pids():
        kill(pid)
    wait_until(lambda: house.gateway.daemon.process.poll() is not None)
    house.stop()
    house.start()
    assert_used_up()


def test_a_quota_and_a_rate_together(house: House) -> None:
    house.service("both")
    house.gatectl.do("plan", "add", "both", "--rate", "1000/s", "--quota", "400/month")
    key = house.key("--service", "both", "--plan", "both")
    load = house.load()
    run_for(2.0, load, [get("/both/x", key)], callers=20)
    assert load.ok == 400
    assert_one_number(house, "/both/x", key, 400)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seconds", LENGTHS)
def test_mixed_windows_are_exact_over_any_interval_and_used_nearly_whole(
    new_house: NewHouse, workers: int, seconds: float
) -> None:
    house = new_house(workers=workers)
    house.service("mixed")
    house.gatectl.do("plan", "add", "mixed", "--rate", "100/s", "--rate", "250/min", "--price", "0.001")
    key = house.key("--service", "mixed", "--plan", "mixed")
    load = house.load()
    answers: list[Answer] = []
    load.on_answer = answers.append
    run_for(seconds, load, [get("/mixed/x", key)], CONNECTIONS)
    assert load.answers.keys() == {200, 429}
    assert_within(answers, 100, 100)
    assert_within(answers, 250, 250 / 60)
    elapsed_s = max(answer.ended for answer in answers) - min(answer.began for answer in answers)
    most = min(100 + 100 * elapsed_s, 250 + 250 / 60 * elapsed_s)
    print(f"{workers} workers: {load.ok} admitted in {elapsed_s:.2f} s, of at most {most:.0f}")
    assert load.ok >= 0.98 * most - 1  # the last token may come after the last request
    assert_one_number(house, "/mixed/x", key, load.ok)
    total = house.usage("--key", key[:11])
    assert (total["refused"], total["units"]) == (load.answers[429], load.ok)
    assert Decimal(total["cost"]) == load.ok * Decimal("0.001")


@pytest.mark.alone
def test_a_tenants_limit_is_shared_by_all_its_keys(new_house: NewHouse) -> None:
    house = new_house(workers=2)
    house.service("shared")
    house.gatectl.do("plan", "add", "ample", "--rate", "1000/s")
    keys = house.keys(20, services=["shared"], plan="ample")
    change_rows(house, """UPDATE tenant SET rates = '[["second", 150, 1, 100]]' WHERE id = 1""")
    load = house.load()
    answers: list[Answer] = []
    load.on_answer = answers.append
    run_for(3.0, load, [get("/shared/x", key) for key in keys], CONNECTIONS)
    assert load.answers.keys() == {200, 429}
    assert_within(answers, 100, 150)
    assert load.ok >= 100
    assert_spent_as_it_refills(answers, 0.98, 150)
    time.sleep(0.3)
    answer = house.call("/shared/x", keys[0])
    assert answer.headers["ratelimit-policy"] == '"second";q=1000;w=1, "tenant-second";q=150;w=1'


@pytest.mark.alone
def test_requests_in_flight_are_limited_over_all_workers(new_house: NewHouse) -> None:
    house = new_house(workers=4)
    house.service("places")
    house.gatectl.do("plan", "add", "three")
    key = house.key("--service", "places", "--plan", "three")
    change_rows(house, "UPDATE plan SET in_flight_limit = 3")
    load = house.load()
    elapsed_s = run_for(3.0, load, [get("/places/slow?ms=50", key)], 16)
    most = 3 * (elapsed_s / 0.05 + 1)
    print(f"{load.ok} admitted in {elapsed_s:.2f} s, of at most {most:.0f}")
    assert load.answers.keys() == {200, 429}
    assert len(load.workers) >= 2
    assert 0.5 * most <= load.ok <= most
    assert house.call("/places/x", key).status == 200  # every place has come back
    assert house.usage("--key", key[:11])["requests"] == load.ok + 1


def test_every_count_agrees_under_load(new_house: NewHouse) -> None:
    """Header, `key show` and `usage show`, while they move and when they have come to rest."""
    house = new_house(workers=2)
    house.service("counted")
    house.gatectl.do("plan", "add", "counted", "--rate", "300/s", "--quota", "5000/month")
    key = house.key("--service", "counted", "--plan", "counted")
    load = house.load()
    seen = []

    def look() -> None:
        for _ in range(3):
            time.sleep(0.4)
            before = load.ok
            quota = house.gatectl.json("key", "show", key[:11])["limits"]["quota"]
            requests = house.usage("--key", key[:11])["requests"]
            seen.append((before, quota["used"], requests, load.ok + CONNECTIONS))

    run_during(look, load, [get("/counted/x", key)], CONNECTIONS)
    for numbers in seen:
        assert list(numbers) == sorted(numbers), numbers

    def at_rest() -> bool:
        """Surpluses have come back."""
        return bool(house.gatectl.json("key", "show", key[:11])["limits"]["quota"]["used"] == load.ok)

    wait_until(at_rest)
    answer = house.call("/counted/x", key)
    (left,) = re.findall(r'"month";r=(\d+)', answer.headers["ratelimit"])
    quota = house.gatectl.json("key", "show", key[:11])["limits"]["quota"]
    assert answer.status == 200
    assert 5000 - int(left) == quota["used"] == house.usage("--key", key[:11])["units"] == load.ok + 1
    assert house.counting.served("/counted/x") == load.ok + 1


def test_rates_of_tenants_and_routes_are_in_force_when_the_command_returns(house: House) -> None:
    """And what was used stays used: a change hands out no new burst."""
    do = house.gatectl.do
    do("tenant", "add", "changing")
    do("service", "add", "api", f"{house.counting.url}/api", "-t", "changing")
    do("plan", "add", "ample", "--rate", "10000/s", "-t", "changing")
    keys = [do("key", "create", "-t", "changing", "--plan", "ample").strip() for _ in range(2)]
    do("route", "add", "--path", "/changing/heavy", "--to", "api", "--name", "heavy", "-t", "changing")

    def admitted(path: str, calls: int = 16) -> int:
        return [house.call(path, keys[number % 2]).status for number in range(calls)].count(200)

    tenant, route = ("tenant", "set", "changing"), ("route", "set", "heavy", "-t", "changing")
    for noun, path in ((tenant, "/changing/api/"), (route, "/changing/heavy")):
        assert admitted(path) == 16
        do(*noun, "--rate", "4/min")
        assert admitted(path) == 4
        do(*noun, "--rate", "6/min")
        assert admitted(path) in (2, 3)  # a new token comes every 10 s
        do(*noun, "--rate", "2000/s")
        assert admitted(path, 40) == 40
        do(*noun, "--rate", "2/min")
        assert admitted(path) <= 2, "workers held tokens of the limit before"
        do(*noun, "--no-rate")
        assert admitted(path) == 16
