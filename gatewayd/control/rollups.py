"""Records summed into the rollup tables, into control totals, and into the billing cycle that each belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Table, func
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from gatewayd.control.batches import DAY_S, Batch, Group, group_of
from gatewayd.control.cycles import Cycles
from gatewayd.control.prices import terms_of
from gatewayd.control.tables import Price, Rollup, RollupDay, Tally
from gatewayd.policy.histogram import pack_values
from gatewayd.policy.pricing import Terms, is_billable
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record

_hours, _days, _tallies = Rollup.__table__, RollupDay.__table__, Tally.__table__  # type: ignore[attr-defined]


def adding_to(table: Table) -> str:
    """The statement that adds rows, whole and in the order of the table's columns, to those that are there.

    As text: to hand rows to the driver as tuples takes a tenth of what SQLAlchemy takes for as many dicts.
    """
    statement = insert(table)
    keys = list(table.primary_key.columns)
    sums: dict[str, Any] = {
        column.name: func.merge_histograms(column, statement.excluded.latency)
        if column.name == "latency"
        else column + statement.excluded[column.name]
        for column in table.columns
        if column not in keys
    }
    return str(statement.on_conflict_do_update(index_elements=keys, set_=sums).compile(dialect=sqlite.dialect()))


_ADD_TO_HOURS, _ADD_TO_DAYS, _ADD_TO_TALLIES = adding_to(_hours), adding_to(_days), adding_to(_tallies)
_ROLLED_UNTIL = "SELECT value FROM progress WHERE name = 'rolled_until'"


class Dimensions(NamedTuple):
    """The key of a rollup row, in the order of the table."""

    tenant_id: int
    hour: int
    cycle_id: int
    service_id: int
    route_id: int
    key_id: int
    client_id: int
    price_id: int
    status_class: int


class Counts(NamedTuple):
    """What records add up to."""

    requests: int = 0
    billable: int = 0
    errors: int = 0
    refused: int = 0
    units: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    billable_units: int = 0
    billable_bytes: int = 0


_Rows = dict[Dimensions, tuple[list[Counts], list[list[int]]]]


def total_of(counts: list[Counts]) -> Counts:
    """Of at least one."""
    return counts[0] if len(counts) == 1 else Counts(*map(sum, zip(*counts, strict=True)))


class Rollups:
    """Adds records within the caller's transaction.

    To the hours; to the days too where a day is rolled already, for then nothing else would bring them there; and to
    the control totals, which are counted here and not read from any rollup.
    """

    def __init__(self) -> None:
        self._cycles = Cycles()
        self._prices: dict[int, Terms] = {}
        self.watched_day = -1  # a day that is being rolled, and the tenants of which records came meanwhile
        self.touched: set[int] = set()

    def forget(self) -> None:
        """The transaction was rolled back: what is remembered may never have been stored."""
        self._cycles.forget()

    def add(self, session: Session, records: Iterable[Record]) -> Counts:
        return self._add(session, map(group_of, records))

    def add_batch(self, session: Session, batch: Batch) -> Counts:
        """What its records add up to."""
        return self._add(session, self._within_cycles(session, batch))

    def _add(self, session: Session, groups: Iterable[Group]) -> Counts:
        self._cycles.begin(session)
        rows: _Rows = {}
        tallies: dict[tuple[int, int], list[Counts]] = {}
        for group in groups:
            cycle_id = self._cycles.of(session, group.tenant, group.first_ns)
            counts = counts_of(group, self._price_of(session, group.price))
            micros = group.micros if counts.requests else []
            dimensions = _dimensions(group, cycle_id)
            found = rows.get(dimensions)
            if found is None:
                rows[dimensions] = [counts], [micros]  # lists of groups stay whole: others read them later
            else:
                found[0].append(counts)
                found[1].append(micros)
            day = cycle_id, group.hour - group.hour % DAY_S
            if day in tallies:
                tallies[day].append(counts)
            else:
                tallies[day] = [counts]
            if day[1] == self.watched_day:
                self.touched.add(group.tenant)
        if not rows:
            return Counts()
        totals = {day: total_of(counts) for day, counts in tallies.items()}
        self._store(session, rows, totals)
        return total_of(list(totals.values()))

    def _within_cycles(self, session: Session, batch: Batch) -> Iterable[Group]:
        """A cycle may begin within an hour: records of a group that belong to two are groups of their own.

        Cycles follow each other in time: where the first and the last record have the same, all have.
        """
        self._cycles.begin(session)
        for group in batch.groups:
            first = self._cycles.of(session, group.tenant, group.first_ns)
            if group.last_ns == group.first_ns or self._cycles.of(session, group.tenant, group.last_ns) == first:
                yield group
            else:
                yield from (group_of(record) for record in batch.records() if group.is_of(record))

    def _price_of(self, session: Session, price_id: int) -> Terms | None:
        """Remembered for good: a price never changes. An id without a row (a damaged record) costs nothing."""
        if price_id not in self._prices:
            if not price_id or session.get(Price, price_id) is None:
                return None
            self._prices[price_id] = terms_of(session, price_id)
        return self._prices[price_id]

    def _store(
        self,
        session: Session,
        rows: _Rows,
        tallies: dict[tuple[int, int], Counts],
    ) -> None:
        # In the order of the table, so that neighbours are on the same page.
        ordered = [_row(dimensions, *rows[dimensions]) for dimensions in sorted(rows)]
        connection = session.connection()
        connection.exec_driver_sql(_ADD_TO_HOURS, ordered)
        connection.exec_driver_sql(
            _ADD_TO_TALLIES,
            [
                (*day, each.requests, each.billable, each.refused, each.units, each.bytes_in, each.bytes_out)
                for day, each in tallies.items()
            ],
        )
        rolled_until = connection.exec_driver_sql(_ROLLED_UNTIL).scalar() or 0
        late = [(row[0], row[1] - row[1] % DAY_S, *row[2:]) for row in ordered if row[1] < rolled_until]
        if late:
            connection.exec_driver_sql(_ADD_TO_DAYS, late)


def _dimensions(group: Group, cycle_id: int) -> Dimensions:
    return Dimensions(
        group.tenant, group.hour, cycle_id, group.service, group.route, group.key, group.client, group.price,
        group.status // 100,
    )  # fmt: skip


def counts_of(group: Group, price: Terms | None) -> Counts:
    """What a group adds up to. `price`: of these records, None where nothing costs."""
    count, flags, (units, bytes_in, bytes_out) = len(group.micros), group.flags, group[2:5]
    if flags & MORE_BYTES:  # its request has a record of its own
        return Counts(bytes_in=bytes_in, bytes_out=bytes_out)
    if not flags & ADMITTED:
        return Counts(refused=count, bytes_in=bytes_in, bytes_out=bytes_out)
    errors = count if group.status >= 500 or flags & UPSTREAM_BROKE else 0
    if price is None or not is_billable(price, group.status, flags, group.problem):
        return Counts(count, 0, errors, 0, units, bytes_in, bytes_out)
    return Counts(count, count, errors, 0, units, bytes_in, bytes_out, units, bytes_in + bytes_out)


def _row(dimensions: Dimensions, every: list[Counts], lists: list[list[int]]) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    counts = total_of(every)
    micros = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
    return (*dimensions, *counts[:7], pack_values(micros) if micros else b"", *counts[7:])
