"""A table whose end is not known: each line is written when it comes, below the ones before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gatectl.cells import padded, width
from gatectl.colours import Colours, painted
from gatectl.kinds import KINDS, Object
from gatectl.output import Pages, View, human
from gatectl.terminal import GAP, label

_WIDEST = 40  # a longer value pushes its own line only


def table(pages: Pages, view: View, meaning: Callable[[Object], str]) -> Iterator[str]:
    """Columns are as wide as the widest value so far; the heading comes with the first lines, and is as wide as they.

    `meaning` gives that of an item, which is its line's colour where there are colours.
    """
    colours = Colours()
    labels = [label(column).upper() for column in view.columns]
    widths = [width(each) for each in labels]
    heading = view.header
    for page in pages:
        rows = [[human(column, item).replace("\n", " ") for column in view.columns] for item in page]
        for values in rows:
            widths = [max(wide, min(width(value), _WIDEST)) for wide, value in zip(widths, values, strict=True)]
        texts = []
        if heading and rows:
            texts.append(painted(_line(labels, view, widths), colours.bold) + "\n")
            heading = False
        for item, values in zip(page, rows, strict=True):
            texts.append(painted(_line(values, view, widths), colours.code(meaning(item))) + "\n")
        yield "".join(texts)


def _line(values: list[str], view: View, widths: list[int]) -> str:
    cells = (
        padded(value, columns, right=KINDS[column.kind].right)
        for value, column, columns in zip(values, view.columns, widths, strict=True)
    )
    return (" " * GAP).join(cells).rstrip()
