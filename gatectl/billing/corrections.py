"""`gatectl billing credit` and `adjust`: entries of the ledger with a reason, which the next invoice shows."""

from __future__ import annotations

from gatectl.billing.options import Amount, Period, Reason, period_named
from gatectl.grammar import Call, named_as_typed
from gatectl.output import Column

COLUMNS = (
    Column("at", "moment"),
    Column("kind"),
    Column("amount", "money"),
    Column("reason"),
    Column("author"),
    Column("period", wide=True),
    Column("id", wide=True),
)


def add(call: Call, amount: Amount, reason: Reason) -> None:
    """Take an amount off the running cycle's bill.

    It is an entry of the ledger: for ever, as is its reason. What exceeds the bill is carried to the next one.
    """
    _enter(call, "credit", amount, reason)


def list_(call: Call, period: Period = None) -> None:
    """List credits and adjustments of a billing cycle."""
    bill = call.gateway.get("/v1/billing", {**call.in_tenant, "period": period_named(period)})
    call.printer.many([[{"period": bill["period"], **each} for each in bill["credits"]]], COLUMNS)


def adjust(call: Call, amount: Amount, reason: Reason) -> None:
    """Put an amount onto the running cycle's bill, or take it off.

    With a minus it comes off. It is an entry of the ledger: for ever, as is its reason.
    """
    _enter(call, "adjustment", amount, reason)


def _enter(call: Call, kind: str, amount: str, reason: str) -> None:
    body = {"kind": kind, "amount": amount, "reason": reason}
    with named_as_typed({"amount": "AMOUNT", "reason": "--reason"}):
        call.printer.one(call.gateway.post("/v1/credits", body, call.in_tenant), COLUMNS)
