"""How answers are written down.

On a terminal a table for people, drawn with rich (`terminal`, imported only then). Into a pipe, tab-separated lines
with every column, nothing cut and nothing coloured. By `-o` any other form. A form is a pair of generators, for many
objects and for one; many come in pages, so that a long list starts at once and is never held whole (JSON is).

Data goes to stdout. A note (stderr, only when stdout is a terminal) tells a person what to do next; a warning (stderr)
tells everybody what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from gatectl.errors import MisuseError
from gatectl.price_text import price_text

if TYPE_CHECKING:
    from gatectl import plots

Object = Mapping[str, Any]
Pages = Iterable[Sequence[Object]]


class Kind(NamedTuple):
    """How values of a kind look to people and to programs, and on which side of a column they stand."""

    human: Callable[[Any], str]
    plain: Callable[[Any], str]
    right: bool = False


class Column(NamedTuple):
    """A field (`usage.cost` reaches into an object) and its kind. `wide` ones are left out on a terminal.

    A column that shows a part of another field names that as its `source`. Of `whole` ones the text tells of the
    object, which is more than their field.
    """

    field: str
    kind: str = "text"
    wide: bool = False
    source: str | None = None
    whole: bool = False

    def of(self, item: Object) -> Any:
        path = self.source or self.field
        if "." not in path:  # nearly all, and of 6,000 lines there are 80,000
            return item.get(path)
        value: Any = item
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def told(self, item: Object) -> Any:
        """What its kind makes a text of."""
        return item if self.whole else self.of(item)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_text(part) for part in value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value)


def _time(value: Any) -> str:
    # 2026-11-21T02:00:00Z as 2026-11-21 02:00:00Z; the Z stays, for people work in other zones
    return str(value).replace("T", " ")


def hour_text(value: Any) -> str:
    """2026-11-21T02:00:00Z as 2026-11-21 02:00Z: the seconds of a full hour say nothing."""
    return _time(value).replace(":00Z", "Z")


def _clock(value: Any) -> str:
    """2026-11-21T02:00:00.123Z as 02:00:00.123Z: of what is happening now, everybody knows the day."""
    return str(value).partition("T")[2] or str(value)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".rstrip("0").rstrip(".")


def _size(value: Any) -> str:
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 100 or amount == int(amount) else f"{amount:.1f} {unit}"


_SHARE_CELLS = 20


def _share(value: Any) -> str:
    """43.2% and a bar of as much of 20 cells."""
    from gatectl import plots

    ink = plots.ink_of(sys.stdout.encoding, os.environ, terminal=False)
    return f"{100 * value:5.1f}%  {plots.bar(_SHARE_CELLS * value, ink)}"


_WINDOWS = {1: "s", 60: "min", 3600: "h", 86400: "d"}


def _rate(rate: Any) -> str:
    window = rate["window_s"]
    return f"{rate['limit']}/{_WINDOWS.get(window) or f'{window}s'}"


def _rates(value: Any) -> str:
    return ",".join(_rate(rate) for rate in value) or "none"


def _bursts(value: Any) -> str:
    return ",".join(str(rate["burst"]) for rate in value)


def _percents(value: Any) -> str:
    return ",".join(f"{percent}%" for percent in value)


def _grants(value: Any) -> str:
    """A line each: what was given or forgiven, and why."""
    return "\n".join(_grant(grant) for grant in value)


def _grant(grant: Any) -> str:
    reason = f" ({grant['reason']})" if grant["reason"] else ""
    if grant["kind"] == "reset":
        return f"reset at {_time(grant['created_at'])}{reason}"
    return f"+{_number(grant['units'])} until {_time(grant['until'])}{reason}"


def _events(value: Any) -> str:
    """One a line: 2026-11-21 02:00:00Z quota.threshold delivered."""
    return "\n".join(_event(event) for event in value)


def _event(event: Any) -> str:
    more = {
        "pending": f", attempt {event['attempts'] + 1} due {_time(event['next_at'])}",
        "failed": f", given up after {event['attempts']} attempt{'s' * (event['attempts'] != 1)}",
    }.get(event["state"], "")
    error = f": {event['error']}" if event["error"] else ""
    return f"{_time(event['created_at'])} {event['type']} {event['state']}{more}{error}"


def _any(value: Any) -> str:
    return _text(value) if value else "any"


def _chosen(value: Any) -> str:
    return _text(value) if value else "key's own"


def _pairs(value: Any) -> str:
    return ",".join(f"{name}={text}" for name, text in value.items())


def _generations(value: Any) -> str:
    """One a line: 2 current, used 2026-11-21 02:00:00Z."""
    return "\n".join(
        f"{each['number']} {each['status']}"
        + (f" until {_time(each['expires_at'])}" if each["status"] == "active" else "")
        + (f", used {_time(each['last_used_at'])}" if each["last_used_at"] else ", never used")
        for each in value
    )


def _scope(value: Any) -> str:
    return _text(value) if value else "all"


def _weights(value: Any) -> list[str]:
    return [f"{url}={weight}" for url, weight in value.items()]


def _header_rules(value: Any) -> list[str]:
    """As they are typed."""
    return [f"{rule['action']} {rule['name']}" + (f": {rule['value']}" if rule.get("value") else "") for rule in value]


KINDS: Mapping[str, Kind] = {
    "text": Kind(_text, _text),
    "lines": Kind(lambda value: "\n".join(value), _text),  # a list; for people one a line
    "weights": Kind(lambda value: "\n".join(_weights(value)), lambda value: _text(_weights(value))),
    "headers": Kind(lambda value: "\n".join(_header_rules(value)), lambda value: _text(_header_rules(value))),
    "status": Kind(_text, _text),
    "time": Kind(_time, str),
    "hour": Kind(hour_text, str),
    "clock": Kind(_clock, str),
    "number": Kind(_number, _text, right=True),
    "quota": Kind(lambda value: f"{value:,}/month", _text, right=True),
    "money": Kind(str, str, right=True),
    "price": Kind(price_text, price_text, right=True),  # of a whole plan
    "share": Kind(_share, _text),
    "size": Kind(_size, _text, right=True),
    "seconds": Kind(lambda value: f"{value:g} s", lambda value: f"{value:g}", right=True),
    "rates": Kind(_rates, _rates),
    "bursts": Kind(_bursts, _bursts),
    "percents": Kind(_percents, _text),
    "grants": Kind(_grants, _text),
    "events": Kind(_events, _text),
    "any": Kind(_any, _any),
    "chosen": Kind(_chosen, _chosen),  # of a route's service: none named is the key's
    "labels": Kind(_pairs, _pairs),
    "generations": Kind(_generations, _text),
    "scope": Kind(_scope, _scope),  # services of a key: none named is all
}

_SAYING_NONE = ("any", "chosen", "scope")  # kinds in which nothing named means something
NOTHING = "-"  # not "": a shell's `read` takes two tabs for one


def human(column: Column, item: Object) -> str:
    """A value as a person wants to see it."""
    value = column.told(item)
    if (value is None and column.kind not in _SAYING_NONE) or (
        value in ([], {}) and column.kind not in ("rates", "scope")
    ):
        return NOTHING
    return _printable(KINDS[column.kind].human(value)) or NOTHING


def plain(column: Column, item: Object) -> str:
    """A value for a program: whole, without separators."""
    value = column.told(item)
    return "" if value is None and column.kind not in _SAYING_NONE else KINDS[column.kind].plain(value)


def _printable(text: str) -> str:
    """Names come from users: an escape sequence in one must not reach a terminal."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() or ch == "\n" else ascii(ch)[1:-1] for ch in text)


