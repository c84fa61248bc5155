"""Rates, quotas, durations and times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.conf import RateConf
from gatewayd.policy import amounts
from gatewayd.policy.buckets import month_of

NOON = 1_788_264_000  # 2026-09-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/min", RateConf("minute", 60, 60, 60)),
        ("10/s", RateConf("second", 10, 1, 10)),
        ("10/sec", RateConf("second", 10, 1, 10)),
        ("10/second", RateConf("second", 10, 1, 10)),
        ("5/h", RateConf("hour", 5, 3600, 5)),
        ("5/hour", RateConf("hour", 5, 3600, 5)),
        ("100k/day", RateConf("day", 100_000, 86400, 100_000)),
        ("1M/d", RateConf("day", 1_000_000, 86400, 1_000_000)),
        ("7/90s", RateConf("90s", 7, 90, 7)),
        ("7/15m", RateConf("15m", 7, 900, 7)),
        ("7/60s", RateConf("minute", 7, 60, 7)),
        ("7 / 2 h", None),
        ("60", None),
        ("60/fortnight", None),
        ("0/min", None),
        ("-1/min", None),
        ("1.5/min", None),
        ("60/0s", None),
        ("60/40d", None),
        ("/min", None),
        ("", None),
        ("9" * 30 + "/min", None),
    ],
)
def test_rates(text: str, rate: RateConf | None) -> None:
    if rate is not None:
        assert amounts.parse_rate(text) == rate
        return
    with pytest.raises(ValueError, match=r"^'"):
        amounts.parse_rate(text)


def test_a_burst_of_ones_own() -> None:
    assert amounts.parse_rate("60/min", 10) == RateConf("minute", 60, 60, 10)


@pytest.mark.parametrize(("value", "quota"), [("10000/month", 10_000), ("10k", 10_000), (5, 5), ("1M/month", 10**6)])
def test_quotas(value: str | int, quota: int) -> None:
    assert amounts.parse_quota(value) == quota


@pytest.mark.parametrize("value", ["100/day", 0, -1, "many", "", "1.5", 10**13])
def test_what_is_no_quota(value: str | int) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        amounts.parse_quota(value)


@pytest.mark.parametrize(("text", "seconds"), [("90d", 90 * 86400), ("15m", 900), ("24h", 86400), ("30s", 30)])
def test_durations(text: str, seconds: int) -> None:
    assert amounts.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["90", "d", "0s", "-3d", "3 days ago", "1y", "9999999999d", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        amounts.parse_duration(text)


@pytest.mark.parametrize(
    "text", ["2026-09-01T12:00:00Z", "2026-09-01T14:00:00+02:00", "2026-09-01T12:00:00.9Z", str(NOON)]
)
def test_times(text: str) -> None:
    assert amounts.parse_time(text) == NOON


def test_a_date_is_its_midnight_utc() -> None:
    assert amounts.parse_time("2026-09-01") == NOON - 12 * 3600


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-01T12:00:00",
        "yesterday",
        "2026-13-01",
        "1969-12-31",
        "9999-12-31T23:59:59Z",
        "9" * 30,
        "",
        "0001-01-01",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'"):
        amounts.parse_time(text)


@given(st.integers(min_value=0, max_value=253_370_764_799))
def test_a_time_survives_being_written_and_read(seconds: int) -> None:
    assert amounts.parse_time(amounts.format_time(seconds)) == seconds


@given(st.integers(min_value=0, max_value=253_370_764_799))
def test_a_moment_lies_in_its_month(seconds: int) -> None:
    start, end = month_of(seconds)
    assert start <= seconds < end
    assert amounts.parse_period(amounts.period_of(seconds)) == (start, end)


def test_an_expiry_is_a_duration_or_a_time_to_come() -> None:
    assert amounts.parse_expiry("1h", NOON) == NOON + 3600
    assert amounts.parse_expiry("2026-09-02", NOON) == NOON + 12 * 3600
    for past in ("2026-08-31", "2026-09-01T12:00:00Z"):
        with pytest.raises(ValueError, match="in the past"):
            amounts.parse_expiry(past, NOON)


@pytest.mark.parametrize("text", ["2026", "2026-9", "2026-13", "0000-01", "9999-12", "x"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="not a billing period"):
        amounts.parse_period(text)


@given(st.text())
def test_no_text_makes_a_parser_fail_otherwise(text: str) -> None:
    for parse in (amounts.parse_rate, amounts.parse_quota, amounts.parse_duration, amounts.parse_time):
        try:
            parse(text)
        except ValueError as error:
            assert len(str(error)) < 250


@given(
    st.integers(1, amounts.LARGEST_COUNT), st.integers(1, 31 * 86400), st.none() | st.integers(1, amounts.LARGEST_COUNT)
)
def test_a_rate_is_read_as_it_was_written(limit: int, window_s: int, burst: int | None) -> None:
    rate = amounts.parse_rate(f"{limit}/{window_s}s", burst)
    assert amounts.parse_rate(amounts.format_rate(rate)) == rate
    assert amounts.parse_rate(amounts.format_rate(rate), 7).burst in (7, rate.burst)


def test_a_burst_of_its_own_goes_before_that_of_all() -> None:
    assert amounts.parse_rate("60/min burst 1k", 10) == RateConf("minute", 60, 60, 1000)
    assert amounts.format_rate(RateConf("minute", 60, 60, 1000)) == "60/min burst 1000"
    with pytest.raises(ValueError, match="not a number"):
        amounts.parse_rate("60/min burst x")
