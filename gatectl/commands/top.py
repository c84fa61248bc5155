"""`gatectl top`: what is going on now, on a live screen; once, or a line a second, for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import typer

from gatectl.grammar import Call, argument, verb_command
from gatectl.kinds import Object
from gatectl.output import Column
from gatectl.times import parse_duration

_RATES = (
    Column("requests_s", "number"),
    Column("errors_ratio", "ratio"),
    Column("refused_ratio", "ratio"),
    Column("p50_ms", "number"),
    Column("p99_ms", "number"),
    Column("in_flight", "number"),
)
_BYTES = (Column("bytes_in_s", "number", wide=True), Column("bytes_out_s", "number", wide=True))
COLUMNS: dict[str, Sequence[Column]] = {
    "services": (
        Column("service"),
        Column("tenant", wide=True),
        *_RATES,
        *_BYTES,
        Column("targets", "number"),
        Column("targets_ill", "number"),
    ),
    "keys": (
        Column("key"),
        Column("name"),
        Column("tenant", wide=True),
        *_RATES,
        *_BYTES,
        Column("pressure", "ratio"),
        Column("limit"),
    ),
    "targets": (
        Column("service"),
        Column("tenant", wide=True),
        Column("url"),
        Column("state", "status"),
        Column("requests_s", "number"),
        Column("errors_ratio", "ratio"),
        Column("p50_ms", "number"),
        Column("p99_ms", "number"),
        Column("in_flight", "number"),
        Column("error", wide=True),
    ),
}
_SORTS = Literal["requests", "errors", "refused", "p50", "p99", "in-flight", "pressure", "state", "name"]
_LONGEST_EVERY_S = 60


def top(
    call: Call,
    view: Annotated[
        Literal["services", "keys", "targets"], typer.Option("--view", help="What to begin with.")
    ] = "services",
    sort: Annotated[_SORTS, typer.Option("--sort", help="What to begin to sort by.")] = "requests",
    filter_: Annotated[str, typer.Option("--filter", metavar="TEXT", help="Only rows with this in a name.")] = "",
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="How often to look, 1s to 60s.")] = "1s",
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long to wait for a gateway that went away.")
    ] = "30s",
    once: Annotated[bool, typer.Option("--once", help="One table, and the end; so in a pipe.")] = False,
) -> None:
    """Show what is going on now: services, keys, targets.

    Figures of the last ten seconds, anew each second, of every tenant or that of --tenant. Keys: 1 2 3 choose a view, s
    sorts, / filters, p pauses, ? explains, q leaves. In a pipe one table; with -o ndjson a line a second.
    """
    with argument("--every"):
        every_s = _whole_seconds(every)
    with argument("--wait"):
        wait_s = parse_duration(wait)
    from gatectl.top.state import State

    printer = call.printer
    query = {**call.in_tenant, "every_s": every_s}
    state = State(view=view, sort=sort, filter=filter_)
    if not once and printer.form == "ndjson":
        printer.live(_pages(call.gateway.blocks("/v1/top", query, None)), COLUMNS[view], lambda _: "")
        return
    if once or not printer.terminal or printer.asked or printer.quiet or os.environ.get("TERM") == "dumb":
        _once(call, query, state)
        return
    from gatectl.top import running

    running.run(call.gateway, query, state, wait_s)


def _whole_seconds(text: str) -> int:
    seconds = parse_duration(text)
    if not 1 <= seconds <= _LONGEST_EVERY_S or seconds != int(seconds):
        raise ValueError(f"must be a whole number of seconds from 1 to {_LONGEST_EVERY_S}")
    return int(seconds)


def _pages(blocks: Iterator[bytes]) -> Iterator[Sequence[Object]]:
    for block in blocks:
        yield [json.loads(line) for line in block.splitlines()]


def _once(call: Call, query: dict[str, Any], state: Any) -> None:
    from dataclasses import replace

    picture = call.gateway.get("/v1/top", {**query, "once": "true"})
    printer = call.printer
    if printer.form in ("json", "ndjson") and not call.shared.columns:
        printer.one(picture, COLUMNS[state.view])
        return
    state = replace(state, picture=picture)
    if printer.for_people and printer.terminal:
        _draw(state)
    else:
        printer.many([state.rows()], COLUMNS[state.view])


def _draw(state: Any) -> None:
    """As the screen has it, which fits any width."""
    import shutil
    import sys

    from gatectl.top import screen

    width = shutil.get_terminal_size().columns
    utf8 = "utf" in (sys.stdout.encoding or "").lower()
    colours = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    for line in screen.once(state, width, utf8):
        sys.stdout.write((screen.styled(line, width, True) if colours else screen.plain(line, width).rstrip()) + "\n")


command = verb_command("top", top, ["gatectl top --view keys --sort pressure", "gatectl top -t acme --once -o json"])
