"""What is said of guards, problems and limits when somebody asks."""

from __future__ import annotations

import pytest

from gatewayd.channel import LimitConf
from gatewayd.errors import PROBLEMS, Problem, Refusal
from gatewayd.keys import visible_id
from gatewayd.policy import explaining
from gatewayd.policy.explaining import REMEDIES, STEPS, Seen, span, tell_limits
from gatewayd.policy.guards import ORDER

ADMIN_PROBLEMS_FROM = 100
NOW_S = 1_795_255_200.0  # 2026-11-21T10:00:00Z
MONTH_ENDS_IN_S = 9 * 86400 + 14 * 3600


def test_every_guard_has_a_step_of_a_name_of_its_own() -> None:
    assert STEPS.keys() == set(ORDER)
    names = [step.name for step in STEPS.values()]
    names += [explaining.HEAD, explaining.ADDRESS, explaining.GATEWAY, explaining.UPSTREAM]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.number < ADMIN_PROBLEMS_FROM], ids=lambda p: p.code)
def test_every_problem_has_a_remedy_even_where_nothing_is_known(problem: Problem) -> None:
    assert problem in REMEDIES
    assert explaining.would_pass(Seen(NOW_S), Refusal(problem))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (0.01, "0.1 s"), (0.8, "0.8 s"), (9.99, "10 s"), (22.1, "23 s"), (599.0, "599 s"),
        (601, "11 min"), (7500, "2 h 5 min"), (90000, "1 d 1 h"), (float("inf"), "for ever"),
    ],
)  # fmt: skip
def test_a_span_is_never_shorter_than_what_there_is_to_wait(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_limits_are_told_with_their_arithmetic() -> None:
    limits = (LimitConf("minute", 60, 60, "", 60), LimitConf("second", 5, 1, "route", 5), LimitConf("month", 10000, 0))
    known = (limits, [10, 3, 11], [100.8, 100.2, 100.0 + MONTH_ENDS_IN_S], 99.0, 2)
    told = tell_limits(known, 100.0, NOW_S)
    assert [limit.detail for limit in told] == [
        "minute: 60 per 60 s, burst 60; 12 left, one more in 0.8 s",
        "route-second: 5 per 1 s, burst 5; 5 left, full",
        "month: 10000, 9987 used of it, 13 left; resets 2026-12-01T00:00:00Z",
    ]
    assert [(limit.remaining, limit.more_in_s, limit.window_s) for limit in told] == [
        (12, 0.8, 60), (5, 0.2, 1), (13, MONTH_ENDS_IN_S, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("credential", "shown"),
    [
        (b"gw_ab12cd34_" + b"x" * 28, "ab12cd34"),
        (b"eyJhbGciOiJIUzI1NiJ9.e30.x", ""),
        (b"gw_not_of_our_form", ""),
        (b"", ""),
    ],
)
def test_of_a_credential_only_what_is_public_is_shown(credential: bytes, shown: str) -> None:
    assert visible_id(credential) == shown
