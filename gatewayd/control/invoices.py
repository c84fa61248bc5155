"""Invoices as lists and views show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from gatewayd.control.tables import Cycle, Invoice, Tenant
from gatewayd.control.verification import made_anew
from gatewayd.policy.amounts import format_time
from gatewayd.policy.invoicing import digest

# The body of an invoice of 100,000 keys is 30 MB, and lists do without.
WITHOUT_BODY = defer(Invoice.body)  # type: ignore[arg-type]


def show_all(session: Session, invoices: Sequence[Invoice]) -> list[dict[str, Any]]:
    cycles = {
        cycle.id: cycle
        for cycle in session.exec(select(Cycle).where(col(Cycle.id).in_({i.cycle_id for i in invoices})))
    }
    shown = []
    for invoice in invoices:
        tenant, cycle = session.get_one(Tenant, invoice.tenant_id), cycles[invoice.cycle_id]
        shown.append(
            {
                "id": invoice.number,
                "number": invoice.number,
                "tenant": tenant.slug,
                "period": cycle.period,
                "starts_at": format_time(cycle.starts_at),
                "ends_at": format_time(cycle.ends_at),
                "issued_at": format_time(invoice.issued_at),
                "currency": tenant.currency,
                "total": invoice.total,
                "sha256": invoice.sha256,
            }
        )
    return shown


def show(session: Session, invoice: Invoice) -> dict[str, Any]:
    """With the body: as it is stored, byte by byte."""
    return {**show_all(session, [invoice])[0], "body": msgspec.Raw(invoice.body.encode())}


def show_replay(session: Session, invoice: Invoice) -> dict[str, Any]:
    """The body, made anew from the ledger."""
    body = made_anew(session.connection(), invoice.cycle_id)
    return {
        "number": invoice.number,
        "same": body == invoice.body.encode() and digest(body) == invoice.sha256,
        "sha256": invoice.sha256,
        "recomputed_sha256": digest(body),
        "body": msgspec.Raw(body or b"null"),
    }
