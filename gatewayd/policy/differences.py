"""What sets one configuration apart from another: pure. Objects are mappings of fields, those with defaults left out.

Objects of the two sides belong together by what they are called. What is called differently may be the same all the
same: a route that matches what another one matched is that one under another name, since no two can match the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Kind = Literal["tenant", "service", "plan", "route", "key"]
KINDS: tuple[Kind, ...] = ("tenant", "service", "plan", "route", "key")  # each refers only to those before it
Pairs = list[tuple[int | None, int | None]]  # indexes: of what is wanted, of what is there


class FieldDifference(msgspec.Struct, frozen=True):
    """`before` and `after` null: what the field's default says, or nothing."""

    field: str
    before: Any
    after: Any


class Difference(msgspec.Struct, frozen=True):
    """One object that would be added, set or removed."""

    kind: Kind
    tenant: str
    name: str
    change: Literal["add", "set", "remove"]
    fields: tuple[FieldDifference, ...]


def compare(
    kind: Kind,
    tenant: str,
    name: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    defaults: Mapping[str, Any],
) -> Difference | None:
    """None: they are the same. `before` None: it is new; `after` None: it goes."""
    if before == after:
        return None
    change: Literal["add", "set", "remove"] = "add" if before is None else "remove" if after is None else "set"
    otherwise = defaults if change == "set" else {}
    before, after = before or {}, after or {}
    fields = tuple(
        FieldDifference(field, before.get(field, otherwise.get(field)), after.get(field, otherwise.get(field)))
        for field in dict.fromkeys((*before, *after))
        if before.get(field, _MISSING) != after.get(field, _MISSING)
    )
    return Difference(kind, tenant, name, change, fields)


_MISSING = object()


def place(difference: Difference) -> tuple[int, int, str, str]:
    """The order in which differences can be carried out: nothing goes before what refers to it, or comes after it."""
    rank = KINDS.index(difference.kind)
    removed = difference.change == "remove"
    return (0 if removed else 1, -rank if removed else rank, difference.tenant, difference.name)


def pair_named(wanted: Sequence[str], present: Sequence[str]) -> Pairs:
    """By names that are each there once."""
    there = {name: index for index, name in enumerate(present)}
    pairs: Pairs = [(index, there.pop(name, None)) for index, name in enumerate(wanted)]
    return [*pairs, *((None, index) for index in there.values())]


class RouteName(NamedTuple):
    """What a route is known by: its name, and else what it matches."""

    name: str
    match: tuple[Any, ...]


def pair_routes(wanted: Sequence[RouteName], present: Sequence[RouteName]) -> Pairs:
    by_name = {route.name: index for index, route in enumerate(present) if route.name}
    found: dict[int, int] = {}
    for index, route in enumerate(wanted):
        if route.name in by_name:
            found[index] = by_name.pop(route.name)
    taken = set(found.values())
    by_match = {route.match: index for index, route in enumerate(present) if index not in taken}
    for index, route in enumerate(wanted):
        if index not in found and route.match in by_match:
            found[index] = by_match.pop(route.match)
    return _with_the_rest(found, len(wanted), len(present))


class KeyName(NamedTuple):
    """What a key is known by: its public id, where one is given, and else its name."""

    id: str | None
    name: str


def pair_keys(wanted: Sequence[KeyName], present: Sequence[KeyName]) -> tuple[Pairs, list[int]]:
    """Also which of those that are wanted might be more than one that is there."""
    by_id = {key.id: index for index, key in enumerate(present)}
    found = {index: by_id[key.id] for index, key in enumerate(wanted) if key.id is not None and key.id in by_id}
    taken = set(found.values())
    by_name: dict[str, list[int]] = {}
    for index, key in enumerate(present):
        if index not in taken:
            by_name.setdefault(key.name, []).append(index)
    unclear: list[int] = []
    for index, key in enumerate(wanted):
        called = by_name.get(key.name, []) if key.id is None else []
        if len(called) > 1:
            unclear.append(index)
        elif called:
            found[index] = called.pop()
    return _with_the_rest(found, len(wanted), len(present)), unclear


def _with_the_rest(found: Mapping[int, int], wanted: int, present: int) -> Pairs:
    taken = set(found.values())
    pairs: Pairs = [(index, found.get(index)) for index in range(wanted)]
    return [*pairs, *((None, index) for index in range(present) if index not in taken)]
