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
_LAST_YEAR = 9998


class Period(NamedTuple):
    """`2026-11` from `starts_at` up to `ends_at`; the third of that month is `2026-11.3`."""

    name: str
    starts_at: int
    ends_at: int


def month_at(now_s: int, zone: ZoneInfo) -> Period:
    """The calendar month that holds `now_s` in this zone."""
    local = datetime.fromtimestamp(now_s, zone)
    return month_named(local.year, local.month, zone)


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


def numbered(month: str, number: int) -> str:
    """The name of a month's cycle: the first has the month's own."""
    return month if number == 1 else f"{month}.{number}"


def _midnight(year: int, month: int, zone: ZoneInfo) -> int:
    return int(datetime(year, month, 1, tzinfo=zone).timestamp())
