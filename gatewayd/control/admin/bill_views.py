"""What the admin API shows of bills and invoices. Only described here: `control.billing` and its neighbours make it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gatewayd.control.admin.price_views import PriceView
from gatewayd.control.verification import What
from gatewayd.policy.pricing import Kind

CreditKind = Literal["credit", "adjustment"]


class BillItem(msgspec.Struct):
    """A line of a bill: a quantity at a price. Of packages, base fees and minimums `requests` is 0."""

    service: str
    key: str
    plan: str | None
    kind: Kind
    tier: int | None
    quantity: int
    requests: int
    price: str
    cost: str


class InvoiceCredit(msgspec.Struct):
    """`amount` is what it adds to the bill."""

    at: str
    kind: CreditKind
    amount: str
    reason: str
    author: str


class BillCredit(InvoiceCredit):
    id: int


class BillHead(msgspec.Struct):
    tenant: str
    period: str
    currency: str


class BillView(BillHead):
    """`invoice`: of a closed cycle, its number. `credited` is less than 0 where it comes off."""

    starts_at: str
    ends_at: str
    state: str
    invoice: str | None
    items: list[BillItem]
    credits: list[BillCredit]
    subtotal: str
    credited: str
    total: str
    carried_forward: str


class KeyBill(msgspec.Struct):
    key: str
    name: str
    plan: str | None
    requests: int
    cost: str


class KeyBills(BillHead):
    """`total` is before credits."""

    items: list[KeyBill]
    total: str


class Forecast(BillHead):
    """What the running cycle comes to, and will have come to if it goes on so."""

    as_of: str
    starts_at: str
    ends_at: str
    total: str
    forecast: str
    requests: int
    forecast_requests: int
    method: Literal["linear"]


class InvoiceTenant(msgspec.Struct):
    slug: str
    name: str
    contact: str


class InvoiceLine(msgspec.Struct):
    """`terms`: the id of its price among those of the invoice."""

    service: str
    key: str
    key_name: str
    plan: str | None
    kind: Kind
    tier: int | None
    quantity: int
    requests: int
    units: int
    bytes: int
    price: str
    amount: str
    terms: int


class InvoiceTerms(PriceView, kw_only=True):
    id: int


class InvoiceBody(msgspec.Struct):
    """What an invoice says. `number` null: it is a preview."""

    number: str | None
    tenant: InvoiceTenant
    currency: str
    time_zone: str
    period: str
    starts_at: str
    ends_at: str
    issued_at: str
    previous_sha256: str | None
    lines: list[InvoiceLine]
    credits: list[InvoiceCredit]
    subtotal: str
    credited: str
    total: str
    carried_forward: str
    terms: list[InvoiceTerms]


class InvoiceItem(msgspec.Struct):
    """`sha256`: of the body, byte by byte."""

    id: str
    number: str
    tenant: str
    period: str
    starts_at: str
    ends_at: str
    issued_at: str
    currency: str
    total: str
    sha256: str


class InvoiceView(InvoiceItem):
    body: InvoiceBody


class Replay(msgspec.Struct):
    """`same`: the ledger makes the same body, byte by byte, with the same hash. `body` null: it makes none."""

    number: str
    same: bool
    sha256: str
    recomputed_sha256: str
    body: InvoiceBody | None


class BillDifference(msgspec.Struct):
    invoice: str | None
    what: What
    line: str
    expected: Any
    found: Any
    detail: str


class BillsVerified(msgspec.Struct):
    """`invoices`: how many were made anew."""

    invoices: int
    ok: bool
    differences: list[BillDifference]
