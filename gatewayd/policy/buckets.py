"""Token buckets and calendar-month quotas in integers, so that the bound is exact and not merely close.

A bucket of `limit` per `window` holds up to `burst` tokens and refills continuously. Its level is counted in
token-nanoseconds: one token is `window_ns` units and every nanosecond brings `limit` of them, so no rounding ever
creates or loses a part of a token. Over any interval t at most burst + limit/window * t tokens leave it (the token
bucket of RFC 2697's meters, with a continuous clock). A clock that steps back stands still here until it has caught up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf

NANOS = 1_000_000_000
UNBOUNDED = 1 << 62  # of a limit that counts and refuses nothing


@dataclass(slots=True)
class Bucket:
    """One window of an account. `away` tokens are leased out and may still be spent: they count against the burst.

    `unclaimed` were away when the lessor before this one died, and nobody has said yet that they are spent.
    """

    limit: int
    window_ns: int
    burst: int
    level: int  # token-nanoseconds
    stamp_ns: int  # when `level` was true
    away: int = 0
    unclaimed: int = 0
    place: int = -1  # where it is kept; -1: nowhere

    @classmethod
    def full(cls, limit: int, window_s: int, burst: int, now_ns: int) -> Bucket:
        window_ns = window_s * NANOS
        return cls(limit, window_ns, burst, burst * window_ns, now_ns)

    @property
    def room(self) -> int:
        """The highest level it may have. A token that is away may be spent at any moment: were its place refilled
        already, burst + 1 could pass."""
        return (self.burst - self.away - self.unclaimed) * self.window_ns

    def refill(self, now_ns: int) -> None:
        elapsed = now_ns - self.stamp_ns
        if elapsed > 0:
            self.level = max(self.level, min(self.room, self.level + elapsed * self.limit))
            self.stamp_ns = now_ns

    def available(self) -> int:
        return max(0, self.level) // self.window_ns

    def is_full(self) -> bool:
        return self.away == 0 and self.level >= self.burst * self.window_ns

    def charge(self, tokens: int) -> None:
        self.level -= tokens * self.window_ns

    def restore(self, tokens: int) -> None:
        """Tokens that were charged and not used come back; never beyond the burst."""
        self.level = max(self.level, min(self.room, self.level + tokens * self.window_ns))

    def claim(self, tokens: int) -> None:
        """Somebody still has `tokens` of those that were away. What nobody knows of was not charged either."""
        known = min(tokens, self.unclaimed)
        self.unclaimed -= known
        self.away += tokens
        self.charge(tokens - known)

    def resized(self, limit: int, burst: int) -> Bucket:
        """The same window with other numbers: what was used stays used. A plan that changes hands out no new burst."""
        missing = self.room - self.level
        fresh = Bucket(limit, self.window_ns, burst, 0, self.stamp_ns, self.away, self.unclaimed, self.place)
        fresh.level = fresh.room - missing
        return fresh

    def wait_s(self, tokens: int = 1) -> float:
        """Seconds from `stamp_ns` until `tokens` are available, if nobody takes any."""
        missing = tokens * self.window_ns - self.level
        return max(0, missing) / self.limit / NANOS


@dataclass(slots=True)
class Quota:
    """Units of one calendar month. `recorded` is what the journal says; `out` is what may still come.

    The journal is the one truth of what was admitted, so nothing else needs to be stored: after a restart `recorded` is
    read from the rollups, and `out` (per worker: granted and neither returned nor recorded) from what the workers say
    they hold. A soft quota is counted like any, and passed beyond.
    """

    limit: int
    month_start_s: int
    month_end_s: int
    recorded: int
    out: dict[bytes, int] = field(default_factory=dict)
    soft: bool = False
    changes_at: float = inf  # in seconds since 1970: then a grant ends, if not the month

    def remaining(self) -> int:
        return max(0, self.limit - self.recorded - sum(self.out.values()))

    def available(self) -> int:
        """How many may be granted."""
        return UNBOUNDED if self.soft else self.remaining()

    def become(self, other: Quota) -> None:
        """All but what is on its way."""
        self.limit, self.recorded, self.soft = other.limit, other.recorded, other.soft
        self.month_start_s, self.month_end_s = other.month_start_s, other.month_end_s
        self.changes_at = other.changes_at

    def shrinks_by(self, at_s: float) -> bool:
        """A grant ends before that, and what is in hand then would be of units that are gone."""
        return self.changes_at <= at_s and self.changes_at < self.month_end_s

    def is_of(self, now_s: float) -> bool:
        """It says what is so at this time."""
        return self.month_start_s <= now_s < min(self.month_end_s, self.changes_at)


def month_of(now_s: float) -> tuple[int, int]:
    """Start and end of the calendar month in UTC that holds `now_s`, as seconds since 1970, half-open."""
    now = datetime.fromtimestamp(now_s, UTC)
    start = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()), int(end.timestamp())