def _tsv_line(values: Iterable[str]) -> str:
    return (
        "\t".join([value if value and value.isprintable() else _escaped(value) or NOTHING for value in values]) + "\n"
    )


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in text)


class View(NamedTuple):
    """What to write of each object."""

    columns: Sequence[Column]
    header: bool
    chosen: bool  # by --columns
    total: Object | None = None

    def narrowed(self) -> View:
        return self if self.chosen else self._replace(columns=[column for column in self.columns if not column.wide])

    def picked(self, item: Object) -> Object:
        return {column.field: column.of(item) for column in self.columns} if self.chosen else item


def _tsv(pages: Pages, view: View) -> Iterator[str]:
    if view.header:
        yield _tsv_line(column.field for column in view.columns)
    for page in pages:
        yield "".join(_tsv_line(plain(column, item) for column in view.columns) for item in page)


def _tsv_one(item: Object, view: View) -> Iterator[str]:
    for column in view.columns:
        label = [column.field] if view.header else []
        yield _tsv_line([*label, plain(column, item)])


def _csv(pages: Pages, view: View) -> Iterator[str]:
    if view.header:
        yield _csv_line(column.field for column in view.columns)
    for page in pages:
        yield "".join(_csv_line(plain(column, item) for column in view.columns) for item in page)


def csv_text(items: Sequence[Object], columns: Sequence[Column]) -> str:
    """All of a list as CSV, for a file."""
    return "".join(_csv([items], View(columns, header=True, chosen=False)))


def _csv_line(values: Iterable[str]) -> str:
    """RFC 4180, but for the line's end: what follows in a pipe wants a newline alone."""
    return ",".join(f'"{v.replace(chr(34), chr(34) * 2)}"' if set(v) & set(',"\r\n') else v for v in values) + "\n"


def _json(pages: Pages, view: View) -> Iterator[str]:
    yield _json_text({"items": [view.picked(item) for page in pages for item in page]})


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _ndjson(pages: Pages, view: View) -> Iterator[str]:
    for page in pages:
        yield "".join(json.dumps(view.picked(item), ensure_ascii=False) + "\n" for item in page)


def _id(pages: Pages, view: View) -> Iterator[str]:
    for page in pages:
        for item in page:
            if "id" not in item:
                raise MisuseError("these have no ids", "leave out -o id and -q")
            yield f"{item['id']}\n"


