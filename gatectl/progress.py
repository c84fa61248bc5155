"""How far long work is: a bar on a terminal, lines elsewhere. On stderr, since stdout is for data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

_BETWEEN_LINES_S = 5.0


class Progress(Protocol):
    def show(self, doing: str, done: int, of: int | None, rows: int, unit: str = "rows") -> None:
        """`of`: None where nobody knows how much there is. `rows` are what people count, in this unit."""


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    if quiet:
        yield _Silence()
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _Lines()


def tell_interrupted(what: str) -> None:
    """For who pressed Ctrl-C while a gateway was at it: what cannot be known from here, and how to know."""
    newline = "\n" * sys.stderr.isatty()  # the terminal shows ^C
    sys.stderr.write(f"{newline}gatectl: interrupted; {what}\n")


@contextmanager
def bytes_shown(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """The same for bytes: what is being done, how many so far, and of how many."""
    with progress(quiet) as shown:
        yield lambda doing, done, of: shown.show(doing, done, of, done >> 20, "MiB")


class _Silence:
    def show(self, doing: str, done: int, of: int | None, rows: int, unit: str = "rows") -> None:
        pass


class _Lines:
    """One every few seconds, and one for each step."""

    def __init__(self) -> None:
        self._step = ""
        self._said_at = 0.0

    def show(self, doing: str, done: int, of: int | None, rows: int, unit: str = "rows") -> None:
        if doing == self._step and monotonic() - self._said_at < _BETWEEN_LINES_S:
            return
        self._step, self._said_at = doing, monotonic()
        part = f" {100 * done // of} %" if of and rows else ""
        so_far = f", {rows:,} {unit}" if rows else ""
        sys.stderr.write(f"gatectl: {doing}{part}{so_far}\n")
        sys.stderr.flush()


class _Bar:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("waiting", total=None, rows="")

    def show(self, doing: str, done: int, of: int | None, rows: int, unit: str = "rows") -> None:
        self._bars.tasks[self._task].total = of  # `update` takes None for "as before"
        self._bars.update(self._task, description=doing, completed=done, rows=f"{rows:,} {unit}" if rows else "")


@contextmanager
def _bar() -> Iterator[_Bar]:
    from rich.console import Console  # dear, and only for who looks at it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars)
