"""What lines of usage cost, where a price is not linear: their share of what their key's cycle is charged.

What 300 requests of a Tuesday cost under tiers depends on the whole cycle, so it is the cycle that is charged (by
`policy.pricing`), and its charge is divided over the lines: tiers and packages in proportion to what they count, MiB in
proportion to bytes. Lines are rounded cumulatively, so those of a whole cycle come to its charge exactly, however they
are grouped; base fee and minimum are of no request, and in no line. A line may therefore change with later usage of
its cycle, as the bill does. Linear prices need none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from sqlalchemy import Connection

from gatewayd.control.charging import usage_of
from gatewayd.control.cycles import cycle_by_id
from gatewayd.policy.pricing import Measure, Terms, Usage, charges, measured_by, share

_MEASURES: tuple[Measure, ...] = ("requests", "units", "size_bytes")


class _Lot:
    """What is divided: all that one key used in a cycle at one price.

    By measure: what all of it costs, how much it is, and how much has had its share.
    """

    __slots__ = ("given", "nanos", "whole")

    def __init__(self) -> None:
        self.nanos, self.whole, self.given = [0, 0, 0], [0, 0, 0], [0, 0, 0]

    def take(self, parts: Sequence[int]) -> int:
        nanos = 0
        for place, part in enumerate(parts):
            nanos += share(self.nanos[place], self.whole[place], self.given[place], part)
            self.given[place] += part
        return nanos


def curved(prices: Mapping[int, Terms], met: Iterable[int]) -> list[int]:
    """Of those that were met, the prices at which a line has no cost of its own."""
    return [price_id for price_id in sorted(met) if price_id in prices and not prices[price_id].is_linear]


def linear_nanos(terms: Terms | None, requests: int, units: int) -> int:
    """What billable usage costs at a linear price; 0 at another one, of which `Costs` tells."""
    if terms is None or not terms.is_linear:
        return 0
    return requests * terms.request_nanos + units * terms.unit_nanos


class Costs:
    """What lines cost, one after another, of one moment. A key's cycle is charged when the first line of it comes.

    `key_id`: the one that all lines have.
    """

    def __init__(self, connection: Connection, prices: Mapping[int, Terms], key_id: int | None = None) -> None:
        self._connection = connection
        self._prices = prices
        self._key_id = key_id
        self._cycles: dict[int, _Charged] = {}

    def of(self, cycle_id: int, key_id: int, price_id: int, billable: Sequence[int]) -> int:
        """Nanos of a line. `billable`: its requests, their units and bytes. Only at a linear price any cycle or key."""
        terms = self._prices.get(price_id)
        if terms is None:
            return 0
        if terms.is_linear:
            return linear_nanos(terms, billable[0], billable[1])
        charged = self._cycles.get(cycle_id)
        if charged is None:
            cycle = cycle_by_id(self._connection, cycle_id)
            usage = usage_of(self._connection, cycle, self._key_id)
            charged = self._cycles[cycle_id] = _Charged(cycle.ends_at, usage, self._prices)
        return charged.lot(key_id, price_id).take(billable)

    def forget(self, time_s: int) -> None:
        """Nothing of cycles that have ended by then will be asked for again."""
        self._cycles = {number: charged for number, charged in self._cycles.items() if charged.ends_at > time_s}


class _Charged:
    """A cycle, of the keys that used something at a price that is not linear."""

    def __init__(self, ends_at: int, usage: Iterable[Usage], prices: Mapping[int, Terms]) -> None:
        self.ends_at = ends_at
        self._prices = prices
        self._lots: dict[tuple[int, int], _Lot] = {}
        self._usage: dict[int, list[Usage]] = {}  # of keys that are not charged yet
        for key_id, own in groupby(usage, key=lambda each: each.key_id):
            every = list(own)
            if curved(prices, {each.price_id for each in every}):
                self._usage[key_id] = every

    def lot(self, key_id: int, price_id: int) -> _Lot:
        if (usage := self._usage.pop(key_id, None)) is not None:
            self._charge(key_id, usage)
        return self._lots.setdefault((key_id, price_id), _Lot())

    def _charge(self, key_id: int, usage: list[Usage]) -> None:
        for each in usage:
            lot = self._lots.setdefault((key_id, each.price_id), _Lot())
            for place, measure in enumerate(_MEASURES):
                lot.whole[place] += getattr(each, measure)
        for line in charges(usage, (), self._prices):
            measure = measured_by(line, self._prices[line.price_id])
            self._lots[key_id, line.price_id].nanos[_MEASURES.index(measure)] += line.nanos
