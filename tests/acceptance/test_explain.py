"""`gatectl explain` says of a request what the request then gets, spends nothing by it, and remembers what it got."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from gatewayd.keys import new_key
from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, Response, wait_until

REFUSED = 8


def explain(house: House, *arguments: str) -> Any:
    """The answer as JSON; its exit code says the same."""
    ended = house.gatectl.run("explain", *arguments, "-o", "json")
    told = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr) == (REFUSED if told["outcome"] == "refused" else 0, "")
    return told


def remembered(house: House, answer: Response) -> Any:
    return explain(house, answer.headers["x-request-id"])


def refusing(told: Any) -> str:
    (step,) = [step["step"] for step in told["steps"] if step["outcome"] == "refuse"]
    return str(step)


def limits(told: Any) -> list[str]:
    return [limit["detail"] for step in told["steps"] for limit in step["limits"]]


def assert_same(before: Any, answer: Response, after: Any) -> None:
    """The what-if, the real thing, and the memory of it."""
    problem = answer.json()
    assert before["outcome"] == after["outcome"] == "refused"
    assert before["status"] == answer.status == after["status"]
    assert before["code"] == problem["code"] == after["code"]
    assert refusing(before) == refusing(after)
    step = next(step for step in after["steps"] if step["outcome"] == "refuse")
    assert step["detail"].startswith(problem["detail"])
    assert before["would_pass"] and after["would_pass"]


@pytest.fixture(scope="module")
def keyed(house: House) -> str:
    house.service("keyed", "--body-limit", "1KiB")
    return house.key("--service", "keyed")


def test_missing_and_made_up_keys(house: House, keyed: str) -> None:
    answer = house.call("/keyed/x")
    assert_same(explain(house, "GET", "/keyed/x"), answer, remembered(house, answer))
    _, made_up = new_key()
    answer = house.call("/keyed/x", made_up)
    asked = subprocess.run(
        [*house.gatectl.argv, "explain", "--secret-stdin", "GET", "/keyed/x", "-o", "json"],
        env=house.gatectl.environment, input=made_up, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert asked.returncode == REFUSED
    assert_same(json.loads(asked.stdout), answer, remembered(house, answer))
    assert made_up not in asked.stdout + json.dumps(remembered(house, answer))


def test_expired_and_revoked_keys(house: House, keyed: str) -> None:
    brief = house.key("--service", "keyed", "--expires", "1s")
    revoked = house.key("--service", "keyed")
    house.gatectl.do("key", "revoke", revoked[:11], "--yes")
    wait_until(lambda: house.call("/keyed/x", brief).status == 401)
    for key, code in ((brief, "expired_key"), (revoked, "revoked_key")):
        answer = house.call("/keyed/x", key)
        assert answer.json()["code"] == code
        assert_same(explain(house, "--key", key[:11], "GET", "/keyed/x"), answer, remembered(house, answer))


def test_a_key_of_another_service_and_the_command_that_widens_it(house: House, keyed: str) -> None:
    house.service("elsewhere")
    key = house.key("--service", "elsewhere")
    answer = house.call("/keyed/x", key)
    told = explain(house, "--key", key[:11], "GET", "/keyed/x")
    assert_same(told, answer, remembered(house, answer))
    house.gatectl.do(*told["would_pass"].partition("gatectl ")[2].split())
    assert explain(house, "--key", key[:11], "GET", "/keyed/x")["outcome"] == "admitted"
    assert house.call("/keyed/x", key).status == 200
    assert house.call("/elsewhere/x", key).status == 200


def test_a_body_that_is_too_long_and_an_address_that_is_nobodys(house: House, keyed: str) -> None:
    answer = house.call("/keyed/x", keyed, "POST", b"x" * 1025)
    told = explain(house, "--key", keyed[:11], "--body", "1025", "POST", "/keyed/x")
    assert_same(told, answer, remembered(house, answer))
    answer = house.call("/nobody", keyed)
    assert_same(explain(house, "--key", keyed[:11], "GET", "/nobody"), answer, remembered(house, answer))


def test_a_suspended_tenant(house: House) -> None:
    house.gatectl.do("tenant", "add", "idle")
    house.gatectl.do("service", "add", "api", house.counting.url, "-t", "idle")
    key = str(house.gatectl.do("key", "create", "-t", "idle")).strip()
    assert explain(house, "--key", key[:11], "-t", "idle", "GET", "/idle/api/x")["outcome"] == "admitted"
    house.gatectl.do("tenant", "set", "idle", "--suspend")
    answer = house.call("/idle/api/x", key)
    told = explain(house, "--key", key[:11], "-t", "idle", "GET", "/idle/api/x")
    assert_same(told, answer, remembered(house, answer))
    house.gatectl.do(*told["would_pass"].partition("gatectl ")[2].split())
    assert house.call("/idle/api/x", key).status == 200


def test_a_rate_and_a_quota_that_are_used_up(house: House) -> None:
    house.service("scarce")
    house.gatectl.do("plan", "add", "slow", "--rate", "2/h")
    house.gatectl.do("plan", "add", "few", "--quota", "2/month")
    for plan, code, names in (("slow", "rate_limited", "hour"), ("few", "quota_exceeded", "month")):
        key = house.key("--service", "scarce", "--plan", plan)
        assert explain(house, "--key", key[:11], "GET", "/scarce/x")["outcome"] == "admitted"
        assert [house.call("/scarce/x", key).status for _ in range(3)] == [200, 200, 429]
        answer = house.call("/scarce/x", key)
        assert answer.json()["code"] == code
        told = explain(house, "--key", key[:11], "GET", "/scarce/x")
        after = remembered(house, answer)
        assert_same(told, answer, after)
        for said in (told, after):
            (arithmetic,) = limits(said)
            assert arithmetic.startswith(f"{names}: 2") and " 0 left" in arithmetic
        assert told["would_pass"].startswith("wait ")


def test_asking_spends_nothing(house: House) -> None:
    house.service("counted")
    house.gatectl.do("plan", "add", "counted", "--rate", "50/h", "--rate", "1000/s", "--quota", "100/month")
    key = house.key("--service", "counted", "--plan", "counted")
    asked = {"method": "GET", "path": "/counted/x", "key": key[:11]}

    def left() -> list[str]:
        """A request takes one of each; what its headers say is left."""
        return [part.split(";")[1] for part in house.call("/counted/x", key).headers["ratelimit"].split(", ")]

    assert left() == ["r=49", "r=999", "r=99"]
    for _ in range(100):
        told = house.admin("POST", "/v1/explain", asked)
        assert told["outcome"] == "admitted"
        (step,) = [step for step in told["steps"] if step["step"] == "limits"]
        assert [limit["remaining"] for limit in step["limits"]] == [49, 1000, 99]
    assert left() == ["r=48", "r=999", "r=98"]
    assert house.usage("--key", key[:11])["requests"] == 2
    assert house.counting.served("/counted/x") == 2


def test_an_upstream_that_is_not_there_is_remembered(house: House) -> None:
    house.gatectl.do("service", "add", "gone", "http://127.0.0.1:1", "--auth", "none")
    told = remembered(house, house.call("/gone/x"))
    assert (told["outcome"], told["status"], told["code"]) == ("admitted", 502, "upstream_unreachable")
    assert told["steps"][-1]["outcome"] == "fail"
    assert "http://127.0.0.1:1" in told["steps"][-1]["detail"]


def test_what_nobody_remembers_is_not_found(house: House) -> None:
    ended = house.gatectl.run("explain", "0123456789abcdef")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("gatectl: no worker remembers request '0123456789abcdef': each worker keeps")


def test_with_no_worker_that_answers_there_is_nobody_to_ask(new_house: NewHouse) -> None:
    house = new_house(workers=1)
    house.service("some")
    (worker,) = house.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        ended = house.gatectl.run("explain", "GET", "/some/x")
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (ended.returncode, ended.stdout) == (6, "")
    assert "try again in a moment" in ended.stderr
