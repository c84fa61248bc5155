"""An invoice as PDF, by fpdf2. Imported only by who exports one: the library comes with `gatewayd[pdf]`.

The same invoice gives the same bytes wherever the same fonts are: the only time in it is when it was issued.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fpdf import FPDF, FontFace
from fpdf.enums import Align, TableBordersLayout, WrapMode
from fpdf.table import Table

from gatectl.billing import fonts
from gatectl.billing.paper import Paper

_MARGIN_MM = 18
_TEXT_PT, _SMALL_PT, _TITLE_PT = 9, 7.5, 16
_LINE_MM, _SMALL_LINE_MM = 5, 4
_LABEL_MM = 40
_GREY = (110, 110, 110)
_FAMILY, _FALLBACK = "own", "fallback"
_LINES = ("service", "key", "what", "quantity", "price", "amount")
_LINE_WIDTHS = (30, 50, 29, 22, 19, 24)
_CREDITS = ("at", "kind", "reason", "author", "amount")
_CREDIT_WIDTHS = (30, 22, 74, 24, 24)
_NUMBERS = ("quantity", "price", "amount")
# Letters that change by their neighbours or run from right to left, Hebrew up to Khmer: only they need shaping, which
# makes a line take three times as long (5 against 1.5 ms).
_SHAPED = range(0x0590, 0x2000)

_log = logging.getLogger("fpdf")


def pdf(paper: Paper, issued_at: str) -> tuple[bytes, set[str]]:
    """The file, and those characters that no font here has."""
    _log.setLevel(logging.CRITICAL)  # of missing characters our caller tells, once
    characters = {ord(ch) for text in _texts(paper) for ch in text if ch.isprintable()}
    with TemporaryDirectory(prefix="gatectl-") as folder:
        document = _Document(paper.title)
        document.set_creation_date(datetime.fromisoformat(issued_at))
        missing = document.take_fonts(Path(folder), characters)
        document.set_text_shaping(any(ch in _SHAPED for ch in characters))
        _write(document, paper)
        return bytes(document.output()), {chr(ch) for ch in missing}


class _Document(FPDF):
    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        self.set_margin(_MARGIN_MM)
        self.set_auto_page_break(True, margin=_MARGIN_MM + 6)
        self.set_title(title)
        self.set_producer("gatectl")
        self.set_lang("en")
        self._heading = title

    def take_fonts(self, folder: Path, characters: set[int]) -> set[int]:
        own = fonts.own(folder)
        for style, face in zip(("", "B"), own, strict=True):
            self.add_font(_FAMILY, style, face.path)
        others, missing = fonts.fallbacks(characters, own[:1])
        for number, face in enumerate(others):
            self.add_font(f"{_FALLBACK}{number}", "", face.path, collection_font_number=face.number)
        # Its bold is drawn with the regular one: names in bold are better thin than missing.
        self.set_fallback_fonts([f"{_FALLBACK}{number}" for number in range(len(others))], exact_match=False)
        return missing

    def footer(self) -> None:
        """Which page of which invoice: sheets get separated."""
        self.set_y(-_MARGIN_MM)
        self.write_in(_SMALL_PT, colour=_GREY)
        self.cell(0, _SMALL_LINE_MM, f"{self._heading}, page {self.page_no()} of {{nb}}")

    def write_in(self, size_pt: float, style: str = "", colour: Sequence[int] = (0, 0, 0)) -> None:
        self.set_font(_FAMILY, style, size_pt)
        self.set_text_color(*colour)

    def pairs(self, pairs: Iterable[tuple[str, str]], size_pt: float, line_mm: float) -> None:
        for label, text in pairs:
            self.write_in(size_pt, colour=_GREY)
            self.cell(_LABEL_MM, line_mm, label)
            self.write_in(size_pt)
            self.multi_cell(0, line_mm, text, align="L", new_x="LMARGIN", new_y="NEXT", wrapmode=WrapMode.WORD)

    def heading(self, text: str) -> None:
        self.ln(_LINE_MM)
        self.write_in(_TEXT_PT, "B")
        self.cell(0, _LINE_MM + 1, text, new_x="LMARGIN", new_y="NEXT")

    def grid(self, columns: Sequence[str], widths: Sequence[int]) -> Table:
        sides = [Align.R if name in _NUMBERS else Align.L for name in columns]
        self.write_in(_TEXT_PT)
        self.set_draw_color(*_GREY)
        self.set_line_width(0.2)
        return Table(
            self,
            col_widths=tuple(widths),
            text_align=tuple(sides),  # type: ignore[arg-type] # its documentation knows tuples, its types do not
            borders_layout=TableBordersLayout.SINGLE_TOP_LINE,
            headings_style=FontFace(emphasis="BOLD"),
            line_height=_LINE_MM,
            padding=(0.4, 1),
            v_align="TOP",
        )


def _write(document: _Document, paper: Paper) -> None:
    document.add_page()
    document.write_in(_TITLE_PT, "B")
    document.cell(0, 10, paper.title, new_x="LMARGIN", new_y="NEXT")
    document.ln(2)
    document.pairs(paper.head, _TEXT_PT, _LINE_MM)
    document.ln(_LINE_MM)
    _table(document, _LINES, _LINE_WIDTHS, paper.lines, paper.sums)
    if paper.credits:
        document.heading("Credits and adjustments")
        _table(document, _CREDITS, _CREDIT_WIDTHS, paper.credits)
    if paper.terms:
        document.heading("Prices")
        document.pairs(paper.terms, _TEXT_PT, _LINE_MM)
    document.ln(_LINE_MM)
    document.pairs(paper.foot, _SMALL_PT, _SMALL_LINE_MM)


def _table(
    document: _Document,
    columns: Sequence[str],
    widths: Sequence[int],
    rows: Iterable[Sequence[str]],
    sums: Sequence[tuple[str, str]] = (),
) -> None:
    grid = document.grid(columns, widths)
    grid.row(columns)
    for row in rows:
        grid.row(row)
    for label, text in sums:
        last = (label, text) == sums[-1]
        style = FontFace(emphasis="BOLD") if last else None
        summed = grid.row(style=style)
        summed.cell(label, colspan=len(columns) - 2)
        summed.cell(text, colspan=2, align="RIGHT")
    grid.render()


def _texts(paper: Paper) -> Iterable[str]:
    yield paper.title
    for rows in (paper.head, paper.lines, paper.credits, paper.sums, paper.terms, paper.foot):
        for row in rows:
            yield from row
