"""Tables on a terminal, drawn with rich: folded to its width rather than cut, coloured where it has colours.

Importing this module costs 5 times `python -c pass`, so `output` does it when a table is asked for and never before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatectl.output import KINDS, Column, Object, Pages, View, human

# Status words that want an eye; every other word is left in the terminal's own colour, which suits light and dark.
STYLES: Mapping[str, str] = {
    "active": "green", "ok": "green", "serving": "green", "revoked": "red", "expired": "yellow", "degraded": "red",
    "gone": "red", "suspended": "red", "pass": "green", "refuse": "red", "fail": "red",
    "warning": "yellow", "failed": "red", "failing": "yellow", "disabled": "red",
}  # fmt: skip
_NO_TERMINAL_WIDTH = 10_000  # `-o table` into a file: as wide as it is
_GAP = 2
_NARROWEST = 16  # a column of text narrower than this is folded beyond reading


def table(pages: Pages, view: View) -> Iterator[str]:
    """Each page as a table of its own, or as cards where the terminal is too narrow; an empty list says so."""
    empty = True
    for page in pages:
        if page:
            yield ("" if empty else "\n") + _page(page, view)
            empty = False
    if empty and sys.stdout.isatty():
        yield "none\n"


def card(item: Object, view: View) -> Iterator[str]:
    """One object, a line a field."""
    yield pairs([(_label(column), _cell(column, item)) for column in view.columns], header=view.header)


def pairs(rows: Iterable[tuple[str, Text | str]], *, header: bool) -> str:
    """Labels, unless there is no `header`, and what belongs to each."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    if header:
        grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(*([Text(label)] if header else []), Text(text) if isinstance(text, str) else text)
    return _drawn(grid)


def _page(page: Sequence[Object], view: View) -> str:
    """The widest form that fits: a table, one with narrow gaps, one with folded text, a card for each object."""
    widths = [_width(column, page, view) for column in view.columns]
    room = _console().width
    gap = _GAP if sum(widths) + _GAP * (len(widths) - 1) <= room else 1
    excess = sum(widths) + gap * (len(widths) - 1) - room
    folding = [max(width - _NARROWEST, 0) if _folds(c) else 0 for c, width in zip(view.columns, widths, strict=True)]
    if excess > sum(folding):
        return "\n".join(["".join(card(item, view)) for item in page] + _total_card(view))
    return _drawn(_table_of(page, view, folding if excess > 0 else [0] * len(widths), gap))


def _total_card(view: View) -> list[str]:
    if view.total is None:
        return []
    summed = view._replace(columns=[column for column in view.columns if column.of(view.total) is not None])
    return ["total\n" + "".join(card(view.total, summed))]


def _width(column: Column, page: Sequence[Object], view: View) -> int:
    texts = [human(column, item) for item in page]
    texts += [_label(column)] * view.header + [_total(column, view, 0).plain]
    return max(len(line) for text in texts for line in text.split("\n"))


def _folds(column: Column) -> bool:
    return column.kind in ("text", "lines", "scope", "rates", "price")


def _table_of(page: Sequence[Object], view: View, folding: Sequence[int], gap: int) -> Table:
    total = view.total is not None
    grid = Table(box=None, show_header=view.header, show_footer=total, pad_edge=False, padding=(0, gap, 0, 0))
    for position, (column, may_fold) in enumerate(zip(view.columns, folding, strict=True)):
        grid.add_column(
            Text(_label(column).upper(), style="bold"),
            footer=_total(column, view, position),
            footer_style="bold",
            justify="right" if KINDS[column.kind].right else "left",
            overflow="fold",
            no_wrap=may_fold == 0,
            min_width=_NARROWEST if may_fold else None,
        )
    for item in page:
        grid.add_row(*(_cell(column, item) for column in view.columns))
    return grid


def _total(column: Column, view: View, position: int) -> Text:
    if view.total is None:
        return Text()
    if column.of(view.total) is None:
        return Text("total" if position == 0 else "")
    return Text(human(column, view.total))


def _label(column: Column) -> str:
    """The field's name in words, without a unit that the value says already."""
    name = column.field.removeprefix("limits.").replace(".", "_")
    unit = {"seconds": "_s", "size": "_bytes"}.get(column.kind, "")
    return name.removesuffix(unit).replace("_", " ")


def _cell(column: Column, item: Object) -> Text:
    text = human(column, item)
    return Text(text, style=STYLES.get(text, "") if column.kind == "status" else "")


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_NO_TERMINAL_WIDTH, color_system=None)


def _drawn(grid: Table) -> str:
    console = _console()
    with console.capture() as capture:
        console.print(grid)
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())
