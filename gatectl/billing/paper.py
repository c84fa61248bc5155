"""An invoice as people read it: its words and rows, before any form. Pure.

The screen, the HTML page and the PDF each write the same `Paper`, so they cannot come to say different things. All of
it is taken from the invoice's body: what was hashed is what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gatectl.kinds import Object
from gatectl.price_text import terms_text

# What the quantity of a line is, by its kind.
_WHAT: Mapping[str, str] = {
    "included": "included",
    "request": "requests",
    "unit": "units",
    "tier": "tier",
    "package": "packages",
    "mib": "bytes, per MiB",  # exact, as it was charged
    "base": "base fee",
    "minimum": "up to the minimum",
}
_NAMES_SHOWN = 2


class Line(NamedTuple):
    """A row of the bill."""

    service: str
    key: str
    what: str
    quantity: str
    price: str
    amount: str


class Credit(NamedTuple):
    """A row of what comes off the bill, or onto it."""

    at: str
    kind: str
    reason: str
    author: str
    amount: str


class Paper(NamedTuple):
    """Everything that is written on an invoice, in its order."""

    title: str
    head: Sequence[tuple[str, str]]
    lines: Sequence[Line]
    credits: Sequence[Credit]
    sums: Sequence[tuple[str, str]]  # the last is what is to be paid
    terms: Sequence[tuple[str, str]]
    foot: Sequence[tuple[str, str]]


def paper(body: Object, sha256: str | None) -> Paper:
    """What stands on an invoice with this body; one without a hash is a preview."""
    return Paper(
        title="Preview of an invoice" if sha256 is None else f"Invoice {body['number']}",
        head=_head(body, issued=sha256 is not None),
        lines=[_line(each) for each in body["lines"]],
        credits=[_credit(each, body["time_zone"]) for each in body["credits"]],
        sums=_sums(body),
        terms=_prices(body),
        foot=_foot(body, sha256),
    )


def local_time(moment: str, zone: str) -> str:
    """2026-10-31T23:00:00Z in Europe/Rome as 2026-11-01 00:00, which is what a bill of November begins with."""
    at = datetime.fromisoformat(moment)
    try:
        at = at.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{at:%Y-%m-%d %H:%M}"


def _head(body: Object, *, issued: bool) -> list[tuple[str, str]]:
    tenant, zone = body["tenant"], body["time_zone"]
    name = f"{tenant['name']} ({tenant['slug']})" if tenant["name"] else tenant["slug"]
    starts_at, ends_at = local_time(body["starts_at"], zone), local_time(body["ends_at"], zone)
    head = [
        ("for", name),
        ("contact", tenant["contact"] or ""),
        ("period", f"{body['period']}: {starts_at} up to {ends_at}, {zone}"),
        ("issued", _utc(body["issued_at"]) if issued else ""),
        ("currency", body["currency"]),
    ]
    return [(label, text) for label, text in head if text]


def _foot(body: Object, sha256: str | None) -> list[tuple[str, str]]:
    before = body["previous_sha256"]
    foot = [("sha256", sha256 or ""), ("sha256 before", before or "")]
    return [(label, text) for label, text in foot if text]


def _line(item: Object) -> Line:
    return Line(item["service"], _key(item), _what(item), f"{item['quantity']:,}", _price(item), item["amount"])


def _key(item: Object) -> str:
    return f"{item['key']} {item['key_name']}".rstrip()


def _prices(body: Object) -> list[tuple[str, str]]:
    """Each price, by the plans whose lines name it: keys may be a hundred thousand."""
    plans: dict[int, set[str]] = {}
    for item in body["lines"]:
        plans.setdefault(item["terms"], set()).add(f"plan {item['plan']}" if item["plan"] else "without a plan")
    return [(_shortened(sorted(plans.get(terms["id"], ()))), terms_text(terms)) for terms in body["terms"]]


def _shortened(names: Sequence[str]) -> str:
    if len(names) <= _NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more"


def _what(item: Object) -> str:
    kind = item["kind"]
    return f"{_WHAT.get(kind, kind)} {item['tier']}" if item["tier"] else _WHAT.get(kind, kind)


def _price(item: Object) -> str:
    return "" if item["kind"] == "included" else item["price"]


def _credit(item: Object, zone: str) -> Credit:
    return Credit(local_time(item["at"], zone), item["kind"], item["reason"], item["author"], item["amount"])


def _sums(body: Object) -> list[tuple[str, str]]:
    sums = [("total", f"{body['total']} {body['currency']}")]
    if body["credits"]:
        credited = body["credited"]  # adjustments too, so that it may be more than 0
        label = "credited" if credited == "0" or credited.startswith("-") else "adjusted"
        sums = [("subtotal", body["subtotal"]), (label, credited), *sums]
    if body.get("carried_forward") not in (None, "0"):
        sums.insert(-1, ("carried over", body["carried_forward"]))
    return sums


def _utc(moment: str) -> str:
    return moment.replace("T", " ")
