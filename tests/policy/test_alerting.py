"""What alerts count: how their numbers are written, and what is a spike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.policy.alerting import (
    becomes_spike,
    event_body,
    in_words,
    parse_percent,
    parse_refusals,
    parse_spend,
)
from gatewayd.policy.money import format_nanos


@given(st.integers(1, 999_999_999_999_999_999))
def test_amounts_are_exact(nanos: int) -> None:
    assert parse_spend(format_nanos(nanos)) == nanos


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "1.", ".5", "1e3", "1,000", "1.0000000001", "9" * 10, "٣", "1.2.3"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        parse_spend(text)


def test_refusals_are_counted_by_the_minute() -> None:
    assert [parse_refusals(text) for text in ("100/min", "100", "1k/m", " 5 / minute")] == [100, 100, 1000, 5]
    for text in ("100/s", "100/h", "0", "many"):
        with pytest.raises(ValueError, match=r".+"):
            parse_refusals(text)


def test_percentages() -> None:
    assert parse_percent(80) == 80
    for percent in (0, -1, 1001):
        with pytest.raises(ValueError, match="percent"):
            parse_percent(percent)


def test_in_words() -> None:
    assert in_words("quota", 80, "EUR") == "80% of the quota"
    assert in_words("spend", 99_500_000_000, "EUR") == "99.5 EUR a cycle"
    assert in_words("refusals", 100, "EUR") == "100 refused a minute"


def spikes(minutes: list[list[int]], threshold: int) -> list[int]:
    """In which minutes a spike is told, where each minute's refusals come in these portions."""
    counts: dict[int, int] = {}
    told = []
    for minute, portions in enumerate(minutes):
        for portion in portions:
            before = counts.get(minute, 0)
            counts[minute] = before + portion
            neighbours = (counts.get(minute - 1, 0), counts.get(minute + 1, 0))
            if becomes_spike(before, counts[minute], neighbours, threshold):
                told.append(minute)
    return told


@given(st.lists(st.lists(st.integers(1, 20), max_size=4), max_size=12), st.integers(1, 30))
def test_a_spike_is_told_once_for_each_run_of_minutes(minutes: list[list[int]], threshold: int) -> None:
    hot = [sum(portions) >= threshold for portions in minutes]
    assert spikes(minutes, threshold) == [
        minute for minute, is_hot in enumerate(hot) if is_hot and not (minute and hot[minute - 1])
    ]


def test_the_minute_after_counts_too() -> None:
    assert not becomes_spike(0, 10, (0, 10), 10)


def test_a_body_is_an_event() -> None:
    body = event_body("quota.threshold", 1_795_262_400, {"key": "gw_ab12cd34"})
    assert json.loads(body) == {
        "type": "quota.threshold",
        "timestamp": "2026-11-21T12:00:00Z",
        "data": {"key": "gw_ab12cd34"},
    }
