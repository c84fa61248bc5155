"""How people write rates, quotas, durations and times. Each parser raises ValueError with a sentence.

rate      N/s N/sec N/second, N/min N/minute, N/h N/hour, N/d N/day, N/90s, N/15m; N may be 100k or 1M;
          with ` burst N` behind it, what may be used at once
quota     N or N/month: admitted requests per calendar month, UTC
duration  30s 15m 24h 90d 4w
time      2026-09-01, 2026-09-01T12:00:00Z, or with an offset, or seconds since 1970
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gatewayd.conf import RateConf
from gatewayd.policy.buckets import month_of

DEFAULT_RATES: tuple[RateConf, ...] = (RateConf("minute", 10, 60, 10),)  # of a key without a plan
LARGEST_COUNT = 1_000_000_000_000
_LONGEST_WINDOW_S = 31 * 86400
_LATEST = 253_370_764_799  # the end of 9998: whatever is rounded up from there is still a date
_LONGEST_DURATION_S = 100 * 366 * 86400

_COUNT = re.compile(r"([0-9]{1,15})([kKMG]?)", re.ASCII)
_SPAN = re.compile(r"([0-9]{0,10})([a-zA-Z]+)", re.ASCII)
_PERIOD = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_MULTIPLES = {"": 1, "k": 1000, "K": 1000, "M": 1000_000, "G": 1000_000_000}
_UNITS = {
    "s": 1, "sec": 1, "second": 1,
    "m": 60, "min": 60, "minute": 60,
    "h": 3600, "hour": 3600,
    "d": 86400, "day": 86400,
    "w": 7 * 86400, "week": 7 * 86400,
}  # fmt: skip
_WINDOW_NAMES = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
_SHORT_SPANS = {1: "s", 60: "min", 3600: "h", 86400: "d"}


def parse_rate(text: str, burst: int | None = None) -> RateConf:
    """`"60/min"` as a window; without a burst it may be used up at once. One in the text, `60/min burst 10`, goes
    before the argument, which is for all the windows that say nothing of it."""
    rate, own, written = text.strip().partition(" burst ")
    burst = parse_count(written) if own else burst
    count, slash, span = rate.partition("/")
    if not slash:
        raise ValueError(f"{_short(text)} is not a rate; write one such as 60/min or 10/s")
    limit, window_s = parse_count(count), _parse_span(span, text)
    if not 1 <= window_s <= _LONGEST_WINDOW_S:
        raise ValueError(f"{_short(text)} has a window that is not between one second and 31 days")
    return RateConf(window_name(window_s), limit, window_s, limit if burst is None else burst)


def format_rate(rate: RateConf) -> str:
    """As `parse_rate` reads it."""
    text = f"{rate.limit}/{_SHORT_SPANS.get(rate.window_s) or window_name(rate.window_s)}"
    return text if rate.burst == rate.limit else f"{text} burst {rate.burst}"


def parse_quota(value: str | int) -> int:
    """`"10000/month"`, `"10k"` or a number as requests per calendar month."""
    count, slash, span = str(value).strip().partition("/")
    if slash and not is_month(span):
        raise ValueError(f"{_short(str(value))} is not a quota, which counts a month; for other windows give a rate")
    return parse_count(count)


def parse_count(text: str) -> int:
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_short(text)} is not a number of requests; write one such as 60, 100k or 1M")
    count = int(match[1]) * _MULTIPLES[match[2]]
    if not 1 <= count <= LARGEST_COUNT:
        raise ValueError(f"{_short(text)} is not between 1 and {LARGEST_COUNT}")
    return count


def parse_duration(text: str) -> int:
    """`"90d"` as seconds."""
    if not text.strip()[:1].isdigit():
        raise ValueError(f"{_short(text)} is not a duration; write one such as 15m, 24h or 90d")
    seconds = _parse_span(text, text)
    if not 1 <= seconds <= _LONGEST_DURATION_S:
        raise ValueError(f"{_short(text)} is not between one second and 100 years")
    return seconds


def parse_time(text: str) -> int:
    """A date, an RFC 3339 time or seconds since 1970, as the latter. Without an offset it is refused: whose noon?"""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) > len("20260901"):
        return _within_years(int(text[:20]), text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{_short(text)} is not a time; write one such as 2026-09-01T12:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2026-09-01"):
            raise ValueError(f"{_short(text)} has no time zone; end it with Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return _within_years(int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()), text)


def _within_years(seconds: int, text: str) -> int:
    if not 0 <= seconds <= _LATEST:
        raise ValueError(f"{_short(text)} is not between the years 1970 and 9998")
    return seconds


def parse_expiry(text: str, now: int) -> int:
    """A time to come, or a duration from now."""
    spelled_as_span = _SPAN.fullmatch(text.strip()) is not None
    expires_at = now + parse_duration(text) if spelled_as_span else parse_time(text)
    if expires_at <= now:
        raise ValueError(f"{_short(text)} is in the past")
    return expires_at


def parse_period(text: str) -> tuple[int, int]:
    """`"2026-09"` as the seconds of its start and end, UTC."""
    match = _PERIOD.fullmatch(text)
    if match is None or not 1970 <= int(match[1]) < 9999:
        raise ValueError(f"{_short(text)} is not a billing period; write a month such as 2026-09")
    return month_of(int(datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC).timestamp()))


def period_of(seconds: int) -> str:
    """The calendar month, UTC, that a moment lies in: `2026-09`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")


def format_time(seconds: int) -> str:
    """RFC 3339, UTC, whole seconds: `2026-11-21T02:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def window_name(seconds: int) -> str:
    """What headers and refusals call a window: `minute`, or `15m`, `90s` where there is no word for it."""
    if seconds in _WINDOW_NAMES:
        return _WINDOW_NAMES[seconds]
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def is_month(span: str) -> bool:
    """`10000/month` among the rates is the quota: a calendar month has no fixed length to refill over."""
    return span.strip() in ("month", "mo", "months")


def _parse_span(span: str, text: str) -> int:
    match = _SPAN.fullmatch(span.strip())
    unit = match and (_UNITS.get(match[2]) or _UNITS.get(match[2].removesuffix("s")))
    if match is None or not unit:
        raise ValueError(f"{_short(text)} has no unit that is known: s, min, h or d, or a number of them such as 15m")
    return int(match[1] or 1) * unit


def _short(text: str) -> str:
    """Quoted for an error, which nobody can blow up with a megabyte."""
    quoted = repr(text[:41])
    return quoted if len(text) <= 40 and len(quoted) <= 42 else f"{quoted[:38]}...{quoted[0]}"
