"""Usage: rollups summed over a time and by any of their dimensions, with quantiles and cost. Reads only.

Two queries over the same rows: SQL sums the numbers, and the histograms, which SQL cannot merge, are merged here. Each
row has its price, so numbers are grouped by that too and folded afterwards; what is used at prices that are not linear
is asked for once more, by key and cycle, for its share of what these are charged (`costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, func, select

from gatewayd.control import costs
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Client, Key, Rollup, Route, Service, Tenant
from gatewayd.keys import PREFIX
from gatewayd.policy.amounts import format_time
from gatewayd.policy.histogram import Histogram
from gatewayd.policy.money import format_nanos

HOUR_S = 3600
INTERVALS = {"hour": HOUR_S, "day": 86400}
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
        """Rollups are hourly: a range is widened to whole hours, and the answer says so."""
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
        quantiles = {f"p{percent}_ms": _milliseconds(self.latency.quantile(percent / 100)) for percent in (50, 95, 99)}
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
    """The answer of `GET /v1/usage`."""
    lines = _sum(connection, question)
    total = Sums()
    for sums in lines.values():
        total.merge(sums)
    return {
        "since": format_time(question.starts_at),
        "until": format_time(question.ends_at),
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
    groups: list[ColumnElement[int]] = [DIMENSIONS[name].column for name in question.by]
    if question.interval is not None:
        groups.append(_rollup.c.hour - _rollup.c.hour % INTERVALS[question.interval])
    lines: dict[tuple[int, ...], Sums] = {}
    prices, met = all_terms(connection), set[int]()
    summed = (*NUMBERS, "billable_units")
    numbers = select(*groups, _rollup.c.price_id, *(func.sum(_rollup.c[name]) for name in summed))
    for row in connection.execute(_within(numbers, question).group_by(*groups, _rollup.c.price_id)):
        line = lines.setdefault(tuple(row[: len(groups)]), Sums())
        price_id, *sums = row[len(groups) :]
        for name, number in zip(NUMBERS, sums, strict=False):
            line.numbers[name] += number
        line.nanos += costs.linear_nanos(prices.get(price_id), sums[NUMBERS.index("billable")], sums[-1])
        met.add(price_id)
    if curved := costs.curved(prices, met):
        rows = connection.execute(_within(_curved_usage(groups, curved), question))
        for group, nanos in costs.shares(connection, prices, rows, question.key_id):
            lines[group].nanos += nanos
    for row in connection.execute(_within(select(*groups, _rollup.c.latency), question)):
        lines[tuple(row[:-1])].latency.merge_packed(row[-1])
    return lines


def _curved_usage(groups: Sequence[ColumnElement[int]], curved: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """The rows that `costs.shares` takes, in an order of their own: the same question has the same answer."""
    lot = (_rollup.c.cycle_id, _rollup.c.key_id, _rollup.c.price_id)
    billable = (func.sum(_rollup.c[name]) for name in ("billable", "billable_units", "billable_bytes"))
    # Written into the statement: there may be more of them than the 32,766 parameters that one takes.
    prices: BindParameter[int] = bindparam("curved", value=curved, expanding=True, literal_execute=True)
    of_them = (_rollup.c.price_id.in_(prices), _rollup.c.billable > 0)
    return select(*groups, *lot, *billable).where(*of_them).group_by(*groups, *lot).order_by(*groups, *lot)


def _within(query: Select[*tuple[Any, ...]], question: Question) -> Select[*tuple[Any, ...]]:
    query = query.where(_rollup.c.hour >= question.starts_at, _rollup.c.hour < question.ends_at)
    for column, wanted in (
        (_rollup.c.tenant_id, question.tenant_id),
        (_rollup.c.service_id, question.service_id),
        (_rollup.c.key_id, question.key_id),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return query


def _items(connection: Connection, question: Question, lines: dict[tuple[int, ...], Sums]) -> list[dict[str, Any]]:
    named = [
        (name, DIMENSIONS[name].names(connection, {group[position] for group in lines}))
        for position, name in enumerate(question.by)
    ]
    items = []
    for group, sums in lines.items():
        item: dict[str, Any] = {
            name: name_of(names, number) for (name, names), number in zip(named, group, strict=False)
        }
        if question.interval is not None:
            item["time"] = format_time(group[-1])
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
