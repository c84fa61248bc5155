"""What recorded usage would have met under other terms: how much would have been refused, what it would have earned.

Usage is known by the hour, and within an hour the shape of it is not: ten requests at once and ten spread out look the
same. So an hour is taken as kindly as it can have been. A window lets through what its bucket had at the hour's start
and all that it refilled meanwhile, and is left with as much as can have remained. What is said to be refused is
therefore the least that would have been, and over any run of hours no more than burst + rate * time passes, as in the
data plane. A calendar month's quota has no such doubt: it is exact to the hour.

Only what was admitted is replayed. Of what was refused then, nobody knows whether it would have come under other terms.
Limits count units. Where the requests of an hour weigh differently, and where only some of them were billable, refusals
fall evenly on all of them. Integers throughout: tokens times the window's seconds, and nanos.

What is earned is charged by `policy.pricing`, a month at a time, as cycles are. Of a month that began before the range,
what was used until then counts towards its allowance and tiers and is not earned; its base fee and minimum were due
before. A month that begins in the range brings them whole, also where the range ends within it. What was billable stays
so: usage does not tell what each outcome was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gatewayd.conf import RateConf
from gatewayd.policy import pricing
from gatewayd.policy.buckets import month_of
from gatewayd.policy.pricing import Subscription, Usage, charges

HOUR_S = 3600
_DAY_S = 86400
_BEFORE, _COUNTED = 1, 2  # in place of services: usage before the range comes first, as pricing lays it end to end
_TRIED = 0  # the price that is tried; those that were in force have their numbers


class Billed(NamedTuple):
    """What was billable of an hour at one price."""

    price_id: int
    requests: int
    units: int
    size_bytes: int


class Hour(NamedTuple):
    """What a key did in one hour: admitted requests, their units, and what of them cost, by price."""

    starts_at: int
    requests: int
    units: int
    billed: tuple[Billed, ...] = ()


class Terms(NamedTuple):
    """What is tried. A quota that does not refuse is None, as are the rates of a plan in shadow mode empty."""

    rates: tuple[RateConf, ...]
    quota: int | None
    price: pricing.Terms


@dataclass(slots=True)
class Outcome:
    """`refused` of the `requests` that were admitted, `refused_units` of their units."""

    requests: int = 0
    units: int = 0
    refused: int = 0
    refused_units: int = 0
    earned_nanos: int = 0
    would_earn_nanos: int = 0

    def add(self, other: Outcome) -> None:
        self.requests += other.requests
        self.units += other.units
        self.refused += other.refused
        self.refused_units += other.refused_units
        self.earned_nanos += other.earned_nanos
        self.would_earn_nanos += other.would_earn_nanos


Month = tuple[int, int]  # its start and its end


class _Window:
    """A bucket that knows hours only. `level` is in tokens times seconds of the window, as kindly as it can be."""

    __slots__ = ("level", "rate", "true_at")

    def __init__(self, rate: RateConf, now_s: int) -> None:
        self.rate = rate
        self.level = rate.burst * rate.window_s
        self.true_at = now_s

    def passes(self, starts_at: int) -> int:
        """How many units at most pass in the hour from `starts_at` on."""
        self._refill(starts_at)
        return (self.level + self.rate.limit * HOUR_S) // self.rate.window_s

    def charge(self, units: int) -> None:
        """They passed in the hour that was asked for."""
        self.level -= units * self.rate.window_s
        self._refill(self.true_at + HOUR_S)

    def _refill(self, now_s: int) -> None:
        full = self.rate.burst * self.rate.window_s
        self.level = min(full, self.level + (now_s - self.true_at) * self.rate.limit)
        self.true_at = now_s


class _Bill:
    """What a key owes for the part of one month that is in the range."""

    __slots__ = ("_begins_in_range", "_ends_at", "_last", "_starts_at", "_usage")

    def __init__(self, starts_at: int, ends_at: int, since_s: int) -> None:
        self._starts_at, self._ends_at = starts_at, ends_at
        self._begins_in_range = starts_at >= since_s
        self._usage: dict[tuple[int, int], Usage] = {}
        self._last = 0

    def holds(self, time_s: int) -> bool:
        return self._starts_at <= time_s < self._ends_at

    def add(self, hour: int, billed: Billed, *, counted: bool) -> None:
        part = _COUNTED if counted else _BEFORE
        day = hour - hour % _DAY_S
        row = self._usage.get((part, billed.price_id), Usage(1, part, billed.price_id, day, 0, 0, 0))
        requests, units, size_bytes = (a + b for a, b in zip(row[4:], billed[1:], strict=True))
        self._usage[part, billed.price_id] = row._replace(requests=requests, units=units, size_bytes=size_bytes)
        self._last = billed.price_id

    def nanos(self, prices: Mapping[int, pricing.Terms]) -> int:
        """The base fee is that of the price that was used last, as it is of a cycle's last one."""
        if not self._usage:
            return 0
        owed = [Subscription(1, self._last)] if self._begins_in_range else []
        return sum(line.nanos for line in charges(self._usage.values(), owed, prices) if line.service_id != _BEFORE)


