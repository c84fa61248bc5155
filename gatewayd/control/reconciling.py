"""`usage verify`: everything that was counted twice is compared. Reads only.

    journal   records of segments that are still there   = what ingest noted for the segment
    rollup    rollups of a cycle and day                  = the control total of the day
    day       the hours of a day                          = the day that was rolled of them
    quota     what the lessor and the hours say of a key  = its units on the rollups of the month
    invoice   what the ledger bills of a closed cycle     = its rollups

Each difference is named, with what is expected (the left, or what is nearer to the records) and what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from gatewayd.control.batches import DAY_S, group_of
from gatewayd.control.charging import usage_of
from gatewayd.control.cycles import cycle_by_id
from gatewayd.control.history import DAYS_FROM, HOURS_FROM, ROLLED_UNTIL, Part, parts, progress
from gatewayd.control.prices import all_terms
from gatewayd.control.rollups import Counts, counts_of, total_of
from gatewayd.control.segments import TAKEN_FOLDER
from gatewayd.control.tables import Cycle, LedgerEntry, Rollup, RollupDay, Segment, Tally
from gatewayd.control.usage import key_names, name_of, service_names
from gatewayd.policy.amounts import format_time
from gatewayd.policy.buckets import month_of
from gatewayd.records import SLOT_BYTES, unpack_records

_hours, _days = Rollup.__table__, RollupDay.__table__  # type: ignore[attr-defined]
_tally, _segment = Tally.__table__, Segment.__table__  # type: ignore[attr-defined]
_cycle, _ledger = Cycle.__table__, LedgerEntry.__table__  # type: ignore[attr-defined]
_TALLIED = ("requests", "billable", "refused", "units", "bytes_in", "bytes_out")
_OF_SEGMENT = ("requests", "billable", "refused", "units")
_INVOICED = ("requests", "units", "bytes")


class Recorded(NamedTuple):
    """What the lessor says of a key's quota."""

    month_start_s: float
    units: int


class Difference(NamedTuple):
    what: str
    where: str
    expected: int
    found: int
    detail: str


Table = Mapping[tuple[Any, ...], tuple[int, ...]]


