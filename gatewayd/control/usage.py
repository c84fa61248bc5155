"""Usage: rollups summed over a time and by any of their dimensions, with quantiles and cost. Reads only.

SQL sums, the histograms too (`database` gives it the function for it): one query for each part of the range, see
`history`. Each row has its price, so numbers are grouped by that too and folded afterwards; what is used at prices that
are not linear is asked for once more, by key and cycle, for its share of what these are charged (`costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import getitem, itemgetter
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, func, select

from gatewayd.control import costs
from gatewayd.control.charging import in_bites
from gatewayd.control.history import Part, parts, widened
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Client, Key, Rollup, Route, Service, Tenant
from gatewayd.keys import PREFIX
from gatewayd.policy.amounts import format_time
from gatewayd.policy.histogram import quantiles_of, sum_packed
from gatewayd.policy.money import format_nanos

HOUR_S = 3600
INTERVALS = {"hour": HOUR_S, "day": 86400}
TIME = "time"  # the start of an interval, among the dimensions
PERCENTS = (50, 95, 99)
NUMBERS = ("requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out")
_BILLABLE = NUMBERS.index("billable")
_SHOWN = (*NUMBERS, *(f"p{percent}_ms" for percent in PERCENTS), "cost")
_SHARES = tuple(percent / 100 for percent in PERCENTS)

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
    def groups(self) -> tuple[str, ...]:
        """What makes a line, in the order of the lines."""
        return self.by if self.interval is None else (TIME, *self.by)

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

    numbers: Sequence[int] = (0,) * len(NUMBERS)
    latency: bytes = b""  # a packed histogram
    nanos: int = 0

    @classmethod
    def of(cls, lines: Collection[Sums]) -> Sums:
        """What they add up to."""
        if not lines:
            return cls()
        numbers = [sum(column) for column in zip(*(line.numbers for line in lines), strict=True)]
        return cls(numbers, sum_packed(line.latency for line in lines), sum(line.nanos for line in lines))

    def shown(self) -> dict[str, Any]:
        return dict(zip(_SHOWN, self.values(), strict=True))

    def values(self) -> tuple[int | float | str | None, ...]:
        """In the order of `_SHOWN`."""
        quantiles = [None if micros is None else micros / 1000 for micros in quantiles_of(self.latency, _SHARES)]
        return *self.numbers, *quantiles, format_nanos(self.nanos)


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
    return {
        "since": format_time(since),
        "until": format_time(until),
        "items": _items(connection, question, lines),
        "total": Sums.of(lines.values()).shown(),
    }


def used_in(connection: Connection, key_id: int, since: int, until: int) -> Sums:
    """The numbers of one key."""
    lines = _sum(connection, Question(since, until, key_id=key_id))
    return next(iter(lines.values()), Sums())


def name_of(names: Names, number: int) -> str:
    """`-` for none (0), the number for what has no name."""
    return names.get(number) or (str(number) if number else "-")


def _sum(connection: Connection, question: Question) -> dict[tuple[int, ...], Sums]:
    """Sums by what `question.groups` names: the start of the interval, numbers of dimensions."""
    lines: dict[tuple[int, ...], Sums] = {}
    prices, met = all_terms(connection), set[int]()
    size = len(question.groups)
    for query in queries(connection, question):
        for row in in_bites(connection, query):
            group, (price_id, packed, billable_units, *numbers) = row[:size], row[size:]
            nanos = costs.linear_nanos(prices.get(price_id), numbers[_BILLABLE], billable_units)
            sums = Sums(numbers, packed, nanos)
            line = lines.get(group)
            lines[group] = sums if line is None else Sums.of((line, sums))
            met.add(price_id)
    if curved := costs.curved(prices, met):
        rows = [row for query in _curved_queries(connection, question, curved) for row in connection.execute(query)]
        shares = costs.Costs(connection, prices, question.key_id)
        for row in sorted(tuple(row) for row in rows):
            cycle_id, key_id, price_id, *billable = row[size:]
            lines[row[:size]].nanos += shares.of(cycle_id, key_id, price_id, billable)
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
    """One for each part of the range: the groups, then what `costs.Costs` takes."""
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
        start = part.moment if question.interval is None else part.moment - part.moment % INTERVALS[question.interval]
        columns = part.table.c
        yield part, [start if name == TIME else columns[DIMENSIONS[name].column.name] for name in question.groups]


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
    names = question.groups
    labels = []
    for position, name in enumerate(names):
        met = {group[position] for group in lines}
        if name == TIME:
            labels.append({at: format_time(at) for at in met})
        else:
            known = DIMENSIONS[name].names(connection, met)
            labels.append({number: name_of(known, number) for number in met})
    labelled = [(tuple(map(getitem, labels, group)), sums) for group, sums in lines.items()]
    labelled.sort(key=itemgetter(0))
    fields = (*names, *_SHOWN)
    return [dict(zip(fields, (*label, *sums.values()), strict=True)) for label, sums in labelled]


def _names(connection: Connection, query: Select[Any], column: ColumnElement[int], ids: Iterable[int]) -> Names:
    """Asked for in bites: a statement takes 32,766 parameters at most."""
    wanted, names = sorted(set(ids) - {0}), Names()
    for start in range(0, len(wanted), 10_000):
        rows = connection.execute(query.where(column.in_(wanted[start : start + 10_000])))
        names.update((row[0], row[1]) for row in rows)
    return names
