"""What lines of usage cost, where a price is not linear: their share of what their key's cycle is charged.

What 300 requests of a Tuesday cost under tiers depends on the whole cycle, so it is the cycle that is charged (by
`policy.pricing`), and its charge is divided over the lines: tiers and packages in proportion to what they count, MiB in
proportion to bytes. Lines are rounded cumulatively, so those of a whole cycle come to its charge exactly, however they
are grouped; base fee and minimum are of no request, and in no line. A line may therefore change with later usage of
its cycle, as the bill does. Linear prices need none of this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from gatewayd.control.charging import usage_of
from gatewayd.control.cycles import cycle_by_id
from gatewayd.policy.pricing import Measure, Terms, charges, measured_by, share

_MEASURES: tuple[Measure, ...] = ("requests", "units", "size_bytes")


class _Lot(NamedTuple):
    """What is divided: all that one key used in a cycle at one price."""

    cycle_id: int
    key_id: int
    price_id: int


class _Divided:
    """Of one measure of a lot: what all of it costs, how much it is, and how much has had its share."""

    __slots__ = ("given", "nanos", "whole")

    def __init__(self) -> None:
        self.nanos = self.whole = self.given = 0

    def take(self, part: int) -> int:
        nanos = share(self.nanos, self.whole, self.given, part)
        self.given += part
        return nanos


def curved(prices: Mapping[int, Terms], met: Iterable[int]) -> list[int]:
    """Of those that were met, the prices at which a line has no cost of its own."""
    return [price_id for price_id in sorted(met) if price_id in prices and not prices[price_id].is_linear]


def linear_nanos(terms: Terms | None, requests: int, units: int) -> int:
    """What billable usage costs at a linear price; 0 at another one, which `shares` sees to."""
    if terms is None or not terms.is_linear:
        return 0
    return requests * terms.request_nanos + units * terms.unit_nanos


def shares(
    connection: Connection, prices: Mapping[int, Terms], rows: Iterable[Sequence[Any]], key_id: int | None = None
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Each row's group and nanos.

    A row is the columns of its group, then cycle, key, price, billable requests, their units and bytes. `key_id`: the
    one that all of them have.
    """
    lines = [(tuple(row[:-6]), _Lot(*row[-6:-3]), tuple(row[-3:])) for row in rows]
    lots = _lots(connection, prices, {lot for _, lot, _ in lines}, key_id)
    for group, lot, quantities in lines:
        of = lots[lot]
        yield group, sum(of[measure].take(part) for measure, part in zip(_MEASURES, quantities, strict=True))


def _lots(
    connection: Connection, prices: Mapping[int, Terms], wanted: Collection[_Lot], key_id: int | None
) -> dict[_Lot, dict[Measure, _Divided]]:
    lots = {lot: {measure: _Divided() for measure in _MEASURES} for lot in wanted}
    for cycle_id in {lot.cycle_id for lot in wanted}:
        keys = {lot.key_id for lot in wanted if lot.cycle_id == cycle_id}
        usage = [
            each for each in usage_of(connection, cycle_by_id(connection, cycle_id), key_id) if each.key_id in keys
        ]
        for each in usage:
            if (of := lots.get(_Lot(cycle_id, each.key_id, each.price_id))) is not None:
                for measure in _MEASURES:
                    of[measure].whole += getattr(each, measure)
        for line in charges(usage, (), prices):
            if (of := lots.get(_Lot(cycle_id, line.key_id, line.price_id))) is not None:
                of[measured_by(line, prices[line.price_id])].nanos += line.nanos
    return lots
