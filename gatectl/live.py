"""A table whose end is not known: each line is written when it comes, below the ones before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gatectl.output import KINDS, Column, Object, Pages, View, human

_GAP = "  "
_WIDEST = 40  # a longer value pushes its own line only


def table(pages: Pages, view: View, styled: Callable[[Object], str] | None) -> Iterator[str]:
    """Columns are as wide as the widest value so far; the heading comes with the first lines, and is as wide as they.

    `styled` gives the SGR code of a line; None where there are no colours.
    """
    widths = [len(label(column)) for column in view.columns]
    heading = view.header
    for page in pages:
        rows = [[human(column, item).replace("\n", " ") for column in view.columns] for item in page]
        for values in rows:
            widths = [max(width, min(len(value), _WIDEST)) for width, value in zip(widths, values, strict=True)]
        texts = []
        if heading and rows:
            texts.append(_coloured(_line([label(column) for column in view.columns], view, widths), styled and "1"))
            heading = False
        for item, values in zip(page, rows, strict=True):
            texts.append(_coloured(_line(values, view, widths), styled and styled(item)))
        yield "".join(texts)


def _coloured(line: str, code: str | None) -> str:
    return f"\x1b[{code}m{line}\x1b[0m\n" if code else f"{line}\n"


def _line(values: list[str], view: View, widths: list[int]) -> str:
    cells = (
        f"{value:>{width}}" if KINDS[column.kind].right else f"{value:<{width}}"
        for value, column, width in zip(values, view.columns, widths, strict=True)
    )
    return _GAP.join(cells).rstrip()


def label(column: Column) -> str:
    return column.field.replace("_", " ").upper()
