"""What recorded usage would have met under other terms: how much would have been refused, what it would have earned.

Usage is known by the hour, and within an hour the shape of it is not: ten requests at once and ten spread out look the
same. So an hour is taken as kindly as it can have been. A window lets through what its bucket had at the hour's start
and all that it refilled meanwhile, and is left with as much as can have remained. What is said to be refused is
therefore the least that would have been, and over any run of hours no more than burst + rate * time passes, as in the
data plane. A calendar month's quota has no such doubt: it is exact to the hour.

Only what was admitted is replayed. Of what was refused then, nobody knows whether it would have come under other terms.
Limits count units. Where the requests of an hour weigh differently, and where only some of them were billable, refusals
fall evenly on all of them. Integers throughout: tokens times the window's seconds, and nanos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gatewayd.channel import RateConf
from gatewayd.policy.buckets import month_of

HOUR_S = 3600


class Hour(NamedTuple):
    """What a key did in one hour: admitted requests, their units, those that cost, and what they cost."""

    starts_at: int
    requests: int
    units: int
    billable: int
    nanos: int


class Terms(NamedTuple):
    """What is tried. A quota that does not refuse is None, as are the rates of a plan in shadow mode empty."""

    rates: tuple[RateConf, ...]
    quota: int | None
    request_nanos: int


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


def simulate(hours: Iterable[Hour], terms: Terms, since_s: int, granted: Mapping[int, int]) -> Outcome:
    """Replay the hours of one key, in their order, each at most once.

    Those before `since_s` are not counted; they say what was left of the month's quota by then. `granted`: units on top
    of the quota, by the month's start.
    """
    outcome = Outcome()
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
        if hour.starts_at >= since_s:
            outcome.add(_outcome_of(hour, passed, terms.request_nanos))
    return outcome


def _outcome_of(hour: Hour, passed: int, request_nanos: int) -> Outcome:
    missing = hour.units - passed
    refused = -(-missing * hour.requests // hour.units) if missing else 0
    billable = hour.billable * (hour.requests - refused) // hour.requests if hour.requests else 0
    return Outcome(
        requests=hour.requests,
        units=hour.units,
        refused=refused,
        refused_units=missing,
        earned_nanos=hour.nanos,
        would_earn_nanos=billable * request_nanos,
    )
