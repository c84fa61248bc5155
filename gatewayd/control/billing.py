"""Bills: what a cycle charges, line by line or by key, as it is or as it will be.

A closed cycle's is its invoice's. An open one's is what its invoice would be if it closed now: the same entries, prices
and arithmetic, of which nothing is stored. A tenant that has no cycle yet has the month that would be opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from gatewayd.control.charging import subscriptions_of, usage_of
from gatewayd.control.cycles import CycleRow, cycle_named, running, zone_of
from gatewayd.control.ledger import entries_of, facts_of
from gatewayd.control.plan_names import plan_names
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Cycle, Key, Plan, Tenant
from gatewayd.control.usage import service_names
from gatewayd.keys import PREFIX
from gatewayd.policy.amounts import format_time
from gatewayd.policy.cycles import month_named, parse_period
from gatewayd.policy.invoicing import CREDITS, Entry, Facts, KeyFacts, bill_of, body_of, show_credit
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Usage

_cycle, _key, _plan = Cycle.__table__, Key.__table__, Plan.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_AT_ONCE = 10_000  # a statement takes 32,766 parameters
_LEAST_ELAPSED_S = 3600


class Draft(NamedTuple):
    """All that an invoice is made of but the prices."""

    facts: Facts
    entries: list[Entry]


def bill(connection: Connection, tenant_id: int, period: str | None, now: int) -> dict[str, Any]:
    """The answer of `GET /v1/billing`."""
    cycle = cycle_of(connection, tenant_id, period, now)
    facts, entries = draft_of(connection, cycle, now)
    prices = all_terms(connection)
    body = body_of(facts, entries, bill_of(entries, prices), prices)
    return {
        **_head(facts, cycle),
        "starts_at": body["starts_at"],
        "ends_at": body["ends_at"],
        "state": cycle.state(now),
        "invoice": facts.number,
        "items": [_as_item(line) for line in body["lines"]],
        "credits": [{"id": entry.id, **show_credit(entry)} for entry in entries if entry.kind in CREDITS],
        "subtotal": body["subtotal"],
        "credited": body["credited"],
        "total": body["total"],
        "carried_forward": body["carried_forward"],
    }


def bill_by_key(connection: Connection, tenant_id: int, period: str | None, now: int) -> dict[str, Any]:
    """The answer of `GET /v1/billing/keys`: the lines of the same bill, one a key."""
    cycle = cycle_of(connection, tenant_id, period, now)
    facts, entries = draft_of(connection, cycle, now)
    lines, come_to = bill_of(entries, all_terms(connection))
    requests: dict[int, int] = {}
    nanos: dict[int, int] = {}
    for entry in entries:
        requests[entry.key_id] = requests.get(entry.key_id, 0) + entry.requests
    for line in lines:
        nanos[line.key_id] = nanos.get(line.key_id, 0) + line.nanos
    items = []
    for key_id in sorted(nanos):
        key = facts.keys.get(key_id) or KeyFacts(str(key_id) if key_id else "-", "", None)
        cost = format_nanos(nanos[key_id])
        items.append(
            {"key": key.prefix, "name": key.name, "plan": key.plan, "requests": requests[key_id], "cost": cost}
        )
    return {**_head(facts, cycle), "items": items, "total": format_nanos(come_to.subtotal_nanos)}


def preview(connection: Connection, tenant_id: int, period: str | None, now: int) -> dict[str, Any]:
    """The invoice of a cycle as it would be if it were closed now; of a closed one, as it is."""
    facts, entries = draft_of(connection, cycle_of(connection, tenant_id, period, now), now)
    prices = all_terms(connection)
    return body_of(facts, entries, bill_of(entries, prices), prices)


def forecast(connection: Connection, tenant_id: int, now: int) -> dict[str, Any]:
    """What the running cycle will have come to at its end if its usage goes on as it was from its start until now.

    It is quantities that are projected, and then priced: so tiers, packages and minimums are right. In a cycle's first
    hour too little is known, and what was used counts as an hour's. Never less than the present total, which volume
    tiers would make it.
    """
    cycle = running(connection, tenant_id, now)
    facts, entries = draft_of(connection, cycle, now)
    prices = all_terms(connection)
    length = cycle.ends_at - cycle.starts_at
    elapsed = min(length, max(now - cycle.starts_at, _LEAST_ELAPSED_S))
    expected = [_projected(entry, length, elapsed) for entry in entries]
    present, future = (bill_of(each, prices).sum.total_nanos for each in (entries, expected))
    return {
        **_head(facts, cycle),
        "as_of": format_time(now),
        "starts_at": format_time(cycle.starts_at),
        "ends_at": format_time(cycle.ends_at),
        "total": format_nanos(present),
        "forecast": format_nanos(max(present, future)),
        "requests": sum(entry.requests for entry in entries),
        "forecast_requests": sum(entry.requests for entry in expected),
        "method": "linear",
    }


def unbilled(connection: Connection, tenant_id: int, now: int) -> list[tuple[str, int]]:
    """Cycles that no invoice has closed and that cost something: period and nanos."""
    wanted = select(_cycle).where(_cycle.c.tenant_id == tenant_id, _cycle.c.closed_at.is_(None))
    cycles = [CycleRow(*row) for row in connection.execute(wanted.order_by(_cycle.c.starts_at))]
    current = running(connection, tenant_id, now)
    owed = [(cycle.period, total_of(connection, cycle, now)) for cycle in cycles + [current] * (not current.id)]
    return [(period, nanos) for period, nanos in owed if nanos]


def total_of(connection: Connection, cycle: CycleRow, now: int) -> int:
    """What an open cycle comes to, in nanos."""
    return bill_of(_open_entries(connection, cycle, now), all_terms(connection)).sum.total_nanos


def cycle_of(connection: Connection, tenant_id: int, period: str | None, now: int) -> CycleRow:
    """The cycle of this name, or the running one. Of a month that has none, what it would be, without an id."""
    current = running(connection, tenant_id, now)
    if period is None or period == current.period:
        return current
    found = cycle_named(connection, tenant_id, period)
    if found is not None:
        return found
    year, month, _ = parse_period(period)
    _, starts_at, ends_at = month_named(year, month, zone_of(connection, tenant_id))
    return CycleRow(0, tenant_id, period, starts_at, ends_at, None)


def draft_of(connection: Connection, cycle: CycleRow, now: int) -> Draft:
    """The entries of a cycle: its ledger's if it is closed, else as they would be if it were closed now."""
    if cycle.closed_at is None:
        entries = _open_entries(connection, cycle, now)
    else:
        facts, entries = facts_of(connection, cycle.id), entries_of(connection, cycle.id)
        if facts is not None:
            return Draft(facts, entries)
    return Draft(_facts_now(connection, cycle, entries, now), entries)


