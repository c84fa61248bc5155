"""Billing cycles: calendar months of a tenant's time zone. Pure; times are seconds since 1970, half-open.

A month begins when its first midnight begins in that zone: where the clocks go forward at midnight and there is none,
at the moment of the change (PEP 495, fold 0); where they go back and there are two, at the first. Cycles of a tenant
follow each other without a gap or an overlap: one that was closed by hand ended then, and the rest of its month is a
cycle of its own, with a number after the month's name.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

_PERIOD = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])(?:\.([1-9][0-9]{0,3}))?", re.ASCII)
THIS_MONTH, LAST_MONTH = "this-month", "last-month"
_LAST_YEAR = 9998
_APART_S = 2 * 86400


class Period(NamedTuple):
    """`2026-11` from `starts_at` up to `ends_at`; the third of that month is `2026-11.3`."""

    name: str
    starts_at: int
    ends_at: int


def month_at(now_s: int, zone: ZoneInfo) -> Period:
    """The calendar month that holds `now_s` in this zone."""
    local = datetime.fromtimestamp(now_s, zone)
    found = month_named(local.year, local.month, zone)
    # Clocks that go back from 00:01 to 23:01 (St. John's, 2009-11-01) show the old month again within the new one.
    if now_s >= found.ends_at:
        return _next_month(found, zone)
    return found if now_s >= found.starts_at else _month_before(found, zone)


def month_after(starts_at: int, zone: ZoneInfo) -> Period:
    """The cycle that begins at `starts_at`, where the one before it ended with a month.

    In the same zone that is a calendar month. A tenant that has moved to another zone has one that is longer or shorter
    by the hours between the two, and never one of these hours alone: the month is that of two days later, for no two
    zones are further apart than 26 hours.
    """
    month = month_at(starts_at + _APART_S, zone)
    return Period(month.name, starts_at, month.ends_at)


def month_before(ends_at: int, zone: ZoneInfo) -> Period:
    """The cycle that ends at `ends_at`, where the one after it began with a month."""
    month = month_at(ends_at - _APART_S, zone)
    return Period(month.name, month.starts_at, ends_at)


def month_named(year: int, month: int, zone: ZoneInfo) -> Period:
    starts_at = _midnight(year, month, zone)
    ends_at = _midnight(year + month // 12, month % 12 + 1, zone)
    return Period(f"{year:04}-{month:02}", starts_at, ends_at)


def parse_period(text: str) -> tuple[int, int, int]:
    """`2026-11.2` as year, month and number (1 where there is none). Raises ValueError with a sentence."""
    match = _PERIOD.fullmatch(text)
    if match is None or not 1970 <= int(match[1]) <= _LAST_YEAR:
        raise ValueError(f"{text[:40]!r} is not a billing period; write a month such as 2026-09, or 2026-09.2")
    return int(match[1]), int(match[2]), int(match[3] or 1)


def check_period(text: str) -> None:
    """A period, or a word for one. Raises ValueError with a sentence."""
    if text not in (THIS_MONTH, LAST_MONTH):
        parse_period(text)


def first_of(text: str) -> str:
    """Of `2026-11.2` the month, which is also the name of its first cycle."""
    return text.partition(".")[0]


def numbered(month: str, number: int) -> str:
    """The name of a month's cycle: the first has the month's own."""
    return month if number == 1 else f"{month}.{number}"


def _next_month(month: Period, zone: ZoneInfo) -> Period:
    year, number, _ = parse_period(month.name)
    return month_named(year + number // 12, number % 12 + 1, zone)


def _month_before(month: Period, zone: ZoneInfo) -> Period:
    year, number, _ = parse_period(month.name)
    return month_named(year - (number == 1), (number - 2) % 12 + 1, zone)


def _midnight(year: int, month: int, zone: ZoneInfo) -> int:
    return int(datetime(year, month, 1, tzinfo=zone).timestamp())
