"""An invoice on a terminal, and its lines for programs."""

from __future__ import annotations

from gatectl.billing.paper import Credit, Line, Paper, paper
from gatectl.grammar import Call
from gatectl.kinds import Object
from gatectl.output import Column

LINE_COLUMNS = (
    Column("service"),
    Column("key"),
    Column("key_name"),
    Column("plan"),
    Column("kind"),
    Column("tier", "number"),
    Column("quantity", "number"),
    Column("requests", "number"),
    Column("units", "number"),
    Column("bytes", "number"),
    Column("price", "money"),
    Column("amount", "money"),
)
# On paper a number is text already; a right-hand column is what is left of its kind.
_LINES = tuple(Column(name, "money" if name in ("quantity", "price", "amount") else "text") for name in Line._fields)
_CREDITS = tuple(Column(name, "money" if name == "amount" else "text") for name in Credit._fields)
_BLANK = " "  # nothing belongs here, not even the dash that says "none"


def show(call: Call, answer: Object, *, issued: bool = True) -> None:
    """Write an invoice as the gateway told it, in the form that was asked for.

    One that is not `issued` is only what would be: its number and hash may be another's in the end.
    """
    printer, body = call.printer, answer["body"]
    if printer.whole(answer):
        return
    if printer.for_people:
        _read(call, paper(body, answer["sha256"] if issued else None))
    elif printer.form == "id":
        printer.one(answer, ())
    else:
        printer.many([body["lines"]], LINE_COLUMNS)


def _read(call: Call, written: Paper) -> None:
    printer = call.printer
    printer.text(f"{written.title}\n")
    printer.pairs(written.head)
    printer.text("")
    *sums, (_, total) = written.sums
    rows = [line._asdict() for line in written.lines]
    rows += [{**dict.fromkeys(Line._fields, _BLANK), "service": label, "amount": amount} for label, amount in sums]
    if rows:
        printer.many([rows], _LINES, total={"amount": total})
    else:
        printer.text(f"Nothing was used.\n\ntotal  {total}")
    if written.credits:
        printer.text("\nCredits and adjustments\n")
        printer.many([[credit._asdict() for credit in written.credits]], _CREDITS)
    if written.terms:
        printer.text("\nPrices\n")
        printer.pairs(written.terms)
    if written.foot:
        printer.text("")
        printer.pairs(written.foot)
