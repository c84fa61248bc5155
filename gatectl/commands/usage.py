"""`gatectl usage`: who called what, how often and how fast."""

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import typer

from gatectl import plots
from gatectl.errors import MisuseError
from gatectl.grammar import Call, noun
from gatectl.output import Column, Object, hour_text
from gatectl.spans import span_of
from gatectl.times import rfc3339

DIMENSIONS = ("service", "route", "key", "client", "status", "tenant")
MEASURES = (
    Column("requests", "number"),
    Column("billable", "number"),
    Column("errors", "number"),
    Column("refused", "number"),
    Column("units", "number", wide=True),
    Column("bytes_in", "size", wide=True),
    Column("bytes_out", "size", wide=True),
    Column("p50_ms", "number", wide=True),
    Column("p95_ms", "number"),
    Column("p99_ms", "number", wide=True),
    Column("cost", "money"),
)


def show(
    call: Call,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="24h, 7d, today, this-month or 2026-09-01.")
    ] = "24h",
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to here.  [default: now]")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="A,B", help=f"{', '.join(DIMENSIONS)}.  [default: service]")
    ] = None,
    interval: Annotated[Literal["hour", "day"] | None, typer.Option("--interval", help="A line for each.")] = None,
    service: Annotated[str | None, typer.Option("--service", metavar="NAME", help="Only this service.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only this key.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it too.")] = False,
) -> None:
    """Show usage, counted up to the moment of asking.

    Hours are counted whole: the range that was meant is widened to full hours, and said. Times are UTC.
    """
    dimensions = _dimensions(by)
    answer = call.gateway.get("/v1/usage", _query(call, since, until, dimensions, interval, service, key))
    printer = call.printer
    if plot and printer.form not in ("table", "wide", "tsv"):
        raise MisuseError(f"--plot draws below a table, not below {printer.form}", "leave out one of the two")
    if printer.whole(answer):
        return
    columns = (*([Column("time", "hour")] if interval else []), *map(Column, dimensions), *MEASURES)
    printer.note(f"Usage from {hour_text(answer['since'])} up to {hour_text(answer['until'])}\n")
    printer.many([answer["items"]], columns, total=answer["total"] if len(answer["items"]) > 1 else None)
    if plot and answer["items"]:
        width = shutil.get_terminal_size().columns
        sys.stdout.write("\n" + drawn(answer["items"], dimensions, interval, width))


def _dimensions(by: list[str] | None) -> list[str]:
    dimensions = [name.strip() for part in by or ["service"] for name in part.split(",")]
    for name in dimensions:
        if name not in DIMENSIONS:
            raise MisuseError(f"--by {name!r} is no dimension", f"take some of {', '.join(DIMENSIONS)}")
    return list(dict.fromkeys(dimensions))


def _query(
    call: Call,
    since: str,
    until: str | None,
    dimensions: list[str],
    interval: str | None,
    service: str | None,
    key: str | None,
) -> dict[str, Any]:
    return {
        **call.in_tenant,
        **span_of(since, until),
        "by": ",".join(dimensions),
        "interval": interval,
        "service": service,
        "key": key,
    }


def drawn(items: Sequence[Object], dimensions: Sequence[str], interval: str | None, width: int) -> str:
    """Requests as bars, a group each; or, by interval, as courses over time."""

    def label(item: Object) -> str:
        return " ".join(str(item[name]) for name in dimensions)

    if interval is None:
        return "requests\n" + plots.bars([(label(item), item["requests"]) for item in items], width)
    moments = _moments({str(item["time"]) for item in items}, interval)
    by_group: dict[str, dict[str, float]] = {}
    for item in items:
        by_group.setdefault(label(item), {})[str(item["time"])] = item["requests"]
    rows = [(name, [counts.get(moment, 0) for moment in moments]) for name, counts in by_group.items()]
    return f"requests per {interval}\n" + plots.courses(rows, hour_text(moments[0]), hour_text(moments[-1]), width)


def _moments(used: set[str], interval: str) -> list[str]:
    """From the first to the last, also those in which nothing was: a course over time has no gaps."""
    step = timedelta(**{f"{interval}s": 1})
    first, last = (datetime.fromisoformat(moment) for moment in (min(used), max(used)))
    return [rfc3339(first + step * number) for number in range((last - first) // step + 1)]


command = noun(
    "usage",
    "Who called what, how often and how fast.",
    {
        "show": (
            show,
            [
                "gatectl usage show --since 24h --by service,key",
                "gatectl usage show --since 7d --interval day --plot",
            ],
        ),
    },
)
