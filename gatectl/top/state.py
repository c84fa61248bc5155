"""What a person sees and has chosen, and what each key makes of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Row = Mapping[str, Any]

VIEWS = ("services", "keys", "targets")
# What a view can be sorted by, and the field for it; its first is where it begins.
SORTS: Mapping[str, Mapping[str, str]] = {
    "services": {"requests": "requests_s", "errors": "errors_ratio", "refused": "refused_ratio", "p50": "p50_ms",
                 "p99": "p99_ms", "in-flight": "in_flight", "name": "service"},
    "keys": {"requests": "requests_s", "errors": "errors_ratio", "refused": "refused_ratio", "p50": "p50_ms",
             "p99": "p99_ms", "in-flight": "in_flight", "pressure": "pressure", "name": "key"},
    "targets": {"requests": "requests_s", "errors": "errors_ratio", "p50": "p50_ms", "p99": "p99_ms",
                "in-flight": "in_flight", "state": "state", "name": "service"},
}  # fmt: skip
ALL_SORTS = tuple(dict.fromkeys(sort for sorts in SORTS.values() for sort in sorts))
_WORDS = ("name", "state")  # sorted from A to Z, numbers from the largest
_WELL = "healthy"  # of states the one that wants no eye comes last
_SEARCHED = ("service", "key", "name", "tenant", "url", "state", "limit")
_LONGEST_FILTER = 60
_PAGE = 10


@dataclass(frozen=True)
class State:
    """Everything that a frame is drawn from, but for its size. `typing`: the filter as it is being typed."""

    view: str = "services"
    sort: str = "requests"
    reverse: bool = False
    filter: str = ""
    typing: str | None = None
    paused: bool = False
    help: bool = False
    offset: int = 0  # the first row that is shown
    ended: bool = False
    picture: Mapping[str, Any] | None = None
    gone_s: int | None = None  # for so long there has been no gateway

    @property
    def sorted_by(self) -> str:
        """What was chosen, where this view has it."""
        sorts = SORTS[self.view]
        return self.sort if self.sort in sorts else next(iter(sorts))

    def rows(self) -> list[Row]:
        """Those of the view that match, in their order."""
        if self.picture is None:
            return []
        wanted = (self.filter if self.typing is None else self.typing).casefold()
        rows = [row for row in self.picture[self.view] if wanted in _searched(row)]
        field = SORTS[self.view][self.sorted_by]
        by_word = self.sorted_by in _WORDS
        # What has no value comes last, whichever way it goes.
        known = [row for row in rows if row[field] is not None]
        known.sort(key=lambda row: (row[field] == _WELL, row[field]), reverse=self.reverse != (not by_word))
        return known + [row for row in rows if row[field] is None]


def _searched(row: Row) -> str:
    return " ".join(str(row[field]) for field in _SEARCHED if row.get(field)).casefold()


def shown(state: State, picture: Mapping[str, Any]) -> State:
    """News have come. Who has paused reads on."""
    if state.paused and state.picture is not None:
        return replace(state, gone_s=None)
    return replace(state, picture=picture, gone_s=None)


def pressed(state: State, key: str, rows: int) -> State:
    """A key was pressed, with so many rows on the screen."""
    if state.typing is not None:
        return _typed(state, key)
    if state.help:  # any key leaves it
        return replace(state, help=False, ended=key == "q")
    if key in _MOVES:
        return _moved(state, _MOVES[key], rows)
    match key:
        case "q":
            return replace(state, ended=True)
        case "1" | "2" | "3":
            return _turned(state, VIEWS[int(key) - 1])
        case "tab" | "right":
            return _turned(state, _next(VIEWS, state.view, 1))
        case "backtab" | "left":
            return _turned(state, _next(VIEWS, state.view, -1))
        case "s" | "S":
            sorts = tuple(SORTS[state.view])
            return replace(state, sort=_next(sorts, state.sorted_by, 1 if key == "s" else -1), reverse=False, offset=0)
        case "r":
            return replace(state, reverse=not state.reverse, offset=0)
        case "/":
            return replace(state, typing=state.filter)
        case "esc":
            return replace(state, filter="", offset=0)
        case "p" | " ":
            return replace(state, paused=not state.paused)
        case "?" | "h":
            return replace(state, help=True)
    return state


_FAR = 1 << 30
_MOVES = {"down": 1, "j": 1, "up": -1, "k": -1, "pagedown": _PAGE, "pageup": -_PAGE, "home": -_FAR, "g": -_FAR,
          "end": _FAR, "G": _FAR}  # fmt: skip


def _moved(state: State, by: int, rows: int) -> State:
    last = max(0, len(state.rows()) - max(1, rows))
    return replace(state, offset=max(0, min(last, state.offset + by)))


def _turned(state: State, view: str) -> State:
    return state if view == state.view else replace(state, view=view, offset=0, reverse=False)


def _next(every: Sequence[str], this: str, by: int) -> str:
    return every[(every.index(this) + by) % len(every)]


def _typed(state: State, key: str) -> State:
    assert state.typing is not None
    match key:
        case "enter":
            return replace(state, filter=state.typing, typing=None, offset=0)
        case "esc":
            return replace(state, typing=None, offset=0)
        case "backspace":
            return replace(state, typing=state.typing[:-1], offset=0)
        case "ctrl-u":
            return replace(state, typing="", offset=0)
    if len(key) == 1 and key.isprintable() and len(state.typing) < _LONGEST_FILTER:
        return replace(state, typing=state.typing + key, offset=0)
    return state


# What a terminal sends for keys that are no characters (xterm and those who follow it).
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x1bOA": "up", b"\x1bOB": "down",
    b"\x1bOC": "right", b"\x1bOD": "left", b"\x1b[H": "home", b"\x1b[F": "end", b"\x1bOH": "home", b"\x1bOF": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown", b"\x1b[Z": "backtab",
}  # fmt: skip
_CONTROLS = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x15": "ctrl-u"}


def keys_of(data: bytes) -> Iterator[str]:
    """The keys that these bytes of a terminal stand for. One that is not known is left out."""
    while data:
        if data[:1] != b"\x1b":
            text, _, data = _characters(data)
            yield from (_CONTROLS.get(ch, ch) for ch in text if ch in _CONTROLS or ch.isprintable())
            continue
        sequence = next((known for known in _SEQUENCES if data.startswith(known)), None)
        if sequence is not None:
            yield _SEQUENCES[sequence]
            data = data[len(sequence) :]
        elif data[1:2] in (b"[", b"O"):
            end = next((at for at in range(2, len(data)) if 0x40 <= data[at] <= 0x7E), len(data))
            data = data[end + 1 :]
        else:
            yield "esc"
            data = data[1:]


def _characters(data: bytes) -> tuple[str, bytes, bytes]:
    text, escape, rest = data.partition(b"\x1b")
    return text.decode("utf-8", "ignore"), escape, escape + rest
