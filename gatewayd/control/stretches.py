"""Which of the two rollup tables answers for which time: whole days that are over are in `rollup_day`."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, select

from gatewayd.control.tables import Progress, Rollup, RollupDay

HOUR_S, DAY_S = 3600, 86400

_hours, _days = Rollup.__table__, RollupDay.__table__  # type: ignore[attr-defined]
_progress = Progress.__table__  # type: ignore[attr-defined]


class Part(NamedTuple):
    """Rows of one table, whose `moment` is an hour or a day. No row of usage is in two parts, or in none."""

    table: Table
    moment: Column[int]
    within: ColumnElement[bool]


def widened(connection: Connection, since: int, until: int) -> tuple[int, int]:
    """The range in whole hours."""
    return since - since % HOUR_S, until + -until % HOUR_S


def parts(connection: Connection, since: int, until: int, *, by_hour: bool = False) -> list[Part]:
    """Usage of a range in whole hours. `by_hour`: from the hours alone."""
    first = since + -since % DAY_S
    rolled = select(_progress.c.value).where(_progress.c.name == "rolled_until")
    last = min(until - until % DAY_S, int(connection.execute(rolled).scalar() or 0))
    if by_hour or first >= last:
        return [_within(_hours, since, until)]
    edges = [_within(_hours, *edge) for edge in ((since, first), (last, until)) if edge[0] < edge[1]]
    return [*edges, _within(_days, first, last)]


def _within(table: Table, since: int, until: int) -> Part:
    moment = table.c.hour if table is _hours else table.c.day
    return Part(table, moment, and_(moment >= since, moment < until))