class _Books:
    """The months of one key, one after the other: what they earned, and would have."""

    def __init__(
        self, prices: Mapping[int, pricing.Terms], tried: pricing.Terms, since_s: int, months: Callable[[int], Month]
    ) -> None:
        self._prices, self._tried, self._since_s, self._months = prices, {_TRIED: tried}, since_s, months
        self._real = self._other = _Bill(0, 0, 0)
        self.earned_nanos = self.would_earn_nanos = 0

    def add(self, hour: Hour, passed: Outcome) -> None:
        if not self._real.holds(hour.starts_at):
            self.close()
            month = self._months(hour.starts_at)
            self._real, self._other = _Bill(*month, self._since_s), _Bill(*month, self._since_s)
        counted = hour.starts_at >= self._since_s
        for billed in hour.billed:
            self._real.add(hour.starts_at, billed, counted=counted)
            self._other.add(hour.starts_at, _left_of(billed, passed), counted=counted)

    def close(self) -> None:
        self.earned_nanos += self._real.nanos(self._prices)
        self.would_earn_nanos += self._other.nanos(self._tried)
        self._real = self._other = _Bill(0, 0, 0)


def simulate(
    hours: Iterable[Hour],
    terms: Terms,
    since_s: int,
    granted: Mapping[int, int],
    prices: Mapping[int, pricing.Terms],
    months: Callable[[int], Month] = month_of,
) -> Outcome:
    """Replay the hours of one key, in their order, each at most once.

    Those before `since_s` are not counted; they say what was left of the month's quota by then. `granted`: units on top
    of the quota, by the month's start. `prices`: those that were in force. `months`: the billing month of a time; the
    quota's is of UTC.
    """
    outcome = Outcome()
    books = _Books(prices, terms.price, since_s, months)
    windows: list[_Window] | None = None
    month_ends_at = left = 0
    for hour in hours:
        if windows is None:
            windows = [_Window(rate, hour.starts_at) for rate in terms.rates]
        passed = min([hour.units, *(window.passes(hour.starts_at) for window in windows)])
        if terms.quota is not None:
            if hour.starts_at >= month_ends_at:
                month, month_ends_at = month_of(hour.starts_at)
                left = terms.quota + granted.get(month, 0)
            passed = min(passed, left)
            left -= passed
        for window in windows:
            window.charge(passed)
        of_hour = _outcome_of(hour, passed)
        if hour.starts_at >= since_s:
            outcome.add(of_hour)
        books.add(hour, of_hour)
    books.close()
    outcome.earned_nanos, outcome.would_earn_nanos = books.earned_nanos, books.would_earn_nanos
    return outcome


def _outcome_of(hour: Hour, passed: int) -> Outcome:
    missing = hour.units - passed
    refused = -(-missing * hour.requests // hour.units) if missing else 0
    return Outcome(requests=hour.requests, units=hour.units, refused=refused, refused_units=missing)


def _left_of(billed: Billed, hour: Outcome) -> Billed:
    """What would have been billed of it, at the price that is tried."""
    if not hour.refused:
        return billed._replace(price_id=_TRIED)
    requests, units = hour.requests - hour.refused, hour.units - hour.refused_units
    return Billed(
        _TRIED,
        billed.requests * requests // hour.requests,
        billed.units * units // hour.units,
        billed.size_bytes * requests // hour.requests,
    )
