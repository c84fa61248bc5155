"""Where the file is spelled otherwise than the admin API, and nowhere else.

Money is text in the API (`"0.001"`), since JSON's numbers are floats to most who read them. In a file people write
`price: 0.001`, and it is taken digit for digit as they wrote it: never through a float. A quota is a number in the API
and `10000/month` in a file, as `gatectl plan list` has it and `plan add` takes it. A whole number is written
as one: `timeout_s: 5`, where the API has 5.0. Everything else is the same.
"""

from __future__ import annotations

import re
from typing import Any

from gatectl.config.reading import Written

MONEY = frozenset({"price", "unit_price", "mib_price", "base_fee", "minimum"})
QUOTA = "quota"
_AMOUNT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_QUOTA = re.compile(r"([1-9][0-9]*)/month", re.ASCII)
_LARGEST_WHOLE = 1e15  # beyond it floats have no digits for all of them
_LONGEST = 100  # what reading takes for a number


class Amount(str):
    """Money on its way into a file: digits that need no quotes."""

    __slots__ = ()


def to_file(value: Any, member: str = "") -> Any:
    """A document of the admin API as it stands in a file."""
    if isinstance(value, dict):
        return {name: to_file(held, name) for name, held in value.items()}
    if isinstance(value, list):
        return [to_file(held) for held in value]
    if member in MONEY and isinstance(value, str) and len(value) <= _LONGEST and _AMOUNT.fullmatch(value):
        return Amount(value)
    if member == QUOTA and type(value) is int and value > 0:
        return f"{value}/month"
    if type(value) is float and value.is_integer() and abs(value) < _LARGEST_WHOLE:
        return int(value)
    return value


def from_file(value: Any, member: str = "") -> Any:
    """What stands in a file as the admin API takes it."""
    if isinstance(value, dict):
        return {name: from_file(held, name) for name, held in value.items()}
    if isinstance(value, list):
        return [from_file(held) for held in value]
    if member in MONEY and type(value) is int:
        return str(value)
    if member in MONEY and isinstance(value, Written):
        return value.text
    if member == QUOTA and isinstance(value, str) and (match := _QUOTA.fullmatch(value)):
        return int(match[1])
    return value
