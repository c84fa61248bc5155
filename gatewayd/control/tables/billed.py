"""Billing periods, the ledger and the invoices that close them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Text
from sqlmodel import Field, SQLModel

from gatewayd.control.tables.columns import AUTOINCREMENT


class Cycle(SQLModel, table=True):
    """A billing period of a tenant, half-open; open while `closed_at` is null. `period` is its name, e.g. 2026-09.

    A calendar month in the tenant's time zone (`policy.cycles`), or the rest of one that was closed by hand: 2026-09.2.
    """

    __tablename__ = "cycle"
    __table_args__ = (Index("cycle_period", "tenant_id", "period", unique=True), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    period: str
    starts_at: int
    ends_at: int
    closed_at: int | None = None


class LedgerEntry(SQLModel, table=True):
    """One line of everything that changes a bill. Append-only: triggers refuse UPDATE and DELETE.

    By `kind`:
      usage         what a key used of a service at a price in the cycle, written when it closes: `requests`, `units`
                    and `size_bytes` are billable ones, `first_day` is the first UTC day of it
      subscription  a key that owes the base fee or the minimum of a price for the cycle, written when it closes
      credit        `nanos` (negative) off the cycle's bill, with `reason` and `author`; adjustment: of either sign
      close         the cycle is closed by the invoice that `facts` tells of: JSON with all that its text needs, names
                    as they were
    """

    __tablename__ = "ledger"
    __table_args__ = (Index("ledger_by_cycle", "cycle_id", "id"), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    cycle_id: int = Field(foreign_key="cycle.id")
    at: int
    kind: str
    key_id: int = 0
    service_id: int = 0
    price_id: int = 0
    first_day: int = 0
    requests: int = Field(default=0, sa_type=BigInteger)
    units: int = Field(default=0, sa_type=BigInteger)
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    nanos: int = Field(default=0, sa_type=BigInteger)
    reason: str = ""
    author: str = ""
    facts: str = Field(default="{}", sa_column=Column(Text, nullable=False))


class Invoice(SQLModel, table=True):
    """A closed cycle's bill, immutable (triggers). `body` is its canonical JSON, `sha256` that of the body's UTF-8.

    `total` is the decimal string of the body, since 64 bits do not hold every sum of prices.
    Numbers are of the gateway, whose operator issues the invoices, without a gap: INV-000001.
    """

    __tablename__ = "invoice"
    __table_args__ = (Index("invoice_by_tenant", "tenant_id", "id"), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    cycle_id: int = Field(foreign_key="cycle.id", unique=True)
    issued_at: int
    total: str
    body: str = Field(sa_column=Column(Text, nullable=False))
    sha256: str


class InvoiceDay(SQLModel, table=True):
    """The SHA-256 of one UTC day's usage in a closed cycle, so that an altered rollup is found to the day."""

    __tablename__ = "invoice_day"

    invoice_id: int = Field(foreign_key="invoice.id", primary_key=True)
    day: int = Field(primary_key=True)
    sha256: str
