"""`gatectl billing`: what it costs, this month or any other; invoices, credits and the proof of them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gatectl import paging
from gatectl.billing import closing, corrections, invoices, proof, screen
from gatectl.billing.options import Period, period_named
from gatectl.grammar import Call, noun
from gatectl.kinds import Object
from gatectl.output import Column, Printer

COLUMNS = (
    Column("service"),
    Column("key"),
    Column("requests", "number"),
    Column("price", "money"),
    Column("cost", "money"),
    Column("kind", wide=True),
    Column("tier", "number", wide=True),
    Column("quantity", "number", wide=True),
    Column("plan", wide=True),
)
# On a terminal a bill of plain requests stays as plain as it is; one with more shows of what each line is.
DETAILED_COLUMNS = (
    Column("service"),
    Column("key"),
    Column("kind"),
    Column("tier", "number"),
    Column("quantity", "number"),
    Column("price", "money"),
    Column("cost", "money"),
    Column("requests", "number", wide=True),
    Column("plan", wide=True),
)
KEY_COLUMNS = (
    Column("key"),
    Column("name"),
    Column("plan"),
    Column("requests", "number"),
    Column("cost", "money"),
)
FORECAST_COLUMNS = (
    Column("tenant"),
    Column("period"),
    Column("currency"),
    Column("starts_at", "moment"),
    Column("as_of", "moment"),
    Column("ends_at", "moment"),
    Column("requests", "number"),
    Column("forecast_requests", "number"),
    Column("total", "money"),
    Column("forecast", "money"),
    Column("method"),
)
CYCLE_COLUMNS = (
    Column("period"),
    Column("starts_at", "moment"),
    Column("ends_at", "moment"),
    Column("state"),
    Column("invoice"),
    Column("total", "money"),
)
LEDGER_COLUMNS = (
    Column("at", "moment"),
    Column("kind"),
    Column("service"),
    Column("key"),
    Column("requests", "number"),
    Column("amount", "money"),
    Column("period", wide=True),
    Column("units", "number", wide=True),
    Column("bytes", "number", wide=True),
    Column("reason", wide=True),
    Column("author", wide=True),
    Column("id", wide=True),
)


def show(call: Call, period: Period = None) -> None:
    """Show the bill of a month, a line for each service, key and price."""
    _show(call, "/v1/billing", COLUMNS, period)


def keys(call: Call, period: Period = None) -> None:
    """Show what each key costs in a month."""
    _show(call, "/v1/billing/keys", KEY_COLUMNS, period)


def preview(call: Call, period: Period = None) -> None:
    """Show the invoice that would be, were the cycle closed now."""
    body = call.gateway.get("/v1/billing/preview", {**call.in_tenant, "period": period_named(period)})
    if not call.printer.whole(body):
        screen.show(call, {"body": body}, issued=False)


def forecast(call: Call) -> None:
    """Show what the running cycle will come to if it goes on as it went."""
    call.printer.one(call.gateway.get("/v1/billing/forecast", call.in_tenant), FORECAST_COLUMNS)


def cycles(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List billing cycles, the newest first."""
    paging.show_list(call, "/v1/billing/cycles", CYCLE_COLUMNS, limit, after, every)


def ledger(
    call: Call,
    period: Annotated[
        str | None, typer.Option("--period", metavar="MONTH", help="Of this cycle.  [default: of all]")
    ] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List the entries that a cycle's invoice is computed from."""
    paging.show_list(call, "/v1/ledger", LEDGER_COLUMNS, limit, after, every, period=period_named(period))


def _show(call: Call, path: str, columns: Sequence[Column], period: str | None) -> None:
    bill = call.gateway.get(path, {**call.in_tenant, "period": period_named(period)})
    printer = call.printer
    if printer.whole(bill):
        return
    state = f", {bill['state']}" if "state" in bill else ""
    printer.note(f"Bill of {bill['tenant']} for {bill['period']} in {bill['currency']}{state}\n")
    if columns is COLUMNS and printer.for_people and not all(_is_plain(item) for item in bill["items"]):
        columns = DETAILED_COLUMNS
    requests = sum(item["requests"] for item in bill["items"])
    total = {"requests": requests, "cost": bill.get("subtotal", bill["total"])}
    printer.many([bill["items"]], columns, total=total)
    if printer.for_people and bill.get("credits"):
        _tell_credits(printer, bill)


def _tell_credits(printer: Printer, bill: Object) -> None:
    printer.text("")
    for credit in bill["credits"]:
        printer.text(f"{credit['kind']} {credit['amount']}, {credit['reason']} ({credit['author']})")
    printer.text(f"owed {bill['total']} {bill['currency']}")


def _is_plain(item: Any) -> bool:
    return item.get("kind", "request") == "request" and not item.get("tier")


INVOICE = noun(
    "invoice",
    "List, show and export invoices.",
    {
        "list": (
            invoices.list_,
            ["gatectl billing invoice list", "gatectl billing invoice list -o csv --all"],
        ),
        "show": (
            invoices.show,
            ["gatectl billing invoice show INV-000001", "gatectl billing invoice show INV-000001 -o json"],
        ),
        "export": (
            invoices.export,
            [
                "gatectl billing invoice export INV-000001 --out november.pdf",
                "gatectl billing invoice export INV-000001 --format json | sha256sum",
            ],
        ),
    },
)
CREDIT = noun(
    "credit",
    "Add and list what comes off the bill.",
    {
        "add": (
            corrections.add,
            [
                "gatectl billing credit add 12.50 --reason 'outage of 3 November'",
                "gatectl billing credit add 5 --reason goodwill -t acme",
            ],
        ),
        "list": (
            corrections.list_,
            ["gatectl billing credit list", "gatectl billing credit list --period last-month -o csv"],
        ),
    },
)

command = noun(
    "billing",
    "What it costs them, this month or any other.",
    {
        "show": (show, ["gatectl billing show", "gatectl billing show --period 2026-09 -o json"]),
        "keys": (keys, ["gatectl billing keys", "gatectl billing keys --period last-month -o csv"]),
        "preview": (preview, ["gatectl billing preview", "gatectl billing preview --period last-month -o json"]),
        "forecast": (forecast, ["gatectl billing forecast", "gatectl billing forecast -t acme -o json"]),
        "cycles": (cycles, ["gatectl billing cycles", "gatectl billing cycles -o ndjson --all"]),
        "close": (closing.close, ["gatectl billing close --dry-run", "gatectl billing close 2026-09 -t acme --yes"]),
        "reset": (closing.reset, ["gatectl billing reset --dry-run", "gatectl billing reset -t acme --yes"]),
        "invoice": INVOICE,
        "credit": CREDIT,
        "adjust": (
            corrections.adjust,
            [
                "gatectl billing adjust 30 --reason 'support contract'",
                "gatectl billing adjust -4.20 --reason 'billed twice'",
            ],
        ),
        "ledger": (ledger, ["gatectl billing ledger", "gatectl billing ledger --period 2026-09 -o csv --all"]),
        "verify": (proof.verify, ["gatectl billing verify", "gatectl billing verify -t acme -o json"]),
        "replay": (
            proof.replay,
            ["gatectl billing replay INV-000001", "gatectl billing replay INV-000001 --out again.json"],
        ),
    },
)
