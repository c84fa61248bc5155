"""Tables on a terminal: folded to its width rather than cut, in colour where it has colours.

Our own drawing, because a table is what most calls at a terminal end in: rich's costs 3 to 5 times
`python -c pass` to import, and 6,000 lines 2.2 s against 0.2; what is drawn is no more than columns with gaps.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gatectl.cells import folded, padded, width
from gatectl.colours import Colours, painted
from gatectl.kinds import KINDS, Object
from gatectl.output import Column, Pages, View, human

GAP = 2
_UNITS = {"seconds": "_s", "size": "_bytes", "rate": "_s", "millis": "_ms", "ratio": "_ratio"}
_NO_TERMINAL_COLUMNS = 1_000_000  # `-o table` into a file: as wide as it is
_NARROWEST = 16  # a column of text narrower than this is folded beyond reading
_NARROWEST_OF_WORDS = 10  # one of short words is not
_FOLDING = ("text", "lines", "scope", "rates", "price", "labels", "weights", "headers", "any", "chosen")


def columns_of_terminal() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _NO_TERMINAL_COLUMNS


def table(pages: Pages, view: View) -> Iterator[str]:
    """All pages as one table, or as cards where the terminal is too narrow for one; an empty list says so."""
    grid: _Grid | None = None
    for page in pages:
        if page:
            first = grid is None
            grid = grid or _Grid(view, columns_of_terminal())
            yield grid.page(page, first=first)
    if grid is None:
        if sys.stdout.isatty():
            yield "none\n"
    elif view.total is not None:
        yield grid.end(view.total)


def card(item: Object, view: View) -> Iterator[str]:
    """One object, a line a field; times both in words and to the second."""
    yield _card(item, view, Colours())


def pairs(rows: Iterable[tuple[str, str]], *, header: bool) -> str:
    """Labels, unless there is no `header`, and what belongs to each."""
    return _pairs([(name, text, "") for name, text in rows], Colours(), header=header)


def label(column: Column) -> str:
    """The field's name in words, without a unit that the value says already."""
    name = column.field.removeprefix("limits.").replace("overrides.", "own_").replace(".", "_")
    unit = _UNITS.get(column.kind, "")
    words = name.removesuffix(unit)
    if column.kind == "number" and words.endswith("_s"):
        words = f"{words.removesuffix('_s')}/s"
    return words.removesuffix("_at" if column.kind in ("time", "moment") and words != "at" else "").replace("_", " ")


def _card(item: Object, view: View, colours: Colours) -> str:
    rows = []
    for column in view.columns:
        text = human(column, item, view.now, exactly=True)
        rows.append((label(column), text, colours.of_word(text) if column.kind == "status" else ""))
    return _pairs(rows, colours, header=view.header)


def _pairs(rows: Sequence[tuple[str, str, str]], colours: Colours, *, header: bool) -> str:
    wide = max((width(name) for name, _, _ in rows), default=0) if header else 0
    room = max(columns_of_terminal() - (wide + GAP if header else 0), _NARROWEST)
    lines = []
    for name, text, sgr in rows:
        head = painted(padded(name, wide), colours.bold) + " " * GAP if header else ""
        for line in folded(text, room):
            lines.append((head + painted(line, sgr)).rstrip() + "\n")
            head = " " * (wide + GAP) if header else ""
    return "".join(lines)


