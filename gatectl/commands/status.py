"""`gatectl status`: how the gateway is. Exit 9 when it is degraded, so that a probe needs no parsing."""

from typing import Any

import typer

from gatectl.errors import DEGRADED
from gatectl.grammar import Call, verb_command
from gatectl.output import Column

COLUMNS = (
    Column("state", "status"),
    Column("version"),
    Column("started_at", "time"),
    Column("url"),
    Column("state_dir"),
    Column("serving"),
    Column("journal.segments", "number"),
    Column("journal.torn", "number"),
    Column("journal.full"),
    Column("database.schema"),
    Column("database.bytes", "size"),
    Column("tenants", "number"),
    Column("services", "number"),
    Column("keys", "number"),
    Column("problems", "lines"),
)
WORKER_COLUMNS = (
    Column("slot"),
    Column("pid"),
    Column("state", "status"),
    Column("requests", "number"),
    Column("in_flight", "number"),
    Column("connections", "number"),
    Column("cached_keys", "number"),
)


def status(call: Call) -> None:
    """Show how the gateway is: workers, journal, database, problems.

    Exits with 9 when it is degraded.
    """
    answer = call.gateway.get("/v1/status")
    printer = call.printer
    if not printer.whole(answer):
        columns = COLUMNS if call.destination.local else (Column("gateway"), *COLUMNS)
        shown = {**answer, "gateway": call.destination.shown, "serving": _serving(answer["workers"])}
        printer.one(shown, columns)
        if printer.terminal and not printer.asked and not printer.quiet and not call.shared.columns:
            printer.text("")
            printer.many([answer["workers"]], WORKER_COLUMNS)
    if answer["state"] != "ok":
        raise typer.Exit(DEGRADED)


def _serving(workers: list[dict[str, Any]]) -> str:
    serving = sum(worker["state"] == "serving" for worker in workers)
    return f"{serving} of {len(workers)} workers"


command = verb_command("status", status, ["gatectl status", "gatectl status -o json"])
