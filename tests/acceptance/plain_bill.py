"""A bill worked out by whoever sent the requests: one by one, in decimals, from the words that set the prices.

It knows of the gateway what README says of prices, and nothing of its code. A price is the JSON that the admin API was
given. MiB are fractions until each line of service, key and price is rounded to whole billionths, halves up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

Said = Mapping[str, Any]  # a price, in the words of the admin API

NANOS = 10**9
MIB_BYTES = 1024 * 1024


class Sent(NamedTuple):
    """A request as its sender remembers it. `price`: the number of the price in force, in the order they were set."""

    key: str
    service: str
    price: int
    weight: int
    status: int
    size_bytes: int


class Line(NamedTuple):
    """What stands on a bill."""

    service: str
    key: str
    kind: str
    tier: int | None
    quantity: int
    each: Decimal
    amount: Decimal


@dataclass
class PlainBill:
    """`prices` in the order they were set; `services` in the order they were made."""

    prices: list[Said] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    owing: dict[str, int] = field(default_factory=dict)  # each key, and the number of its price as of now

    def price(self, said: Said) -> int:
        """A new price; its number."""
        self.prices.append(said)
        return len(self.prices) - 1

    def lines(self) -> list[Line]:
        """All of them, in no order that matters."""
        return [line for key in self.owing for line in self._of_key(key)]

    def _of_key(self, key: str) -> list[Line]:
        own = [sent for sent in self.sent if sent.key == key and self._costs(sent)]
        own.sort(key=lambda sent: (sent.price, self.services.index(sent.service)))
        lines = [*self._counted(key, own), *self._mib(key, own)]
        said = self.prices[self.owing[key]]
        if base := Decimal(said.get("base_fee", "0")):
            lines.append(Line("-", key, "base", None, 1, base, base))
        missing = Decimal(said.get("minimum", "0")) - sum(line.amount for line in lines)
        return [*lines, Line("-", key, "minimum", None, 1, missing, missing)] if missing > 0 else lines

    def _costs(self, sent: Sent) -> bool:
        return f"{sent.status // 100}xx" in self.prices[sent.price].get("billable", ("2xx", "3xx"))

    def _counted(self, key: str, own: Sequence[Sent]) -> list[Line]:
        """Requests and units, each on its own."""
        whole = {"requests": len(own), "units": sum(sent.weight for sent in own)}
        passed, paid = {"requests": 0, "units": 0}, dict[tuple[str, int], int]()
        tally: dict[tuple[str, int, str, int | None, Decimal], int] = {}
        for sent in own:
            said = self.prices[sent.price]
            counts = said.get("counts", "requests")
            for measure, one, many in (("requests", "price", 1), ("units", "unit_price", sent.weight)):
                each = Decimal(said.get(one, "0"))
                for _ in range(many):
                    passed[measure] += 1
                    found: tuple[str, int | None, Decimal] | None = None
                    if measure == counts:
                        found = _next(said, passed[measure], whole[measure], paid, each)
                    elif each:
                        found = measure.removesuffix("s"), None, each
                    if found is not None:
                        of = (sent.service, sent.price, *found)
                        tally[of] = tally.get(of, 0) + 1
        return [
            Line(service, key, kind, tier, quantity, each, quantity * each)
            for (service, _, kind, tier, each), quantity in tally.items()
        ]

    def _mib(self, key: str, own: Iterable[Sent]) -> list[Line]:
        sizes: dict[tuple[str, int], int] = {}
        for sent in own:
            if "mib_price" in self.prices[sent.price]:
                sizes[sent.service, sent.price] = sizes.get((sent.service, sent.price), 0) + sent.size_bytes
        lines = []
        for (service, price), size in sizes.items():
            each = Decimal(self.prices[price]["mib_price"])
            nanos = floor(Fraction(size, MIB_BYTES) * Fraction(each) * NANOS + Fraction(1, 2))
            lines.append(Line(service, key, "mib", None, size, each, Decimal(nanos) / NANOS))
        return lines


def _next(
    said: Said, number: int, whole: int, paid: dict[tuple[str, int], int], each: Decimal
) -> tuple[str, int | None, Decimal] | None:
    """Kind, tier and price of the request or unit of this number in the cycle; None: its package is paid."""
    included, counts = said.get("included", 0), said.get("counts", "requests")
    if number <= included:
        return "included", None, Decimal(0)
    if package := said.get("package"):
        of = counts, package["size"]
        if number <= paid.get(of, 0):
            return None
        paid[of] = number + package["size"] - 1
        return "package", None, Decimal(package["price"])
    beyond = (whole if said.get("tier_mode") == "volume" else number) - included
    for place, tier in enumerate(said.get("tiers", ()), start=1):
        if tier["up_to"] is None or beyond <= tier["up_to"]:
            return "tier", place, Decimal(tier["price"])
    return counts.removesuffix("s"), None, each