def _table(pages: Pages, view: View) -> Iterator[str]:
    from gatectl import terminal  # 5 times `python -c pass`: only for who looks at it

    return terminal.table(pages, view.narrowed())


def _wide(pages: Pages, view: View) -> Iterator[str]:
    from gatectl import terminal

    return terminal.table(pages, view)


def _table_one(item: Object, view: View) -> Iterator[str]:
    from gatectl import terminal

    return terminal.card(item, view)


class Form(NamedTuple):
    """How many objects are written, and how one is where that differs."""

    many: Callable[[Pages, View], Iterator[str]]
    one: Callable[[Object, View], Iterator[str]] | None = None


FORMS: Mapping[str, Form] = {
    "table": Form(_table, _table_one),
    "wide": Form(_wide, _table_one),
    "json": Form(_json, lambda item, view: iter([_json_text(view.picked(item))])),
    "ndjson": Form(_ndjson),
    "csv": Form(_csv),
    "tsv": Form(_tsv, _tsv_one),
    "id": Form(_id),
}


class Printer:
    """Writes answers in the form that was asked for, or that suits where stdout goes."""

    def __init__(self, form: str | None, columns: list[str] | None, *, header: bool, quiet: bool) -> None:
        self.terminal = sys.stdout.isatty()
        self.form = form or ("id" if quiet else "table" if self.terminal else "tsv")
        self.asked = form is not None
        self.quiet = quiet
        self._names = columns
        self._header = header

    def __repr__(self) -> str:
        return f"<Printer {self.form}{' to a terminal' if self.terminal else ''}>"

    def many(self, pages: Pages, columns: Sequence[Column], total: Object | None = None) -> None:
        """Write a list. A table gets a last line with `total`."""
        for text in FORMS[self.form].many(pages, self._view(columns, total)):
            sys.stdout.write(text)

    def live(self, pages: Pages, columns: Sequence[Column], styled: Callable[[Object], str]) -> None:
        """Write a list that has no end, each page at once; JSON is a line an object. `styled`: an item's SGR code."""
        form, view = self.form if self.form != "json" else "ndjson", self._view(columns, None)
        if form in ("table", "wide"):
            from gatectl import live

            texts = live.table(pages, view if form == "wide" else view.narrowed(), styled if self._coloured else None)
        else:
            texts = FORMS[form].many(pages, view)
        for text in texts:
            sys.stdout.write(text)
            sys.stdout.flush()

    def texts(self, form: str, pages: Pages, columns: Sequence[Column]) -> Iterator[str]:
        """A list in a form of its own choice, piece by piece, for whoever writes it somewhere else."""
        return FORMS[form].many(pages, self._view(columns, None))

    def chosen(self, columns: Sequence[Column]) -> Sequence[Column]:
        """Those of `--columns`, or all."""
        return self._view(columns, None).columns

    @property
    def _coloured(self) -> bool:
        return self.terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def one(self, item: Object, columns: Sequence[Column]) -> None:
        """Write one object."""
        form, view = FORMS[self.form], self._view(columns, None)
        for text in form.one(item, view) if form.one else form.many([[item]], view):
            sys.stdout.write(text)

    def whole(self, answer: Object) -> bool:
        """Write an answer that is more than its items, if the form can hold it."""
        if self.form != "json" or self._names is not None:
            return False
        sys.stdout.write(_json_text(answer))
        return True

    @property
    def for_people(self) -> bool:
        """Whether what is written may be arranged for reading: a table, of no particular columns."""
        return self.form in ("table", "wide") and self._names is None

    def text(self, text: str) -> None:
        """Write a line for people among the data."""
        sys.stdout.write(_printable(text) + "\n")

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Write labels and texts for people, a line each, among the data."""
        from gatectl import terminal

        sys.stdout.write(terminal.pairs([(label, _printable(text)) for label, text in pairs], header=self._header))

    def chart(self, drawn: Callable[[int, plots.Ink], str]) -> None:
        """Draw below what was written: into this width, with what the output can show."""
        from gatectl import plots

        ink = plots.ink_of(sys.stdout.encoding, os.environ, terminal=self.terminal)
        sys.stdout.write("\n" + drawn(shutil.get_terminal_size().columns, ink))

    def note(self, text: str) -> None:
        """Tell a person at a terminal."""
        if self.terminal and not self.quiet and self.form in ("table", "wide"):
            self._say(text)

    def warn(self, text: str) -> None:
        """Tell whoever reads stderr."""
        if not self.quiet:
            self._say(f"gatectl: {text}")

    def _say(self, text: str) -> None:
        sys.stdout.flush()  # or what was said of the data would come before them
        sys.stderr.write(_printable(text) + "\n")

    def _view(self, columns: Sequence[Column], total: Object | None) -> View:
        if self._names is None:
            return View(columns, self._header, False, total)
        by_name = {column.field: column for column in columns}
        for name in self._names:
            if name not in by_name:
                near = get_close_matches(name, by_name, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"take some of {','.join(by_name)}"
                raise MisuseError(f"there is no column {name!r}", hint)
        return View([by_name[name] for name in self._names], self._header, True, total)
