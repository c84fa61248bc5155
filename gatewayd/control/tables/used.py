"""What is taken from the journals: usage by hour and by day, and how far that has come."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary
from sqlmodel import Field, SQLModel

from gatewayd.control.tables.columns import count


class Rollup(SQLModel, table=True):
    """Usage of one hour and one combination of dimensions: what usage and every bill are summed from.

    `hour` is seconds since 1970 of the hour's start. `requests` were admitted, `billable` those that cost, with
    `billable_units` and the `billable_bytes` in and out; `refused` are beside them, counted in neither. 0 stands for
    "none" in a dimension. `latency` is a packed histogram (`policy.histogram`) of gateway and upstream time together,
    of admitted requests. The primary key's order serves "this tenant since then", which every view asks; rows lie in
    that order (WITHOUT ROWID), so an hour is read at once.
    """

    __tablename__ = "rollup"
    __table_args__ = (
        Index("rollup_by_key", "key_id", "hour"),
        {"sqlite_with_rowid": False},
    )

    tenant_id: int = Field(primary_key=True)
    hour: int = Field(sa_column=Column(Integer, primary_key=True))
    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    service_id: int = Field(primary_key=True)
    route_id: int = Field(primary_key=True)
    key_id: int = Field(primary_key=True)
    client_id: int = Field(primary_key=True)
    price_id: int = Field(primary_key=True)
    status_class: int = Field(primary_key=True)  # 2 for 2xx and so on
    requests: int = count()
    billable: int = count()
    errors: int = count()
    refused: int = count()
    units: int = count()
    bytes_in: int = count()
    bytes_out: int = count()
    latency: bytes = Field(sa_type=LargeBinary)
    billable_units: int = count(0)
    billable_bytes: int = count(0)


class RollupDay(SQLModel, table=True):
    """The same of a UTC day that is over: the sums of its hours, which may be gone (`Progress` says how far)."""

    __tablename__ = "rollup_day"
    __table_args__ = (
        Index("rollup_day_by_cycle", "cycle_id"),
        Index("rollup_day_by_key", "key_id", "day"),
        {"sqlite_with_rowid": False},
    )

    tenant_id: int = Field(primary_key=True)
    day: int = Field(sa_column=Column(Integer, primary_key=True))
    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    service_id: int = Field(primary_key=True)
    route_id: int = Field(primary_key=True)
    key_id: int = Field(primary_key=True)
    client_id: int = Field(primary_key=True)
    price_id: int = Field(primary_key=True)
    status_class: int = Field(primary_key=True)
    requests: int = count()
    billable: int = count()
    errors: int = count()
    refused: int = count()
    units: int = count()
    bytes_in: int = count()
    bytes_out: int = count()
    latency: bytes = Field(sa_type=LargeBinary)
    billable_units: int = count(0)
    billable_bytes: int = count(0)


class Tally(SQLModel, table=True):
    """Control totals: what each UTC day added to a cycle, counted from the records beside the rollups, never from them.

    Written in the transaction of the rollups and never changed by anything else, so a rollup that was lost or altered
    is found by `usage verify` without the journal, which does not last as long.
    """

    __tablename__ = "tally"
    __table_args__ = ({"sqlite_with_rowid": False},)

    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    day: int = Field(sa_column=Column(Integer, primary_key=True))
    requests: int = count()
    billable: int = count()
    refused: int = count()
    units: int = count()
    bytes_in: int = count()
    bytes_out: int = count()


class Segment(SQLModel, table=True):
    """How far each journal segment has been ingested. Moves in the same transaction as the rollups it fed.

    `requests` and the numbers after it are what was taken from it so far, to be counted again while the file is there.
    """

    __tablename__ = "segment"

    name: str = Field(primary_key=True)
    position_bytes: int
    torn: int = 0  # slots dropped because their checksum was wrong after their writer had died
    requests: int = count(0)
    billable: int = count(0)
    refused: int = count(0)
    units: int = count(0)


class Progress(SQLModel, table=True):
    """How far what goes on in the background has come.

    `rolled_until`: days before it are rolled. `hours_from`, `days_from`: rows before these may have been removed.
    """

    __tablename__ = "progress"

    name: str = Field(primary_key=True)
    value: int


class JournalLoss(SQLModel, table=True):
    """Requests that a worker has served and found no room to record (`on_full = "serve"`): nobody is billed for them.

    A worker tells its own sum for as long as it lives, so there is one row for each that ever lost any.
    """

    __tablename__ = "journal_loss"

    worker_id: bytes = Field(sa_type=LargeBinary, primary_key=True)
    requests: int = count()
