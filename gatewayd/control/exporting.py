"""`usage export`: every row of usage, hour by hour or day by day, a page at a time. Reads only.

One statement within one read transaction: the rows are those of one moment, however long it takes to read them all, and
add up to what `usage show` said then, costs too. Of prices that are not linear it holds, beside a page, what the keys
are charged in the cycles that are not over for the page. SQLite cannot start its log anew meanwhile, which is why few
may export at once and who stops reading is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Literal

from sqlalchemy import Connection, select

from gatewayd.control.batches import DAY_S
from gatewayd.control.costs import Costs
from gatewayd.control.history import parts
from gatewayd.control.naming import KINDS, NameBook
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Cycle, Rollup
from gatewayd.control.usage import NUMBERS, PERCENTS
from gatewayd.policy.amounts import format_time
from gatewayd.policy.histogram import quantiles_of, sum_packed
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Terms

Granularity = Literal["hour", "day"]
PAGE_ROWS = 500  # while a page is made, in a thread, control's loop waits for the interpreter now and then

_SUMMED = (*NUMBERS, "billable_units", "billable_bytes")
_BY = ("cycle_id", "service_id", "route_id", "key_id", "client_id", "price_id", "status_class")
_QUANTILES, _SHARES = [f"p{percent}_ms" for percent in PERCENTS], [percent / 100 for percent in PERCENTS]
_SAME = 1 + len(_BY)  # columns that tell rows apart, the moment first

_cycle, _hours = Cycle.__table__, Rollup.__table__  # type: ignore[attr-defined]


def pages(
    connection: Connection, tenant_id: int, since: int, until: int, granularity: Granularity
) -> Iterator[list[dict[str, Any]]]:
    """Rows in the order of time, as JSON has them."""
    book = NameBook(connection)
    prices = all_terms(connection)
    wanted = select(_cycle.c.id, _cycle.c.period).where(_cycle.c.tenant_id == tenant_id)
    periods = {row.id: row.period for row in connection.execute(wanted)}
    costs = Costs(connection, prices)
    every = _folded(connection, tenant_id, since, until, granularity)
    while page := list(islice(every, PAGE_ROWS)):
        for kind, place in (("service", 2), ("route", 3), ("key", 4), ("client", 5)):
            book.learn(kind, {row[place] for row in page})
        book.learn("tenant", {tenant_id})
        costs.forget(page[0][0])  # a row is of the cycle that its time lies in, or of a later one
        yield [_shown(row, tenant_id, book, prices, costs, periods) for row in page]


def _folded(
    connection: Connection, tenant_id: int, since: int, until: int, granularity: Granularity
) -> Iterator[Sequence[Any]]:
    """Rows that agree in all that tells rows apart are one: those of the hours of a day."""
    # A range of whole days is in days that are over, and then in hours.
    ordered = sorted(
        parts(connection, since, until, by_hour=granularity == "hour"), key=lambda part: part.table is _hours
    )
    for part in ordered:
        moment = part.moment - part.moment % DAY_S if granularity == "day" else part.moment
        by = [part.table.c[name] for name in _BY]
        query = (
            select(moment, *by, *(part.table.c[name] for name in _SUMMED), part.table.c.latency)
            .where(part.table.c.tenant_id == tenant_id, part.within)
            .order_by(moment, *by)
        )
        for _, rows in groupby(connection.execute(query), key=lambda row: row[:_SAME]):
            first, *others = rows
            yield _sum([first, *others]) if others else first


def _sum(rows: list[Sequence[Any]]) -> Sequence[Any]:
    latency = sum_packed(row[-1] for row in rows)
    return *rows[0][:_SAME], *(sum(column) for column in zip(*(row[_SAME:-1] for row in rows), strict=True)), latency


def _shown(
    row: Sequence[Any],
    tenant_id: int,
    book: NameBook,
    prices: Mapping[int, Terms],
    costs: Costs,
    periods: Mapping[int, str],
) -> dict[str, Any]:
    moment, cycle_id, *numbers_of_names, price_id, status_class = row[:_SAME]
    sums = dict(zip(_SUMMED, row[_SAME:-1], strict=True))
    billable = [sums[name] for name in ("billable", "billable_units", "billable_bytes")]
    terms = prices.get(price_id)
    return {
        "time": format_time(moment),
        "period": periods.get(cycle_id),
        **{kind: book.of(kind, number) for kind, number in zip(KINDS, (tenant_id, *numbers_of_names), strict=True)},
        "status": f"{status_class}xx" if status_class else "-",
        **sums,
        **dict(zip(_QUANTILES, map(_milliseconds, quantiles_of(row[-1], _SHARES)), strict=True)),
        "price": None if terms is None else format_nanos(terms.each_nanos),
        "cost": format_nanos(costs.of(cycle_id, numbers_of_names[2], price_id, billable)),
    }


def _milliseconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000
