"""Limits and quotas are exact across workers, and every count is the same count."""

from __future__ import annotations

from math import ceil

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, kill, wait_until
from tests.acceptance.load import get, run_for


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
    elapsed_s = run_for(3.0, load, [get("/fast/x", key)], callers=40)
    print(f"{load.ok} admitted in {elapsed_s:.2f} s, of at most {200 + 200 * elapsed_s:.0f}")
    assert len(load.workers) == 4
    assert load.ok <= 200 + 200 * elapsed_s
    assert load.ok >= 0.95 * (200 + 200 * 3.0)
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
