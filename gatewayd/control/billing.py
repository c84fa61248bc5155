"""Bills, live: what a cycle charges so far, by line or by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from gatewayd.control.charging import charges_of
from gatewayd.control.tables import Cycle, Key, Plan
from gatewayd.control.usage import key_names, name_of, service_names
from gatewayd.policy.amounts import format_time, parse_period
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Charge, total_nanos

_cycle, _key, _plan = Cycle.__table__, Key.__table__, Plan.__table__  # type: ignore[attr-defined]


class Account(NamedTuple):
    """Whose bill."""

    tenant_id: int
    tenant: str
    currency: str


def bill(connection: Connection, account: Account, period: str) -> dict[str, Any]:
    """The answer of `GET /v1/billing`: the live bill of a cycle."""
    cycle = _cycle_of(connection, account, period)
    lines = [] if cycle is None else charges_of(connection, cycle.id)
    services = service_names(connection, (line.service_id for line in lines))
    keys = key_names(connection, (line.key_id for line in lines))
    starts_at, ends_at = parse_period(period) if cycle is None else (cycle.starts_at, cycle.ends_at)
    return {
        "tenant": account.tenant,
        "period": period,
        "currency": account.currency,
        "starts_at": format_time(starts_at),
        "ends_at": format_time(ends_at),
        "state": "open" if cycle is None or cycle.closed_at is None else "closed",
        "items": [
            {
                "service": name_of(services, line.service_id),
                "key": name_of(keys, line.key_id),
                "requests": line.quantity,
                "price": format_nanos(line.each_nanos),
                "cost": format_nanos(line.nanos),
            }
            for line in lines
        ],
        "total": format_nanos(total_nanos(lines)),
    }


def bill_by_key(connection: Connection, account: Account, period: str) -> dict[str, Any]:
    """The answer of `GET /v1/billing/keys`: the same bill, one line a key."""
    cycle = _cycle_of(connection, account, period)
    lines = [] if cycle is None else charges_of(connection, cycle.id)
    by_key: dict[int, list[Charge]] = {}
    for line in lines:
        by_key.setdefault(line.key_id, []).append(line)
    details = _key_details(connection, by_key)
    keys = key_names(connection, by_key)
    return {
        "tenant": account.tenant,
        "period": period,
        "currency": account.currency,
        "items": [
            {
                "key": name_of(keys, key_id),
                "name": details.get(key_id, ("", None))[0],
                "plan": details.get(key_id, ("", None))[1],
                "requests": sum(line.quantity for line in own),
                "cost": format_nanos(total_nanos(own)),
            }
            for key_id, own in sorted(by_key.items())
        ],
        "total": format_nanos(total_nanos(lines)),
    }


def unbilled(connection: Connection, tenant_id: int) -> list[tuple[str, int]]:
    """Cycles that no invoice has closed and that cost something: period and nanos."""
    wanted = (
        select(_cycle.c.id, _cycle.c.period)
        .where(_cycle.c.tenant_id == tenant_id, _cycle.c.closed_at.is_(None))
        .order_by(_cycle.c.starts_at)
    )
    owed = [(row.period, total_nanos(charges_of(connection, row.id))) for row in connection.execute(wanted)]
    return [(period, nanos) for period, nanos in owed if nanos]


def _cycle_of(connection: Connection, account: Account, period: str) -> Row[Any] | None:
    return connection.execute(
        select(_cycle).where(_cycle.c.tenant_id == account.tenant_id, _cycle.c.period == period)
    ).first()


def _key_details(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[str, str | None]]:
    """Name and plan of each key."""
    wanted, details = sorted(set(ids)), {}
    query = select(_key.c.id, _key.c.name, _plan.c.name.label("plan")).join_from(_key, _plan, isouter=True)
    for start in range(0, len(wanted), 10_000):
        for row in connection.execute(query.where(_key.c.id.in_(wanted[start : start + 10_000]))):
            details[row.id] = (row.name, row.plan)
    return details
