"""Money as text and as integers of nanos (10⁻⁹ of a currency unit): exact in both directions, never float."""

from __future__ import annotations

import re

NANOS = 1_000_000_000
_DECIMALS = 9
_LONGEST_UNITS = 7  # digits of the largest price
_LARGEST = 1_000_000 * NANOS  # of one thing: far inside 64 bits, and beyond it is a slip of the hand
_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)


def parse_price(text: str) -> int:
    """`"0.001"` as nanos. Raises ValueError with a sentence."""
    text = text.strip()
    if text.startswith("-"):
        raise ValueError(f"{text[:40]!r} is negative; the least price is 0")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a price; write a decimal number such as 0.001")
    units, decimals = match[1].lstrip("0"), (match[2] or "").rstrip("0")
    if len(decimals) > _DECIMALS:
        raise ValueError(f"{text[:40]!r} has more than {_DECIMALS} decimals; the smallest price is 0.000000001")
    # Lengths first: int() of a million digits takes seconds.
    nanos = int(units.rjust(1, "0") + decimals.ljust(_DECIMALS, "0")) if len(units) <= _LONGEST_UNITS else _LARGEST + 1
    if nanos > _LARGEST:
        raise ValueError(f"{text[:40]!r} is more than {_LARGEST // NANOS}, the largest price of one thing")
    return nanos


def parse_amount(text: str) -> int:
    """`"-12.5"` as nanos: of a credit or an adjustment, of either sign. Raises ValueError with a sentence."""
    text = text.strip()
    negative = text.startswith("-")
    match = _DECIMAL.fullmatch(text[1:] if negative else text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not an amount; write a decimal number such as 12.50")
    units, decimals = match[1].lstrip("0"), (match[2] or "").rstrip("0")
    if len(decimals) > _DECIMALS:
        raise ValueError(f"{text[:40]!r} has more than {_DECIMALS} decimals; the smallest amount is 0.000000001")
    if len(units) > _LONGEST_UNITS:
        raise ValueError(f"{text[:40]!r} is more than {'9' * _LONGEST_UNITS}, the largest amount of one entry")
    nanos = int(units.rjust(1, "0") + decimals.ljust(_DECIMALS, "0"))
    return -nanos if negative else nanos


def format_nanos(nanos: int) -> str:
    """`"12.345"`: exact, no trailing zeros, no exponent."""
    sign = "-" if nanos < 0 else ""
    units, rest = divmod(abs(nanos), NANOS)
    decimals = f"{rest:0{_DECIMALS}}".rstrip("0")
    return f"{sign}{units}.{decimals}" if decimals else f"{sign}{units}"
