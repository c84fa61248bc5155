"""Bills: what the rollups of a cycle cost. A cycle is a calendar month in UTC, open until an invoice closes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from gatewayd.control.tables import Cycle, Key, Plan, Price, Rollup, Tenant
from gatewayd.control.usage import key_names, name_of, service_names
from gatewayd.policy import pricing
from gatewayd.policy.amounts import format_time, parse_period

_rollup, _price, _cycle = Rollup.__table__, Price.__table__, Cycle.__table__  # type: ignore[attr-defined]
_key, _plan, _tenant = Key.__table__, Plan.__table__, Tenant.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Line:
    """Billable requests of one service by one key at one price."""

    service_id: int
    key_id: int
    request_nanos: int
    requests: int

    @property
    def nanos(self) -> int:
        return pricing.cost(self.requests, self.request_nanos)


class Account(NamedTuple):
    """Whose bill."""

    tenant_id: int
    tenant: str
    currency: str


def lines_of(connection: Connection, tenant_id: int, period: str) -> list[Line]:
    """What a cycle charges, in the order of services and keys."""
    query = (
        select(
            _rollup.c.service_id,
            _rollup.c.key_id,
            func.coalesce(_price.c.request_nanos, 0),
            func.sum(_rollup.c.billable),
        )
        .join_from(_rollup, _cycle)
        .join(_price, _price.c.id == _rollup.c.price_id, isouter=True)
        .where(_cycle.c.tenant_id == tenant_id, _cycle.c.period == period)
        .group_by(_rollup.c.service_id, _rollup.c.key_id, _price.c.request_nanos)
        .having(func.sum(_rollup.c.billable) > 0)
        .order_by(_rollup.c.service_id, _rollup.c.key_id, _price.c.request_nanos)
    )
    return [Line(*row) for row in connection.execute(query)]


def bill(connection: Connection, account: Account, period: str) -> dict[str, Any]:
    """The answer of `GET /v1/billing`: the live bill of a cycle."""
    lines = lines_of(connection, account.tenant_id, period)
    services = service_names(connection, (line.service_id for line in lines))
    keys = key_names(connection, (line.key_id for line in lines))
    starts_at, ends_at = parse_period(period)
    closed_at = connection.execute(
        select(_cycle.c.closed_at).where(_cycle.c.tenant_id == account.tenant_id, _cycle.c.period == period)
    ).scalar()
    return {
        "tenant": account.tenant,
        "period": period,
        "currency": account.currency,
        "starts_at": format_time(starts_at),
        "ends_at": format_time(ends_at),
        "state": "open" if closed_at is None else "closed",
        "items": [
            {
                "service": name_of(services, line.service_id),
                "key": name_of(keys, line.key_id),
                "requests": line.requests,
                "price": pricing.format_nanos(line.request_nanos),
                "cost": pricing.format_nanos(line.nanos),
            }
            for line in lines
        ],
        "total": _total(lines),
    }


def bill_by_key(connection: Connection, account: Account, period: str) -> dict[str, Any]:
    """The answer of `GET /v1/billing/keys`: the same bill, one line a key."""
    lines = lines_of(connection, account.tenant_id, period)
    by_key: dict[int, list[Line]] = {}
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
                "requests": sum(line.requests for line in own),
                "cost": _total(own),
            }
            for key_id, own in sorted(by_key.items())
        ],
        "total": _total(lines),
    }


def unbilled(connection: Connection, tenant_id: int) -> list[tuple[str, int]]:
    """Cycles that no invoice has closed and that cost something: period and nanos."""
    query = (
        select(_cycle.c.period, _price.c.request_nanos, func.sum(_rollup.c.billable))
        .join_from(_rollup, _cycle)
        .join(_price, _price.c.id == _rollup.c.price_id)
        .where(_cycle.c.tenant_id == tenant_id, _cycle.c.closed_at.is_(None))
        .group_by(_cycle.c.period, _price.c.request_nanos)
        .order_by(_cycle.c.period)
    )
    owed: dict[str, int] = {}
    for period, request_nanos, requests in connection.execute(query):
        owed[period] = owed.get(period, 0) + pricing.cost(requests, request_nanos)
    return [(period, nanos) for period, nanos in owed.items() if nanos]


def _total(lines: Iterable[Line]) -> str:
    return pricing.format_nanos(sum(line.nanos for line in lines))


def _key_details(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[str, str | None]]:
    """Name and plan of each key."""
    wanted, details = sorted(set(ids)), {}
    query = select(_key.c.id, _key.c.name, _plan.c.name.label("plan")).join_from(_key, _plan, isouter=True)
    for start in range(0, len(wanted), 10_000):
        for row in connection.execute(query.where(_key.c.id.in_(wanted[start : start + 10_000]))):
            details[row.id] = (row.name, row.plan)
    return details
