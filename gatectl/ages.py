"""How long ago something was, or how soon it will be, in words: `just now`, `3 min ago`, `in 5 days`.

Pure: the present is an argument. It is the gateway's clock's, which set the times: a terminal's own may be minutes off.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_SKEW_S = 5  # the gateway's Date is up to a second old, and what it has just made may be dated after it
_UNITS = ((86400, "day", "days"), (3600, "h", "h"), (60, "min", "min"))
# Of what is to come a hundredth of a unit is given: who just typed `--expires 90d` is not told `in 89 days`.
_SLACK = 100
# What is further away is told by its date: nobody counts a year in days.
_LONGEST_S = 100 * 86400


def age(time: Any, now: int) -> str:
    """In words, of an RFC 3339 time in UTC; nothing of one that words do not suit."""
    try:
        moment = datetime.fromisoformat(str(time)).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    away_s = int(moment.timestamp()) - now
    if abs(away_s) < 60:
        return "just now" if away_s <= _SKEW_S else "in a moment"
    if abs(away_s) >= _LONGEST_S:
        return ""
    soon = away_s > 0
    size_s, one, many = next(unit for unit in _UNITS if abs(away_s) + soon * (unit[0] // _SLACK) >= unit[0])
    count = (abs(away_s) + soon * (size_s // _SLACK)) // size_s
    words = f"{count} {one if count == 1 else many}"
    return f"in {words}" if soon else f"{words} ago"
