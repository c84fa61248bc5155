"""Usage: rollups summed over a time and by any of their dimensions, with quantiles and cost. Reads only.

SQL sums, the histograms too (`database` gives it the function for it): one query for each part of the range, see
`history`. Each row has its price, so numbers are grouped by that too and folded afterwards; what is used at prices that
are not linear is asked for once more, by key and cycle, for its share of what these are charged (`costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, func, select

from gatewayd.control import costs
from gatewayd.control.history import Part, parts, widened
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Client, Key, Rollup, Route, Service, Tenant
from gatewayd.keys import PREFIX
from gatewayd.policy.amounts import format_time
from gatewayd.policy.histogram import Histogram
from gatewayd.policy.money import format_nanos

HOUR_S = 3600
INTERVALS = {"hour": HOUR_S, "day": 86400}
PERCENTS = (50, 95, 99)
NUMBERS = ("requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out")

_rollup = Rollup.__table__  # type: ignore[attr-defined]
_client, _route = Client.__table__, Route.__table__  # type: ignore[attr-defined]
_key, _service, _tenant = Key.__table__, Service.__table__, Tenant.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Question:
    """`since` and `until` are seconds, half-open. None in a filter: all of them. `by` holds names of `DIMENSIONS`."""

    since: int
    until: int
    by: tuple[str, ...] = ()
    interval: str | None = None
    tenant_id: int | None = None
    service_id: int | None = None
    key_id: int | None = None

    @property
    def starts_at(self) -> int:
        """In whole hours."""
        return self.since - self.since % HOUR_S

    @property
    def ends_at(self) -> int:
        return self.until + -self.until % HOUR_S


@dataclass(slots=True)
class Sums:
    """The numbers of one line."""

    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NUMBERS, 0))
    latency: Histogram = field(default_factory=Histogram)
    nanos: int = 0

    def merge(self, other: Sums) -> None:
        for name, number in other.numbers.items():
            self.numbers[name] += number
        self.latency.merge(other.latency)
        self.nanos += other.nanos

    def shown(self) -> dict[str, Any]:
        found = self.latency.quantiles([percent / 100 for percent in PERCENTS])
        quantiles = {f"p{percent}_ms": _milliseconds(micros) for percent, micros in zip(PERCENTS, found, strict=True)}
        return {**self.numbers, **quantiles, "cost": format_nanos(self.nanos)}


Names = dict[int, str]


@dataclass(frozen=True, slots=True)
class Dimension:
    """A column to group by, and how its numbers get names: those of removed objects too."""

    column: ColumnElement[int]
    names: Callable[[Connection, set[int]], Names]


def service_names(connection: Connection, ids: Iterable[int]) -> Names:
    return _names(connection, select(_service.c.id, _service.c.slug), _service.c.id, ids)


def key_names(connection: Connection, ids: Iterable[int]) -> Names:
    """The visible part of each key: gw_ab12cd34."""
    found = _names(connection, select(_key.c.id, _key.c.public_id), _key.c.id, ids)
    return {key_id: PREFIX + public_id for key_id, public_id in found.items()}


def tenant_names(connection: Connection, ids: Iterable[int]) -> Names:
    return _names(connection, select(_tenant.c.id, _tenant.c.slug), _tenant.c.id, ids)


def status_names(_: Connection, classes: Iterable[int]) -> Names:
    return {number: f"{number}xx" for number in classes if number}


def client_names(connection: Connection, ids: Iterable[int]) -> Names:
    return _names(connection, select(_client.c.id, _client.c.name), _client.c.id, ids)


def route_names(connection: Connection, ids: Iterable[int]) -> Names:
    """The name that it was given, else its path with its host."""
    shown = func.coalesce(func.nullif(_route.c.name, ""), func.coalesce(_route.c.host, "") + _route.c.path)
    return _names(connection, select(_route.c.id, shown), _route.c.id, ids)


DIMENSIONS: dict[str, Dimension] = {
    "tenant": Dimension(_rollup.c.tenant_id, tenant_names),
    "service": Dimension(_rollup.c.service_id, service_names),
    "route": Dimension(_rollup.c.route_id, route_names),
    "key": Dimension(_rollup.c.key_id, key_names),
    "client": Dimension(_rollup.c.client_id, client_names),
    "status": Dimension(_rollup.c.status_class, status_names),
}


def usage(connection: Connection, question: Question) -> dict[str, Any]:
    """The answer of `GET /v1/usage`. Rollups are hourly or daily: the range is widened, and the answer says so."""
    since, until = widened(connection, question.since, question.until)
    question = replace(question, since=since, until=until)
    lines = _sum(connection, question)
    total = Sums()
    for sums in lines.values():
        total.merge(sums)
    return {
        "since": format_time(since),
        "until": format_time(until),
        "items": _items(connection, question, lines),
        "total": total.shown(),
    }


def used_in(connection: Connection, key_id: int, since: int, until: int) -> Sums:
    """The numbers of one key."""
    lines = _sum(connection, Question(since, until, key_id=key_id))
    return next(iter(lines.values()), Sums())


def name_of(names: Names, number: int) -> str:
    """`-` for none (0), the number for what has no name."""
    return names.get(number) or (str(number) if number else "-")


def _sum(connection: Connection, question: Question) -> dict[tuple[int, ...], Sums]:
    """Sums by the numbers of the dimensions asked for, and the start of the interval last."""
    lines: dict[tuple[int, ...], Sums] = {}
    prices, met = all_terms(connection), set[int]()
    size = len(question.by) + (question.interval is not None)
    for query in queries(connection, question):
        for row in connection.execute(query):
            line = lines.get(group := tuple(row[:size]))
            if line is None:
                line = lines[group] = Sums()
            price_id, latency, billable_units, *sums = row[size:]
            for name, number in zip(NUMBERS, sums, strict=True):
                line.numbers[name] += number
            line.nanos += costs.linear_nanos(prices.get(price_id), sums[NUMBERS.index("billable")], billable_units)
            line.latency.merge_packed(latency)
            met.add(price_id)
    if curved := costs.curved(prices, met):
        rows = [row for query in _curved_queries(connection, question, curved) for row in connection.execute(query)]
        for group, nanos in costs.shares(connection, prices, sorted(tuple(row) for row in rows), question.key_id):
            lines[group].nanos += nanos
    return lines


def queries(connection: Connection, question: Question) -> list[Select[*tuple[Any, ...]]]:
    """One for each part of the range: the numbers of the groups, price, latency, billable units, then `NUMBERS`."""
    found = []
    for part, groups in _parts(connection, question):
        columns = part.table.c
        sums = (func.sum(columns[name]) for name in ("billable_units", *NUMBERS))
        query = select(*groups, columns.price_id, func.sum_histograms(columns.latency), *sums)
        found.append(_within(query, part, question).group_by(*groups, columns.price_id))
    return found


def _curved_queries(
    connection: Connection, question: Question, curved: Sequence[int]
) -> Iterator[Select[*tuple[Any, ...]]]:
    """One for each part of the range: the rows that `costs.shares` takes."""
    # Written into the statement: there may be more of them than the 32,766 parameters that one takes.
    prices: BindParameter[int] = bindparam("curved", value=curved, expanding=True, literal_execute=True)
    for part, groups in _parts(connection, question):
        columns = part.table.c
        lot = (columns.cycle_id, columns.key_id, columns.price_id)
        billable = (func.sum(columns[name]) for name in ("billable", "billable_units", "billable_bytes"))
        query = select(*groups, *lot, *billable).where(columns.price_id.in_(prices), columns.billable > 0)
        yield _within(query, part, question).group_by(*groups, *lot)


def _parts(connection: Connection, question: Question) -> Iterator[tuple[Part, list[ColumnElement[int]]]]:
    """The parts of the range, and what each is grouped by."""
    for part in parts(connection, question.since, question.until, by_hour=question.interval == "hour"):
        groups: list[ColumnElement[int]] = [part.table.c[DIMENSIONS[name].column.name] for name in question.by]
        if question.interval is not None:
            groups.append(part.moment - part.moment % INTERVALS[question.interval])
        yield part, groups


def _within(query: Select[*tuple[Any, ...]], part: Part, question: Question) -> Select[*tuple[Any, ...]]:
    query = query.where(part.within)
    for column, wanted in (
        (part.table.c.tenant_id, question.tenant_id),
        (part.table.c.service_id, question.service_id),
        (part.table.c.key_id, question.key_id),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return query


def _items(connection: Connection, question: Question, lines: dict[tuple[int, ...], Sums]) -> list[dict[str, Any]]:
    named = [
        (name, DIMENSIONS[name].names(connection, {group[position] for group in lines}))
        for position, name in enumerate(question.by)
    ]
    items: list[dict[str, Any]] = []
    times = {} if question.interval is None else {at: format_time(at) for at in {group[-1] for group in lines}}
    for group, sums in lines.items():
        item: dict[str, Any] = {
            name: name_of(names, number) for (name, names), number in zip(named, group, strict=False)
        }
        if question.interval is not None:
            item["time"] = times[group[-1]]
        items.append(item | sums.shown())
    items.sort(key=lambda item: (item.get("time", ""), *(item[name] for name in question.by)))
    return items


def _names(connection: Connection, query: Select[Any], column: ColumnElement[int], ids: Iterable[int]) -> Names:
    """Asked for in bites: a statement takes 32,766 parameters at most."""
    wanted, names = sorted(set(ids) - {0}), Names()
    for start in range(0, len(wanted), 10_000):
        rows = connection.execute(query.where(column.in_(wanted[start : start + 10_000])))
        names.update((row[0], row[1]) for row in rows)
    return names


def _milliseconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000
