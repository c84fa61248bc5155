"""Options that several verbs of `gatectl billing` have."""

from __future__ import annotations

from typing import Annotated

import typer

from gatectl.grammar import argument
from gatectl.times import parse_period

Period = Annotated[
    str | None,
    typer.Option("--period", metavar="MONTH", help="2026-09, 2026-09.2 or last-month.  [default: this-month]"),
]
Number = Annotated[str, typer.Argument(metavar="INVOICE", help="Its number.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the tenant's currency, such as 12.50.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it stands on the invoice.", show_default=False)
]


def period_named(text: str | None, where: str = "--period") -> str | None:
    """The period as the admin API takes it, which knows what month it is where the tenant is; None: its default."""
    with argument(where):
        return None if text is None else parse_period(text)
