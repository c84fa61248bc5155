"""Spending: what a key, or a tenant as a whole, has come to in its open cycle, by the live bill.

To add up a bill takes from a millisecond to seconds, so it is looked at only for those whose usage has moved, in a
thread, and the dearer it was the longer the next look waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from gatewayd.control import outbox
from gatewayd.control.batches import Group
from gatewayd.control.charging import charges_of
from gatewayd.control.cycles import CycleRow
from gatewayd.control.database import Database
from gatewayd.control.tables import Cycle
from gatewayd.errors import GatewayError
from gatewayd.policy.alerting import Kind
from gatewayd.policy.amounts import format_time
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import total_nanos
from gatewayd.records import ADMITTED

KIND: Kind = "spend"
# The least between two looks at a tenant, and how many times as long as the last one took: at most 2 % of a core.
LOOK_AGAIN_S = 5.0
_RESTS = 50
_LATE_S = 86400  # for so long after its end what comes late may still take a cycle to its amount

_cycle = Cycle.__table__  # type: ignore[attr-defined]

log = logging.getLogger(__name__)


class _Reached(NamedTuple):
    """An alert, the cycle (`id`, `period`, `starts_at`, `ends_at`) that it has to tell of, and what was spent."""

    alert: outbox.Wanted
    cycle: CycleRow
    nanos: int


class SpendingAlerts:
    """Lives on the event loop's thread, as ingest does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: list[outbox.Wanted] | None = None
        self._moved: set[int] = set()  # tenants
        self._rests_until: dict[int, float] = {}  # of the monotonic clock, by tenant

    def __repr__(self) -> str:
        return f"<SpendingAlerts, {len(self._moved)} tenants to look at>"

    def forget(self) -> None:
        """Alerts, keys or tenants have changed: all are looked at once, for one may be new and reached already."""
        self._wanted = None

    def recorded(self, groups: Iterable[Group]) -> None:
        """These requests have been added to the rollups, or are about to be."""
        if self._wanted:
            self._moved.update({group.tenant for group in groups if group.flags & ADMITTED})

    async def step(self, now_s: int, monotonic_s: float) -> None:
        """Look at tenants that have moved and are due, and tell. What fails is tried again."""
        if self._wanted is None:
            self._wanted = outbox.wanted(self._database.lookup, KIND)
            self._moved.update(alert.tenant_id for alert in self._wanted)
        self._moved &= {alert.tenant_id for alert in self._wanted}
        for tenant_id in sorted(self._moved):
            if self._rests_until.get(tenant_id, 0.0) > monotonic_s:
                continue
            alerts = [alert for alert in self._wanted if alert.tenant_id == tenant_id]
            self._moved.discard(tenant_id)  # what comes meanwhile is looked at again
            began = time.perf_counter()
            try:
                reached = await asyncio.to_thread(self._look, tenant_id, alerts, now_s)
                if reached:
                    self._tell(reached, now_s)
            except (DBAPIError, GatewayError) as error:
                log.error("spending alerts cannot be looked at for the moment: %s", error)
                self._moved.add(tenant_id)
            took_s = time.perf_counter() - began
            self._rests_until[tenant_id] = monotonic_s + max(LOOK_AGAIN_S, _RESTS * took_s)

    def _look(self, tenant_id: int, alerts: list[outbox.Wanted], now_s: int) -> list[_Reached]:
        reached = []
        with self._database.read() as session:
            connection = session.connection()
            for cycle in _open_cycles(connection, tenant_id, now_s):
                occasion = _occasion(cycle)
                done = outbox.told(connection, occasion, [alert.id for alert in alerts])
                left = [alert for alert in alerts if alert.id not in done]
                charges = charges_of(connection, cycle, now_s) if left else []
                for alert in left:
                    own = (each for each in charges if alert.key_id in (None, each.key_id))
                    if (nanos := total_nanos(own)) >= alert.threshold:
                        reached.append(_Reached(alert, cycle, nanos))
        return reached

    def _tell(self, reached: list[_Reached], now_s: int) -> None:
        with self._database.write() as session:
            for alert, cycle, nanos in reached:
                data = {
                    "period": cycle.period, "starts_at": format_time(cycle.starts_at),
                    "ends_at": format_time(cycle.ends_at), "currency": alert.currency,
                    "threshold": format_nanos(alert.threshold), "spent": format_nanos(nanos),
                }  # fmt: skip
                outbox.put(session.connection(), alert, KIND, _occasion(cycle), now_s, data)


def _open_cycles(connection: Connection, tenant_id: int, now_s: int) -> list[CycleRow]:
    """The running one, and for a day the one before it. Older ones tell of nothing that is news."""
    query = select(_cycle).where(
        _cycle.c.tenant_id == tenant_id,
        _cycle.c.closed_at.is_(None),
        _cycle.c.starts_at <= now_s,
        _cycle.c.ends_at > now_s - _LATE_S,
    )
    return [CycleRow(*row) for row in connection.execute(query.order_by(_cycle.c.starts_at))]


def _occasion(cycle: CycleRow) -> str:
    return f"spend:{cycle.id}"
