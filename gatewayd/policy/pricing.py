"""What usage costs: prices, and the one arithmetic of charges. Integers of nanos throughout; pure.

A price is a set of `Terms` that never changes once a record names it, so usage is charged by the price in force when it
happened. Terms charge what is billable: each request, each unit (a route's weight), each MiB in and out. Of requests or
units, whichever they count, some are included, and those beyond cost

    flat        the same each
    graduated   each what its tier says: the first 1000 this much, the next 9000 that much
    volume      each what the tier says that the cycle's whole quantity lies in
    package     by the begun package of so many

and a cycle has a base fee and a minimum. All of these count per key and cycle. Where a key had several prices in a
cycle, its quantities are laid end to end in the order of the days on which the prices were first used, and each price
charges its stretch: F(end) - F(start) of its own cumulative function F. So an allowance is given once and a tier is
climbed once, however often prices change or usage is split among services, and what the stretches cost adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from gatewayd.records import UPSTREAM_BROKE

MIB_BYTES = 1 << 20
DEFAULT_PRICE_NANOS = 1_000_000  # 0.001: what a request costs where no plan says otherwise

Outcome = Literal["2xx", "3xx", "4xx", "5xx", "client-left"]
OUTCOMES: tuple[Outcome, ...] = ("2xx", "3xx", "4xx", "5xx", "client-left")
_BY_CLASS: Mapping[int, Outcome] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
_SWITCHED, _CLIENT_LEFT = 101, 499

Mode = Literal["flat", "graduated", "volume", "package"]
Counted = Literal["requests", "units"]
Kind = Literal["included", "request", "unit", "tier", "package", "mib", "base", "minimum"]
# In the order in which an invoice has them.
KINDS: tuple[Kind, ...] = ("included", "request", "unit", "tier", "package", "mib", "base", "minimum")


class Tier(msgspec.Struct, frozen=True, array_like=True):
    """`nanos` for each up to `up_to`, counted beyond what is included; None: all the rest."""

    up_to: int | None
    nanos: int


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """A price. Encoded as JSON it is the same text for the same terms: table `price` has each once."""

    request_nanos: int = 0
    unit_nanos: int = 0
    mib_nanos: int = 0
    base_nanos: int = 0
    minimum_nanos: int = 0
    counts: Counted = "requests"  # what `included`, tiers and packages count
    included: int = 0
    mode: Mode = "flat"
    tiers: tuple[Tier, ...] = ()  # of graduated and volume; the last is open
    package_size: int = 0
    package_nanos: int = 0
    billable: tuple[Outcome, ...] = ("2xx", "3xx")  # in the order of OUTCOMES

    @property
    def each_nanos(self) -> int:
        """The flat price of what is counted."""
        return self.request_nanos if self.counts == "requests" else self.unit_nanos

    @property
    def is_linear(self) -> bool:
        """A request costs the same whatever else there was."""
        return self.mode == "flat" and not self.included

    @property
    def is_subscribed(self) -> bool:
        """A key that has this price owes something in a cycle without usage."""
        return bool(self.base_nanos or self.minimum_nanos)


DEFAULT_TERMS = Terms(request_nanos=DEFAULT_PRICE_NANOS)
_terms = msgspec.json.Decoder(Terms)


def encode_terms(terms: Terms) -> str:
    return msgspec.json.encode(terms).decode()


def decode_terms(column: str) -> Terms:
    return _terms.decode(column)


class Usage(NamedTuple):
    """Billable usage of one key at one service and price in a cycle. `first_day`: the UTC day of the first."""

    key_id: int
    service_id: int
    price_id: int
    first_day: int
    requests: int
    units: int
    size_bytes: int


class Subscription(NamedTuple):
    """A key that owes a base fee or a minimum for the cycle: its price at the cycle's end."""

    key_id: int
    price_id: int


class Charge(NamedTuple):
    """A line of a bill: `quantity` at `each_nanos`, which comes to `nanos`.

    The quantity is requests, units, packages, bytes (`mib`: `each_nanos` is for 2²⁰ of them) or 1; service 0 where a
    charge is not of one service. `tier` counts from 1, 0 where there is none.
    """

    service_id: int
    key_id: int
    price_id: int
    kind: Kind
    tier: int
    quantity: int
    each_nanos: int
    nanos: int


