"""Whether every invoice is what it was: made anew from the ledger, chained, numbered, and true to the rollups.

Each difference says where it is. An altered rollup is found twice: the ledger's entries name its service, key and
number, the digest of its day names the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, select

from gatewayd.control.billing import key_facts
from gatewayd.control.charging import usage_of
from gatewayd.control.cycles import CycleRow, cycle_by_id
from gatewayd.control.digests import day_digests
from gatewayd.control.history import DAYS_FROM, progress, sources, sources_twice
from gatewayd.control.ledger import entries_of, facts_of
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Cycle, Invoice, InvoiceDay
from gatewayd.control.usage import service_names
from gatewayd.policy.amounts import format_time
from gatewayd.policy.invoicing import Entry, Facts, KeyFacts, bill_of, body_of, canonical, digest
from gatewayd.policy.pricing import Usage

_cycle, _invoice, _invoice_day = Cycle.__table__, Invoice.__table__, InvoiceDay.__table__  # type: ignore[attr-defined]
_NO_CLOSE = "no entry of the ledger closes its cycle"
_MEASURES = ("requests", "units", "size_bytes")

What = Literal["body", "hash", "chain", "ledger", "usage", "number"]


class Difference(NamedTuple):
    """`line` is where in the invoice or on the rollups; `invoice` None where there should be one."""

    invoice: str | None
    what: What
    line: str
    expected: Any
    found: Any
    detail: str


def verify(connection: Connection, tenant_id: int | None) -> dict[str, Any]:
    """The answer of `GET /v1/billing/verify`. Chain and numbers are the gateway's, whatever tenant is asked for."""
    every = connection.execute(
        select(_invoice.c.id, _invoice.c.number, _invoice.c.tenant_id, _invoice.c.sha256).order_by(_invoice.c.id)
    ).all()
    own = [row for row in every if tenant_id is None or row.tenant_id == tenant_id]
    found = [*_numbers(every), *_without_invoice(connection, tenant_id)]
    previous = {after.id: before.sha256 for before, after in pairwise(every)}
    for row in own:
        found += _verify(connection, row.id, previous.get(row.id))
    return {"invoices": len(own), "ok": not found, "differences": [each._asdict() for each in found]}


def verify_newest(connection: Connection, count: int, most_bytes: int) -> tuple[int, list[Difference]]:
    """The last invoices against hash, chain and, unless they are larger, the ledger; not against rollups. How many."""
    query = select(_invoice.c.id, _invoice.c.sha256).order_by(_invoice.c.id.desc())
    rows = connection.execute(query.limit(count + 1)).all()
    found: list[Difference] = []
    for place, row in enumerate(rows[:count]):
        invoice = connection.execute(select(_invoice).where(_invoice.c.id == row.id)).one()
        facts, why = _facts_of(connection, invoice.cycle_id)
        found += _sealed(invoice, facts, why, rows[place + 1].sha256 if place + 1 < len(rows) else None)
        if facts is not None and len(invoice.body) <= most_bytes:
            found += _compare_ledger(connection, invoice, facts, entries_of(connection, invoice.cycle_id))
    return len(rows[:count]), found


def made_anew(connection: Connection, cycle_id: int) -> bytes:
    """The body of a cycle's invoice as the ledger makes it now; nothing where no entry closes it."""
    facts, entries = facts_of(connection, cycle_id), entries_of(connection, cycle_id)
    return b"" if facts is None else canonical(_body(connection, facts, entries))


def _body(connection: Connection, facts: Facts, entries: list[Entry]) -> dict[str, Any]:
    prices = all_terms(connection)
    return body_of(facts, entries, bill_of(entries, prices), prices)


def _facts_of(connection: Connection, cycle_id: int) -> tuple[Facts | None, str]:
    """The facts, or why there are none."""
    try:
        return facts_of(connection, cycle_id), _NO_CLOSE
    except msgspec.DecodeError as error:
        return None, f"the ledger's entry that closes its cycle cannot be read: {error}"


def _numbers(every: Any) -> Iterator[Difference]:
    for expected, row in enumerate(every, start=1):
        if row.number != f"INV-{expected:06}":
            yield Difference(row.number, "number", "number", f"INV-{expected:06}", row.number, "numbers have a gap")
            return


