"""An invoice as one page of HTML: no scripts, nothing fetched, everything escaped; made for a printer too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from gatectl.billing.paper import Paper

# What the page may load is said to the browser as well: its own style, and nothing else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
  :root { color-scheme: light; }
  body { font: 10.5pt/1.45 system-ui, sans-serif; color: #1a1a1a; }
  body { max-width: 50rem; margin: 3rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6em; margin: 0 0 1.2rem; }
  h2 { font-size: 1em; margin: 1.8rem 0 .4rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
  dt { color: #666; }
  dd { margin: 0; overflow-wrap: anywhere; }
  table { border-collapse: collapse; width: 100%; margin-top: 1.8rem; }
  h2 + table { margin-top: 0; }
  th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
  thead th { border-bottom: 1.5px solid #1a1a1a; }
  tbody tr { break-inside: avoid; }
  tbody td { border-bottom: 1px solid #ddd; }
  tfoot { display: table-row-group; }
  tfoot th { font-weight: normal; }
  tfoot tr:last-child > * { font-weight: bold; border-top: 1.5px solid #1a1a1a; }
  .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  .w { overflow-wrap: anywhere; }
  th.n, td.n { padding: .3rem 0 .3rem .6rem; }
  .foot { margin-top: 1.8rem; font-size: .85em; }
  .foot dd { font-family: ui-monospace, monospace; }
  @page { size: A4; margin: 18mm; }
  @media print { body { margin: 0; padding: 0; max-width: none; } }
"""
_LINES = ("service", "key", "what", "quantity", "price", "amount")
_CREDITS = ("at", "kind", "reason", "author", "amount")
_CLASSES: Mapping[str, str] = {
    **dict.fromkeys(("quantity", "price", "amount"), "n"),
    **dict.fromkeys(("service", "key", "reason", "author"), "w"),  # of any length: they give way, words of ours do not
}


def html(paper: Paper) -> str:
    """The page."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{_text(paper.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{_text(paper.title)}</h1>",
        _list(paper.head),
        _table(_LINES, paper.lines, paper.sums),
    ]
    if paper.credits:
        parts += ["<h2>Credits and adjustments</h2>", _table(_CREDITS, paper.credits)]
    if paper.terms:
        parts += ["<h2>Prices</h2>", _list(paper.terms)]
    parts += [f'<div class="foot">{_list(paper.foot)}</div>' if paper.foot else "", "</body>\n</html>\n"]
    return "\n".join(part for part in parts if part)


def _text(text: str) -> str:
    return escape(text, quote=True)


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    # Names may be of a script that is written from right to left, within a page that is not: dir="auto".
    rows = "\n".join(f'<dt>{_text(label)}</dt><dd dir="auto">{_text(text)}</dd>' for label, text in pairs)
    return f"<dl>\n{rows}\n</dl>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], sums: Sequence[tuple[str, str]] = ()) -> str:
    head = "".join(f"<th{_class(name)}>{_text(name)}</th>" for name in columns)
    body = "\n".join(
        "<tr>" + "".join(_cell(name, text) for name, text in zip(columns, row, strict=True)) + "</tr>" for row in rows
    )
    span = len(columns) - 1
    foot = "\n".join(
        f'<tr><th colspan="{span}">{_text(label)}</th><td class="n">{_text(text)}</td></tr>' for label, text in sums
    )
    return (
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        + (f"<tfoot>\n{foot}\n</tfoot>\n" if foot else "")
        + "</table>"
    )


def _class(name: str) -> str:
    return f' class="{_CLASSES[name]}"' if name in _CLASSES else ""


def _cell(name: str, text: str) -> str:
    direction = ' dir="auto"' if _CLASSES.get(name) == "w" else ""
    return f"<td{_class(name)}{direction}>{_text(text)}</td>"