def is_billable(terms: Terms, status: int, flags: int, problem: int) -> bool:
    """Whether a response costs. What the gateway answered of its own never does, nor what the upstream broke off."""
    if problem or flags & UPSTREAM_BROKE:
        return False
    if status == _CLIENT_LEFT:
        return "client-left" in terms.billable
    if status == _SWITCHED:  # a tunnel is what was asked for
        return "2xx" in terms.billable
    return _BY_CLASS.get(status // 100) in terms.billable


def charges(usage: Iterable[Usage], subscriptions: Iterable[Subscription], prices: Mapping[int, Terms]) -> list[Charge]:
    """Every line of a cycle's bill, by service and key; what belongs to no service comes last."""
    by_key: dict[int, list[Usage]] = {}
    for each in usage:
        by_key.setdefault(each.key_id, []).append(each)
    owed = {each.key_id: each.price_id for each in subscriptions}
    lines: list[Charge] = []
    for key_id in sorted(by_key.keys() | owed.keys()):
        own = _of_usage(by_key.get(key_id, ()), prices)
        if key_id in owed:
            own += _of_subscription(key_id, owed[key_id], prices[owed[key_id]], sum(line.nanos for line in own))
        lines += own
    return sorted(lines, key=_place)


def total_nanos(lines: Iterable[Charge]) -> int:
    return sum(line.nanos for line in lines)


def _place(line: Charge) -> tuple[bool, int, int, int, int, int]:
    return not line.service_id, line.service_id, line.key_id, line.price_id, KINDS.index(line.kind), line.tier


def in_order(usage: Iterable[Usage]) -> list[Usage]:
    """The usage of one key as its quantities are laid end to end."""
    began: dict[int, int] = {}
    every = list(usage)
    for each in every:
        began[each.price_id] = min(began.get(each.price_id, each.first_day), each.first_day)
    return sorted(every, key=lambda each: (began[each.price_id], each.price_id, each.service_id))


def _of_usage(usage: Sequence[Usage], prices: Mapping[int, Terms]) -> list[Charge]:
    lines: list[Charge] = []
    passed = {"requests": 0, "units": 0}
    whole = {"requests": sum(each.requests for each in usage), "units": sum(each.units for each in usage)}
    for each in in_order(usage):
        terms = prices[each.price_id]
        quantity = each.requests if terms.counts == "requests" else each.units
        start = passed[terms.counts]
        stretch = _Stretch(terms, start, start + quantity, whole[terms.counts])
        passed["requests"] += each.requests
        passed["units"] += each.units
        for kind, tier, quantity, each_nanos, nanos in (*_counted(stretch), *_linear(terms, each)):
            if quantity:
                of = (each.service_id, each.key_id, each.price_id)
                lines.append(Charge(*of, kind, tier, quantity, each_nanos, nanos))
    return lines


class _Stretch(NamedTuple):
    """From `start` up to `end` of a key's quantity in the cycle, which is `whole` in all."""

    terms: Terms
    start: int
    end: int
    whole: int

    @property
    def paid(self) -> tuple[int, int]:
        """The same, counted from the end of what is included."""
        return max(0, self.start - self.terms.included), max(0, self.end - self.terms.included)


_Line = tuple[Kind, int, int, int, int]  # a charge without its ids


def _counted(stretch: _Stretch) -> list[_Line]:
    terms = stretch.terms
    low, high = stretch.paid
    free = stretch.end - stretch.start - (high - low)
    lines: list[_Line] = [("included", 0, free, 0, 0)]
    if terms.mode == "flat":
        kind: Kind = "request" if terms.counts == "requests" else "unit"
        lines.append((kind, 0, high - low, terms.each_nanos, (high - low) * terms.each_nanos))
    elif terms.mode == "package":
        packages = -(-high // terms.package_size) - -(-low // terms.package_size)
        lines.append(("package", 0, packages, terms.package_nanos, packages * terms.package_nanos))
    elif terms.mode == "volume":
        number = tier_of(terms, max(0, stretch.whole - terms.included))
        nanos = terms.tiers[number].nanos
        lines.append(("tier", number + 1, high - low, nanos, (high - low) * nanos))
    else:
        begin = 0
        for number, tier in enumerate(terms.tiers):
            end = high if tier.up_to is None else min(high, tier.up_to)
            quantity = max(0, end - max(low, begin))
            lines.append(("tier", number + 1, quantity, tier.nanos, quantity * tier.nanos))
            begin = high if tier.up_to is None else tier.up_to
    return lines


def _linear(terms: Terms, usage: Usage) -> list[_Line]:
    """What costs the same each, beside what is counted."""
    lines: list[_Line] = []
    if terms.counts == "requests" and terms.unit_nanos:
        lines.append(("unit", 0, usage.units, terms.unit_nanos, usage.units * terms.unit_nanos))
    if terms.counts == "units" and terms.request_nanos:
        lines.append(("request", 0, usage.requests, terms.request_nanos, usage.requests * terms.request_nanos))
    if terms.mib_nanos:
        lines.append(("mib", 0, usage.size_bytes, terms.mib_nanos, mib_cost(usage.size_bytes, terms.mib_nanos)))
    return lines


def mib_cost(size_bytes: int, mib_nanos: int) -> int:
    """The only division there is: rounded to the nearest nano, halves up, once a line."""
    return (size_bytes * mib_nanos + MIB_BYTES // 2) // MIB_BYTES


def tier_of(terms: Terms, quantity: int) -> int:
    """The number, from 0, of the tier that a quantity lies in: its bound belongs to it."""
    return next(n for n, tier in enumerate(terms.tiers) if tier.up_to is None or quantity <= tier.up_to)


def _of_subscription(key_id: int, price_id: int, terms: Terms, used_nanos: int) -> list[Charge]:
    lines = []
    if terms.base_nanos:
        lines.append(Charge(0, key_id, price_id, "base", 0, 1, terms.base_nanos, terms.base_nanos))
    missing = terms.minimum_nanos - used_nanos - terms.base_nanos
    if missing > 0:
        lines.append(Charge(0, key_id, price_id, "minimum", 0, 1, missing, missing))
    return lines


def costs_by_key(lines: Iterable[Charge]) -> dict[int, int]:
    """Nanos by key."""
    ordered = sorted(lines, key=lambda line: line.key_id)
    return {key_id: total_nanos(own) for key_id, own in groupby(ordered, key=lambda line: line.key_id)}
