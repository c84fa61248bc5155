"""`gatectl status`: how the gateway is. Exit 9 when it is degraded, so that a probe needs no parsing."""

from typing import Any

import typer

from gatectl import __version__
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
    Column("requests_s", "rate", source="now.requests_s"),
    Column("errors_ratio", "ratio", source="now.errors_ratio"),
    Column("refused_ratio", "ratio", source="now.refused_ratio"),
    Column("p50_ms", "millis", source="now.p50_ms"),
    Column("p99_ms", "millis", source="now.p99_ms"),
    Column("in_flight", "number", source="now.in_flight"),
    Column("journal.waiting_records", "number"),
    Column("journal.waiting_s", "seconds"),
    Column("journal.segments", "number"),
    Column("journal.torn", "number"),
    Column("journal.full"),
    Column("database.schema"),
    Column("database.bytes", "size"),
    Column("disk_free_bytes", "size", source="disk.free_bytes"),
    Column("certificates", "lines"),
    Column("tenants", "number"),
    Column("services", "number"),
    Column("keys", "number"),
    Column("problems", "lines"),
)
# Of no news to somebody who looks: torn records and a full journal are among the problems.
_FOR_PROGRAMS = ("journal.segments", "journal.torn", "journal.full", "problems")
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
    """Show how the gateway is, what it does now, and what is wrong.

    Figures are of the last ten seconds. Each problem has the command to type next. Exits with 9 when it is degraded.
    """
    answer = call.gateway.get("/v1/status")
    printer = call.printer
    if not printer.whole(answer):
        view = {
            **answer,
            "gateway": call.destination.shown,
            "serving": _serving(answer["workers"]),
            "certificates": _certificates(answer),
        }
        columns = COLUMNS if call.destination.local else (Column("gateway"), *COLUMNS)
        if printer.terminal and not printer.asked and not printer.quiet and not call.shared.columns:
            printer.one(view, [column for column in columns if column.field not in _FOR_PROGRAMS])
            printer.text("")
            printer.many([answer["workers"]], WORKER_COLUMNS)
            for trouble in answer.get("troubles") or [{"problem": each, "command": ""} for each in answer["problems"]]:
                printer.text(f"\n! {trouble['problem']}" + (f"\n  {trouble['command']}" if trouble["command"] else ""))
        else:
            printer.one(view, columns)
    if answer["version"] != __version__:
        printer.warn(f"this is {__version__}, and the gateway is {answer['version']}; install the same version of both")
    if answer["state"] != "ok":
        raise typer.Exit(DEGRADED)


def _serving(workers: list[dict[str, Any]]) -> str:
    serving = sum(worker["state"] == "serving" for worker in workers)
    return f"{serving} of {len(workers)} worker{'s' * (len(workers) != 1)}"


def _certificates(answer: Any) -> list[str]:
    return [
        f"{each['file']} until {each['expires_at'] or 'nobody knows when'}" for each in answer.get("certificates", ())
    ]


command = verb_command("status", status, ["gatectl status", "gatectl status -o json"])
