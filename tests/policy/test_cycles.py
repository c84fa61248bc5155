"""Months of every time zone follow each other without a gap, whatever its clocks do."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.policy.cycles import Period, month_after, month_at, month_before, parse_period

DAY_S = 86400
zones = st.sampled_from(sorted(available_timezones() - {"localtime"})).map(ZoneInfo)
moments = st.integers(0, 4_000_000_000)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@given(moments, zones)
@example(at("2009-11-01T00:00:30-02:30"), ZoneInfo("America/St_Johns"))  # twice the first minute of November
@example(at("2009-11-01T00:00:30-03:30"), ZoneInfo("America/St_Johns"))
@example(at("2009-10-31T23:30:00-03:30"), ZoneInfo("America/St_Johns"))  # October again, within November
def test_a_moment_is_in_the_month_that_holds_it(now: int, zone: ZoneInfo) -> None:
    month = month_at(now, zone)
    assert month.starts_at <= now < month.ends_at
    assert month_at(month.starts_at, zone) == month == month_at(month.ends_at - 1, zone)
    following = month_at(month.ends_at, zone)
    assert following.starts_at == month.ends_at
    assert following == month_after(month.ends_at, zone)
    assert month == month_before(month.ends_at, zone)
    assert 27 * DAY_S < month.ends_at - month.starts_at < 33 * DAY_S


@given(moments, zones, zones)
def test_a_move_to_another_zone_makes_a_month_of_about_a_month(now: int, before: ZoneInfo, after: ZoneInfo) -> None:
    end = month_at(now, before).ends_at
    following = month_after(end, after)
    assert following.starts_at == end
    assert 26 * DAY_S < following.ends_at - end < 34 * DAY_S
    assert month_at(following.ends_at, after).starts_at == following.ends_at


@pytest.mark.parametrize(
    ("zone", "period", "starts_at", "ends_at"),
    [
        ("UTC", "2026-11", "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"),
        ("Asia/Kolkata", "2026-11", "2026-11-01T00:00:00+05:30", "2026-12-01T00:00:00+05:30"),
        ("America/New_York", "2026-11", "2026-11-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00"),
        ("America/Havana", "2026-11", "2026-11-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00"),  # midnight twice
        ("America/Asuncion", "2017-10", "2017-10-01T01:00:00-03:00", "2017-11-01T00:00:00-03:00"),  # midnight never
        ("Europe/Berlin", "2026-03", "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"),
    ],
)
def test_months_as_a_calendar_has_them(zone: str, period: str, starts_at: str, ends_at: str) -> None:
    expected = Period(period, at(starts_at), at(ends_at))
    assert month_at(expected.starts_at, ZoneInfo(zone)) == expected
    assert month_at(expected.ends_at - 1, ZoneInfo(zone)) == expected


@pytest.mark.parametrize(("text", "parts"), [("2026-11", (2026, 11, 1)), ("2026-11.12", (2026, 11, 12))])
def test_a_period_is_read(text: str, parts: tuple[int, int, int]) -> None:
    assert parse_period(text) == parts


@pytest.mark.parametrize("text", ["2026-13", "2026-11.0", "2026-11.", "1969-12", "9999-01", "november", "२०२६-११"])
def test_what_is_no_period_is_told_so(text: str) -> None:
    with pytest.raises(ValueError, match="not a billing period"):
        parse_period(text)
