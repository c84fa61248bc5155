"""Times and amounts as people type them: `15m 24h 7d`, `today`, `this-month`, `2026-09-01`, RFC 3339; `10MiB`.

Pure: the present is an argument. Everything is UTC, as the daemon's hours and billing months are; an offset in an
RFC 3339 time is understood. Failures are ValueErrors with a sentence.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNIT_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:s|min|m|h|d|w))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b?)", re.IGNORECASE | re.ASCII)
_SIZE_POWERS = "kmgt"
_PERIOD = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])", re.ASCII)
_CYCLE = re.compile(rf"{_PERIOD.pattern}(?:\.[1-9]\d{{0,3}})?", re.ASCII)
LARGEST_SIZE = 1 << 53  # bytes: beyond it a float is no longer exact, and the admin API takes no more
LONGEST_S = 100 * 365 * 86400  # a century: beyond it a date has no year of four digits


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `15m`, `1h30m`, `7d`, `2w`. A unit is needed: a bare number could be anything."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 30s, 15m, 24h or 7d")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r} is longer than a century")
    return seconds


def parse_seconds(text: str) -> float:
    """A duration as the admin API takes it: whole where it is."""
    seconds = parse_duration(text)
    return int(seconds) if seconds == int(seconds) else seconds


def parse_moment(text: str, now: datetime) -> datetime:
    """The moment that `text` names, a duration being that long ago."""
    named = {
        "now": now,
        "today": _midnight(now),
        "yesterday": _midnight(now) - timedelta(days=1),
        "this-month": _month(now),
        "last-month": _month(_month(now) - timedelta(days=1)),
    }
    if text in named:
        return named[text]
    if _DURATION.fullmatch(text):
        return now - timedelta(seconds=parse_duration(text))
    if _PERIOD.fullmatch(text):
        return datetime.fromisoformat(f"{text}-01").replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time such as 24h, 7d, today, this-month or 2026-09-01") from None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from None


def parse_expiry(text: str, now: datetime) -> datetime:
    """When a key expires: a duration from now on, a date or a time; in the future."""
    if _DURATION.fullmatch(text):
        return now + timedelta(seconds=parse_duration(text))
    moment = parse_moment(text, now)
    if moment <= now:
        raise ValueError(f"{text!r} is in the past")
    return moment


def parse_period(text: str) -> str:
    """A bill's `2026-09`, `2026-09.2` (its second cycle), or a word: which month that is, the tenant's clock says."""
    if text not in ("this-month", "last-month") and not _CYCLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a month such as 2026-09, this-month or last-month")
    return text


def parse_size(text: str) -> int:
    """Bytes of `512`, `64KiB`, `10MiB`, `1GB`: KiB is 1024, kB is 1000."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a size such as 512KiB, 10MiB or 1GB")
    number, unit = float(match[1]), match[2].lower().removesuffix("b")
    power = _SIZE_POWERS.index(unit[0]) + 1 if unit[:1] in tuple(_SIZE_POWERS) else 0
    size = number * (1024 if unit.endswith("i") else 1000) ** power
    if size > LARGEST_SIZE:
        raise ValueError("a size is at most 8192TiB")
    return int(size)


def rfc3339(moment: datetime) -> str:
    """`2026-11-21T02:00:00Z`: what the admin API reads and writes."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _month(moment: datetime) -> datetime:
    return _midnight(moment).replace(day=1)
