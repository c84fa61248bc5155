"""`gatectl audit`: who changed what, and when, and whether that is still what was written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gatectl import paging
from gatectl.errors import DIFFERENT, MisuseError, NotFoundError
from gatectl.grammar import Call, argument, noun
from gatectl.output import Column
from gatectl.times import parse_moment, rfc3339

COLUMNS = (
    Column("at", "time"),
    Column("actor"),
    Column("action"),
    Column("tenant"),
    Column("subject"),
    Column("id"),
    Column("before", wide=True),
    Column("after", wide=True),
    Column("sha256", wide=True),
)
# A person reads them below, as what became of what.
CARD_COLUMNS = tuple(column for column in COLUMNS if column.field not in ("before", "after"))
VERDICT_COLUMNS = (Column("ok"), Column("lines", "number"), Column("sha256"))
DIFFERENCE_COLUMNS = (Column("id"), Column("detail"), Column("expected", wide=True), Column("found", wide=True))

Moment = str | None


def list_(
    call: Call,
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="By this user, or token:NAME.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Such as key.revoke, or key for all of them.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="ID", help="Done to this: an id, as the list shows it.")
    ] = None,
    since: Annotated[
        Moment, typer.Option("--since", metavar="TIME", help="24h, 7d, today, this-month, last-month or 2026-09-01.")
    ] = None,
    until: Annotated[Moment, typer.Option("--until", metavar="TIME", help="Before that.")] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List changes, the newest first; of one tenant with --tenant."""
    now = datetime.now(UTC)
    times = {}
    for option, text in (("since", since), ("until", until)):
        with argument(f"--{option}"):
            times[option] = None if text is None else rfc3339(parse_moment(text, now))
    if times["since"] and times["until"] and times["since"] >= times["until"]:
        raise MisuseError(f"--since {times['since']} is not before --until {times['until']}")
    filters = {"actor": actor, "action": action, "subject": subject, **times}
    paging.show_list(call, "/v1/audit", COLUMNS, limit, after, every, **filters)


def show(
    call: Call, number: Annotated[int, typer.Argument(metavar="ID", min=1, help="As 'gatectl audit list' has it.")]
) -> None:
    """Show a change: what was before it, and what after."""
    # A list's cursor is the last line's id, so the one before the next is it.
    page = call.gateway.get("/v1/audit", {**call.in_tenant, "after": number + 1, "limit": 1})["items"]
    if not page or page[0]["id"] != number:
        raise NotFoundError(f"there is no change {number}", f"'{call.example('audit list')}' shows their ids")
    line, printer = page[0], call.printer
    if not printer.for_people:
        printer.one(line, COLUMNS)
        return
    printer.one(line, CARD_COLUMNS)
    changes = list(_changes(line["before"], line["after"]))
    printer.text("")
    for sign, text in changes or [(" ", "nothing that is shown has changed")]:
        printer.text(f"{sign} {text}", _MEANINGS.get(sign, ""))


def verify(
    call: Call,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="A hash noted down before: it must be that of a line."),
    ] = None,
) -> None:
    """Tell whether any line was altered, added or taken out.

    Exits with 7 when something differs. Note the newest hash down where nobody who can write the database can reach it:
    it gives away who writes all lines anew.
    """
    noted = None if sha256 is None else sha256.strip().lower()
    if noted is not None and (len(noted) != 64 or set(noted) - set("0123456789abcdef")):
        raise MisuseError(f"--sha256: {sha256!r} is no hash of 64 hexadecimal digits", "give one that verify has shown")
    answer, printer = call.gateway.get("/v1/audit/verify", {"sha256": noted}), call.printer
    found, lines = answer["differences"], f"{answer['lines']:,} line{'s' * (answer['lines'] != 1)}"
    if not printer.whole(answer) and (printer.asked or not printer.quiet):
        if found:
            printer.many([found], DIFFERENCE_COLUMNS)
        else:
            printer.one(answer, VERDICT_COLUMNS)
    if not answer["ok"]:
        printer.note(f"\nLooked at {lines}: the audit is not what was written.")
        raise typer.Exit(DIFFERENT)
    printer.note(f"\nLooked at {lines}: each is as it was written.")
    printer.note("Note the hash down elsewhere; with --sha256 it shows that nothing was written anew.")


_MEANINGS = {"-": "ill", "+": "good"}


def _changes(before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """`- status: active`, `+ status: revoked`: fields that differ, by their paths."""
    old, new = dict(_fields(before)), dict(_fields(after))
    for path in list(dict.fromkeys([*old, *new])):
        if old.get(path) != new.get(path):
            if path in old:
                yield "-", f"{path}: {old[path]}"
            if path in new:
                yield "+", f"{path}: {new[path]}"


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _fields(inner, f"{path}.{name}" if path else str(name))
    elif value is not None or path:
        yield path or "value", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


command = noun(
    "audit",
    "Who changed what, and when.",
    {
        "list": (
            list_,
            [
                "gatectl audit list --since 24h --action key",
                "gatectl audit list -t acme --actor token:ci -o ndjson --all",
            ],
        ),
        "show": (show, ["gatectl audit show 1234", "gatectl audit show 1234 -o json"]),
        "verify": (verify, ["gatectl audit verify", "gatectl audit verify --sha256 $(cat noted.sha256)"]),
    },
)
