"""`gatectl usage`: who called what, how often and how fast."""

from typing import Annotated, Any, Literal

import typer

from gatectl import paging
from gatectl.client import without_secret
from gatectl.errors import MisuseError, nearest
from gatectl.grammar import Call, noun
from gatectl.kinds import hour_text
from gatectl.output import Column
from gatectl.spans import Since, Until, span_of

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
    since: Since = "24h",
    until: Until = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="A,B", help=f"{', '.join(DIMENSIONS)}.  [default: service]")
    ] = None,
    interval: Annotated[Literal["hour", "day"] | None, typer.Option("--interval", help="A line for each.")] = None,
    service: Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="Only this service.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only this key.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it too, as it suits.")] = False,
    plot_as: Annotated[
        Literal["bars", "line", "heat"] | None, typer.Option("--plot-as", help="Draw it like that.")
    ] = None,
) -> None:
    """Show usage, counted up to the moment of asking.

    Hours are counted whole: the range that was meant is widened to full hours, and said. Times are UTC.
    """
    from gatectl.usage import charts

    dimensions = _dimensions(by)
    form = charts.form_for(plot_as, interval)
    plot = plot or form is not None
    if plot and call.printer.form not in ("table", "wide", "tsv"):
        raise MisuseError(f"--plot draws below a table, not below {call.printer.form}", "leave out one of the two")
    answer = call.gateway.get("/v1/usage", _query(call, since, until, dimensions, interval, service, key))
    printer = call.printer
    if printer.whole(answer):
        return
    columns = (*([Column("time", "hour")] if interval else []), *map(Column, dimensions), *MEASURES)
    printer.note(f"Usage from {hour_text(answer['since'])} up to {hour_text(answer['until'])}\n")
    printer.many([answer["items"]], columns, total=answer["total"] if len(answer["items"]) > 1 else None)
    if plot and answer["items"]:
        printer.chart(lambda width, ink: charts.drawn(answer, dimensions, interval, form, width, ink))


def _dimensions(by: list[str] | None) -> list[str]:
    dimensions = [name.strip() for part in by or ["service"] for name in part.split(",")]
    for name in dimensions:
        if name not in DIMENSIONS:
            near = nearest(name, DIMENSIONS)
            hint = f"did you mean {near!r}?" if near else f"take some of {', '.join(DIMENSIONS)}"
            raise MisuseError(f"--by {name!r} is no dimension", hint)
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


def top(
    call: Call,
    by: Annotated[
        Literal["key", "service", "route", "client", "status", "tenant"], typer.Option("--by", help="The most by what.")
    ] = "key",
    of: Annotated[
        Literal["requests", "refused", "errors", "cost", "bytes"], typer.Option("--of", help="The most of what.")
    ] = "requests",
    limit: paging.Limit = 10,
    since: Since = "1h",
    until: Until = None,
) -> None:
    """Show the heaviest: who made the most of something, with their share.

    Hours are counted whole. Cost is as by show: where a price has tiers or an allowance, the share of what the key's
    cycle is charged.
    """
    from gatectl.usage import heaviest

    query = {**call.in_tenant, **span_of(since, until), "by": by, "of": of, "limit": min(limit, paging.PAGE)}
    heaviest.top(call, query)


def tail(
    call: Call,
    service: Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="Only of this service.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")] = None,
    client: Annotated[str | None, typer.Option("--client", metavar="NAME", help="Only from this client.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only answered so: 4xx or 404.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what the gateway refused.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors: 5xx, or broken off.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=2000, metavar="N", help="Begin with the last N, if remembered.")
    ] = 0,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Of every tenant.")] = False,
) -> None:
    """Show requests as they are counted, until Ctrl-C.

    A line a request, seconds old at most. With --refused and --errors both. Who reads more slowly than requests come is
    told how many are missing.
    """
    from gatectl.usage import tailing

    if all_tenants and call.tenant:
        raise MisuseError("--all-tenants and --tenant contradict each other", "give one of them")
    query = {
        **call.in_tenant,
        "everyone": "true" if all_tenants else None,
        "service": service,
        "key": key and without_secret(key),
        "client": client,
        "status": status,
        "refused": "true" if refused else None,
        "errors": "true" if errors else None,
        "lines": lines or None,
    }
    tailing.tail(call, query, {"status": "--status", "lines": "--lines"})


def export(
    call: Call,
    since: Since = "24h",
    until: Until = None,
    granularity: Annotated[Literal["hour", "day"], typer.Option("--granularity", help="What a row sums.")] = "hour",
    format_: Annotated[
        Literal["csv", "ndjson", "parquet"] | None,
        typer.Option("--format", help="How it is written.  [default: as --out ends, else csv]"),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Into this file, when it is whole.")] = None,
) -> None:
    """Write every row of usage, with names, to a file or stdout.

    A row for each hour (or day), service, route, key, client, status and price. All are of one moment, also where usage
    goes on. Cost is as by show: where a price has tiers or an allowance, the share of what the key's cycle is charged.
    """
    from gatectl.usage import exporting

    query = {**call.in_tenant, **span_of(since, until), "granularity": granularity}
    exporting.export(call, query, format_, out)


def verify(call: Call) -> None:
    """Compare journal, rollups, quota counters and invoices.

    The exit code is 0 where they agree, 7 where something differs.
    """
    from gatectl.usage import verifying

    verifying.verify(call)


command = noun(
    "usage",
    "Who called what, how often and how fast.",
    {
        "show": (
            show,
            [
                "gatectl usage show --since 24h --by service,key",
                "gatectl usage show --since 7d --interval hour --plot",
            ],
        ),
        "top": (
            top,
            ["gatectl usage top --by key --of refused", "gatectl usage top --by service --of cost --since this-month"],
        ),
        "export": (
            export,
            [
                "gatectl usage export --since this-month --out usage.csv",
                "gatectl usage export --since 90d --granularity day --format ndjson",
            ],
        ),
        "verify": (verify, ["gatectl usage verify", "gatectl usage verify -o json"]),
        "tail": (tail, ["gatectl usage tail --refused --lines 20", "gatectl usage tail --service orders --status 5xx"]),
    },
)
