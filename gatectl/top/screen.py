"""A frame: what is known and chosen, drawn into so many columns and lines. Pure.

A line is a list of pieces, each with the name of a style; what does not fit is cut. Styles are few and mean the same on
light and dark: the terminal's own colours, bold, dim, reverse.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from gatectl.top.state import VIEWS, Row, State

Piece = tuple[str, str]
Line = list[Piece]

_SGR = {"bold": "1", "dim": "2", "reverse": "7", "good": "32", "warn": "33", "bad": "31;1", "chosen": "7;1"}
_WITHOUT_COLOUR = {"good": "", "warn": "", "bad": "1"}
_NOTHING = "-"
_HIGH, _FULL = 0.8, 0.999  # of a limit
_ERRORS = 0.05
_LATE_S = 10
_KEYS = "q quit  1-3 Tab view  s sort  r reverse  / filter  p pause  ? help"
_HELP = (
    "1 2 3, Tab      services, keys, targets",
    "s S             sort by the next column, or the one before; r the other way",
    "/               only rows with this in a name; Enter keeps it, Esc drops it",
    "p, space        pause: read what is there while the gateway goes on",
    "arrows, PgUp, PgDn, Home, End; j k g G    move through the rows",
    "q, Ctrl-C       leave; Ctrl-Z stops it, and 'fg' comes back",
    "",
    "A request counts when it has ended. REQ/S and REF hold refused ones; P50 and",
    "P99 do not. PRESSURE is of the LIMIT that is fullest: what is used of a burst,",
    "of the month's quota, or of the requests in flight.",
    "",
    "Of targets all figures are of ten seconds and of the URL, whichever services",
    "lead there. REQ/S is what was sent there. ERR: answers of 5xx, those that broke",
    "off, and requests without one. P50 and P99: from there to the answer's head.",
)


class Column(NamedTuple):
    """`leave`: the higher, the sooner it is left out where there is little room. `grows`: takes what room is left."""

    title: str
    width: int
    text: Callable[[Row], str]
    leave: int = 0
    right: bool = True
    grows: bool = False
    sort: str = ""
    style: Callable[[Row], str] = lambda row: ""


def draw(state: State, width: int, height: int, utf8: bool = True) -> list[Line]:
    """As many lines as the screen has."""
    body = _help(state) if state.help else _table(state, width, utf8)
    head, foot = _header(state, width), [_footer(state)]
    if height <= 6:  # what matters most, of what has room
        head, foot = head[1:2] if height > 2 else [], []
    room = max(0, height - len(head) - len(foot))
    if not state.help:
        body = body[: min(1, room)] + body[1 + state.offset :][: max(0, room - 1)]
    lines = head + body[:room]
    lines += [[] for _ in range(height - len(lines) - len(foot))]
    return (lines + foot)[:height]


def once(state: State, width: int, utf8: bool = True) -> list[Line]:
    """What there is to see, however long, for who wants no screen of it."""
    first, totals, trouble, _ = _header(state, width)
    return [first, totals, *([trouble] if trouble else []), [], *_table(state, width, utf8)]


def rows_shown(height: int) -> int:
    """How many rows `draw` has room for."""
    return max(1, height - (2 if height <= 6 else 6))


def plain(line: Line, width: int) -> str:
    """Without styles, as wide as the screen."""
    return "".join(text for text, _ in _fitted(line, width))


def styled(line: Line, width: int, colours: bool) -> str:
    """The same with SGR codes."""
    drawn = []
    for text, style in _fitted(line, width):
        code = _SGR.get(style, "") if colours else _WITHOUT_COLOUR.get(style, _SGR.get(style, ""))
        drawn.append(f"\x1b[{code}m{text}\x1b[0m" if code else text)
    return "".join(drawn)


# Header and footer.


def _header(state: State, width: int) -> list[Line]:
    picture = state.picture
    if picture is None:
        return [[("gatewayd", "bold")], [], [], _tabs(state)]
    serving, workers = picture["workers_serving"], picture["workers"]
    first: Line = [
        (f"gatewayd {picture['version']}", "bold"),
        (f"  {picture['url']}", ""),
        (f"  up {_span(picture['started_at'], picture['time'])}", ""),
        (f"  {serving} of {workers} worker{'s' * (workers != 1)}", "" if serving == workers else "bad"),
    ]
    right = f"{picture['window_s']} s up to {picture['time'][11:]}"
    totals = _whole_pieces(_totals(picture), width)
    return [_justified(_whole_pieces(first, width), right, width), totals, _trouble(state), _tabs(state)]


def _totals(picture: Mapping[str, Any]) -> Line:
    total = picture["total"]
    line: Line = [
        (f"{rate(total['requests_s'])} req/s", "bold"),
        (f"  errors {ratio(total['errors_ratio'])}", _error_style(total["errors_ratio"])),
        (f"  refused {ratio(total['refused_ratio'])}", ""),
        (f"  p50 {millis(total['p50_ms'])}", ""),
        (f"  p99 {millis(total['p99_ms'])}", ""),
        (f"  in flight {total['in_flight']:,}", ""),
    ]
    late_s = picture["journal_s"]
    line.append(
        (f"   journal {late_s} s behind" if late_s > 1 else "   journal up to date", "warn" if late_s > 10 else "")
    )
    return line


def _trouble(state: State) -> Line:
    if state.gone_s is not None:
        return [(f"! the gateway went away {state.gone_s} s ago; waiting for it", "bad")]
    assert state.picture is not None
    problems = state.picture["problems"]
    if not problems:
        return []
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return [(f"! {problems[0]}{more}; see 'gatectl status'", "bad")]


def _tabs(state: State) -> Line:
    line: Line = []
    for number, view in enumerate(VIEWS, 1):
        count = "" if state.picture is None else f" {len(state.picture[view])}"
        line += [(f" {number} {view}{count} ", "chosen" if view == state.view else ""), (" ", "")]
    if state.paused:
        line.append((" paused", "warn"))
    return line


def _footer(state: State) -> Line:
    if state.typing is not None:
        return [(f"/{state.typing}", "bold"), (" ", "reverse"), ("  Enter keep  Esc drop", "dim")]
    line: Line = [(f"/{state.filter}  ", "warn")] if state.filter else []
    others = {} if state.picture is None else state.picture["others"]
    more = f"; and others with {rate(others[state.view])} req/s" if others.get(state.view) else ""
    return [*line, (_KEYS + more, "dim")]


def _help(state: State) -> list[Line]:
    return [[(text, "")] for text in ("", *_HELP, "", "any key goes back")]


# Tables.


def _table(state: State, width: int, utf8: bool) -> list[Line]:
    if state.picture is None:
        return [[], [("waiting for the first figures", "dim")]]
    rows = state.rows()
    several = len({row["tenant"] for row in state.picture[state.view]}) > 1
    columns = _that_fit([c for c in COLUMNS[state.view] if c.title != "TENANT" or several], width)
    widths = _widths(columns, rows, width)
    arrow = ("▲" if state.reverse else "▼") if utf8 else ("^" if state.reverse else "v")
    titles = [column.title + (arrow if column.sort == state.sorted_by else "") for column in columns]
    lines: list[Line] = [[(_row_text(titles, columns, widths), "reverse")]]
    for row in rows:
        line: Line = []
        for column, room in zip(columns, widths, strict=True):
            line += [(_cell(column.text(row), room, column.right), column.style(row)), (" ", "")]
        lines.append(line[:-1])
    if not rows:
        what = f"no {state.view} with {state.typing or state.filter!r}" if state.typing or state.filter else (
            f"no {state.view} with requests in these seconds" if state.view == "keys" else f"there are no {state.view}"
        )  # fmt: skip
        lines.append([(what, "dim")])
    return lines


def _that_fit(columns: Sequence[Column], width: int) -> list[Column]:
    kept = list(columns)
    while len(kept) > 1 and sum(column.width + 1 for column in kept) - 1 > width:
        kept.remove(max(kept, key=lambda column: column.leave))
    return kept


def _widths(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[int]:
    """Those that grow share what is left, up to what they hold."""
    widths = [column.width for column in columns]
    left = width - sum(widths) - len(widths) + 1
    for place, column in enumerate(columns):
        if column.grows and left > 0:
            wanted = max([_cells(column.text(row)) for row in rows], default=0) - column.width
            widths[place] += max(0, min(left, wanted))
            left -= max(0, min(left, wanted))
    if len(widths) == 1:
        widths[0] = min(widths[0], width)
    return widths


def _row_text(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    cells = (_cell(text, room, column.right) for text, column, room in zip(texts, columns, widths, strict=True))
    return " ".join(cells)


def _cell(text: str, width: int, right: bool) -> str:
    text = _cut(text, width)
    gap = " " * (width - _cells(text))
    return gap + text if right else text + gap


# How values look.


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(value: float) -> str:
    return "0%" if not value else "<0.1%" if value < 0.001 else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def millis(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if value >= 1000:
        return f"{value / 1000:.0f} s" if value >= 100_000 else f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _span(since: str, now: str) -> str:
    """`3 d 4 h`, of two times in RFC 3339."""
    seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def _error_style(value: float) -> str:
    return "bad" if value >= _ERRORS else "warn" if value else ""


def _pressure(row: Row) -> str:
    return _NOTHING if row["pressure"] is None else f"{row['pressure']:.0%}"


def _pressure_style(row: Row) -> str:
    value = row["pressure"] or 0
    return "bad" if value >= _FULL else "warn" if value >= _HIGH else ""


def _health(row: Row) -> str:
    ill = row["targets_ill"]
    return f"{ill} of {row['targets']} ill" if ill else f"{row['targets']} ok" if row["targets"] else "none"


_STATE_STYLES = {"healthy": "good", "unhealthy": "bad", "open": "bad", "ejected": "bad", "half-open": "warn",
                 "drained": "warn"}  # fmt: skip

_TENANT = Column("TENANT", 8, lambda row: str(row["tenant"]), 6, right=False, grows=True)
_REQUESTS = Column("REQ/S", 8, lambda row: rate(row["requests_s"]), 0, sort="requests")
_ERR = Column("ERR", 6, lambda row: ratio(row["errors_ratio"]), 1, sort="errors",
              style=lambda row: _error_style(row["errors_ratio"]))  # fmt: skip
_P50 = Column("P50", 8, lambda row: millis(row["p50_ms"]), 3, sort="p50")
_P99 = Column("P99", 8, lambda row: millis(row["p99_ms"]), 2, sort="p99")
_IN_FLIGHT = Column("IN FL", 6, lambda row: f"{row['in_flight']:,}", 3, sort="in-flight")
_FIGURES = (
    _REQUESTS,
    _ERR,
    Column("REF", 6, lambda row: ratio(row["refused_ratio"]), 4, sort="refused"),
    _P50,
    _P99,
    _IN_FLIGHT,
)
COLUMNS: Mapping[str, Sequence[Column]] = {
    "services": (
        Column("SERVICE", 12, lambda row: str(row["service"]), -1, right=False, grows=True, sort="name"),
        _TENANT,
        *_FIGURES,
        Column("TARGETS", 10, _health, 2, style=lambda row: "bad" if row["targets_ill"] else ""),
    ),
    "keys": (
        Column("KEY", 11, lambda row: str(row["key"]), -1, right=False, sort="name"),
        Column("NAME", 8, lambda row: row["name"] or _NOTHING, 3, right=False, grows=True),
        _TENANT,
        *_FIGURES,
        Column("PRESSURE", 9, _pressure, 1, sort="pressure", style=_pressure_style),
        Column("LIMIT", 9, lambda row: row["limit"] or _NOTHING, 5, right=False, grows=True),
    ),
    "targets": (
        # Together 77 columns, so that 80 hold all figures.
        Column("SERVICE", 8, lambda row: str(row["service"]), 1, right=False, grows=True, sort="name"),
        _TENANT,
        Column("URL", 21, lambda row: str(row["url"]), -1, right=False, grows=True),
        Column("STATE", 9, lambda row: str(row["state"]), 0, right=False, sort="state",
               style=lambda row: _STATE_STYLES.get(row["state"], "")),
        _REQUESTS._replace(width=7),
        _ERR._replace(width=5),
        _P50._replace(width=7),
        _P99._replace(width=7),
        _IN_FLIGHT,
        Column("LAST ERROR", 10, lambda row: row["error"] or _NOTHING, 5, right=False, grows=True),
    ),
}  # fmt: skip

# Widths.


def _justified(line: Line, right: str, width: int) -> Line:
    """`right` at the end of the line, where it has room."""
    gap = width - sum(_cells(text) for text, _ in line) - len(right)
    return [*line, (" " * gap, ""), (right, "")] if gap >= 2 else line


def _whole_pieces(line: Line, width: int) -> Line:
    """Half a figure would be another figure."""
    ends, end = [], 0
    for text, _ in line:
        end += _cells(text)
        ends.append(end)
    return [piece for piece, end in zip(line, ends, strict=True) if end <= width or piece is line[0]]


def _fitted(line: Line, width: int) -> Line:
    fitted: Line = []
    left = width
    for text, style in line:
        text = _cut(_printable(text), left)
        left -= _cells(text)
        fitted.append((text, style))
    return [*fitted, (" " * left, "")]


def _printable(text: str) -> str:
    """Names come from users: an escape sequence in one must not reach a terminal."""
    return text if text.isprintable() else "".join(ch if ch.isprintable() else "?" for ch in text)


def _cells(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells_of(character)
        if used > width:
            break
        kept += character
    return kept
