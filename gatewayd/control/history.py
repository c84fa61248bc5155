"""Which of the two rollup tables answers for which time: the one place that decides.

Days before `rolled_until` are in `rollup_day`; a record that comes late for one of them is added there too. Everything
since is in `rollup`, and so are the hours at the edges of a range that is not of whole days. Hours before `hours_from`
may be gone, days before `days_from` as well; what has not been invoiced never is.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, select

from gatewayd.control.batches import DAY_S, HOUR_S
from gatewayd.control.cycles import CycleRow
from gatewayd.control.tables import Progress, Rollup, RollupDay

_hours, _days = Rollup.__table__, RollupDay.__table__  # type: ignore[attr-defined]
_progress = Progress.__table__  # type: ignore[attr-defined]

ROLLED_UNTIL, HOURS_FROM, DAYS_FROM = "rolled_until", "hours_from", "days_from"
_FOR_EVER = 1 << 62


class Part(NamedTuple):
    """Rows of one table, whose `moment` is an hour or a day. No row of usage is in two parts, or in none."""

    table: Table
    moment: Column[int]
    within: ColumnElement[bool]


def progress(connection: Connection) -> dict[str, int]:
    return {row.name: row.value for row in connection.execute(select(_progress.c.name, _progress.c.value))}


def hours_from(connection: Connection) -> int:
    """Usage before it may be there by day alone."""
    return progress(connection).get(HOURS_FROM, 0)


def widened(connection: Connection, since: int, until: int) -> tuple[int, int]:
    """The range in whole hours; where these are gone, in whole days."""
    kept_from = hours_from(connection)
    since_step = DAY_S if since < kept_from else HOUR_S
    until_step = DAY_S if until < kept_from else HOUR_S
    return since - since % since_step, until + -until % until_step


def parts(connection: Connection, since: int, until: int, *, by_hour: bool = False) -> list[Part]:
    """Usage of a range in whole hours. `by_hour`: from the hours alone, as long as they last."""
    first = since + -since % DAY_S
    last = min(until - until % DAY_S, progress(connection).get(ROLLED_UNTIL, 0))
    if by_hour or first >= last:
        return [_within(_hours, since, until)]
    edges = [_within(_hours, *edge) for edge in ((since, first), (last, until)) if edge[0] < edge[1]]
    return [*edges, _within(_days, first, last)]


class Source(NamedTuple):
    """A table of rollups, its column of time, and which times are read of it. What a cycle bills is in its sources."""

    table: Table
    moment: Column[int]
    starts_at: int
    ends_at: int

    def of(self, cycle: CycleRow) -> tuple[ColumnElement[bool], ...]:
        columns = self.table.c
        within = (self.moment >= self.starts_at, self.moment < self.ends_at)
        return (columns.cycle_id == cycle.id, columns.tenant_id == cycle.tenant_id, *within)

    @property
    def day(self) -> ColumnElement[int]:
        return self.moment - self.moment % DAY_S


def sources(connection: Connection) -> tuple[Source, Source]:
    """Days, and the hours after them. A cycle may bill late records of earlier days than its own."""
    until = progress(connection).get(ROLLED_UNTIL, 0)
    return Source(_days, _days.c.day, 0, until), Source(_hours, _hours.c.hour, until, _FOR_EVER)


def sources_twice(connection: Connection) -> tuple[Source, Source]:
    """What is kept by the hour and by the day: the former, the latter."""
    reached = progress(connection)
    since, until = reached.get(HOURS_FROM, 0), reached.get(ROLLED_UNTIL, 0)
    return Source(_hours, _hours.c.hour, since, until), Source(_days, _days.c.day, since, until)


def _within(table: Table, since: int, until: int) -> Part:
    moment = table.c.hour if table is _hours else table.c.day
    return Part(table, moment, and_(moment >= since, moment < until))
