"""YAML, or JSON, as a file of people holds it: into plain data, and from a place in the data back to line and column.

PyYAML's parser (libyaml's, where the wheel has it) gives events, and what they mean is decided here:

- A plain scalar that JSON would know is what JSON says: `true`, `null` and numbers. Beside them YAML 1.2 has `True`,
  `TRUE`, `Null`, `NULL`, `~` and nothing at all. Everything else is text. In YAML 1.1, which PyYAML's own constructors
  follow, `on` and `no` are truth values, `010` is eight and `60:00` is 3600: a service called `on` would lose its name.
- A key that is given twice is a mistake: of two timeouts one would win quietly.
- Anchors, aliases and `<<` work. What they multiply is bounded, as is the depth.
- One document a file, in UTF-8.

No graph of nodes is built: of 100,000 lines it takes 1.6 to 2.9 s (most of it garbage collection), this 0.6 s. The file
is parsed a second time when mistakes have to be placed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from gatectl.config.mistakes import Mistake, MistakenError, Place

LARGEST_BYTES = 64 << 20  # what the gateway takes
DEEPEST = 64  # a configuration has 8 levels
_MOST_MISTAKES = 100

_WORDS: Mapping[str, Any] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
}  # fmt: skip
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST_NUMBER = 100
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
_MERGE = "<<"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Written(float):
    """A number that is not whole, and how it was written: money is never a float."""

    text: str

    def __new__(cls, text: str) -> Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


class Source:
    """A file's text and the data in it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = _checked(name, content)
        self.data = _json(self._content) or _Builder(name).build(_events(name, self._content))

    def __repr__(self) -> str:
        return f"<Source {self.name}>"

    def places(self, pointers: Iterable[str]) -> dict[str, Place]:
        """Where each of these (RFC 6901) is: its key, its item of a list, or what it is missing in."""
        wanted = {pointer: _prefixes(pointer) for pointer in pointers}
        sought = {prefix for prefixes in wanted.values() for prefix in prefixes}
        found: dict[str, Place] = {}
        try:
            for path, mark in _paths(_events(self.name, self._content)):
                if path in sought:
                    found.setdefault(path, Place(mark.line + 1, mark.column + 1))
        except MistakenError:
            pass  # JSON that is no YAML: some of its escapes
        return {pointer: place for pointer, path in wanted.items() if (place := _first(found, path))}


def _prefixes(pointer: str) -> list[str]:
    """The pointer, what it is in, and so on out."""
    steps = pointer.split("/")
    return ["/".join(steps[:count]) for count in range(len(steps), 0, -1)]


def _first(found: Mapping[str, Place], paths: Iterable[str]) -> Place | None:
    return next((found[path] for path in paths if path in found), None)


def _checked(name: str, content: bytes) -> bytes:
    """Without a byte order mark."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise _mistaken(name, _place_of(content, error.start), "this is not UTF-8") from None
    return content


def _json(content: bytes) -> Any:
    """What begins as JSON is read as such, where it is right: libyaml does not know all of its escapes."""
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        return json.loads(content, object_pairs_hook=_once, parse_float=_decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None  # the other parser says what is wrong, and where


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise ValueError("a key is given twice")
    return held


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _events(name: str, content: bytes) -> Iterator[Any]:
    try:
        yield from yaml.parse(content, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _mistaken(name, *_told(error, content)) from None
    except yaml.reader.ReaderError as error:
        what = "a control character, which YAML does not allow"
        raise _mistaken(name, _place_of(content, _offset(error, content)), what) from None


def _offset(error: Any, content: bytes) -> int:
    """libyaml counts bytes, PyYAML's own reader characters."""
    if _LOADER is yaml.SafeLoader:
        return len(content.decode()[: error.position].encode())
    return int(error.position)


def _told(error: Any, content: bytes) -> tuple[Place | None, str]:
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    if mark is None:
        return None, str(error.problem or error.context)
    line = (content.splitlines() or [b""])[mark.line : mark.line + 1]
    if line and line[0][: mark.column + 1].endswith(b"\t"):
        return Place(mark.line + 1, mark.column + 1), "a tab; YAML is indented with spaces"
    within = f" {error.context}" if error.context else ""
    since = f" that began in line {began.line + 1}" if began and began.line != mark.line else ""
    return Place(mark.line + 1, mark.column + 1), f"{error.problem}{within}{since}"


def _place_of(content: bytes, offset: int) -> Place:
    before = content[:offset]
    column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace"))
    return Place(before.count(b"\n") + 1, column + 1)


def _mistaken(name: str, place: Place | None, detail: str) -> MistakenError:
    return MistakenError([Mistake(name, place, detail)])


def _number(text: str) -> Any:
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > _LONGEST_NUMBER:
        return text
    return _decimal(text) if match.lastindex else int(text)


def _decimal(text: str) -> Any:
    number = Written(text)
    return text if number in (float("inf"), float("-inf")) else number


def _scalar(event: Any) -> Any:
    if not event.implicit[0] or event.tag is not None:  # quoted, or its tag says that it is text
        return event.value
    return meaning(event.value)


def meaning(text: str) -> Any:
    """Of a plain scalar."""
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in "-0123456789" else text


