"""Times and amounts as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gatectl.times import parse_duration, parse_expiry, parse_moment, parse_period, parse_size, rfc3339

NOW = datetime(2026, 11, 21, 2, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("15min", 900), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("1h30m", 5400),
     ("1.5h", 5400), ("0s", 0)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-5m", "5ms", "5 m", "1h30", "٣h", "99999999d", "nan", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|longer than a century"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-21T02:30:15Z"),
        ("24h", "2026-11-20T02:30:15Z"),
        ("15m", "2026-11-21T02:15:15Z"),
        ("today", "2026-11-21T00:00:00Z"),
        ("yesterday", "2026-11-20T00:00:00Z"),
        ("this-month", "2026-11-01T00:00:00Z"),
        ("last-month", "2026-10-01T00:00:00Z"),
        ("2026-09", "2026-09-01T00:00:00Z"),
        ("2026-09-01", "2026-09-01T00:00:00Z"),
        ("2026-09-01T12:00:00", "2026-09-01T12:00:00Z"),
        ("2026-09-01T12:00:00Z", "2026-09-01T12:00:00Z"),
        ("2026-09-01T12:00:00+02:00", "2026-09-01T10:00:00Z"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    assert rfc3339(parse_moment(text, NOW)) == moment


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "2026-02-30", "24", "12:00"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_moment(text, NOW)


def test_a_moment_before_the_first_year_is_none() -> None:
    with pytest.raises(ValueError, match="outside the years"):
        parse_moment("0001-01-01T00:00:00+14:00", NOW)


def test_expiry_is_ahead() -> None:
    assert rfc3339(parse_expiry("90d", NOW)) == "2027-02-19T02:30:15Z"
    assert rfc3339(parse_expiry("2027-01-31", NOW)) == "2027-01-31T00:00:00Z"
    with pytest.raises(ValueError, match="in the past"):
        parse_expiry("2026-01-01", NOW)


def test_periods() -> None:
    for text in ("2026-09", "2026-09.12", "this-month", "last-month"):
        assert parse_period(text) == text
    for text in ("2026-00", "2026-9", "september", ""):
        with pytest.raises(ValueError, match="is not a month"):
            parse_period(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("512B", 512), ("1k", 1000), ("1kB", 1000), ("64KiB", 65536), ("64ki", 65536),
     ("10MiB", 10485760), ("1.5MiB", 1572864), ("1GB", 10**9), ("2TiB", 2 * 1024**4)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 XB", "1i", "1iB", "ten"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9007199254740993KiB", "9" * 400])
def test_what_is_too_large_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="at most"):
        parse_size(text)
