"""How answers are written down.

On a terminal a table for people (`terminal`, imported only then). Into a pipe, tab-separated lines with every column,
nothing cut and nothing coloured. By `-o` any other form. A form is a pair of generators, for many objects and for one;
many come in pages, so that a long list starts at once and is never held whole (JSON and YAML are).

Data goes to stdout. A note (stderr, only when stdout is a terminal) tells a person what to do next; a warning (stderr)
tells everybody what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gatectl.errors import MisuseError, nearest
from gatectl.kinds import KINDS, SAYING_NONE, Object, told
from gatectl.pager import Paged

if TYPE_CHECKING:
    from gatectl import plots

Pages = Iterable[Sequence[Object]]


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


NOTHING = "-"  # not "": a shell's `read` takes two tabs for one


def human(column: Column, item: Object, now: int | None = None, *, exactly: bool = False) -> str:
    """A value as a person wants to see it, times as they are seen from `now`."""
    value = column.told(item)
    if (value is None and column.kind not in SAYING_NONE) or (
        value in ([], {}) and column.kind not in ("rates", "scope")
    ):
        return NOTHING
    return _printable(told(column.kind, value, now, exactly=exactly)) or NOTHING


def plain(column: Column, item: Object) -> str:
    """A value for a program: whole, without separators."""
    value = column.told(item)
    return "" if value is None and column.kind not in SAYING_NONE else KINDS[column.kind].plain(value)


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
    now: int | None = None  # the gateway's clock, where times are told in words

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


def _yaml(pages: Pages, view: View) -> Iterator[str]:
    yield _yaml_text({"items": [view.picked(item) for page in pages for item in page]})


def _yaml_text(value: Any) -> str:
    from gatectl.config.writing import yaml_of  # twice `python -c pass`, and for this alone

    return yaml_of(value)


def _ndjson(pages: Pages, view: View) -> Iterator[str]:
    for page in pages:
        yield "".join(json.dumps(view.picked(item), ensure_ascii=False) + "\n" for item in page)


_IDS = ("id", "request_id")


def _id(pages: Pages, view: View) -> Iterator[str]:
    for page in pages:
        for item in page:
            name = next((name for name in _IDS if name in item), None)
            if name is None:
                raise no_ids()
            if item[name] is not None:  # an address that a service has of itself is in lists of routes, but is none
                yield f"{item[name]}\n"


def _table(pages: Pages, view: View) -> Iterator[str]:
    from gatectl import terminal  # 5 times `python -c pass`: only for who looks at it

    return terminal.table(pages, view.narrowed())


def _wide(pages: Pages, view: View) -> Iterator[str]:
    from gatectl import terminal

    return terminal.table(pages, view._replace(now=None))


def _table_one(item: Object, view: View) -> Iterator[str]:
    from gatectl import terminal

    return terminal.card(item, view)


class Form(NamedTuple):
    """How many objects are written, and how one is where that differs."""

    many: Callable[[Pages, View], Iterator[str]]
    one: Callable[[Object, View], Iterator[str]] | None = None


FORMS: Mapping[str, Form] = {
    "table": Form(_table, _table_one),
    "wide": Form(_wide, lambda item, view: _table_one(item, view._replace(now=None))),
    "json": Form(_json, lambda item, view: iter([_json_text(view.picked(item))])),
    "ndjson": Form(_ndjson),
    "yaml": Form(_yaml, lambda item, view: iter([_yaml_text(view.picked(item))])),
    "csv": Form(_csv),
    "tsv": Form(_tsv, _tsv_one),
    "id": Form(_id),
}


def no_column(name: str, known: Sequence[str]) -> MisuseError:
    """What is wrong with a name after `--columns`."""
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"take some of {','.join(known)}"
    return MisuseError(f"there is no column {name!r}", hint)


def no_ids() -> MisuseError:
    """What is wrong with `-o id` where nothing has one."""
    return MisuseError("these have no ids", "leave out -o id and -q")


class Printer:
    """Writes answers in the form that was asked for, or that suits where stdout goes."""

    def __init__(
        self,
        form: str | None,
        columns: list[str] | None,
        *,
        header: bool,
        quiet: bool,
        clock: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`clock`: what the gateway's said when it last answered."""
        self.terminal = sys.stdout.isatty()
        self.form = form or ("id" if quiet else "table" if self.terminal else "tsv")
        self.asked = form is not None
        self.quiet = quiet
        self.names = columns  # of those that were asked for
        self._header = header
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Printer {self.form}{' to a terminal' if self.terminal else ''}>"

    def refuse_ids(self) -> None:
        """Before something is done that has none: done, it would be told as a mistake of the command line."""
        if self.asked and self.form == "id":
            raise no_ids()

    def many(self, pages: Pages, columns: Sequence[Column], total: Object | None = None) -> None:
        """Write a list. A table gets a last line with `total`."""
        for text in FORMS[self.form].many(pages, self._view(columns, total)):
            sys.stdout.write(text)

    def live(self, pages: Pages, columns: Sequence[Column], meaning: Callable[[Object], str]) -> None:
        """Write a list that has no end, each page at once; JSON is a line an object, YAML a document.

        `meaning`: of an item's line, whose colour it gets (`colours.PALETTE`).
        """
        view = self._view(columns, None)
        sys.stdout.flush()  # nothing of it is held back for a pager
        if self.form in ("table", "wide"):
            from gatectl import live

            texts = live.table(pages, view if self.form == "wide" else view.narrowed(), meaning)
        elif self.form == "yaml":
            texts = ("---\n" + _yaml_text(view.picked(item)) for page in pages for item in page)
        else:
            texts = FORMS["ndjson" if self.form == "json" else self.form].many(pages, view)
        for text in texts:
            sys.stdout.write(text)
            sys.stdout.flush()

    def texts(self, form: str, pages: Pages, columns: Sequence[Column]) -> Iterator[str]:
        """A list in a form of its own choice, piece by piece, for whoever writes it somewhere else."""
        return FORMS[form].many(pages, self._view(columns, None))

    def chosen(self, columns: Sequence[Column]) -> Sequence[Column]:
        """Those of `--columns`, or all."""
        return self._view(columns, None).columns

    def one(self, item: Object, columns: Sequence[Column]) -> None:
        """Write one object."""
        form, view = FORMS[self.form], self._view(columns, None)
        for text in form.one(item, view) if form.one else form.many([[item]], view):
            sys.stdout.write(text)

    def whole(self, answer: Object) -> bool:
        """Write an answer that is more than its items, if the form can hold it."""
        if self.form not in ("json", "yaml") or self.names is not None:
            return False
        sys.stdout.write(_json_text(answer) if self.form == "json" else _yaml_text(answer))
        return True

    def document(self, answer: Any) -> None:
        """Write JSON that nothing is known of: as YAML where that was asked for."""
        sys.stdout.write(_yaml_text(answer) if self.form == "yaml" else _json_text(answer))

    @property
    def for_people(self) -> bool:
        """Whether what is written may be arranged for reading: a table, of no particular columns."""
        return self.form in ("table", "wide") and self.names is None

    def text(self, text: str, meaning: str = "") -> None:
        """Write a line for people among the data; `meaning`: whose colour it gets (`colours.PALETTE`)."""
        from gatectl.colours import Colours, painted

        sys.stdout.write(painted(_printable(text), Colours().code(meaning)) + "\n")

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
        written = sys.stderr
        if not isinstance(sys.stdout, Paged):
            sys.stdout.flush()  # or what was said of the data would come before them
        elif sys.stderr.isatty():
            written = sys.stdout  # the same screen: in its place among the data, also where they go through a pager
        written.write(_printable(text) + "\n")

    def _view(self, columns: Sequence[Column], total: Object | None) -> View:
        if self.names is None:
            return View(columns, self._header, False, total, self._now)
        by_name = {column.field: column for column in columns}
        for name in self.names:
            if name not in by_name:
                raise no_column(name, list(by_name))
        return View([by_name[name] for name in self.names], self._header, True, total, self._now)

    @property
    def _now(self) -> int | None:
        """In a pipe a table's times are exact: what reads it reads it later."""
        return self._clock() if self.terminal else None
