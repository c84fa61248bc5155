"""`gatectl usage verify`: whether journal, rollups, quota counters and invoices say the same."""

from __future__ import annotations

import typer

from gatectl.errors import DIFFERENT
from gatectl.grammar import Call
from gatectl.output import Column

COLUMNS = (
    Column("what"),
    Column("where"),
    Column("expected"),
    Column("found"),
    Column("detail"),
)


def verify(call: Call) -> None:
    answer = call.gateway.get("/v1/usage/verify", call.in_tenant)
    printer = call.printer
    found = answer["differences"]
    if not printer.whole(answer) and (printer.asked or not printer.quiet):
        if found or not printer.terminal:
            printer.many([found], COLUMNS)
        counted = ", ".join(
            f"{number:,} {name.removesuffix('s') if number == 1 else name}"
            for name, number in answer["checked"].items()
        )
        end = "they agree" if answer["ok"] else f"{len(found):,} differ"
        printer.note(("\n" if found else "") + f"Compared {counted}: {end}.")
    if not answer["ok"]:
        raise typer.Exit(DIFFERENT)
