"""What a cycle charges, live: its usage as it stands in the rollups, charged by `policy.pricing`."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Rollup
from gatewayd.policy.pricing import Charge, Usage, charges

_rollup = Rollup.__table__  # type: ignore[attr-defined]
_DAY_S = 86400


def usage_of(connection: Connection, cycle_id: int) -> list[Usage]:
    """Billable usage of a cycle, summed by key, service and price."""
    query = (
        select(
            _rollup.c.key_id,
            _rollup.c.service_id,
            _rollup.c.price_id,
            func.min(_rollup.c.hour - _rollup.c.hour % _DAY_S),
            func.sum(_rollup.c.billable),
            func.sum(_rollup.c.billable_units),
            func.sum(_rollup.c.billable_bytes),
        )
        .where(_rollup.c.cycle_id == cycle_id, _rollup.c.billable > 0)
        .group_by(_rollup.c.key_id, _rollup.c.service_id, _rollup.c.price_id)
        .order_by(_rollup.c.key_id, _rollup.c.service_id, _rollup.c.price_id)
    )
    return [Usage(*row) for row in connection.execute(query)]


def charges_of(connection: Connection, cycle_id: int) -> list[Charge]:
    """The lines of a cycle's bill as of now."""
    return charges(usage_of(connection, cycle_id), (), all_terms(connection))
