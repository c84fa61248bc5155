"""What each UTC day of a closed cycle held, as one SHA-256: so that an altered rollup is found to the day."""

from __future__ import annotations

from hashlib import sha256

from sqlalchemy import Connection, func, select, union_all

from gatewayd.control.charging import Source, in_bites, sources
from gatewayd.control.cycles import CycleRow

_DIMENSIONS = ("service_id", "route_id", "key_id", "client_id", "price_id", "status_class")
NUMBERS = (
    "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out", "billable_units", "billable_bytes",
)  # fmt: skip


def day_digests(connection: Connection, cycle: CycleRow, tables: tuple[Source, ...] | None = None) -> dict[int, str]:
    """By day, over its rows in the order of their dimensions: each one line, numbers with commas between.

    Latencies are left out: nobody is billed for them. The same whether it comes from hours or from days.
    """
    found: dict[int, str] = {}
    tables = sources(connection) if tables is None else tables
    for day in _days_of(connection, cycle, tables):
        running = sha256()
        parts = [
            select(*(source.table.c[name] for name in (*_DIMENSIONS, *NUMBERS))).where(
                *source.of(cycle), source.time >= day, source.time < day + 86400
            )
            for source in tables
        ]
        every = union_all(*parts).subquery()
        by = [every.c[name] for name in _DIMENSIONS]
        query = select(*by, *(func.sum(every.c[name]) for name in NUMBERS)).group_by(*by).order_by(*by)
        for row in in_bites(connection, query):
            running.update((",".join(map(str, row)) + "\n").encode())
        found[day] = running.hexdigest()
    return found


def _days_of(connection: Connection, cycle: CycleRow, tables: tuple[Source, ...]) -> list[int]:
    every = union_all(*(select(source.day.label("day")).where(*source.of(cycle)) for source in tables)).subquery()
    return [int(day) for day in connection.execute(select(every.c.day).distinct().order_by(every.c.day)).scalars()]
