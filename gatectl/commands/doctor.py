"""`gatectl doctor`: what is wrong or soon will be, and how to mend it. Exit 9 if there is anything."""

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


def doctor(call: Call) -> None:
    """Look for what is wrong, or soon will be, and how to mend it.

    Exits with 9 when a check is not ok. It looks, and changes nothing.
    """
    told = call.gateway.get("/v1/doctor")
    printer = call.printer
    if not printer.whole(told):
        printer.many([told["checks"]], COLUMNS)
        for found in told["checks"]:
            if found["mend"]:
                printer.note(f"\n{found['check']}: {found['mend']}")
    if told["state"] != "ok":
        raise typer.Exit(DEGRADED)


command = verb_command("doctor", doctor, ["gatectl doctor", "gatectl doctor -o json"])
