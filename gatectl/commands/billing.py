"""`gatectl billing`: what it costs, this month or any other."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from gatectl.grammar import Call, argument, noun
from gatectl.output import Column
from gatectl.times import parse_period

COLUMNS = (
    Column("service"),
    Column("key"),
    Column("requests", "number"),
    Column("price", "money"),
    Column("cost", "money"),
)
KEY_COLUMNS = (
    Column("key"),
    Column("name"),
    Column("plan"),
    Column("requests", "number"),
    Column("cost", "money"),
)

Period = Annotated[
    str | None,
    typer.Option("--period", metavar="MONTH", help="2026-09 or last-month.  [default: this-month]"),
]


def show(call: Call, period: Period = None) -> None:
    """Show the bill of a month, a line for each service, key and price."""
    _show(call, "/v1/billing", COLUMNS, period)


def keys(call: Call, period: Period = None) -> None:
    """Show what each key costs in a month."""
    _show(call, "/v1/billing/keys", KEY_COLUMNS, period)


def _show(call: Call, path: str, columns: Sequence[Column], period: str | None) -> None:
    with argument("--period"):
        month = None if period is None else parse_period(period, datetime.now(UTC))
    bill = call.gateway.get(path, {**call.in_tenant, "period": month})
    printer = call.printer
    if printer.whole(bill):
        return
    state = f", {bill['state']}" if "state" in bill else ""
    printer.note(f"Bill of {bill['tenant']} for {bill['period']} in {bill['currency']}{state}\n")
    requests = sum(item["requests"] for item in bill["items"])
    printer.many([bill["items"]], columns, total={"requests": requests, "cost": bill["total"]})


command = noun(
    "billing",
    "What it costs them, this month or any other.",
    {
        "show": (show, ["gatectl billing show", "gatectl billing show --period 2026-09 -o json"]),
        "keys": (keys, ["gatectl billing keys", "gatectl billing keys --period last-month -o csv"]),
    },
)
