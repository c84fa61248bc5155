"""Where the usage of a time stands: whole days that are over in the rows of days, the rest in those of hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, select

from gatewayd.control.tables import Progress, Rollup, RollupDay

DAY_S = 86400

hours: Table = Rollup.__table__  # type: ignore[attr-defined]
days: Table = RollupDay.__table__  # type: ignore[attr-defined]
_progress: Table = Progress.__table__  # type: ignore[attr-defined]


class Stretch(NamedTuple):
    """Rows of a table from `start` up to `end`, in seconds."""

    table: Table
    start: int
    end: int

    @property
    def moment(self) -> ColumnElement[int]:
        return self.table.c.hour if self.table is hours else self.table.c.day

    def holds(self) -> ColumnElement[bool]:
        return (self.moment >= self.start) & (self.moment < self.end)


def stretches(connection: Connection, start: int, end: int) -> list[Stretch]:
    """The stretches of [start, end), in the order of time; each hour is in one of them."""
    first_day, last_day = start + -start % DAY_S, min(end - end % DAY_S, rolled_until(connection))
    if first_day >= last_day:
        return [Stretch(hours, start, end)]
    parts = Stretch(hours, start, first_day), Stretch(days, first_day, last_day), Stretch(hours, last_day, end)
    return [part for part in parts if part.start < part.end]


def rolled_until(connection: Connection) -> int:
    """Days before this one have rows of their own."""
    wanted = select(_progress.c.value).where(_progress.c.name == "rolled_until")
    return int(connection.execute(wanted).scalar() or 0)


def columns_of(stretch: Stretch, names: Sequence[str]) -> list[ColumnElement[Any]]:
    return [stretch.table.c[name] for name in names]