def _without_invoice(connection: Connection, tenant_id: int | None) -> Iterator[Difference]:
    """Cycles whose invoice was removed (of the last one no number is missing), or closed as if there were no usage."""
    query = select(_cycle).where(_cycle.c.id.not_in(select(_invoice.c.cycle_id)).self_group())
    for row in connection.execute(query if tenant_id is None else query.where(_cycle.c.tenant_id == tenant_id)).all():
        cycle = CycleRow(*row)
        facts, why = _facts_of(connection, cycle.id)
        if facts is not None or why != _NO_CLOSE:
            number = None if facts is None else facts.number
            detail = f"the ledger closes cycle {cycle.period} by an invoice that is not there"
            yield Difference(number, "ledger", cycle.period, "an invoice", None, detail)
        if cycle.closed_at is None:
            continue
        if requests := sum(each.requests for each in usage_of(connection, cycle)):
            detail = f"cycle {cycle.period} was closed without an invoice and has billable usage"
            yield Difference(None, "usage", cycle.period, 0, requests, detail)


def _verify(connection: Connection, invoice_id: int, previous: str | None) -> Iterator[Difference]:
    invoice = connection.execute(select(_invoice).where(_invoice.c.id == invoice_id)).one()
    facts, why = _facts_of(connection, invoice.cycle_id)
    yield from _sealed(invoice, facts, why, previous)
    if facts is None:
        return
    cycle, entries = cycle_by_id(connection, invoice.cycle_id), entries_of(connection, invoice.cycle_id)
    yield from _compare_ledger(connection, invoice, facts, entries)
    yield from _compare_cycle(invoice, facts, cycle)
    yield from _compare_usage(connection, invoice, cycle, [entry for entry in entries if entry.kind == "usage"])


def _sealed(invoice: Row[Any], facts: Facts | None, why: str, previous: str | None) -> Iterator[Difference]:
    """Hash and chain. `why` there are no facts, if there are none."""
    stored = invoice.body.encode()
    if digest(stored) != invoice.sha256:
        yield Difference(invoice.number, "hash", "sha256", digest(stored), invoice.sha256, "the body has another hash")
    if facts is None:
        yield Difference(invoice.number, "ledger", "close", "an entry", None, why)
    elif facts.previous_sha256 != previous:
        detail = "the invoice before it has another hash than this one says"
        yield Difference(invoice.number, "chain", "previous_sha256", facts.previous_sha256, previous, detail)


def _compare_ledger(
    connection: Connection, invoice: Row[Any], facts: Facts, entries: list[Entry]
) -> Iterator[Difference]:
    """What the ledger's entries and their prices come to."""
    try:
        made = _body(connection, facts, entries)
    except (msgspec.DecodeError, KeyError) as error:
        detail = f"no body can be made of the ledger's entries and their prices: {error!r}"
        yield Difference(invoice.number, "ledger", "prices", "a body", None, detail)
        return
    yield from _compare_bodies(invoice, canonical(made))
    yield from _compare_columns(invoice, facts, made)


def _compare_bodies(invoice: Row[Any], made_anew: bytes) -> Iterator[Difference]:
    if made_anew == invoice.body.encode():
        return
    try:
        found = msgspec.json.decode(invoice.body)
    except msgspec.DecodeError:
        found = None
    detail = "the ledger's entries and their prices make another body"
    differing = list(_differing(msgspec.json.decode(made_anew), found, ""))
    for place, expected, value in differing or [("", digest(made_anew), digest(invoice.body.encode()))]:
        yield Difference(invoice.number, "body", place, expected, value, detail)


def _compare_columns(invoice: Row[Any], facts: Facts, made: Mapping[str, Any]) -> Iterator[Difference]:
    """What lists of invoices show, which is not read from bodies."""
    columns: tuple[tuple[What, str, Any, Any], ...] = (
        ("number", "number", facts.number, invoice.number),
        ("body", "issued_at", facts.issued_at, invoice.issued_at),
        ("body", "total", made["total"], invoice.total),
    )
    for what, name, expected, found in columns:
        if expected != found:
            yield Difference(invoice.number, what, name, expected, found, f"lists show another {name} than the ledger")


