"""`gatectl doctor`: what is wrong or soon will be, and how to mend it. Exit 9 if there is anything."""

from typing import Annotated, Any

import typer

from gatectl.errors import DEGRADED
from gatectl.grammar import Call, verb_command
from gatectl.output import Column

COLUMNS = (
    Column("check"),
    Column("state", "status"),
    Column("detail"),
    Column("mend", wide=True),
)


def doctor(
    call: Call,
    acknowledge: Annotated[
        bool,
        typer.Option("--acknowledge", help="Take note of accidents that are over: torn records, lost ones, files."),
    ] = False,
) -> None:
    """Look for what is wrong, or soon will be, and how to mend it.

    Exits with 9 when a check is not ok. It looks, and changes nothing. What is over and cannot be mended, such as
    records that a power cut tore, is told until somebody has taken note of it with --acknowledge: the audit says who,
    the count stays, and one more is told again.
    """
    printer = call.printer
    printer.refuse_ids()
    told = call.gateway.get("/v1/doctor")
    if acknowledge and (seen := {name: value for name, value in told.get("past", {}).items() if value}):
        told = call.gateway.post("/v1/doctor/acknowledge", seen)
        printer.note(f"Acknowledged: {_named(seen)}.\n")
    elif acknowledge:
        printer.note("There is nothing to acknowledge.\n")
    if not printer.whole(told) and (printer.asked or not printer.quiet):
        printer.many([told["checks"]], COLUMNS)
        for found in told["checks"]:
            if found["mend"]:
                printer.note(f"\n{found['check']}: {found['mend']}")
    if told["state"] != "ok":
        raise typer.Exit(DEGRADED)


def _named(seen: dict[str, Any]) -> str:
    """What was there in all, which may have been acknowledged in part before."""
    parts = []
    if torn := seen.get("torn"):
        parts.append(f"{torn:,} torn record{'s' * (torn != 1)} in all")
    if lost := seen.get("lost"):
        parts.append(f"{lost:,} request{'s' * (lost != 1)} in all that were not recorded")
    return "; ".join([*parts, *seen.get("damaged", ())])


command = verb_command("doctor", doctor, ["gatectl doctor", "gatectl doctor -o json", "gatectl doctor --acknowledge"])
