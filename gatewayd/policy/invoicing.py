"""Invoices: what a cycle's ledger entries and their prices come to, as one text of bytes. Pure.

An invoice is a function of nothing but the entries of its cycle, the prices that they name, and the facts that were
frozen when it closed (its number, names as they were). So it is made again, years later and on another machine, byte by
byte. The text is canonical JSON as in RFC 8785: keys sorted, no spaces, UTF-8. Of JSON's types it holds strings, whole
numbers below 2⁵³, true, false, null, lists and objects; amounts are decimal strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from gatewayd.policy.amounts import format_time
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Charge, Subscription, Terms, Usage, charges, total_nanos

EntryKind = Literal["usage", "subscription", "credit", "adjustment", "close"]
CREDITS: tuple[EntryKind, ...] = ("credit", "adjustment")
NOBODY = "-"


class Entry(NamedTuple):
    """A line of the ledger, as table `ledger` has it; without what only some kinds have."""

    kind: EntryKind
    at: int
    key_id: int = 0
    service_id: int = 0
    price_id: int = 0
    first_day: int = 0
    requests: int = 0
    units: int = 0
    size_bytes: int = 0
    nanos: int = 0
    reason: str = ""
    author: str = ""
    id: int = 0


class KeyFacts(NamedTuple):
    """What is visible of a key, its name and that of the plan that it had at the cycle's end."""

    prefix: str
    name: str
    plan: str | None


class Facts(msgspec.Struct, frozen=True):
    """What an invoice says that no other entry does, frozen in the entry that closes the cycle."""

    number: str | None  # null: it is a preview
    previous_sha256: str | None  # of the invoice before it, whoever's it is; null: there is none
    issued_at: int
    slug: str
    name: str
    contact: str
    currency: str
    time_zone: str
    period: str
    starts_at: int
    ends_at: int
    services: dict[int, str]
    keys: dict[int, KeyFacts]
    # By key and price the plan that this was used on, of keys that have been on another; older invoices do without.
    plans: dict[int, dict[int, str | None]] = {}


class Sum(NamedTuple):
    """What a bill comes to. `credited` is what credits and adjustments add: less than 0 where they come off."""

    subtotal_nanos: int
    credited_nanos: int

    @property
    def total_nanos(self) -> int:
        return max(0, self.subtotal_nanos + self.credited_nanos)

    @property
    def carried_nanos(self) -> int:
        """What of the credits is more than the bill: a credit of the next cycle."""
        return max(0, -(self.subtotal_nanos + self.credited_nanos))


class Bill(NamedTuple):
    """The lines of a cycle, and what they come to."""

    lines: list[Charge]
    sum: Sum


def bill_of(entries: Sequence[Entry], prices: Mapping[int, Terms]) -> Bill:
    usage = [
        Usage(e.key_id, e.service_id, e.price_id, e.first_day, e.requests, e.units, e.size_bytes)
        for e in entries
        if e.kind == "usage"
    ]
    owed = [Subscription(e.key_id, e.price_id) for e in entries if e.kind == "subscription"]
    lines = charges(usage, owed, prices)
    return Bill(lines, Sum(total_nanos(lines), sum(e.nanos for e in credits_of(entries))))


def credits_of(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.kind in CREDITS]


def body_of(facts: Facts, entries: Iterable[Entry], bill: Bill, prices: Mapping[int, Terms]) -> dict[str, Any]:
    """The invoice, as the API shows it. `bill` is that of these entries; `canonical` makes its bytes."""
    lines, come_to = bill
    named = sorted({line.price_id for line in lines})
    return {
        "number": facts.number,
        "tenant": {"slug": facts.slug, "name": facts.name, "contact": facts.contact},
        "currency": facts.currency,
        "time_zone": facts.time_zone,
        "period": facts.period,
        "starts_at": format_time(facts.starts_at),
        "ends_at": format_time(facts.ends_at),
        "issued_at": format_time(facts.issued_at),
        "previous_sha256": facts.previous_sha256,
        "lines": [_show_line(line, facts, prices[line.price_id]) for line in lines],
        "credits": [show_credit(entry) for entry in credits_of(entries)],
        "subtotal": format_nanos(come_to.subtotal_nanos),
        "credited": format_nanos(come_to.credited_nanos),
        "total": format_nanos(come_to.total_nanos),
        "carried_forward": format_nanos(come_to.carried_nanos),
        "terms": [{"id": price_id, **show_terms(prices[price_id])} for price_id in named],
    }


def canonical(body: Mapping[str, Any]) -> bytes:
    """Its bytes. Lists are encoded item by item: of 100,000 lines at once, no other thread would run for 100 ms."""
    text = bytearray()
    for name in sorted(body):
        value = body[name]
        text += b"," if text else b"{"
        text += _encode(name) + b":"
        if isinstance(value, list):
            text += b"["
            for place, item in enumerate(value):
                text += b"," + _encode(item) if place else _encode(item)
            text += b"]"
        else:
            text += _encode(value)
    text += b"}"
    return bytes(text)


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _show_line(line: Charge, facts: Facts, terms: Terms) -> dict[str, Any]:
    key = facts.keys.get(line.key_id) or KeyFacts(_nameless(line.key_id), "", None)
    return {
        "service": facts.services.get(line.service_id) or _nameless(line.service_id),
        "key": key.prefix,
        "key_name": key.name,
        "plan": facts.plans.get(line.key_id, {}).get(line.price_id, key.plan),
        "kind": line.kind,
        "tier": line.tier or None,
        "quantity": line.quantity,
        **_measures(line, terms),
        "price": format_nanos(line.each_nanos),
        "amount": format_nanos(line.nanos),
        "terms": line.price_id,
    }


def _measures(line: Charge, terms: Terms) -> dict[str, int]:
    """What the quantity is of. Packages, base fees and minimums are of none of these."""
    measure = {"request": "requests", "unit": "units", "mib": "bytes"}.get(line.kind)
    if line.kind in ("included", "tier"):
        measure = terms.counts
    return {name: line.quantity if name == measure else 0 for name in ("requests", "units", "bytes")}


def _nameless(number: int) -> str:
    return str(number) if number else NOBODY


def show_credit(entry: Entry) -> dict[str, Any]:
    """`amount` is what it adds to the bill."""
    return {
        "at": format_time(entry.at),
        "kind": entry.kind,
        "amount": format_nanos(entry.nanos),
        "reason": entry.reason,
        "author": entry.author,
    }


def show_terms(terms: Terms) -> dict[str, Any]:
    """A price as people write it: in the fields that a plan has of it."""
    package = {"size": terms.package_size, "price": format_nanos(terms.package_nanos)}
    return {
        "price": format_nanos(terms.request_nanos),
        "unit_price": format_nanos(terms.unit_nanos),
        "mib_price": format_nanos(terms.mib_nanos),
        "base_fee": format_nanos(terms.base_nanos),
        "minimum": format_nanos(terms.minimum_nanos),
        "included": terms.included,
        "tiers": [{"up_to": tier.up_to, "price": format_nanos(tier.nanos)} for tier in terms.tiers],
        "tier_mode": terms.mode if terms.tiers else None,
        "package": package if terms.mode == "package" else None,
        "counts": terms.counts,
        "billable": list(terms.billable),
    }
