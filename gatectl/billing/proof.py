"""`gatectl billing verify` and `replay`: the ledger is asked again what an invoice has to be."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated

import typer

from gatectl.billing.exporting import canonical, deliver
from gatectl.billing.options import Number
from gatectl.client import path_of
from gatectl.errors import DIFFERENT, GatectlError
from gatectl.grammar import Call
from gatectl.kinds import Object
from gatectl.output import Column

COLUMNS = (
    Column("invoice"),
    Column("what"),
    Column("line"),
    Column("expected"),
    Column("found"),
    Column("detail"),
)
REPLAY_COLUMNS = (
    Column("number"),
    Column("same"),
    Column("sha256"),
    Column("recomputed_sha256"),
)


def verify(call: Call) -> None:
    """Compute every invoice again from the ledger, and compare.

    Those of all tenants, or with --tenant of one. Exit code 7 if something differs: a body, a hash, the chain from
    each invoice to the one before, a number, or the ledger from recorded usage.
    """
    answer, printer = call.gateway.get("/v1/billing/verify", call.in_tenant), call.printer
    differences = answer["differences"]
    if not printer.whole(answer):
        if printer.for_people:
            compared = f"Invoices computed again: {answer['invoices']:,}; differences: {len(differences):,}"
            printer.text(compared + ("\n" if differences else ""))
        if differences or not printer.for_people:
            printer.many([differences], COLUMNS)
    if not answer["ok"]:
        raise typer.Exit(DIFFERENT)


def replay(
    call: Call,
    invoice: Number,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write the invoice as it was computed again here.")
    ] = None,
) -> None:
    """Compute an invoice again from the ledger, byte by byte.

    Exit code 7 if the bytes are others than those that were issued.
    """
    answer = call.gateway.get(f"{path_of('invoices', invoice)}/replay", call.in_tenant)
    if out is not None:
        if answer["body"] is None:
            what = f"the ledger has no entry that closes the cycle of invoice {answer['number']}"
            raise GatectlError(what, f"see '{call.example('billing verify')}'")
        content = canonical(answer["body"])
        if sha256(content).hexdigest() != answer["recomputed_sha256"]:
            raise GatectlError(
                "what the gateway computed is not what it hashed", "is its version the same as 'gatectl --version'?"
            )
        deliver(call, content, out)
    printer = call.printer
    if printer.for_people:
        _tell(call, answer)
    elif not printer.whole(answer):
        printer.one(answer, REPLAY_COLUMNS)
    if not answer["same"]:
        raise typer.Exit(DIFFERENT)


def _tell(call: Call, answer: Object) -> None:
    same = answer["same"]
    found = "the same bytes" if same else f"other bytes; see '{call.example('billing verify')}'"
    call.printer.text(f"Invoice {answer['number']} computed again: {found}\n")
    again = [] if same else [("computed again", answer["recomputed_sha256"])]
    call.printer.pairs([("sha256", answer["sha256"]), *again])
