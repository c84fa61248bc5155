"""What alerts count and when they have something to tell. Pure.

quota     a key has used this percentage of its month's quota; once a key and month
spend     a key, or the tenant as a whole, has come to this amount in a billing cycle; once a cycle
refusals  so many requests of a key, or of the tenant, were refused in a minute of the clock; once a spike, which lasts
          for as long as each minute has so many
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gatewayd.policy.amounts import format_time, parse_count
from gatewayd.policy.money import NANOS, format_nanos

Kind = Literal["quota", "spend", "refusals"]
KINDS: tuple[Kind, ...] = ("quota", "spend", "refusals")
# The `type` of what is sent; Standard Webhooks has them hierarchical, with full stops.
EVENT_TYPES: Mapping[Kind, str] = {
    "quota": "quota.threshold",
    "spend": "spend.threshold",
    "refusals": "refusals.spike",
}
TEST_TYPE = "alert.test"

_LARGEST_SPEND_DIGITS = 9
_DECIMALS = 9


def parse_percent(value: int) -> int:
    """Of a quota. More than 100 is what a soft quota can come to."""
    if not 1 <= value <= 1000:
        raise ValueError(f"{value} is not between 1 and 1000 percent")
    return value


def parse_spend(text: str) -> int:
    """`"100"` or `"99.50"` as nanos."""
    units, _, decimals = text.strip().partition(".")
    digits = units + decimals
    written = units and (decimals or "." not in text) and digits.isascii() and digits.isdigit()
    if not written or len(units.lstrip("0")) > _LARGEST_SPEND_DIGITS or len(decimals) > _DECIMALS:
        raise ValueError(f"{text[:40]!r} is not an amount; write a decimal number such as 100 or 99.50")
    if not (nanos := int(units) * NANOS + int(decimals.ljust(_DECIMALS, "0"))):
        raise ValueError("0 is reached before anything is spent; write an amount such as 100")
    return nanos


def parse_refusals(text: str) -> int:
    """`"100/min"` or `"100"`."""
    count, slash, span = text.strip().partition("/")
    if slash and span.strip() not in ("min", "m", "minute", "1m", "60s"):
        raise ValueError(f"{text[:40]!r} is not a number a minute, which refusals are counted by; write 100/min")
    return parse_count(count)


def in_words(kind: str, threshold: int, currency: str) -> str:
    """When it tells, for people: `80% of the quota`."""
    match kind:
        case "quota":
            return f"{threshold}% of the quota"
        case "spend":
            return f"{format_nanos(threshold)} {currency} a cycle"
    return f"{threshold} refused a minute"


def becomes_spike(before: int, count: int, neighbours: tuple[int, int], threshold: int) -> bool:
    """Whether a minute that went from `before` to `count` refusals begins a spike.

    `neighbours` are the minutes before and after it: next to one that has as many it belongs to a spike that was told.
    The minute after counts too, for the journals of two workers are not read in the order of time.
    """
    return before < threshold <= count and max(neighbours) < threshold


def event_body(event_type: str, now_s: int, data: Mapping[str, Any]) -> str:
    """JSON as it is sent and signed: `{"type", "timestamp", "data"}`."""
    return msgspec.json.encode({"type": event_type, "timestamp": format_time(now_s), "data": data}).decode()
