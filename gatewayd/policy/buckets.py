"""Token buckets and calendar-month quotas in integers, so that the bound is exact and not merely close.

A bucket of `limit` per `window` holds up to `burst` tokens and refills continuously. Its level is counted in
token-nanoseconds: one token is `window_ns` units and every nanosecond brings `limit` of them, so no rounding ever
creates or loses a part of a token. Over any interval t at most burst + limit/window * t tokens leave it (the token
bucket of RFC 2697's meters, with a continuous clock). A clock that steps back stands still here until it has caught up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

NANOS = 1_000_000_000


@dataclass(slots=True)
class Bucket:
    """One window of a key. `away` tokens are leased out and may still be spent: they count against the burst."""

    limit: int
    window_ns: int
    burst: int
    level: int  # token-nanoseconds
    stamp_ns: int  # when `level` was true
    away: int = 0

    @classmethod
    def full(cls, limit: int, window_s: int, burst: int, now_ns: int) -> Bucket:
        window_ns = window_s * NANOS
        return cls(limit, window_ns, burst, burst * window_ns, now_ns)

    def refill(self, now_ns: int) -> None:
        elapsed = now_ns - self.stamp_ns
        if elapsed > 0:
            # A token that is away may be spent at any moment: were its place refilled already, burst + 1 could pass.
            room = (self.burst - self.away) * self.window_ns
            self.level = max(self.level, min(room, self.level + elapsed * self.limit))
            self.stamp_ns = now_ns

    def available(self) -> int:
        return max(0, self.level) // self.window_ns

    def is_full(self) -> bool:
        return self.away == 0 and self.level >= self.burst * self.window_ns

    def charge(self, tokens: int) -> None:
        self.level -= tokens * self.window_ns

    def restore(self, tokens: int) -> None:
        """Tokens that were charged and not used come back; never beyond the burst."""
        self.level = min((self.burst - self.away) * self.window_ns, self.level + tokens * self.window_ns)

    def know(self, remaining: int, more_in_s: float) -> None:
        """Somebody remembers that `remaining` were left when the next was (or is) due in `more_in_s`: no more are."""
        self.level = min(self.level, (remaining + 1) * self.window_ns - ceil(more_in_s * NANOS) * self.limit)

    def wait_s(self, tokens: int = 1) -> float:
        """Seconds from `stamp_ns` until `tokens` are available, if nobody takes any."""
        missing = tokens * self.window_ns - self.level
        return max(0, missing) / self.limit / NANOS


@dataclass(slots=True)
class Quota:
    """Admitted requests of one calendar month. `recorded` is what the journal says; `out` is what may still come.

    The journal is the one truth of what was admitted, so nothing else needs to be stored: after a restart `recorded` is
    read from the rollups, and `out` (per worker: granted and neither returned nor recorded) from what the workers say
    they hold.
    """

    limit: int
    month_start_s: int
    month_end_s: int
    recorded: int
    out: dict[bytes, int]

    def available(self) -> int:
        return max(0, self.limit - self.recorded - sum(self.out.values()))


def month_of(now_s: float) -> tuple[int, int]:
    """Start and end of the calendar month in UTC that holds `now_s`, as seconds since 1970, half-open."""
    now = datetime.fromtimestamp(now_s, UTC)
    start = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()), int(end.timestamp())
