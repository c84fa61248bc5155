"""What each UTC day of a closed cycle held, as one SHA-256: so that an altered rollup is found to the day."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from sqlalchemy import ColumnElement, Connection, Select, String, Table, cast, func, literal_column, select

from gatewayd.control.batches import DAY_S
from gatewayd.control.charging import in_bites
from gatewayd.control.cycles import CycleRow
from gatewayd.control.history import Source, sources

_DIMENSIONS = ("service_id", "route_id", "key_id", "client_id", "price_id", "status_class")
NUMBERS = (
    "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out", "billable_units", "billable_bytes",
)  # fmt: skip


def day_digests(connection: Connection, cycle: CycleRow, tables: tuple[Source, ...] | None = None) -> dict[int, str]:
    """By day, over its rows in the order of their dimensions: each one line, numbers with commas between.

    Latencies are left out: nobody is billed for them. The same whether it comes from hours or from days; a day is read
    from the one or the other, never from both.
    """
    found: dict[int, str] = {}
    for source in sources(connection) if tables is None else tables:
        for day in connection.execute(select(source.day).where(*source.of(cycle)).distinct()).scalars().all():
            found[day] = _digest_of(connection, cycle, source, day)
    return dict(sorted(found.items()))


def _digest_of(connection: Connection, cycle: CycleRow, source: Source, day: int) -> str:
    query = _lines_of(source.table).where(*source.of(cycle), source.moment >= day, source.moment < day + DAY_S)
    running = sha256()
    for (line,) in in_bites(connection, query):
        running.update(line.encode())
    return running.hexdigest()


@cache
def _lines_of(table: Table) -> Select[str]:
    """One text a row: to make a row of 15 numbers in Python costs three times as much.

    Made once: to put it together took longer than a day of 20 rows took to read.
    """
    by = [table.c[name] for name in _DIMENSIONS]
    numbers = [*by, *(func.sum(table.c[name]) for name in NUMBERS)]
    return select(_with_commas(numbers)).group_by(*by).order_by(*by)


def _with_commas(numbers: list[ColumnElement[int]]) -> ColumnElement[str]:
    line: ColumnElement[str] = cast(numbers[0], String)
    for number in numbers[1:]:
        line = line + literal_column("','") + cast(number, String)
    return line + literal_column("char(10)")
