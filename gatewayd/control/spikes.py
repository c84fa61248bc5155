"""Spikes of refused requests: counted by the minute as records are ingested, told when a minute reaches its number.

Counts and events are written in the transaction of the rollups, so a record counts once and a spike is told once,
whatever is killed in between. Where no alert asks, nothing is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from gatewayd.control import outbox
from gatewayd.control.batches import Batch
from gatewayd.control.tables import RefusalMinute
from gatewayd.policy.alerting import becomes_spike
from gatewayd.policy.amounts import format_time
from gatewayd.records import ADMITTED, MORE_BYTES

_minute = RefusalMinute.__table__  # type: ignore[attr-defined]
_upsert = insert(_minute)
_COUNT = _upsert.on_conflict_do_update(
    index_elements=list(_minute.primary_key.columns),
    set_={"requests": _minute.c.requests + _upsert.excluded.requests},
).returning(_minute.c.requests)
_NEIGHBOUR = select(_minute.c.requests).where(
    _minute.c.alert_id == bindparam("alert_id"), _minute.c.minute == bindparam("minute")
)
_MINUTE_NS = 60_000_000_000


class Spikes:
    """Which alerts there are is read in a transaction, the first after `forget`."""

    def __init__(self) -> None:
        self._wanted: list[outbox.Wanted] | None = None

    def __repr__(self) -> str:
        return f"<Spikes of {'unread' if self._wanted is None else len(self._wanted)} alerts>"

    def forget(self) -> None:
        """Alerts, keys or tenants have changed."""
        self._wanted = None

    def add(self, session: Session, batch: Batch, now_s: int) -> None:
        """Count what was refused among its records."""
        connection = session.connection()
        if self._wanted is None:
            self._wanted = outbox.wanted(connection, "refusals")
        if not self._wanted:
            return
        refused = _refused(batch, {alert.tenant_id for alert in self._wanted})
        for alert in self._wanted if refused else ():
            minutes: Counter[int] = Counter()
            for (tenant_id, key_id, minute), count in refused.items():
                if tenant_id == alert.tenant_id and alert.key_id in (None, key_id):
                    minutes[minute] += count
            for minute, count in sorted(minutes.items()):
                self._count(session, alert, minute, count, now_s)

    def _count(self, session: Session, alert: outbox.Wanted, minute: int, count: int, now_s: int) -> None:
        connection = session.connection()
        row = {"alert_id": alert.id, "minute": minute, "requests": count}
        total = int(connection.execute(_COUNT, row).scalar_one())
        if not total - count < alert.threshold <= total:
            return  # it is not now that the minute gets there
        before, after = (
            int(connection.execute(_NEIGHBOUR, {"alert_id": alert.id, "minute": minute + step}).scalar() or 0)
            for step in (-1, 1)
        )
        if becomes_spike(total - count, total, (before, after), alert.threshold):
            data = {"minute": format_time(minute * 60), "refused": total, "threshold": alert.threshold}
            outbox.put(connection, alert, "refusals", f"refusals:{minute}", now_s, data)


def _refused(batch: Batch, tenant_ids: Set[int]) -> Counter[tuple[int, int, int]]:
    """By tenant, key and minute. Single records are looked at only where a group of them spans two minutes."""
    found: Counter[tuple[int, int, int]] = Counter()
    for group in batch.groups:
        if group.flags & (ADMITTED | MORE_BYTES) or group.tenant not in tenant_ids:
            continue
        minute = group.first_ns // _MINUTE_NS
        if group.last_ns // _MINUTE_NS == minute:
            found[group.tenant, group.key, minute] += len(group.micros)
            continue
        for record in batch.records():
            if group.is_of(record):
                found[group.tenant, group.key, record.time_ns // _MINUTE_NS] += 1
    return found
