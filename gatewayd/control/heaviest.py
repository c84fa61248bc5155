"""`usage top`: who or what made the most of a measure, with its share of all. Reads only.

Rows come from the database in the order of what they are grouped by, so a group is folded and forgotten before the next
begins: memory is that of the few that are shown, however many there are, and at prices that are not linear that of what
their keys are charged (`costs`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import BindParameter, Connection, Row, bindparam, case, func, select, union_all

from gatewayd.control.charging import in_bites
from gatewayd.control.costs import Costs, curved
from gatewayd.control.history import parts, widened
from gatewayd.control.prices import all_terms
from gatewayd.control.usage import DIMENSIONS, NUMBERS, Question, name_of
from gatewayd.policy.amounts import format_time
from gatewayd.policy.money import format_nanos

Measure = Literal["requests", "refused", "errors", "cost", "bytes"]

_SUMMED = (*NUMBERS, "billable_units", "billable_bytes")
_LOT = 4  # columns before them


@dataclass(slots=True)
class Group:
    """What the rows of one value of the dimension add up to; `number` is its row number elsewhere."""

    number: int = 0
    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMMED, 0))
    nanos: int = 0

    def value(self, measure: Measure) -> int:
        if measure == "cost":
            return self.nanos
        if measure == "bytes":
            return self.numbers["bytes_in"] + self.numbers["bytes_out"]
        return self.numbers[measure]

    def merge(self, other: Group) -> None:
        for name, number in other.numbers.items():
            self.numbers[name] += number
        self.nanos += other.nanos

    def shown(self) -> dict[str, Any]:
        numbers = {name: self.numbers[name] for name in NUMBERS}
        return {**numbers, "bytes": self.value("bytes"), "cost": format_nanos(self.nanos)}


def heaviest(connection: Connection, question: Question, measure: Measure, limit: int) -> dict[str, Any]:
    """The answer of `GET /v1/usage/top`; of `question.by` there is one dimension. What has none of it is left out."""
    (by,) = question.by
    since, until = widened(connection, question.since, question.until)
    question = replace(question, since=since, until=until)
    total, count = Group(), 0
    most: list[tuple[int, int, Group]] = []
    for group in _groups(connection, question):
        total.merge(group)
        if not (value := group.value(measure)):
            continue
        count += 1
        place = value, -group.number, group
        if len(most) < limit:
            heapq.heappush(most, place)
        else:
            heapq.heappushpop(most, place)
    whole = total.value(measure)
    names = DIMENSIONS[by].names(connection, {group.number for _, _, group in most})
    return {
        "since": format_time(since),
        "until": format_time(until),
        "by": by,
        "of": measure,
        "items": [
            {by: name_of(names, group.number), **group.shown(), "share": round(value / whole, 4)}
            for value, _, group in sorted(most, key=lambda place: place[:2], reverse=True)
        ],
        "count": count,
        "total": total.shown(),
    }


def _groups(connection: Connection, question: Question) -> Iterator[Group]:
    prices = all_terms(connection)
    costs = Costs(connection, prices)
    for number, rows in groupby(_rows(connection, question, curved(prices, prices)), key=lambda row: row[0]):
        group = Group(number)
        for row in rows:
            sums = dict(zip(_SUMMED, row[_LOT:], strict=True))
            billable = [sums[name] for name in ("billable", "billable_units", "billable_bytes")]
            group.merge(Group(numbers=sums, nanos=costs.of(row.cycle_id, row.key_id, row.price_id, billable)))
        yield group


def _rows(connection: Connection, question: Question, apart: Sequence[int]) -> Iterator[Row[Any]]:
    """By dimension, then price; at the prices that are `apart` also by cycle and key, which are 0 at the others."""
    (by,) = question.by
    # Written into the statement: there may be more of them than the 32,766 parameters that one takes.
    prices: BindParameter[int] = bindparam("apart", value=apart, expanding=True, literal_execute=True)
    queries = []
    for part in parts(connection, question.since, question.until):
        columns = part.table.c
        lot = [
            case((columns.price_id.in_(prices), columns[name]), else_=0).label(name) for name in ("cycle_id", "key_id")
        ]
        query = select(
            columns[DIMENSIONS[by].column.name].label("number"),
            columns.price_id,
            *lot,
            *(columns[name] for name in _SUMMED),
        ).where(part.within)
        if question.tenant_id is not None:
            query = query.where(columns.tenant_id == question.tenant_id)
        queries.append(query)
    rows = union_all(*queries).subquery()
    group = rows.c.number, rows.c.price_id, rows.c.cycle_id, rows.c.key_id
    sums = (func.sum(rows.c[name]) for name in _SUMMED)
    yield from in_bites(connection, select(*group, *sums).group_by(*group).order_by(*group))