def _open_entries(connection: Connection, cycle: CycleRow, now: int) -> list[Entry]:
    if not cycle.id and cycle != running(connection, cycle.tenant_id, now):
        return []  # a month in which there was nothing, or is nothing yet, or a name that no cycle has
    usage = usage_of(connection, cycle) if cycle.id else []
    entries = [_usage_entry(each, now) for each in usage]
    for owed in subscriptions_of(connection, cycle, now):
        entries.append(Entry("subscription", now, key_id=owed.key_id, price_id=owed.price_id))
    return entries + entries_of(connection, cycle.id, *CREDITS)


def _usage_entry(usage: Usage, at: int) -> Entry:
    key_id, service_id, price_id, first_day, requests, units, size_bytes = usage
    return Entry("usage", at, key_id, service_id, price_id, first_day, requests, units, size_bytes)


def _facts_now(connection: Connection, cycle: CycleRow, entries: Iterable[Entry], now: int) -> Facts:
    tenant = connection.execute(select(_tenant).where(_tenant.c.id == cycle.tenant_id)).one()
    every = list(entries)
    named = plan_names(connection, cycle, every)
    keys = key_facts(connection, {entry.key_id for entry in every} - {0})
    keys |= {key_id: keys[key_id]._replace(plan=plan) for key_id, plan in named.at_end.items()}
    services = service_names(connection, {entry.service_id for entry in every})
    return Facts(
        number=None,
        previous_sha256=None,
        issued_at=now,
        slug=tenant.slug,
        name=tenant.name,
        contact=tenant.contact,
        currency=tenant.currency,
        time_zone=tenant.time_zone,
        period=cycle.period,
        starts_at=cycle.starts_at,
        ends_at=cycle.ends_at,
        services=services,
        keys=keys,
        plans=named.by_price,
    )


def key_facts(connection: Connection, ids: set[int]) -> dict[int, KeyFacts]:
    wanted, found = sorted(ids), {}
    query = select(_key.c.id, _key.c.public_id, _key.c.name, _plan.c.name).join_from(_key, _plan, isouter=True)
    for start in range(0, len(wanted), _AT_ONCE):
        for key_id, public_id, name, plan in connection.execute(
            query.where(_key.c.id.in_(wanted[start : start + _AT_ONCE])), execution_options={"yield_per": 1000}
        ):
            found[key_id] = KeyFacts(PREFIX + public_id, name, plan)
    return found


def _projected(entry: Entry, length: int, elapsed: int) -> Entry:
    if entry.kind != "usage":
        return entry
    grown = (number * length // elapsed for number in (entry.requests, entry.units, entry.size_bytes))
    requests, units, size_bytes = grown
    return entry._replace(requests=requests, units=units, size_bytes=size_bytes)


def _head(facts: Facts, cycle: CycleRow) -> dict[str, Any]:
    return {"tenant": facts.slug, "period": cycle.period, "currency": facts.currency}


def _as_item(line: dict[str, Any]) -> dict[str, Any]:
    """A line of an invoice, in the words of a bill."""
    item = {name: line[name] for name in ("service", "key", "plan", "kind", "tier", "quantity", "requests")}
    return item | {"price": line["price"], "cost": line["amount"]}
