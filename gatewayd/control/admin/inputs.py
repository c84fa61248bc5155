"""What a client sends: body and query, decoded into the Structs that a noun declares, with errors in plain words.

A Struct says what is known and of what type; `checked` runs a parser of `policy` on one field and names the field when
it complains.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

import msgspec
from starlette.requests import Request

from gatewayd.control.admin.documented import JSON
from gatewayd.control.admin.problems import AdminError, invalid
from gatewayd.errors import BODY_TOO_LARGE, MALFORMED, UNSUPPORTED_MEDIA_TYPE
from gatewayd.policy.addresses import DEFAULT_TENANT

MAX_BODY_BYTES = 1 << 20
_LONGEST_NAME = 200

T = TypeVar("T")
V = TypeVar("V")
S = TypeVar("S", bound=msgspec.Struct)


class Nothing(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The query of what takes none."""


class InTenant(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query of everything that lives in a tenant."""

    tenant: str = DEFAULT_TENANT


class Removal(InTenant, frozen=True, kw_only=True):
    """The query of a removal. `dry_run`: all of it is tried, and nothing is done."""

    dry_run: bool = False


async def read_bytes(request: Request) -> bytearray:
    """The body as it comes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise AdminError(BODY_TOO_LARGE, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return body


async def read_body(request: Request, expected: type[S], *, optional: bool = False) -> S:
    """The JSON body as a Struct. `optional`: without a body, one that says nothing."""
    check_media_type(request, JSON)
    body = await read_bytes(request)
    if not body and optional:
        return expected()
    if not body:
        raise AdminError(MALFORMED, "the body is empty; send a JSON object")
    try:
        decoded = _decode(bytes(body), expected)
    except msgspec.ValidationError as error:
        raise in_plain_words(str(error), expected) from None
    except (ValueError, RecursionError) as error:  # ValueError: also of what is no UTF-8
        raise AdminError(MALFORMED, f"the body is not JSON: {_first_lower(str(error))}") from None
    # Which of two would be meant? RFC 8259 section 4 leaves it open, so one reader may see what another did not.
    json.loads(body, object_pairs_hook=_refuse_twice)
    return decoded


def _decode(body: bytes, expected: type[S]) -> S:
    """By msgspec; and 60.0 is a whole number, as JSON Schema (section 6.1.1 of its validation) has it."""
    try:
        return msgspec.json.decode(body, type=expected)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
        return msgspec.convert(_whole(msgspec.json.decode(body)), type=expected)


def _whole(value: Any) -> Any:
    """The value, with integers for floats that are some."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_media_type(request: Request, *expected: str) -> None:
    """What is no JSON by its own account is not read as JSON. Without an account it is taken for what is expected."""
    written = request.headers.get("content-type", "")
    media_type = written.partition(";")[0].strip().lower()
    if media_type and media_type not in expected:
        detail = f"send {' or '.join(expected)} (header Content-Type), not {media_type[:60]}"
        raise AdminError(UNSUPPORTED_MEDIA_TYPE, detail)


def _refuse_twice(members: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AdminError(MALFORMED, f"the body has {twice[:60]!r} twice in one object")


def read_query(request: Request, expected: type[S]) -> S:
    """The query as a Struct. An unknown name is refused: a misspelt `tenant` must not act on the default one."""
    names = request.query_params.multi_items()
    values = dict(names)
    if len(values) < len(names):
        twice = next(name for name in values if len(request.query_params.getlist(name)) > 1)
        raise invalid(twice, "is given twice")
    try:
        asked = msgspec.convert(values, type=expected, strict=False)
    except msgspec.ValidationError as error:
        raise in_plain_words(str(error), expected) from None
    for name in values:
        if getattr(asked, name) is None:  # `?status=null`, of what is not a string
            raise invalid(name, f"{name} is null; leave it out")
    return asked


def checked(field: str, parse: Callable[[T], V], value: T) -> V:
    """`parse(value)`; a ValueError becomes `invalid` with the field's name."""
    try:
        return parse(value)
    except ValueError as error:
        raise invalid(field, str(error)) from None


def check_display_name(name: str) -> str:
    """A name for people: any characters that are visible."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"is longer than {_LONGEST_NAME} characters")
    if not name.isprintable():
        raise ValueError("holds a control character or a line break")
    return name.strip()


# msgspec's sentences and ours. Each takes the groups of its pattern; `at $.field[0]` was cut off before.
_TYPES = {
    "str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip
_JSON_TYPES = {str: "str", int: "int", float: "float", bool: "bool", list: "array", dict: "object"}
KNOWN_ARE = "; known are "
_LONGEST_SHOWN = 60
_NEAR = 0.7  # `timeout` for `timeout_s`, but not `retries` for `rates`
# What other programs call it.
_ELSEWHERE = {
    "name": "slug", "url": "targets", "urls": "targets", "host": "targets", "port": "targets", "upstream": "targets",
    "upstreams": "targets", "backend": "targets", "backends": "targets", "servers": "targets", "endpoints": "targets",
    "limit": "rates", "limits": "rates", "rate_limit": "rates", "rate_limits": "rates", "tags": "labels",
    "enabled": "suspended", "disabled": "suspended",
}  # fmt: skip
_SENTENCES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Expected `(.*)` of length >= 1"), "must not be empty"),
    (re.compile(r"Expected `(.*)` of length <= (\d+)"), "must not be longer than {1}"),
    (re.compile(r"Expected `(.*)` >= (.*)"), "must be {1} or more"),
    (re.compile(r"Expected `(.*)` <= (.*)"), "must be {1} or less"),
    (re.compile(r"Expected `(.*)` > (.*)"), "must be more than {1}"),
    (re.compile(r"Expected `(.*)`, got `(.*)`"), "must be {0}, not {1}"),
    (re.compile(r"(?:Number|Integer value) out of range"), "is out of range"),
)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_CHOICE = re.compile(r"Invalid enum value .*", re.DOTALL)
_INDEX = re.compile(r"\[[^\]]*\]")
_STEP = re.compile(r"[^.\[\]]+|\.\.\.")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)


def in_plain_words(message: str, expected: type[msgspec.Struct]) -> AdminError:
    """msgspec's complaint about what was to be an `expected`, as ours."""
    place = _PLACE.search(message)
    field, message = (place[1], message[: place.start()]) if place else ("", message)
    expected, name = _holder(expected, field)
    fields = {f.encode_name: f for f in msgspec.structs.fields(expected)}
    if unknown := _UNKNOWN.fullmatch(message):
        return invalid(unknown[1][:60], unknown_name(unknown[1], list(fields)))
    if missing := _MISSING.fullmatch(message):
        return invalid(missing[1], f"{missing[1]} is missing")
    field = field.partition("[")[0]  # of targets[0], it is targets that the client knows by name
    if _CHOICE.fullmatch(message):
        return invalid(field, f"{name} must be one of {', '.join(_choices(fields[name].type))}")
    for pattern, sentence in _SENTENCES:
        if match := pattern.fullmatch(message):
            words = sentence.format(*(_type_words(group) for group in match.groups()))
            return invalid(field, f"{field} {words}") if field else AdminError(MALFORMED, f"the body {words}")
    return invalid(field, _first_lower(message))


def unknown_name(name: str, known: Sequence[str]) -> str:
    """That this is not known: with the one that was meant, where that can be guessed, or else with all there are."""
    shown = name[:_LONGEST_SHOWN]
    said, elsewhere = f"{shown!r} is not known here", _ELSEWHERE.get(shown.lower(), "")
    near = [elsewhere] if elsewhere in known else get_close_matches(shown.lower(), known, n=1, cutoff=_NEAR)
    return f"{said}; did you mean {near[0]}?" if near else f"{said}{KNOWN_ARE}{', '.join(known)}"


def type_name(value: Any) -> str:
    """What a client calls what it has sent, which is JSON."""
    return _TYPES[_JSON_TYPES.get(type(value), "null")]


def steps_to(message: str) -> list[str]:
    """Where in what was sent that is which msgspec's sentence is about: of `$.targets[0]` the list `targets`, `0`."""
    place = _PLACE.search(message)
    steps = [] if place is None else _STEP.findall(place[1])
    unknown = _UNKNOWN.fullmatch(message if place is None else message[: place.start()])
    steps = list(itertools.takewhile(lambda step: step != "...", steps))  # which key of an object it was, nobody says
    return [*steps, unknown[1]] if unknown else steps


def _holder(expected: type[msgspec.Struct], place: str) -> tuple[type[msgspec.Struct], str]:
    """Of `health.path` the Struct that has a `path`, and that name; of `health` alone, that Struct."""
    name = ""
    for name in _INDEX.sub("", place).split("."):
        field = next((f for f in msgspec.structs.fields(expected) if f.encode_name == name), None)
        inner = None if field is None else next(_structs(field.type), None)
        if inner is None:
            break
        expected = inner
    return expected, name


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Those that a field of this type may hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for arg in get_args(kind):
        yield from _structs(arg)


def _choices(kind: Any) -> list[str]:
    """The strings of a Literal, also where it is one of a union."""
    return [choice for arg in get_args(kind) for choice in ([arg] if isinstance(arg, str) else _choices(arg))]


def _type_words(text: str) -> str:
    return " or ".join(_TYPES.get(part, part.removesuffix(".0")) for part in text.split(" | "))


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]
