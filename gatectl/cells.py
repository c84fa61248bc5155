"""How many columns of a terminal a text takes, and how it is folded into fewer.

Letters of most scripts take one, Chinese ones and emoji two, what combines with the letter before it none. Nearly all
that a gateway tells is ASCII, which is known at once; for the rest there is rich's table of Unicode, which costs two
`python -c pass` and is loaded when the first such letter comes.
"""

from __future__ import annotations

# A line ends after one of these sooner than within a word. Most of what is too wide are URLs and lists of names.
_BREAKS_AFTER = ",;/&?="


def width(text: str) -> int:
    """Columns that `text`, of one line, takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """With spaces up to so many columns."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def folded(text: str, columns: int) -> list[str]:
    """Lines of at most so many columns; nothing is lost but the space at which a line ends."""
    lines: list[str] = []
    for line in text.split("\n"):
        rest = line
        while width(rest) > columns:
            end = _end(rest, columns)
            lines.append(rest[:end].rstrip(" "))
            rest = rest[end:].lstrip(" ")
        lines.append(rest)
    return lines


def _end(text: str, columns: int) -> int:
    """Where the first line of `text` ends, which is too wide: between words if one of them fits."""
    fits = _fitting(text, columns)
    if text[fits : fits + 1] == " ":
        return fits
    if (space := text.rfind(" ", 1, fits)) > 0:
        return space
    after = max(text.rfind(mark, 0, fits) for mark in _BREAKS_AFTER) + 1
    return after if after > fits // 2 else fits


def _fitting(text: str, columns: int) -> int:
    """How many characters fit, at least one: a letter is not parted from what combines with it."""
    if text.isascii():
        return columns
    from rich.cells import chop_cells

    return max(len(chop_cells(text, columns)[0]), 1)
