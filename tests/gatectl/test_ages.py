"""How long ago something was, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatectl.ages import age
from gatectl.times import rfc3339

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-11-21T03:00:00Z", "just now"),
        ("2026-11-21T02:59:01Z", "just now"),
        ("2026-11-21T03:00:05Z", "just now"),
        ("2026-11-21T03:00:59Z", "in a moment"),
        ("2026-11-21T02:59:00Z", "1 min ago"),
        ("2026-11-21T02:56:59.999Z", "3 min ago"),
        ("2026-11-21T05:59:59Z", "in 3 h"),
        ("2026-11-21T05:59:00Z", "in 2 h"),
        ("2027-02-19T02:59:50Z", "in 90 days"),
        ("2026-11-22T02:59:30Z", "in 1 day"),
        ("2026-11-20T03:00:00Z", "1 day ago"),
        ("2026-11-26T03:00:01Z", "in 5 days"),
        ("2026-08-13T03:00:01Z", "99 days ago"),
        ("2026-08-13T03:00:00Z", ""),
        ("2027-11-21T03:00:00Z", ""),
        ("9999-12-31T23:59:59Z", ""),
        ("2026-11-21T03:00:00+01:00", "1 h ago"),
        ("soon", ""),
        (None, ""),
    ],
)
def test_ages(time: str | None, words: str) -> None:
    assert age(time, int(NOW.timestamp())) == words


@given(st.integers(60, 100 * 86400 - 1))
def test_the_number_is_never_more_than_it_was(seconds: int) -> None:
    """What is told is the whole part: nothing is made older than it is, and it is of the unit that fits."""
    words = age(rfc3339(NOW - timedelta(seconds=seconds)), int(NOW.timestamp()))
    number, unit, ago = words.split(" ")
    size = {"min": 60, "h": 3600, "day": 86400, "days": 86400}[unit]
    assert ago == "ago"
    assert 0 <= seconds - int(number) * size < size
    within, number, unit = age(rfc3339(NOW + timedelta(seconds=seconds)), int(NOW.timestamp())).split(" ")
    size = {"min": 60, "h": 3600, "day": 86400, "days": 86400}[unit]
    assert within == "in"
    assert -size // 100 <= seconds - int(number) * size < size
