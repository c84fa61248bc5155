"""Targets that die, fall ill, are drained and come back, behind a gateway of several processes, under load."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gatectl.top.screen import draw, plain
from gatectl.top.state import State, shown
from tests.acceptance.house import Counting, House, counting, kill, wait_until
from tests.acceptance.load import Load, get, run_during

CALLERS = 64


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Counting]]:
    """Three targets, each a process that the test may kill. Answers that take 40 ms are under way when it does."""
    with ExitStack() as stack:
        yield [stack.enter_context(counting(tmp_path, f"target-{number}")) for number in range(3)]


def added(house: House, name: str, targets: list[Counting], *options: str) -> None:
    more = [word for target in targets[1:] for word in ("--target", target.url)]
    house.gatectl.do("service", "add", name, targets[0].url, *more, "--auth", "none", *options)


def served(targets: list[Counting]) -> list[int]:
    return [target.served("/x") for target in targets]


def standings(house: House, name: str) -> dict[str, set[str]]:
    """By URL, what anybody sees of a target."""
    seen: dict[str, set[str]] = {}
    for item in house.gatectl.json("service", "health", name)["items"]:
        seen.setdefault(item["url"], set()).add(item["state"])
    return seen


def left_alone(targets: list[Counting], one: Counting) -> list[int]:
    """What they have served once `one` gets nothing more, while each of the others gets a hundred requests."""
    others = [target for target in targets if target is not one]

    def nothing_more() -> bool:
        its, before = one.served("/x"), served(others)
        wait_until(lambda: all(now >= was + 100 for now, was in zip(served(others), before, strict=True)))
        return one.served("/x") == its

    wait_until(nothing_more)  # not at once: some were on their way
    return served(targets)


def under_load(house: House, request: bytes, happen: Any) -> Load:
    load = house.load()
    run_during(happen, load, [request], CALLERS)
    print(f"{dict(load.answers)} answers, {load.broken} broken, {load.stale} stale, slowest {load.slowest_s:.2f} s")
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)
    return load


@pytest.mark.parametrize("balance", ["round-robin", "least-outstanding", "hash"])
def test_one_of_three_targets_dies_and_no_get_fails(house: House, three: list[Counting], balance: str) -> None:
    added(house, f"dying-{balance}", three, "--balance", balance)

    def die() -> None:
        time.sleep(1.0)
        kill(three[2].pid)
        time.sleep(1.5)

    load = under_load(house, get(f"/dying-{balance}/slow?ms=40"), die)
    assert load.answers.keys() == {200}
    assert load.ok > 100
    (state,) = standings(house, f"dying-{balance}")[three[0].url]
    assert state == "healthy"


def test_of_posts_only_those_that_were_with_the_dying_target_fail(house: House, three: list[Counting]) -> None:
    added(house, "posted", three)
    post = b"POST /posted/slow?ms=40 HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2\r\n\r\n{}"
    counted: list[int] = []

    def die() -> None:
        time.sleep(1.0)
        kill(three[2].pid)
        time.sleep(1.5)
        counted.extend(target.served("/slow") for target in three[:2])

    load = under_load(house, post, die)
    assert load.answers.keys() == {200, 502}
    assert load.answers[502] <= CALLERS  # each caller had one request on its way, and only a third of them there
    print(f"{load.answers[502]} posts were with the target that died")
    # What the living have served, nobody has been told to have failed, and nothing was served twice.
    assert sum(counted) <= load.ok


def test_a_target_that_falls_ill_leaves_and_comes_back(house: House, three: list[Counting]) -> None:
    added(
        house, "checked", three, "--health", "/health", "--health-every", "0.1s", "--healthy-after", "1",
        "--unhealthy-after", "2",
    )  # fmt: skip
    ill = three[1]
    wait_until(lambda: standings(house, "checked") == {target.url: {"healthy"} for target in three})

    def happen() -> None:
        time.sleep(0.5)
        ill.fall_ill()
        wait_until(lambda: standings(house, "checked")[ill.url] == {"unhealthy"})
        away = left_alone(three, ill)
        ill.get_well()
        wait_until(lambda: standings(house, "checked")[ill.url] == {"healthy"})
        wait_until(lambda: served(three)[1] > away[1])

    load = under_load(house, get("/checked/x"), happen)
    assert load.answers.keys() == {200}
    (item,) = (item for item in house.gatectl.json("service", "health", "checked")["items"] if item["url"] == ill.url)
    assert item["seen_by"] == ["probe", "worker-0", "worker-1"]
    assert item["error"] == "it answered 500"


def test_where_all_are_ill_nobody_is_asked_and_nothing_is_counted(house: House, three: list[Counting]) -> None:
    added(house, "none", three[:1], "--health", "/health", "--health-every", "0.1s", "--unhealthy-after", "1")
    assert house.call("/none/x").status == 200
    three[0].fall_ill()
    refused = wait_until(lambda: (answer := house.call("/none/x")).status == 503 and answer)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("no_healthy_target", "1")
    requests = house.usage("--service", "none")["requests"]
    assert {house.call("/none/x").status for _ in range(10)} == {503}
    assert house.usage("--service", "none")["requests"] == requests
    three[0].get_well()
    wait_until(lambda: house.call("/none/x").status == 200)


def test_a_drained_target_gets_nothing_in_any_worker_and_finishes_what_it_has(
    house: House, three: list[Counting]
) -> None:
    added(house, "drained", three)
    slow = house.load()
    told: list[Any] = []

    def happen() -> None:
        wait_until(lambda: sum(target.served("/held") for target in three) == 8 and min(served(three)) > 0)
        told.append(house.gatectl.json("service", "drain", three[0].url))
        told.append(left_alone(three, three[0]))
        for target in three:
            target.release()

    run_during(happen, slow, [get("/drained/held"), get("/drained/x")], 16)
    assert slow.answers.keys() == {200}
    drained, after = told
    assert (drained["service"], drained["drained"]) == ("drained", True)
    assert 0 < drained["in_flight"] <= 8
    assert three[0].served("/x") == after[0]
    assert standings(house, "drained")[three[0].url] == {"drained"}
    house.gatectl.do("service", "drain", three[0].url, "--undo")
    for _ in range(12):
        assert house.call("/drained/x").status == 200
    assert three[0].served("/x") > after[0]


def test_what_probes_have_found_out_outlives_control_and_reaches_new_workers(
    house: House, three: list[Counting]
) -> None:
    added(house, "lasting", three, "--health", "/health", "--health-every", "0.1s", "--unhealthy-after", "1")
    three[0].fall_ill()
    wait_until(lambda: standings(house, "lasting")[three[0].url] == {"unhealthy"})
    count = three[0].served("/x")
    kill(house.control())
    for _ in range(12):  # workers serve on with the last news
        assert house.call("/lasting/x").status == 200
    wait_until(house.all_workers_serve)
    kill(house.worker_pids()[0])
    wait_until(house.all_workers_serve)
    wait_until(lambda: standings(house, "lasting")[three[0].url] == {"unhealthy"})
    for _ in range(12):
        assert house.call("/lasting/x").status == 200
    assert three[0].served("/x") == count


def test_top_tells_a_slow_a_failing_and_a_dead_target_from_a_good_one(house: House, three: list[Counting]) -> None:
    slow, failing, dead = three
    house.service("top-good", "--auth", "none")
    for name, target in (("top-slow", slow), ("top-failing", failing), ("top-dead", dead)):
        house.gatectl.do("service", "add", name, target.url, "--auth", "none")
    kill(dead.pid)

    def figures() -> dict[str, Any]:
        """By service, once all have been heard of. Control is told once a second."""
        for _ in range(4):
            for path in ("top-good/x", "top-slow/slow?ms=80", "top-failing/fail", "top-dead/x"):
                house.call(f"/{path}")
        found = {row["service"]: row for row in house.gatectl.json("top", "--once")["targets"]}
        rows = {name: row for name, row in found.items() if name.startswith("top-") and row["requests_s"]}
        return rows if len(rows) == 4 and found["top-dead"]["errors_ratio"] and found["top-slow"]["p50_ms"] else {}

    rows = wait_until(figures)
    assert {name: row["errors_ratio"] for name, row in rows.items()} == {
        "top-good": 0, "top-slow": 0, "top-failing": 1, "top-dead": 1,
    }  # fmt: skip
    assert rows["top-slow"]["p50_ms"] >= 80 * 13 / 14  # a histogram's error
    assert rows["top-slow"]["p99_ms"] >= rows["top-slow"]["p50_ms"]
    assert rows["top-failing"]["p50_ms"] is not None, "it answers"
    assert rows["top-dead"]["p50_ms"] is None, "it has not even been sent anything"
    picture = house.admin("GET", "/v1/top?once=true")
    lines = [plain(line, 80) for line in draw(shown(State(view="targets", filter="top-dead"), picture), 80, 24)]
    assert any(re.search(r"ERR +P50 +P99", line) for line in lines)
    assert any(re.search(rf"{dead.url} .* 100% +- +- ", line) for line in lines)
