"""What an open cycle charges, as it stands: its usage on the rollups, and the keys that owe something without any.

Days that are over may be on the rollups of days alone; up to `rolled_until` these are read, from there on the hours.

Which key owes a base fee or a minimum for a cycle: each that worked at any time of it, which is to say that it was made
before the cycle's end and was not revoked, expired or disabled all along since before its start. It owes what its plan
said at the cycle's end, however long after that the cycle is closed, and whatever the key became in between. They are
owed whole, also for the parts of a month that `billing reset` cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, func, literal, or_, select, union_all

from gatewayd.control.admin.plan_prices import terms_shown
from gatewayd.control.compile import Overrides
from gatewayd.control.cycles import CycleRow
from gatewayd.control.database import DEFAULT_PRICE_ID
from gatewayd.control.history import sources
from gatewayd.control.key_past import keys_at, worked
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Key, Plan, PlanVersion
from gatewayd.policy.pricing import Charge, Subscription, Usage, charges

# Rows are made in bites: SQLAlchemy makes all of a `fetchall` without letting another thread run.
BITE = 1000

_key, _plan, _version = Key.__table__, Plan.__table__, PlanVersion.__table__  # type: ignore[attr-defined]
_overrides = msgspec.json.Decoder(Overrides)


def usage_of(connection: Connection, cycle: CycleRow, key_id: int | None = None) -> list[Usage]:
    """Billable usage of a cycle, or of one key in it, summed by key, service and price, in this order."""
    parts = [
        select(
            source.table.c.key_id,
            source.table.c.service_id,
            source.table.c.price_id,
            source.day.label("day"),
            source.table.c.billable,
            source.table.c.billable_units,
            source.table.c.billable_bytes,
        ).where(
            *source.of(cycle),
            source.table.c.billable > 0,
            *(() if key_id is None else (source.table.c.key_id == key_id,)),
        )
        for source in sources(connection)
    ]
    every = union_all(*parts).subquery()
    by = (every.c.key_id, every.c.service_id, every.c.price_id)
    sums = (func.sum(every.c[name]) for name in ("billable", "billable_units", "billable_bytes"))
    query = select(*by, func.min(every.c.day), *sums).group_by(*by).order_by(*by)
    return [Usage(*row) for row in in_bites(connection, query)]


def subscriptions_of(connection: Connection, cycle: CycleRow, now: int) -> list[Subscription]:
    """The keys that owe a base fee or a minimum for a cycle, none before it has begun."""
    subscribed = {price_id for price_id, terms in all_terms(connection).items() if terms.is_subscribed}
    if not subscribed or now < cycle.starts_at:
        return []
    then = keys_at(cycle.ends_at)
    query = (
        select(
            _key.c.id,
            then.is_past,
            then.own_price_id,
            _key.c.overrides,
            then.plan_id,
            func.coalesce(_plan.c.price_id, literal(DEFAULT_PRICE_ID)),
        )
        .select_from(then.source.outerjoin(_plan, _plan.c.id == then.plan_id))
        .where(
            _key.c.tenant_id == cycle.tenant_id,
            _key.c.created_at < cycle.ends_at,
            or_(_key.c.revoked_at.is_(None), _key.c.revoked_at >= cycle.starts_at),
            worked(then, cycle.starts_at, cycle.ends_at),
        )
        .order_by(_key.c.id)
    )
    owed, former = [], _former_prices(connection, cycle)
    for key_id, is_past, own_price_id, overrides, plan_id, plan_price_id in in_bites(connection, query):
        price_id = own_price_id
        if not is_past and overrides != "{}":  # nearly all of them
            price_id = _overrides.decode(overrides).price_id
        price_id = price_id or former.get(plan_id, plan_price_id)
        if price_id in subscribed:
            owed.append(Subscription(key_id, price_id))
    return owed


def _former_prices(connection: Connection, cycle: CycleRow) -> dict[int, int]:
    """What plans cost at the end of a cycle, by plan: those that were changed since."""
    changed = (
        select(_version.c.plan_id)
        .join_from(_version, _plan, _version.c.plan_id == _plan.c.id)
        .where(_plan.c.tenant_id == cycle.tenant_id, _version.c.created_at >= cycle.ends_at)
    )
    query = select(_version.c.plan_id, _version.c.terms).where(
        _version.c.plan_id.in_(changed), _version.c.created_at < cycle.ends_at
    )
    last = {row.plan_id: row.terms for row in connection.execute(query.order_by(_version.c.version))}
    if not last:
        return {}
    ids = {terms: price_id for price_id, terms in all_terms(connection).items()}
    return {plan_id: ids[terms] for plan_id, view in last.items() if (terms := terms_shown(view)) in ids}


def charges_of(connection: Connection, cycle: CycleRow, now: int) -> list[Charge]:
    """What an open cycle charges as of now, before credits."""
    return charges(usage_of(connection, cycle), subscriptions_of(connection, cycle, now), all_terms(connection))


def in_bites(connection: Connection, query: Any) -> Iterator[Any]:
    return iter(connection.execute(query, execution_options={"yield_per": BITE}))
