"""A range of time, as `--since` and `--until` give it and as the admin API reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from gatectl.errors import MisuseError
from gatectl.grammar import argument
from gatectl.times import parse_moment, rfc3339

Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="24h, 7d, today, this-month, last-month or 2026-09-01.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to here.  [default: now]")]


def span_of(since: str, until: str | None) -> dict[str, str]:
    """Half-open. Without an end it goes up to now, which is the gateway's to say."""
    now = datetime.now(UTC)
    with argument("--since"):
        start = parse_moment(since, now)
    with argument("--until"):
        end = None if until is None else parse_moment(until, now)
    if start >= (end or now):
        raise MisuseError(f"--since {since} is not before {f'--until {until}' if until else 'now'}")
    return {"since": rfc3339(start), **({"until": rfc3339(end)} if end else {})}