def _compare_cycle(invoice: Row[Any], facts: Facts, cycle: CycleRow) -> Iterator[Difference]:
    """Where the cycle is, whose, and that it is closed; of an open one, more records would come to it."""
    if cycle.closed_at is None:
        detail = f"cycle {cycle.period} is open, and this invoice closed it"
        yield Difference(invoice.number, "ledger", cycle.period, "closed", "open", detail)
    for name, expected, found in (
        ("tenant_id", invoice.tenant_id, cycle.tenant_id),
        ("period", facts.period, cycle.period),
        ("starts_at", facts.starts_at, cycle.starts_at),
        ("ends_at", facts.ends_at, cycle.ends_at),
    ):
        if expected != found:
            detail = f"the cycle has another {name} than when it was closed"
            yield Difference(invoice.number, "ledger", f"cycle {name}", expected, found, detail)


def _differing(expected: Any, found: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """The innermost places in which two JSON values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            yield from _differing(expected.get(name), found.get(name), f"{place}.{name}" if place else name)
    elif isinstance(expected, list) and isinstance(found, list):
        for number in range(max(len(expected), len(found))):
            one, other = (each[number] if number < len(each) else None for each in (expected, found))
            yield from _differing(one, other, f"{place}[{number}]")
    elif expected != found:
        yield place, expected, found


def _compare_usage(
    connection: Connection, invoice: Row[Any], cycle: CycleRow, entries: list[Entry]
) -> Iterator[Difference]:
    """With the rollups as bills read them, and with the hours that are still kept beside their days."""
    gone_before = progress(connection).get(DAYS_FROM, 0)
    days = _days_of(connection, invoice)
    altered = _altered(days, day_digests(connection, cycle, sources(connection)), gone_before)
    changed: list[Difference] = []
    if all(day >= gone_before for day in days):
        changed = list(_changed(connection, invoice, entries, usage_of(connection, cycle), altered))
    yield from changed
    detail = "the rollups of this day were altered, in what no bill counts or so that the sums are the same"
    for day, (expected, found) in altered.items() if not changed else ():
        yield Difference(invoice.number, "usage", format_time(day)[:10], expected, found, detail)
    by_hour, by_day = (day_digests(connection, cycle, (source,)) for source in sources_twice(connection))
    for day, (expected, found) in _altered(by_day, by_hour, gone_before).items():
        detail = "the hours of this day do not add up to it"
        yield Difference(invoice.number, "usage", format_time(day)[:10], expected, found, detail)


def _days_of(connection: Connection, invoice: Row[Any]) -> dict[int, str]:
    """Their digests when the cycle closed."""
    query = select(_invoice_day.c.day, _invoice_day.c.sha256).where(_invoice_day.c.invoice_id == invoice.id)
    return {row.day: row.sha256 for row in connection.execute(query)}


def _altered(
    expected: Mapping[int, str], found: Mapping[int, str], gone_before: int
) -> dict[int, tuple[str | None, str | None]]:
    """Days that differ, but for those whose rollups are past their retention."""
    days = sorted(expected.keys() | found.keys())
    return {
        day: (expected.get(day), found.get(day))
        for day in days
        if day >= gone_before and expected.get(day) != found.get(day)
    }


def _changed(
    connection: Connection,
    invoice: Row[Any],
    entries: list[Entry],
    usage: list[Usage],
    altered: Mapping[int, Any],
) -> Iterator[Difference]:
    """Which numbers of which service, key and price are not what the ledger says."""
    billed = {(e.service_id, e.key_id, e.price_id): e for e in entries}
    counted = {(u.service_id, u.key_id, u.price_id): u for u in usage}
    wrong = [
        of for of in sorted(billed.keys() | counted.keys()) if _measured(billed.get(of)) != _measured(counted.get(of))
    ]
    services = service_names(connection, {of[0] for of in wrong})
    keys = key_facts(connection, {of[1] for of in wrong} - {0})
    when = ", ".join(format_time(day)[:10] for day in altered) or "no day"
    for of in wrong:
        key = keys.get(of[1]) or KeyFacts(str(of[1]) if of[1] else "-", "", None)
        where = f"{services.get(of[0]) or '-'} {key.prefix}"
        for name, expected, found in zip(_MEASURES, _measured(billed.get(of)), _measured(counted.get(of)), strict=True):
            if expected != found:
                detail = f"the ledger has {expected} billable {name}, the rollups {found}; altered: {when}"
                yield Difference(invoice.number, "usage", f"{when} {where} {name}", expected, found, detail)


def _measured(of: Entry | Usage | None) -> tuple[int, ...]:
    return (0, 0, 0) if of is None else (of.requests, of.units, of.size_bytes)
