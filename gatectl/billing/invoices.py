"""`gatectl billing invoice`: list, show and export what was billed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from gatectl import paging
from gatectl.billing import screen
from gatectl.billing.exporting import FORMATS, deliver, format_of, verified
from gatectl.billing.options import Number
from gatectl.client import path_of
from gatectl.errors import MisuseError
from gatectl.grammar import Call
from gatectl.output import Column

COLUMNS = (
    Column("number"),
    Column("period"),
    Column("issued_at", "moment"),
    Column("total", "money"),
    Column("currency"),
    Column("tenant", wide=True),
    Column("starts_at", "time", wide=True),
    Column("ends_at", "time", wide=True),
    Column("sha256", wide=True),
)


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List invoices, the newest first."""
    paging.show_list(call, "/v1/invoices", COLUMNS, limit, after, every)


def show(call: Call, invoice: Number) -> None:
    """Show an invoice: lines, credits, prices, hash."""
    screen.show(call, call.gateway.get(path_of("invoices", invoice), call.in_tenant))


def export(
    call: Call,
    invoice: Number,
    format_: Annotated[
        Literal["pdf", "html", "csv", "json"] | None,
        typer.Option("--format", help="Of the file.  [default: by the name of FILE, else json]"),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write it here, not to stdout.")] = None,
) -> None:
    """Export an invoice as a document of its own.

    JSON is the invoice itself, byte for byte what its SHA-256 is of. PDF needs: pip install 'gatewayd[pdf]'
    """
    if call.printer.asked:
        raise MisuseError("-o is for tables; a document has a --format", f"take one of {', '.join(FORMATS)}")
    chosen = format_of(format_, out)
    path = path_of("invoices", invoice)
    facts: Any = call.gateway.get(path, call.in_tenant)
    content = verified(facts, call.gateway.fetch(f"{path}/body", call.in_tenant))
    deliver(call, FORMATS[chosen](call, facts, content), out)
