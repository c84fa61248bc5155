"""A bill as one would work it out with paper and pencil: request by request, in fractions of the currency.

It shares no code with `policy.pricing`, and does what the words of that module say in the slowest way. MiB are the one
thing that is not decided request by request: each line of service and price is rounded to whole nanos, halves up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor
from typing import NamedTuple

from gatewayd.policy.pricing import Terms

NANO = Fraction(1, 10**9)


class Call(NamedTuple):
    """A billable request."""

    key: int
    service: int
    price: int
    day: int
    units: int
    size_bytes: int


def bill(calls: Iterable[Call], owed: Mapping[int, int], prices: Mapping[int, Terms]) -> dict[int, Fraction]:
    """What each key has to pay; `owed` is the price of each key that pays a base fee or a minimum."""
    by_key: dict[int, list[Call]] = {key: [] for key in owed}
    for call in calls:
        by_key.setdefault(call.key, []).append(call)
    totals = {}
    for key, own in by_key.items():
        total = usage_of_key(own, prices)
        if key in owed:
            total = max(total + prices[owed[key]].base_nanos * NANO, prices[owed[key]].minimum_nanos * NANO)
        totals[key] = total
    return totals


def usage_of_key(calls: list[Call], prices: Mapping[int, Terms]) -> Fraction:
    began: dict[int, int] = {}
    for call in sorted(calls, key=lambda call: call.day):
        began.setdefault(call.price, call.day)
    whole = {"requests": len(calls), "units": sum(call.units for call in calls)}
    total, place, packages = Fraction(0), {"requests": 0, "units": 0}, dict[tuple[str, int], int]()
    for call in sorted(calls, key=lambda call: (began[call.price], call.price)):
        terms = prices[call.price]
        for counted, many in (("requests", 1), ("units", call.units)):
            for _ in range(many):
                place[counted] += 1
                each = terms.request_nanos if counted == "requests" else terms.unit_nanos
                if counted == terms.counts:
                    each = one(terms, place[counted], whole[counted], packages, each)
                total += each * NANO
    return total + mib(calls, prices)


def one(terms: Terms, number: int, whole: int, packages: dict[tuple[str, int], int], each: int) -> int:
    """What the request or unit of this number in the cycle costs."""
    if number <= terms.included:
        return 0
    if terms.mode == "flat":
        return each
    if terms.mode == "package":
        of = terms.counts, terms.package_size
        if number <= packages.get(of, 0):
            return 0
        packages[of] = number + terms.package_size - 1
        return terms.package_nanos
    beyond = (whole if terms.mode == "volume" else number) - terms.included
    for tier in terms.tiers:
        if tier.up_to is None or beyond <= tier.up_to:
            return tier.nanos
    raise AssertionError("the last tier is open")


def mib(calls: list[Call], prices: Mapping[int, Terms]) -> Fraction:
    lines: dict[tuple[int, int], int] = {}
    for call in calls:
        lines[call.service, call.price] = lines.get((call.service, call.price), 0) + call.size_bytes
    total = Fraction(0)
    for (_, price), size_bytes in lines.items():
        total += floor(Fraction(size_bytes, 2**20) * prices[price].mib_nanos + Fraction(1, 2)) * NANO
    return total
