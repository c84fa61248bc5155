"""Which cycle a record belongs to, and the cycles of a tenant: opened when they are needed, without a gap between them.

A record belongs to the cycle that its time lies in; where that is closed, to the tenant's oldest open one after it. So
a record that comes late is in the next bill, and every record is in exactly one.

The cycles of a tenant are months of its time zone. One that is opened begins where the last one ended, so a change of
the zone holds from the next cycle on. `reset` ends the running one and opens another for the rest of its month.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Select, func, insert, select, update
from sqlmodel import Session

from gatewayd.control.tables import Cycle, Progress, Tenant
from gatewayd.policy.cycles import (
    LAST_MONTH,
    THIS_MONTH,
    Period,
    first_of,
    month_after,
    month_at,
    month_before,
    numbered,
)

_cycle, _tenant, _progress = Cycle.__table__, Tenant.__table__, Progress.__table__  # type: ignore[attr-defined]
_NANOS = 1_000_000_000
_CLOSINGS = "closings"
_SPANS_LIMIT = 64  # of a tenant: months that records came of since the last closing


class CycleRow(NamedTuple):
    """A row of table `cycle`; id 0: it would be opened with the first record."""

    id: int
    tenant_id: int
    period: str
    starts_at: int
    ends_at: int
    closed_at: int | None

    def state(self, now: int) -> str:
        if self.closed_at is not None:
            return "closed"
        return "due" if self.id and self.ends_at <= now else "open"


class _Span(NamedTuple):
    """Records of these times belong to this cycle."""

    starts_ns: int
    ends_ns: int
    cycle_id: int


class Cycles:
    """Finds the cycles of records, and remembers them until one is closed or a transaction is rolled back."""

    def __init__(self) -> None:
        self._spans: dict[int, list[_Span]] = {}  # by tenant, the one that was found last in front
        self._closings = -1

    def forget(self) -> None:
        """The transaction was rolled back: a cycle that is remembered may never have been stored."""
        self._spans.clear()

    def begin(self, session: Session) -> None:
        """A transaction begins: was a cycle closed since the last one?"""
        closings = _closings(session.connection())
        if closings != self._closings:
            self._spans.clear()
            self._closings = closings

    def of(self, session: Session, tenant_id: int, time_ns: int) -> int:
        """The cycle that a record of this time belongs to, opened where it is the first."""
        spans = self._spans.get(tenant_id)
        if spans is not None:
            span = spans[0]
            if span.starts_ns <= time_ns < span.ends_ns:
                return span.cycle_id
            for place, span in enumerate(spans):
                if span.starts_ns <= time_ns < span.ends_ns:
                    spans[0], spans[place] = span, spans[0]
                    return span.cycle_id
        span = _span_at(session.connection(), tenant_id, time_ns // _NANOS)
        self._spans[tenant_id] = [span, *(spans or [])[: _SPANS_LIMIT - 1]]
        return span.cycle_id


def cycle_at(connection: Connection, tenant_id: int, at: int) -> CycleRow | None:
    """The cycle that a moment lies in, open or closed."""
    return first(connection, _of(tenant_id).where(_cycle.c.starts_at <= at, _cycle.c.ends_at > at))


def cycle_named(connection: Connection, tenant_id: int, period: str) -> CycleRow | None:
    return first(connection, _of(tenant_id).where(_cycle.c.period == period))


def cycle_by_id(connection: Connection, cycle_id: int) -> CycleRow:
    found = first(connection, select(_cycle).where(_cycle.c.id == cycle_id))
    assert found is not None
    return found


def first(connection: Connection, query: Select[Any]) -> CycleRow | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else CycleRow(*row)


def running(connection: Connection, tenant_id: int, now: int) -> CycleRow:
    """The cycle that a record of now belongs to, or what that would be were it opened."""
    found = cycle_at(connection, tenant_id, now)
    if found is not None and found.closed_at is not None:
        return first(connection, _open_from(tenant_id, found.ends_at)) or _next(connection, tenant_id, now)
    return found or _next(connection, tenant_id, now)


def period_meant(connection: Connection, tenant_id: int, text: str, now: int) -> str:
    """The period's name, where a word stands for it: the running cycle, or the month before, where the tenant is."""
    if text == THIS_MONTH:
        return running(connection, tenant_id, now).period
    if text == LAST_MONTH:
        zone = zone_of(connection, tenant_id)
        return month_before(month_at(now, zone).starts_at, zone).name
    return text


def open_for(connection: Connection, tenant_id: int, at: int) -> CycleRow:
    """The cycle that a record of this time belongs to, opened if need be."""
    found = open_at(connection, tenant_id, at)
    return found if found.closed_at is None else open_after(connection, tenant_id, found.ends_at)


