"""Replaying usage: by example, and by what must hold of any usage and any terms."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.conf import RateConf
from gatewayd.policy import pricing
from gatewayd.policy.buckets import NANOS, Bucket
from gatewayd.policy.pricing import Tier
from gatewayd.policy.simulation import HOUR_S, Billed, Hour, Outcome, Terms, simulate

START = int(datetime(2026, 11, 30, 20, tzinfo=UTC).timestamp())  # four hours before a month's end
MONTHS = (int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()), START + 4 * HOUR_S)


PRICES = {1: pricing.Terms(request_nanos=5)}  # that were in force


def hour(number: int, requests: int, weight: int = 1, size_bytes: int = 0) -> Hour:
    billed = (Billed(1, requests, requests * weight, size_bytes),) if requests else ()
    return Hour(START + number * HOUR_S, requests, requests * weight, billed)


def each(nanos: int) -> pricing.Terms:
    return pricing.Terms(request_nanos=nanos)


def rate(limit: int, window_s: int, burst: int | None = None) -> RateConf:
    return RateConf("x", limit, window_s, limit if burst is None else burst)


def run(hours: list[Hour], *rates: RateConf, quota: int | None = None, nanos: int = 5) -> Outcome:
    return simulate(hours, Terms(rates, quota, each(nanos)), START, {}, PRICES)


def earned(hours: list[Hour], tried: pricing.Terms, since: int = START, **prices: pricing.Terms) -> tuple[int, int]:
    outcome = simulate(hours, Terms((), None, tried), since, {}, PRICES | {2: prices.get("second", tried)})
    return outcome.earned_nanos, outcome.would_earn_nanos


def test_without_limits_all_pass_at_the_new_price() -> None:
    assert run([hour(0, 10), hour(5, 7)], nanos=7) == Outcome(17, 17, 0, 0, 85, 119)


def test_an_hour_lets_through_a_burst_and_an_hours_refill() -> None:
    assert run([hour(0, 71)], rate(60, 3600, burst=10)).refused == 1
    assert run([hour(0, 3701)], rate(60, 60, burst=100)).refused == 1
    assert run([hour(0, 3601)], rate(1, 1)).refused == 0


def test_the_burst_is_there_once() -> None:
    """In the second hour only what was refilled: the first took the burst."""
    assert run([hour(0, 70), hour(1, 61)], rate(60, 3600, burst=10)).refused == 1
    assert run([hour(0, 70), hour(2, 70)], rate(60, 3600, burst=10)).refused == 0
    assert run([hour(0, 24), hour(1, 2)], rate(24, 86400)).refused == 0
    assert run([hour(0, 24), hour(1, 3)], rate(24, 86400)).refused == 1


def test_the_tightest_window_counts() -> None:
    assert run([hour(0, 100)], rate(60, 60), rate(30, 3600)).refused == 40


def test_a_quota_is_of_a_calendar_month() -> None:
    outcome = run([hour(0, 8), hour(3, 8), hour(4, 8), hour(5, 8)], quota=10)
    assert (outcome.requests, outcome.refused, outcome.earned_nanos, outcome.would_earn_nanos) == (32, 12, 160, 100)


def test_grants_are_on_top_and_what_came_before_counts() -> None:
    terms = Terms((), 10, each(1))
    hours = [hour(-2, 8), hour(0, 8), hour(4, 20)]
    assert simulate(hours, terms, START, {}, PRICES).refused == 6 + 10
    assert simulate(hours, terms, START, {MONTHS[0]: 5, MONTHS[1]: 10}, PRICES).refused == 1
    assert simulate(hours, terms, START, {}, PRICES).requests == 28


def test_limits_count_units_and_refusals_fall_evenly() -> None:
    heavy = Hour(START, 10, 50, (Billed(1, 6, 30, 0),))  # 5 units each, 6 of them billable
    assert run([heavy], quota=50) == Outcome(10, 50, 0, 0, 30, 30)
    assert run([heavy], quota=49).refused == 1
    assert run([heavy], quota=25) == Outcome(10, 50, 5, 25, 30, 15)
    assert run([heavy], quota=1, nanos=1000).would_earn_nanos == 0


def test_nothing_is_nothing() -> None:
    assert run([], rate(1, 1), quota=1) == Outcome()
    assert run([Hour(START, 0, 0)], rate(1, 1), quota=1) == Outcome()


rates = st.builds(
    rate,
    st.integers(1, 500),
    st.sampled_from([1, 60, 90, 3600, 7200, 86400]),
    st.integers(1, 500),
)
terms = st.builds(
    Terms,
    st.lists(rates, max_size=3).map(tuple),
    st.none() | st.integers(1, 3000),
    st.builds(each, st.integers(0, 10**15)),
)
usages = st.dictionaries(st.integers(0, 40), st.integers(0, 2000), max_size=15).map(
    lambda usage: [hour(number, usage[number]) for number in sorted(usage)]
)


@given(usages, terms, rates | st.integers(1, 3000), st.booleans())
def test_stricter_terms_never_admit_more(usage: list[Hour], lax: Terms, more: RateConf | int, smaller: bool) -> None:
    """A limit more, or one of them smaller."""
    if isinstance(more, int):
        strict = lax._replace(quota=more if lax.quota is None else min(more, lax.quota))
    elif lax.rates and smaller:
        first = lax.rates[0]
        reduced = RateConf("x", min(first.limit, more.limit), first.window_s, min(first.burst, more.burst))
        strict = lax._replace(rates=(reduced, *lax.rates[1:]))
    else:
        strict = lax._replace(rates=(*lax.rates, more))
    loose, tight = simulate(usage, lax, START, {}, PRICES), simulate(usage, strict, START, {}, PRICES)
    assert tight.refused >= loose.refused
    assert tight.refused_units >= loose.refused_units
    assert tight.would_earn_nanos <= loose.would_earn_nanos


@given(usages, terms)
def test_it_adds_up(usage: list[Hour], tried: Terms) -> None:
    outcome = simulate(usage, tried, START, {}, PRICES)
    assert 0 <= outcome.refused <= outcome.requests == sum(each.requests for each in usage)
    assert outcome.earned_nanos == outcome.requests * 5
    assert outcome.would_earn_nanos == (outcome.requests - outcome.refused) * tried.price.request_nanos


@given(usages, terms)
def test_no_run_of_hours_passes_more_than_burst_and_rate(usage: list[Hour], tried: Terms) -> None:
    passed = [
        each.units - simulate(usage[: index + 1], tried, each.starts_at, {}, PRICES).refused_units
        for index, each in enumerate(usage)
    ]
    for window in tried.rates:
        for first in range(len(usage)):
            for last in range(first, len(usage)):
                seconds = usage[last].starts_at + HOUR_S - usage[first].starts_at
                total = sum(passed[first : last + 1])
                assert total * window.window_s <= window.burst * window.window_s + window.limit * seconds


arrivals = st.lists(st.tuples(st.integers(0, 5 * HOUR_S - 1), st.integers(1, 60)), max_size=40)


def admitted(times: list[tuple[int, int]], limits: tuple[RateConf, ...]) -> dict[int, int]:
    """By hour, of requests that come at these seconds, by the buckets of the data plane."""
    buckets = [Bucket.full(each.limit, each.window_s, each.burst, 0) for each in limits]
    by_hour: dict[int, int] = {}
    for second, count in sorted(times):
        for bucket in buckets:
            bucket.refill(second * NANOS)
        taken = min([count, *(bucket.available() for bucket in buckets)])
        for bucket in buckets:
            bucket.charge(taken)
        by_hour[second // HOUR_S] = by_hour.get(second // HOUR_S, 0) + taken
    return by_hour


@settings(deadline=None)
@given(arrivals, st.lists(rates, max_size=3).map(tuple))
def test_the_same_terms_reproduce_what_was_earned(times: list[tuple[int, int]], limits: tuple[RateConf, ...]) -> None:
    usage = [hour(number, count) for number, count in sorted(admitted(times, limits).items())]
    outcome = run(usage, *limits, nanos=5)
    assert outcome.refused == 0
    assert outcome.would_earn_nanos == outcome.earned_nanos


@settings(deadline=None)
@given(arrivals, st.lists(rates, min_size=1, max_size=3).map(tuple))
def test_the_least_is_never_more_than_what_buckets_refuse(
    times: list[tuple[int, int]], limits: tuple[RateConf, ...]
) -> None:
    wanted: dict[int, int] = {}
    for second, count in times:
        wanted[second // HOUR_S] = wanted.get(second // HOUR_S, 0) + count
    refused = sum(wanted.values()) - sum(admitted(times, limits).values())
    assert run([hour(number, count) for number, count in sorted(wanted.items())], *limits).refused <= refused


@pytest.mark.parametrize("nanos", [0, 1, 10**15])
def test_money_is_whole_nanos(nanos: int) -> None:
    outcome = run([hour(0, 3)], nanos=nanos)
    assert outcome.would_earn_nanos == 3 * nanos
    assert isinstance(outcome.would_earn_nanos, int)


def test_the_whole_price_is_tried() -> None:
    tried = pricing.Terms(
        unit_nanos=3, mib_nanos=100, included=10, mode="graduated", tiers=(Tier(5, 20), Tier(None, 10))
    )
    assert earned([hour(0, 30, weight=2, size_bytes=3 << 20)], tried) == (150, 5 * 20 + 15 * 10 + 60 * 3 + 300)


def test_a_months_allowance_is_used_by_what_came_before_the_range() -> None:
    """8 of the 10 that are included were used before; the next month has its own 10."""
    tried = pricing.Terms(request_nanos=7, included=10)
    assert earned([hour(-2, 8), hour(0, 8)], tried) == (40, 6 * 7)
    assert earned([hour(-2, 8), hour(0, 8), hour(4, 12)], tried) == (100, 6 * 7 + 2 * 7)
    volume = pricing.Terms(mode="volume", tiers=(Tier(10, 7), Tier(None, 1)))
    assert earned([hour(-2, 8), hour(0, 8)], volume) == (40, 8)


def test_base_fee_and_minimum_are_of_months_that_begin_in_the_range() -> None:
    tried = pricing.Terms(request_nanos=1, base_nanos=100, minimum_nanos=150)
    assert earned([hour(0, 8)], tried)[1] == 8
    assert earned([hour(0, 8)], tried, since=MONTHS[0])[1] == 150
    assert earned([hour(0, 8), hour(4, 70)], tried)[1] == 8 + 170
    # Of what was really in force: the price that a month was ended with.
    late = hour(5, 3)._replace(billed=(Billed(2, 3, 3, 0),))
    assert earned([hour(4, 10), late], each(0), second=pricing.Terms(base_nanos=1000))[0] == 10 * 5 + 1000


whole_terms = st.builds(
    pricing.Terms,
    request_nanos=st.integers(0, 50),
    unit_nanos=st.integers(0, 50),
    mib_nanos=st.integers(0, 50),
    base_nanos=st.integers(0, 5000),
    minimum_nanos=st.integers(0, 5000),
    included=st.integers(0, 2000),
)


@given(usages, whole_terms, st.integers(-5, 10))
def test_the_price_that_was_in_force_earns_what_it_did(usage: list[Hour], price: pricing.Terms, since: int) -> None:
    outcome = simulate(usage, Terms((), None, price), START + since * HOUR_S, {}, {1: price})
    assert outcome.earned_nanos == outcome.would_earn_nanos >= 0
