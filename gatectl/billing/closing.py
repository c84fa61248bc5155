"""`gatectl billing close` and `reset`: an invoice is for ever, so the tenant's name has to be typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gatectl import consent
from gatectl.billing import screen
from gatectl.billing.options import period_named
from gatectl.errors import RejectedError
from gatectl.grammar import Call, named_as_typed


def close(
    call: Call,
    period: Annotated[
        str | None,
        typer.Argument(metavar="[PERIOD]", help="2026-09 or last-month.  [default: the oldest that is over and open]"),
    ] = None,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Close a billing cycle and write its invoice, for ever.

    At a terminal the tenant's name has to be typed. What comes late for it is billed in the cycle after it.
    """
    named = period_named(period, "PERIOD")
    _end(call, "close", {} if named is None else {"period": named}, yes=yes, dry_run=dry_run)


def reset(call: Call, yes: consent.Yes = False, dry_run: consent.DryRun = False) -> None:
    """End the running cycle now, write its invoice, and begin a new one.

    At a terminal the tenant's name has to be typed. Quotas stay; see 'gatectl quota reset'.
    """
    _end(call, "reset", {}, yes=yes, dry_run=dry_run)


@contextmanager
def _told(call: Call) -> Iterator[None]:
    try:
        with named_as_typed({"period": "PERIOD"}):
            yield
    except RejectedError as error:
        if error.code == "conflict":
            error.hint = f"see '{call.example('billing cycles')}'"
        raise


def _end(call: Call, verb: str, body: dict[str, Any], *, yes: bool, dry_run: bool) -> None:
    path = f"/v1/billing/{verb}"
    with _told(call):
        if dry_run or not yes:
            would_be = call.gateway.post(path, body, {**call.in_tenant, "dry_run": "true"})
            if dry_run:
                screen.show(call, would_be, issued=False)
                return
            invoice = would_be["body"]
            tenant, owed = invoice["tenant"]["slug"], f"{invoice['total']} {invoice['currency']}"
            consent.ask(f"{verb} cycle {invoice['period']} of tenant {tenant} with an invoice of {owed}", name=tenant)
            if verb == "close":
                body = {"period": invoice["period"]}  # what was looked at, and nothing else
        issued = call.gateway.post(path, body, call.in_tenant)
    screen.show(call, issued)
    number = issued["number"]
    call.printer.note(f"\nNext: {call.example(f'billing invoice export {number} --out {number}.pdf')}")
