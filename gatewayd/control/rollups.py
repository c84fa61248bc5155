"""Records summed into the rollup table, and into the billing cycle that each belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from gatewayd.control.cycles import Cycles
from gatewayd.control.prices import terms_of
from gatewayd.control.tables import Price, Rollup
from gatewayd.policy.histogram import Histogram
from gatewayd.policy.pricing import Terms, is_billable
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record

_rollup = Rollup.__table__  # type: ignore[attr-defined]
_SUMS = (
    "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out", "billable_units", "billable_bytes",
)  # fmt: skip
_REMEMBERED = 20_000  # histograms of rows in use: an hour of as many keys

_upsert = insert(_rollup)
_UPSERT = _upsert.on_conflict_do_update(
    index_elements=list(_rollup.primary_key.columns),
    set_={name: _rollup.c[name] + _upsert.excluded[name] for name in _SUMS} | {"latency": _upsert.excluded.latency},
)
_LATENCY = select(_rollup.c.latency).where(
    *(column == bindparam(column.name) for column in _rollup.primary_key.columns)
)


class _Dimensions(NamedTuple):
    """The key of a rollup row."""

    tenant_id: int
    hour: int
    cycle_id: int
    service_id: int
    route_id: int
    key_id: int
    client_id: int
    price_id: int
    status_class: int


class _Sums:
    """What a group of records adds up to. One slot per column of the table."""

    __slots__ = (*_SUMS, "latency")

    def __init__(self) -> None:
        self.requests = self.billable = self.errors = self.refused = self.units = self.bytes_in = self.bytes_out = 0
        self.billable_units = self.billable_bytes = 0
        self.latency = Histogram()

    def add(self, record: Record, price: Terms | None) -> None:
        """`price`: of the record, None where nothing costs."""
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        if record.flags & MORE_BYTES:
            return  # its request has a record of its own
        if not record.flags & ADMITTED:
            self.refused += 1
            return
        self.requests += 1
        self.units += record.units
        if record.status >= 500 or record.flags & UPSTREAM_BROKE:
            self.errors += 1
        if price is not None and is_billable(price, record.status, record.flags, record.problem):
            self.billable += 1
            self.billable_units += record.units
            self.billable_bytes += record.bytes_in + record.bytes_out
        self.latency.add(record.gateway_us + record.upstream_us)


class Rollups:
    """Adds records within the caller's transaction. Remembers the histograms of rows in use: it alone writes them."""

    def __init__(self) -> None:
        self._latencies: dict[_Dimensions, Histogram] = {}
        self._cycles = Cycles()
        self._prices: dict[int, Terms] = {}

    def forget(self) -> None:
        """The transaction was rolled back: what is remembered may never have been stored."""
        self._latencies.clear()
        self._cycles.forget()

    def add(self, session: Session, records: Iterable[Record]) -> None:
        self._cycles.begin(session)
        groups: dict[_Dimensions, _Sums] = {}
        for record in records:
            dimensions = _Dimensions(
                record.tenant,
                record.time_ns // 3_600_000_000_000 * 3600,
                self._cycles.of(session, record.tenant, record.time_ns),
                record.service,
                record.route,
                record.key,
                record.client,
                record.price,
                record.status // 100,
            )
            sums = groups.get(dimensions)
            if sums is None:
                sums = groups[dimensions] = _Sums()
            sums.add(record, self._price_of(session, record.price))
        rows = [self._row(session, dimensions, sums) for dimensions, sums in groups.items()]
        if rows:
            session.connection().execute(_UPSERT, rows)
        if len(self._latencies) > _REMEMBERED:
            self._latencies.clear()

    def _price_of(self, session: Session, price_id: int) -> Terms | None:
        """Remembered for good: a price never changes. An id without a row (a damaged record) costs nothing."""
        if price_id not in self._prices:
            if not price_id or session.get(Price, price_id) is None:
                return None
            self._prices[price_id] = terms_of(session, price_id)
        return self._prices[price_id]

    def _row(self, session: Session, dimensions: _Dimensions, sums: _Sums) -> dict[str, object]:
        row: dict[str, object] = dimensions._asdict()
        latency = self._latencies.get(dimensions)
        if latency is None:
            packed = session.connection().execute(_LATENCY, row).scalar()
            latency = self._latencies[dimensions] = Histogram.unpack(packed or b"")
        latency.merge(sums.latency)
        row |= {name: getattr(sums, name) for name in _SUMS}
        row["latency"] = latency.pack()
        return row
