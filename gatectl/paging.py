"""Long lists: how much of one is asked for, and the pages it comes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from gatectl.grammar import Call
from gatectl.kinds import Object
from gatectl.output import Column

PAGE = 1000  # the most that the gateway gives at once

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")]
After = Annotated[str | None, typer.Option("--after", metavar="CURSOR", help="Go on where a list was cut.")]
All = Annotated[bool, typer.Option("--all", help="All of them, however many.")]


class Paging:
    """Pages of a list, until enough were seen; then `next` is where to go on, or None when nothing is left.

    The first page is fetched at once: a failure comes before the line with the columns' names is written.
    """

    def __init__(self, call: Call, path: str, query: dict[str, Any], limit: int | None) -> None:
        self._gateway = call.gateway
        self._path = path
        self._query = query
        self._left = limit
        self.next: str | None = query.get("after")
        self._first = self._fetch()

    def __iter__(self) -> Iterator[Sequence[Object]]:
        page = self._first
        while True:
            yield page
            if self.next is None or not page or self._left == 0:
                return
            page = self._fetch()

    def _fetch(self) -> Sequence[Object]:
        size = PAGE if self._left is None else min(self._left, PAGE)
        answer = self._gateway.get(self._path, {**self._query, "limit": size, "after": self.next})
        items: Sequence[Object] = answer["items"]
        self.next = answer.get("next")
        if self._left is not None:
            self._left = max(self._left - len(items), 0)
        return items


def show_list(
    call: Call, path: str, columns: Sequence[Column], limit: int, after: str | None, every: bool, **query: Any
) -> None:
    """Write a list as far as it was asked for, and say where it goes on."""
    pages = Paging(call, path, {**call.in_tenant, **query, "after": after}, None if every else limit)
    printer = call.printer
    printer.many(pages, columns)
    if pages.next is not None:
        printer.warn(f"there are more; go on with --after {pages.next}, or take --all")
