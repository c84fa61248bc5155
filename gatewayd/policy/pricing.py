"""What usage costs: prices, and the one arithmetic of charges. Integers of nanos throughout; pure.

A price is a set of `Terms` that never changes once a record names it, so usage is charged by the price in force when it
happened. Terms charge what is billable: each request, each unit (a route's weight), each MiB in and out. Of requests or
units, whichever they count, some are included, and those beyond cost

    flat        the same each
    graduated   each what its tier says: the first 1000 this much, the next 9000 that much
    volume      each what the tier says that the cycle's whole quantity lies in
    package     by the begun package of so many

and a cycle has a base fee and a minimum. All of these count per key and cycle. Where a key had several prices in a
cycle, its quantities are laid end to end, and each price charges its stretch by where that lies. So an allowance is
given once and a tier is climbed once, however often prices change or usage is split among services, and what the
stretches cost adds up. What follows from it at the edges:

- Prices follow each other in the order of the days on which they were first used, on one day in that of their numbers.
  A price that was in force twice has one stretch. What is counted is quantities, so a day is as fine as an order can be
  that a bill of years ago still has to give.
- A new price's allowance and tiers look at where the key is, not at where the price began: who has used 9,000 when
  20,000 are included in the new price has 11,000 of them left. Usage before stays charged as it was.
- One that counts units after one that counted requests goes on from the units used so far.
- A bound belongs to the tier below it. Bounds count from the end of what is included.
- `volume` looks at the cycle's whole quantity, whatever prices the rest of it was used at; its charge may fall as usage
  grows.
- A package is charged when it is begun, at the price then in force, and holds for its whole size: also into a later
  price with packages of that size, which begins its first one after it. Any other price begins packages of its own, so
  what was paid by the piece is not taken for a package that nobody paid.
- Included quantities begin no package and climb no tier.
- The base fee and the minimum are those of the price at the cycle's end, whole, whatever part of the cycle it was in
  force. The minimum is what base fee and all usage of the key come to at least; credits come off afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from gatewayd.records import CLIENT_LEFT, UPSTREAM_BROKE

MIB_BYTES = 1 << 20
DEFAULT_PRICE_NANOS = 1_000_000  # 0.001: what a request costs where no plan says otherwise

Outcome = Literal["2xx", "3xx", "4xx", "5xx", "client-left"]
OUTCOMES: tuple[Outcome, ...] = ("2xx", "3xx", "4xx", "5xx", "client-left")
_BY_CLASS: Mapping[int, Outcome] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
_SWITCHED, _NO_RESPONSE = 101, 499

Mode = Literal["flat", "graduated", "volume", "package"]
Counted = Literal["requests", "units"]
Kind = Literal["included", "request", "unit", "tier", "package", "mib", "base", "minimum"]
Measure = Literal["requests", "units", "size_bytes"]
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
        """A request costs the same whatever else there was. Of MiB, what is rounded is the sum."""
        return self.mode == "flat" and not self.included and not self.mib_nanos

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
    if status == _NO_RESPONSE and flags & CLIENT_LEFT:  # an upstream may answer 499 of its own
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
    laid = _Laid(usage)
    for each in in_order(usage):
        terms = prices[each.price_id]
        for kind, tier, quantity, each_nanos, nanos in (*laid.charge(terms, each), *_linear(terms, each)):
            if quantity:
                of = (each.service_id, each.key_id, each.price_id)
                lines.append(Charge(*of, kind, tier, quantity, each_nanos, nanos))
    return lines


_Line = tuple[Kind, int, int, int, int]  # a charge without its ids


class _Laid:
    """How far the quantities of one key in one cycle are laid end to end, and up to where packages are paid."""

    __slots__ = ("paid", "passed", "whole")

    def __init__(self, usage: Iterable[Usage]) -> None:
        every = list(usage)
        self.whole = {"requests": sum(each.requests for each in every), "units": sum(each.units for each in every)}
        self.passed = {"requests": 0, "units": 0}
        self.paid: dict[tuple[Counted, int], int] = {}  # by what is counted and the package's size

    def charge(self, terms: Terms, usage: Usage) -> list[_Line]:
        """What is counted of the next stretch."""
        start = self.passed[terms.counts]
        self.passed["requests"] += usage.requests
        self.passed["units"] += usage.units
        end = self.passed[terms.counts]
        low, high = max(start, terms.included), max(end, terms.included)
        lines: list[_Line] = [("included", 0, end - start - (high - low), 0, 0)]
        if terms.mode == "package":
            packages = self._begin_packages(terms, low, high)
            lines.append(("package", 0, packages, terms.package_nanos, packages * terms.package_nanos))
        elif terms.mode == "graduated":
            lines += _graduated(terms, low - terms.included, high - terms.included)
        elif terms.mode == "volume":
            number = tier_of(terms, max(0, self.whole[terms.counts] - terms.included))
            nanos = terms.tiers[number].nanos
            lines.append(("tier", number + 1, high - low, nanos, (high - low) * nanos))
        else:
            kind: Kind = "request" if terms.counts == "requests" else "unit"
            lines.append((kind, 0, high - low, terms.each_nanos, (high - low) * terms.each_nanos))
        return lines

    def _begin_packages(self, terms: Terms, low: int, high: int) -> int:
        """How many are begun between these, after those that are paid."""
        size = terms.package_size
        paid_until = max(low, self.paid.get((terms.counts, size), 0))
        packages = max(0, -((paid_until - high) // size))
        if packages:
            self.paid[terms.counts, size] = paid_until + packages * size
        return packages


def _graduated(terms: Terms, low: int, high: int) -> list[_Line]:
    """What each tier has of a stretch, counted beyond what is included."""
    lines: list[_Line] = []
    begin = 0
    for number, tier in enumerate(terms.tiers, start=1):
        end = high if tier.up_to is None else min(high, tier.up_to)
        quantity = max(0, end - max(low, begin))
        lines.append(("tier", number, quantity, tier.nanos, quantity * tier.nanos))
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


def measured_by(line: Charge, terms: Terms) -> Measure:
    """What a charge for usage grows with."""
    if line.kind == "mib":
        return "size_bytes"
    if line.kind in ("request", "unit"):
        return "requests" if line.kind == "request" else "units"
    return terms.counts


def share(nanos: int, whole: int, before: int, part: int) -> int:
    """What `part` of a `whole` that costs `nanos` costs, where so much of it has had its share `before`.

    Rounded down to whole nanos, cumulatively: the shares of all parts come to `nanos` exactly, whatever the parts are.
    """
    return nanos * (before + part) // whole - nanos * before // whole if whole else 0


def costs_by_key(lines: Iterable[Charge]) -> dict[int, int]:
    """Nanos by key."""
    ordered = sorted(lines, key=lambda line: line.key_id)
    return {key_id: total_nanos(own) for key_id, own in groupby(ordered, key=lambda line: line.key_id)}