class Reconciliation:
    """One tenant's, at one moment: all reads are of one connection, and `recorded` is of the moment it began."""

    def __init__(self, connection: Connection, tenant_id: int, journals: Path, now: float) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._journals = journals
        self._now = now
        self._progress = progress(connection)
        self._periods = {
            row.id: row
            for row in connection.execute(select(_cycle).where(_cycle.c.tenant_id == tenant_id).order_by(_cycle.c.id))
        }
        self._checked = dict.fromkeys(("segments", "days", "keys", "invoices"), 0)
        self._differences: list[Difference] = []

    def run(self, recorded: Mapping[int, Recorded]) -> dict[str, Any]:
        """The answer of `GET /v1/usage/verify`."""
        self._journal()
        self._rollups()
        self._rolled()
        self._quotas(recorded)
        self._invoices()
        differences = [each._asdict() for each in self._differences]
        return {"ok": not differences, "checked": self._checked, "differences": differences}

    def _compare(
        self, what: str, names: Iterable[str], expected: tuple[int, ...], found: tuple[int, ...], where: str
    ) -> None:
        for name, wanted, there in zip(names, expected, found, strict=True):
            if wanted != there:
                self._differences.append(Difference(what, where, wanted, there, f"{name} differ by {there - wanted}"))

    def _journal(self) -> None:
        """Segments are of all tenants."""
        terms = all_terms(self._connection)
        for row in self._connection.execute(select(_segment).order_by(_segment.c.name)):
            data = self._read(row.name, row.position_bytes)
            if data is None:
                continue
            counts = [Counts()]
            offset = SLOT_BYTES
            while offset < len(data):  # past each that is torn
                records, taken = unpack_records(data[offset:])
                counts += [counts_of(group_of(each), terms.get(each.price)) for each in records]
                offset += taken + SLOT_BYTES
            total = total_of(counts)
            expected = (total.requests, total.billable, total.refused, total.units)
            self._checked["segments"] += 1
            self._compare("journal", _OF_SEGMENT, expected, tuple(row[-4:]), row.name)

    def _read(self, name: str, end: int) -> bytes | None:
        """A segment up to there; None when it is gone."""
        for path in (self._journals / name, self._journals / TAKEN_FOLDER / name):
            try:
                with path.open("rb") as file:
                    return file.read(end)
            except FileNotFoundError:
                continue
        return None

    def _rollups(self) -> None:
        query = select(_tally.c.cycle_id, _tally.c.day, *(_tally.c[name] for name in _TALLIED)).where(
            _tally.c.cycle_id.in_(select(_cycle.c.id).where(_cycle.c.tenant_id == self._tenant_id))
        )
        tallies = {(row[0], row[1]): tuple(row[2:]) for row in self._connection.execute(query)}
        sums: dict[tuple[Any, ...], tuple[int, ...]] = {}
        rolled_until = self._progress.get(ROLLED_UNTIL, 0)
        for part in self._all_parts():
            for row in self._by_day(part, ("cycle_id",), _TALLIED):
                if (part.table is _days) == (row[1] < rolled_until):
                    sums[row[0], row[1]] = tuple(row[2:])
        none = (0,) * len(_TALLIED)
        for cycle_id, day in sorted(tallies.keys() | sums.keys()):
            if not self._is_removed(cycle_id, day, DAYS_FROM):
                self._checked["days"] += 1
                expected, found = tallies.get((cycle_id, day), none), sums.get((cycle_id, day), none)
                self._compare("rollup", _TALLIED, expected, found, self._day_of(cycle_id, day))

    def _rolled(self) -> None:
        """By key, service and price too: what was moved from one to another is in no total."""
        hours_from, rolled_until = self._progress.get(HOURS_FROM, 0), self._progress.get(ROLLED_UNTIL, 0)
        names = (*_TALLIED, "billable_units", "billable_bytes")
        tables: list[Table] = []
        for part in self._all_parts():
            rows = self._by_day(part, ("cycle_id", "service_id", "key_id", "price_id"), names)
            tables.append({tuple(row[:5]): tuple(row[5:]) for row in rows if hours_from <= row[4] < rolled_until})
        hours, days = tables
        wrong = sorted(of for of in hours.keys() | days.keys() if hours.get(of) != days.get(of))
        keys = key_names(self._connection, {of[2] for of in wrong})
        services = service_names(self._connection, {of[1] for of in wrong})
        none = (0,) * len(names)
        for of in wrong:
            if not self._is_removed(of[0], of[4], HOURS_FROM):
                where = f"{self._day_of(of[0], of[4])}, {name_of(services, of[1])}, {name_of(keys, of[2])}"
                self._compare("day", names, hours.get(of, none), days.get(of, none), where)

    def _quotas(self, recorded: Mapping[int, Recorded]) -> None:
        start, end = (int(bound) for bound in month_of(self._now))
        of_month: dict[int, int] = {}
        for part in parts(self._connection, start, end):
            for key_id, units in self._units_by_key(part):
                of_month[key_id] = of_month.get(key_id, 0) + units
        of_hours = {
            key_id: units
            for part in parts(self._connection, start, end, by_hour=True)
            for key_id, units in self._units_by_key(part)
        }
        names = key_names(self._connection, of_month.keys() | of_hours.keys())
        for key_id in sorted(set(names)):
            self._checked["keys"] += 1
            expected = of_month.get(key_id, 0)
            self._compare("quota", ("units of the month",), (expected,), (of_hours.get(key_id, 0),), names[key_id])
            told = recorded.get(key_id)
            if told is not None and told.month_start_s == start:
                self._compare("quota", ("units counted for limits",), (expected,), (told.units,), names[key_id])

    def _invoices(self) -> None:
        services = service_names(
            self._connection, self._connection.execute(select(_ledger.c.service_id).distinct()).scalars()
        )
        for cycle in self._periods.values():
            if cycle.closed_at is None or self._is_removed(cycle.id, cycle.starts_at, DAYS_FROM):
                continue
            query = select(
                _ledger.c.key_id, _ledger.c.service_id, _ledger.c.price_id,
                func.sum(_ledger.c.requests), func.sum(_ledger.c.units), func.sum(_ledger.c.size_bytes),
            ).where(_ledger.c.cycle_id == cycle.id, _ledger.c.kind == "usage")  # fmt: skip
            grouped = query.group_by(_ledger.c.key_id, _ledger.c.service_id, _ledger.c.price_id)
            billed = {tuple(row[:3]): tuple(row[3:]) for row in self._connection.execute(grouped)}
            used = {each[:3]: each[4:7] for each in usage_of(self._connection, cycle_by_id(self._connection, cycle.id))}
            keys = key_names(self._connection, {of[0] for of in billed.keys() | used.keys()})
            self._checked["invoices"] += 1
            none = (0, 0, 0)
            for of in sorted(billed.keys() | used.keys(), key=lambda of: (of[1], of[0], of[2])):
                where = f"{cycle.period}, {name_of(services, of[1])}, {name_of(keys, of[0])}"
                self._compare("invoice", _INVOICED, billed.get(of, none), used.get(of, none), where)

    # Parts.

    def _all_parts(self) -> list[Part]:
        """Both tables whole, hours first."""
        return [
            Part(_hours, _hours.c.hour, _hours.c.tenant_id == self._tenant_id),
            Part(_days, _days.c.day, _days.c.tenant_id == self._tenant_id),
        ]

    def _by_day(self, part: Part, groups: tuple[str, ...], sums: tuple[str, ...]) -> Iterable[Any]:
        """Groups, the day, sums."""
        columns = [*(part.table.c[name] for name in groups), part.moment - part.moment % DAY_S]
        query = select(*columns, *(func.sum(part.table.c[name]) for name in sums)).where(part.within)
        return self._connection.execute(query.group_by(*columns))

    def _units_by_key(self, part: Part) -> Iterable[Any]:
        own = part.table.c
        query = select(own.key_id, func.sum(own.units)).where(part.within, own.tenant_id == self._tenant_id)
        return self._connection.execute(query.group_by(own.key_id))

    def _is_removed(self, cycle_id: int, day: int, name: str) -> bool:
        """Rows of this day may have been, as old and billed."""
        cycle = self._periods.get(cycle_id)
        return day < self._progress.get(name, 0) and cycle is not None and cycle.closed_at is not None

    def _day_of(self, cycle_id: int, day: int) -> str:
        cycle = self._periods.get(cycle_id)
        return f"{format_time(day)[:10]} of {cycle.period if cycle else f'cycle {cycle_id}, which is not there'}"