def open_at(connection: Connection, tenant_id: int, at: int) -> CycleRow:
    """The cycle that a moment lies in, opened with all that lie between it and the tenant's others."""
    while (found := cycle_at(connection, tenant_id, at)) is None:
        zone = zone_of(connection, tenant_id)
        ends = select(func.min(_cycle.c.starts_at), func.max(_cycle.c.ends_at)).where(_cycle.c.tenant_id == tenant_id)
        begins, last = connection.execute(ends).one()
        if begins is None:
            _add(connection, tenant_id, month_at(at, zone))
        elif at < begins:
            _add(connection, tenant_id, month_before(begins, zone))
        else:
            _add(connection, tenant_id, month_after(last, zone))
    return found


def open_after(connection: Connection, tenant_id: int, at: int) -> CycleRow:
    """The tenant's oldest open cycle that begins at `at` or later, opened if need be."""
    while (found := first(connection, _open_from(tenant_id, at))) is None:
        open_at(connection, tenant_id, connection.execute(_end_of(tenant_id)).scalar_one())
    return found


def oldest_due(connection: Connection, tenant_id: int, now: int) -> CycleRow | None:
    """The tenant's oldest open cycle that is over."""
    return first(connection, _of(tenant_id).where(_cycle.c.closed_at.is_(None), _cycle.c.ends_at <= now))


def end_now(connection: Connection, cycle: CycleRow, at: int) -> CycleRow:
    """End a running cycle at `at`, and open another for the rest of it, if any; the ended one as it is then."""
    connection.execute(update(_cycle).where(_cycle.c.id == cycle.id).values(ends_at=at))
    if at < cycle.ends_at:
        _add(connection, cycle.tenant_id, Period(first_of(cycle.period), at, cycle.ends_at))
    return cycle._replace(ends_at=at)


def mark_closed(connection: Connection, cycle_id: int, at: int) -> None:
    """No record comes to it any more."""
    connection.execute(update(_cycle).where(_cycle.c.id == cycle_id).values(closed_at=at))
    closings = _closings(connection)
    if closings:
        connection.execute(update(_progress).where(_progress.c.name == _CLOSINGS).values(value=closings + 1))
    else:
        connection.execute(insert(_progress).values(name=_CLOSINGS, value=1))


def _of(tenant_id: int) -> Select[Any]:
    return select(_cycle).where(_cycle.c.tenant_id == tenant_id).order_by(_cycle.c.starts_at)


def _open_from(tenant_id: int, at: int) -> Select[Any]:
    return _of(tenant_id).where(_cycle.c.starts_at >= at, _cycle.c.closed_at.is_(None))


def _end_of(tenant_id: int) -> Select[Any]:
    """Of the tenant's last cycle."""
    return select(func.max(_cycle.c.ends_at)).where(_cycle.c.tenant_id == tenant_id)


def _next(connection: Connection, tenant_id: int, now: int) -> CycleRow:
    """The cycle that will be opened after the tenant's last, or for its first record, if that comes now."""
    zone, last = zone_of(connection, tenant_id), connection.execute(_end_of(tenant_id)).scalar()
    month = month_at(now, zone) if last is None else month_after(last, zone)
    while month.ends_at <= now:
        month = month_after(month.ends_at, zone)
    return CycleRow(0, tenant_id, *month, None)


def _span_at(connection: Connection, tenant_id: int, at: int) -> _Span:
    own, found = open_at(connection, tenant_id, at), open_for(connection, tenant_id, at)
    return _Span(own.starts_at * _NANOS, own.ends_at * _NANOS, found.id)


def _closings(connection: Connection) -> int:
    """How many cycles were ever closed."""
    found = connection.exec_driver_sql("SELECT value FROM progress WHERE name = 'closings'").scalar()
    return 0 if found is None else int(found)


def zone_of(connection: Connection, tenant_id: int) -> ZoneInfo:
    name = connection.execute(select(_tenant.c.time_zone).where(_tenant.c.id == tenant_id)).scalar()
    return ZoneInfo(name or "UTC")


def _add(connection: Connection, tenant_id: int, period: Period) -> None:
    """Under the month's name, or its next number where that is taken."""
    number, name = 1, period.name
    while cycle_named(connection, tenant_id, name) is not None:
        number += 1
        name = numbered(period.name, number)
    values = {"period": name, "starts_at": period.starts_at, "ends_at": period.ends_at}
    connection.execute(insert(_cycle).values(tenant_id=tenant_id, **values))
