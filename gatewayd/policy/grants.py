"""The size of a grant: of what waits at a worker as much as all limits of its lease allow, and a surplus on top.

The surplus is used up within 50 ms and never takes more than a fair part of what is left: `min(rate / 20, available /
(2 * workers))`. A slow bucket (below 20 per second) or one that is nearly empty gets none: its tokens are leased one by
one, so none can be stranded at an idle worker. Nor can they be in many small parts: all that is away of a bucket is
bounded too, most of all where many keys share it.

What is granted here is booked by the lessor (`leases`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from gatewayd.channel import LeaseId, LimitConf
from gatewayd.policy.accounts import Account, Books
from gatewayd.policy.buckets import NANOS, Quota

SURPLUS_PER_S = 20  # a surplus lasts 1/20 s at the key's full rate
SURPLUS_WITHOUT_RATE = 256  # for a key that has a quota but no rate
# A quota with fewer than this for each half of a worker is nearly empty. A bucket that lacks a token has it
# again in a moment, a quota has not: the other worker would refuse what was paid for.
LAST_OF_QUOTA = 8
# No worker has any of it left after this: it goes back a second after the last ask for more, and a worker asks again
# only when it is down to a quarter.
SURPLUS_LASTS_S = 5.0


class LimitLeft(NamedTuple):
    remaining: int
    more_in_s: float


class Grant(NamedTuple):
    """`granted` tokens, `surplus` of them beyond what waits. `blocked_by`: index of the limit that has too few."""

    granted: int
    surplus: int
    left: tuple[LimitLeft, ...]
    blocked_by: int | None


@dataclass(slots=True, eq=False)
class Lease:
    """One combination at the lessor, and what each worker holds of it."""

    id: LeaseId
    books: list[Books]
    quota: Quota | None
    away: dict[bytes, int] = field(default_factory=dict)  # surplus per worker, not yet spent
    limits: tuple[LimitConf, ...] = ()
    terms: int = 0  # which limits these are

    def __repr__(self) -> str:
        return f"<Lease {tuple(self.id)} {sum(self.away.values())} away>"

    def name_limits(self) -> None:
        limits = [
            LimitConf(rate.name, rate.limit, rate.window_s, _told_scope(each.account), rate.burst)
            for each in self.books
            for rate in each.rates
        ]
        if self.quota is not None:
            limits.append(LimitConf("month", self.quota.limit, 0))
        self.limits = tuple(limits)
        self.terms = crc32(repr(limits).encode()) or 1


def _told_scope(account: Account) -> str:
    return "" if account.scope == "key" else account.scope


def within(lease: Lease, waiting: int, least: int) -> tuple[int, int | None]:
    """How many of `waiting` units all limits allow, and which does not allow more."""
    amounts = [bucket.available() for books in lease.books for bucket in books.buckets]
    if lease.quota is not None:
        amounts.append(lease.quota.available())
    available = min(amounts)
    granted = min(waiting, available) if available >= least else 0
    return granted, None if granted == waiting else _blocking(lease, granted + 1 if granted else least)


def surplus_of(lease: Lease, workers: int, granted: int) -> int:
    """How many tokens more than are `granted` a worker may have in hand for requests to come."""
    share = 2 * workers
    amounts: list[int] = []
    for books in lease.books:
        # In all, 100 ms of what many keys share may be away, and of a key as much as its workers can use at once.
        holders = 2 if books.is_shared else workers + 1
        for bucket in books.buckets:
            brisk = bucket.limit * NANOS // bucket.window_ns // SURPLUS_PER_S
            amounts += ((bucket.available() - granted) // share, brisk, brisk * holders - bucket.away)
    if lease.quota is not None:
        # Of a soft one too: what is in hand beyond it would be told as left.
        left = (lease.quota.remaining() - granted) // share
        amounts.append(left if left >= LAST_OF_QUOTA else 0)
    if not lease.books:
        amounts.append(SURPLUS_WITHOUT_RATE)
    return max(0, min(amounts))


def left_of(lease: Lease, now_s: float) -> tuple[LimitLeft, ...]:
    """What is told of each limit: how much is left, and when there is more."""
    left = []
    for books in lease.books:
        for bucket in books.buckets:
            available = bucket.available()
            left.append(LimitLeft(available, bucket.wait_s(available + 1)))
    if lease.quota is not None:
        left.append(LimitLeft(lease.quota.remaining(), max(0.0, lease.quota.month_end_s - now_s)))
    return tuple(left)


def _blocking(lease: Lease, needed: int) -> int:
    """The limit to name in the refusal: of those that have too few, the quota, else who stays so the longest."""
    buckets = [bucket for books in lease.books for bucket in books.buckets]
    if lease.quota is not None and lease.quota.available() < needed:
        return len(buckets)
    short = [index for index, bucket in enumerate(buckets) if bucket.available() < needed]
    return max(short, key=lambda index: buckets[index].wait_s(needed))