class _Frame:
    """A list or a mapping whose end has not come."""

    __slots__ = ("anchor", "held", "key", "lines", "merged", "merges", "size")

    def __init__(self, held: Any, anchor: str | None) -> None:
        self.held = held
        self.anchor = anchor
        self.key: str | None = None  # whose value comes next
        self.lines: dict[str, int] = {}
        self.merges = False  # the value that comes next, into what is held
        self.merged: list[Any] = []
        self.size = 0


class _Builder:
    """Data from events. Mistakes that leave the rest readable are collected."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._mistakes: list[Mistake] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._root: Any = None
        self._documents = 0
        self._multiplied = 0

    def build(self, events: Iterator[Any]) -> Any:
        handlers = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._begin_mapping,
            yaml.SequenceStartEvent: self._begin_list,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        for event in events:
            if handler := handlers.get(type(event)):
                handler(event)
        if not self._documents:
            raise _mistaken(self._name, None, "is empty; it begins with 'version: 1' and 'tenants:'")
        if self._mistakes:
            raise MistakenError(self._mistakes)
        return self._root

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._at(event, "a second document; put it into a file of its own")

    def _scalar(self, event: Any) -> None:
        if event.tag not in _TEXT_TAGS:
            self._note(event, f"the tag {event.tag} means nothing here")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and type(frame.held) is dict:
            self._begin_member(frame, event)
            return
        value = _scalar(event)
        size = len(event.value) + 1
        if event.anchor:
            self._anchors[event.anchor] = (value, size)
        self._add(value, size)

    def _begin_member(self, frame: _Frame, event: Any) -> None:
        key: str = event.value
        if event.anchor:
            self._anchors[event.anchor] = (key, len(key) + 1)
        if key in frame.lines:
            self._note(event, f"{key} is given twice; line {frame.lines[key]} has it too")
        frame.key, frame.merges = key, key == _MERGE and event.implicit[0]
        frame.lines.setdefault(key, event.start_mark.line + 1)

    def _begin_mapping(self, event: Any) -> None:
        self._begin(event, {})

    def _begin_list(self, event: Any) -> None:
        self._begin(event, [])

    def _begin(self, event: Any, held: Any) -> None:
        if len(self._stack) == DEEPEST:
            raise self._at(event, f"this is deeper than {DEEPEST} levels")
        if event.tag not in (None, "!"):
            self._note(event, f"the tag {event.tag} means nothing here")
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and type(frame.held) is dict:
            raise self._at(event, "a key must be text")
        if event.anchor:
            self._anchors.pop(event.anchor, None)  # until it is whole there is nothing to repeat
        self._stack.append(_Frame(held, event.anchor))

    def _end(self, event: Any) -> None:
        frame = self._stack.pop()
        for mapping in frame.merged:
            for key, value in mapping.items():
                frame.held.setdefault(key, value)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.held, frame.size + 1)
        self._add(frame.held, frame.size + 1)

    def _alias(self, event: Any) -> None:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise self._at(event, f"*{event.anchor} stands for nothing that was given before, as &{event.anchor}")
        value, size = known
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and type(frame.held) is dict:
            raise self._at(event, "a key must be text")
        self._multiplied += size
        if self._multiplied > LARGEST_BYTES:
            raise self._at(event, "aliases repeat more than a configuration can hold")
        self._add(value, size)

    def _add(self, value: Any, size: int) -> None:
        if not self._stack:
            self._root = value
            return
        frame = self._stack[-1]
        frame.size += size
        if type(frame.held) is list:
            frame.held.append(value)
            return
        key, frame.key = frame.key, None
        if frame.merges and (mappings := _mappings(value)):
            frame.merged += mappings
        else:
            frame.held[key] = value

    def _note(self, event: Any, detail: str) -> None:
        self._mistakes.append(Mistake(self._name, _place(event), detail))
        if len(self._mistakes) >= _MOST_MISTAKES:
            raise MistakenError(self._mistakes, more=True)

    def _at(self, event: Any, detail: str) -> MistakenError:
        return MistakenError([*self._mistakes, Mistake(self._name, _place(event), detail)])


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _mappings(value: Any) -> list[Any]:
    """What `<<` takes over: of several, an earlier one wins."""
    held = value if isinstance(value, list) else [value]
    return held if all(isinstance(each, dict) for each in held) else []


def _paths(events: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each value's pointer, and the mark of its key, or of itself in a list."""
    stack: list[_Step] = []
    for event in events:
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
            if stack:
                stack[-1].go_on()
        elif isinstance(event, yaml.NodeEvent):
            step = stack[-1] if stack else None
            if step is not None and step.mapping and step.key is None:
                step.key, step.mark = str(getattr(event, "value", "")), event.start_mark
                continue
            path = step.path_of_next() if step else ""
            yield path, (step.mark if step and step.mapping else event.start_mark)
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(_Step(path, isinstance(event, yaml.MappingStartEvent)))
            elif step:
                step.go_on()


class _Step:
    """How far into a list or a mapping `_paths` is."""

    __slots__ = ("index", "key", "mapping", "mark", "path")

    def __init__(self, path: str, mapping: bool) -> None:
        self.path = path
        self.mapping = mapping
        self.key: str | None = None
        self.mark: Any = None
        self.index = 0

    def path_of_next(self) -> str:
        if self.key is None:
            return f"{self.path}/{self.index}"
        return f"{self.path}/{self.key.replace('~', '~0').replace('/', '~1')}"

    def go_on(self) -> None:
        self.key = None
        self.index += 1