class _Grid:
    """Columns as wide as the widest value so far: a page further on may need more, and is still below its heading."""

    def __init__(self, view: View, room: int) -> None:
        self._view = view
        self._room = room
        self._colours = Colours()
        heading = [label(column).upper() if view.header else "" for column in view.columns]
        total = [self._summed(column, at) for at, column in enumerate(view.columns)]
        self._heading = heading
        self._sizes = [_Size().with_text(a).with_text(b) for a, b in zip(heading, total, strict=True)]
        self._cards = False

    def page(self, items: Sequence[Object], *, first: bool) -> str:
        columns = self._view.columns
        rows = [[human(column, item, self._view.now) for column in columns] for item in items]
        for at, texts in enumerate(zip(*rows, strict=True)):
            for text in texts:
                self._sizes[at] = self._sizes[at].with_text(text)
        layout = _layout(columns, self._sizes, self._room)
        if first:
            self._cards = layout is None
        if self._cards:
            return ("" if first else "\n") + "\n".join(_card(item, self._view, self._colours) for item in items)
        # Of a later page that no longer fits, values that cannot fold go beyond the edge: better than another form.
        widths, gap = layout or self._as_wide_as_it_is()
        drawn = [self._row(self._heading, widths, gap, self._colours.bold)] if first and self._view.header else []
        drawn += [self._row(texts, widths, gap) for texts in rows]
        return "".join(drawn)

    def end(self, total: Object) -> str:
        """The last line, of a list that has a sum."""
        columns = self._view.columns
        if self._cards:
            summed = self._view._replace(columns=[column for column in columns if column.of(total) is not None])
            return "\ntotal\n" + _card(total, summed, self._colours)
        widths, gap = _layout(columns, self._sizes, self._room) or self._as_wide_as_it_is()
        return self._row(
            [self._summed(column, at) for at, column in enumerate(columns)], widths, gap, self._colours.bold
        )

    def _as_wide_as_it_is(self) -> tuple[Sequence[int], int]:
        return [size.natural for size in self._sizes], 1

    def _summed(self, column: Column, at: int) -> str:
        total = self._view.total
        if total is None:
            return ""
        return human(column, total) if column.of(total) is not None else "total" * (at == 0)

    def _row(self, texts: Sequence[str], widths: Sequence[int], gap: int, sgr: str = "") -> str:
        """A line, or as many as its longest cell takes when it is folded."""
        folds = [
            folded(text, columns) if len(text) > columns or "\n" in text or not text.isascii() else [text]
            for text, columns in zip(texts, widths, strict=True)
        ]
        lines = []
        for at in range(max(map(len, folds))):
            cells = [
                self._cell(parts[at] if at < len(parts) else "", text, column, columns, sgr)
                for parts, text, column, columns in zip(folds, texts, self._view.columns, widths, strict=True)
            ]
            lines.append((" " * gap).join(cells).rstrip() + "\n")
        return "".join(lines)

    def _cell(self, part: str, text: str, column: Column, columns: int, sgr: str) -> str:
        """A part of a text, between spaces that have no colour."""
        if not sgr and column.kind == "status":
            sgr = self._colours.of_word(text)
        spaces = " " * (columns - width(part))
        return spaces + painted(part, sgr) if KINDS[column.kind].right else painted(part, sgr) + spaces


class _Size(NamedTuple):
    """What a column takes: as it is, and its longest word."""

    natural: int = 0
    word: int = 0

    def with_text(self, text: str) -> _Size:
        if len(text) <= self.word and text.isascii():  # most are: of 6,000 lines there are 80,000
            return self
        natural = max(map(width, text.split("\n"))) if "\n" in text else width(text)
        return _Size(max(self.natural, natural), max(self.word, *map(width, text.split() or [""])))


def _layout(columns: Sequence[Column], sizes: Sequence[_Size], room: int) -> tuple[Sequence[int], int] | None:
    """Widths and the gap between: as they are, with narrow gaps, with folded text; None: it cannot be a table.

    The widest text is folded first, and words are taken apart only when that is not enough.
    """
    widths = [size.natural for size in sizes]
    for gap in (GAP, 1):
        if sum(widths) + gap * (len(widths) - 1) <= room:
            return widths, gap
    excess = sum(widths) + len(widths) - 1 - room
    for floors in (
        [max(size.word, _NARROWEST) for size in sizes],
        [max(size.word, _NARROWEST_OF_WORDS) for size in sizes],
        [_NARROWEST] * len(sizes),
    ):
        while excess:
            foldable = [at for at, c in enumerate(columns) if c.kind in _FOLDING and widths[at] > floors[at]]
            if not foldable:
                break
            widths[max(foldable, key=lambda at: widths[at])] -= 1
            excess -= 1
    return None if excess else (widths, 1)
