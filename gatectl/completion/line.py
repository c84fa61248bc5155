"""A command line up to the cursor: what may stand there. Pure.

The grammar is `table.ROOT`, tuples all the way down, which come out of a compiled module ready to use. A kind says what
a value is: "-" there is none (a switch), "=a|b" one of these, ",a|b" some of these with commas between, "columns" those
of the command, else a name from `sources`; "" is what nobody can know.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` costs 0.4 `python -c pass`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    OptionRow: TypeAlias = tuple[tuple[str, ...], str, bool, str]  # names, kind, repeats, help
    ArgumentRow: TypeAlias = tuple[str, bool]  # kind, repeats
    # name, summary, options, arguments, verbs, aliases, columns
    CommandRow: TypeAlias = tuple[
        str,
        str,
        tuple[OptionRow, ...],
        tuple[ArgumentRow, ...],
        tuple["CommandRow", ...],
        tuple[tuple[str, str], ...],
        str,
    ]

_NO_VALUE, _ONE, _SOME = "-", "=", ","


class Wanted:
    """What may stand at the cursor: `offers` that are known, as (text, about), or values of a `kind` to be looked up.

    `typed` is what there is of the value, `before` what stands before it in the same word (`--output=`, or `slug,url,`
    of a list). `given` need not be offered again. `options` are the values of options that stand on the line.
    """

    def __init__(self, typed: str = "", before: str = "") -> None:
        self.typed = typed
        self.before = before
        self.offers: list[tuple[str, str]] = []
        self.kind = ""
        self.given: list[str] = []
        self.options: dict[str, str] = {}
        self.goes_on = False  # a comma may follow


class _Line:
    """How far a line has been read."""

    def __init__(self, root: CommandRow, shared: tuple[OptionRow, ...]) -> None:
        self.command = root
        self.shared = shared
        self.arguments: list[str] = []
        self.given: list[OptionRow] = []
        self.values: list[tuple[OptionRow, str]] = []
        self.waiting: OptionRow | None = None  # for its value, which is the next word
        self.only_arguments = False
        self.lost = False  # a word that the grammar does not know

    def take(self, word: str) -> None:
        if self.waiting is not None:
            self.values.append((self.waiting, word))
            self.waiting = None
        elif self.only_arguments or not word.startswith("-") or word == "-" or _is_number(word):
            self._take_name(word)
        elif word == "--":
            self.only_arguments = True
        elif word.startswith("--"):
            self._take_long(word)
        else:
            self._take_short(word)

    def _take_name(self, word: str) -> None:
        verbs = self.command[4]
        if not verbs:
            self.arguments.append(word)
            return
        name = dict(self.command[5]).get(word, word)
        below = [verb for verb in verbs if verb[0] == name]
        if below:
            self.command = below[0]
        else:
            self.lost = True

    def _take_long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option = self.option(name)
        if option is None:
            return
        self.given.append(option)
        if equals:
            self.values.append((option, value))
        elif option[1] != _NO_VALUE:
            self.waiting = option

    def _take_short(self, word: str) -> None:
        """`-q`, `-o json`, `-ojson`, `-qo json`."""
        for place, letter in enumerate(word[1:], 2):
            option = self.option("-" + letter)
            if option is None:
                return
            self.given.append(option)
            if option[1] != _NO_VALUE:
                if word[place:]:
                    self.values.append((option, word[place:]))
                else:
                    self.waiting = option
                return

    def option(self, name: str) -> OptionRow | None:
        for option in self.options():
            if name in option[0]:
                return option
        return None

    def options(self) -> Iterable[OptionRow]:
        return (*self.command[2], *self.shared)


def read(words: list[str], root: CommandRow, shared: tuple[OptionRow, ...]) -> Wanted:
    """What may stand in the place of the last word, where those before it stand."""
    line = _Line(root, shared)
    for word in words[:-1]:
        line.take(word)
    wanted = _at_cursor(line, words[-1] if words else "")
    for option, value in line.values:
        for name in option[0]:
            wanted.options[name] = value
    return wanted


def _at_cursor(line: _Line, word: str) -> Wanted:
    if line.lost:
        return Wanted(word)
    if line.waiting is not None:
        return _value(line, line.waiting, word, "")
    if word.startswith("-") and not line.only_arguments:
        name, equals, typed = word.partition("=")
        if equals:
            option = line.option(name) if name.startswith("--") else None
            return _value(line, option, typed, name + equals) if option is not None else Wanted(word)
        return _options(line, word)
    wanted = Wanted(word)
    if line.command[4]:
        wanted.offers = [(verb[0], verb[1]) for verb in line.command[4]]
        return wanted
    kinds = line.command[3]
    place = len(line.arguments)
    if kinds and (place < len(kinds) or kinds[-1][1]):
        kind, repeats = kinds[min(place, len(kinds) - 1)]
        _fill(wanted, kind, line.command[6])
        wanted.given += line.arguments if repeats else []
    return wanted


def columns_of(root: CommandRow, path: list[str]) -> list[str]:
    """Of the tables that a command shows; none where they are not known."""
    command = root
    for name in path:
        for below in command[4]:
            if below[0] == name:
                command = below
    return [name for name in command[6].split("|") if name]


def _value(line: _Line, option: OptionRow, typed: str, before: str) -> Wanted:
    wanted = Wanted(typed, before)
    wanted.given = [value for other, value in line.values if other is option]
    _fill(wanted, option[1], line.command[6])
    return wanted


def _fill(wanted: Wanted, kind: str, columns: str) -> None:
    if kind == "columns":
        kind = _SOME + columns
    if kind[:1] == _SOME:
        settled, comma, typed = wanted.typed.rpartition(",")
        wanted.before, wanted.typed, wanted.goes_on = wanted.before + settled + comma, typed, True
        wanted.given += settled.split(",")
    if kind[:1] in (_ONE, _SOME):
        wanted.offers = [(choice, "") for choice in kind[1:].split("|") if choice]
    elif kind != _NO_VALUE:
        wanted.kind = kind


def _options(line: _Line, word: str) -> Wanted:
    """By their long names; one that was given is not offered again, unless it may be repeated."""
    wanted = Wanted(word)
    for names, _, repeats, about in line.options():
        if repeats or not any(names == other[0] for other in line.given):
            long = [name for name in names if name.startswith("--")]
            wanted.offers += [(name, about) for name in long or names]
    return wanted


def _is_number(word: str) -> bool:
    """`-5` of `billing adjust -5` is an argument."""
    return word[1:].replace(".", "", 1).isdigit()
