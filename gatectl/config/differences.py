"""What would be different, as people read it: `+` is added, `~` changed, `-` removed, with each field below.

    + service orders
        targets: [http://127.0.0.1:8001]
    ~ plan starter
        quota: 10000/month -> 20000/month
    - key ci in acme
    1 to add, 1 to change, 1 to remove

The same text in a pipe, without its colours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatectl.colours import Colours, painted
from gatectl.config import spelling
from gatectl.output import Column

COLUMNS = (
    Column("change"),
    Column("kind"),
    Column("tenant"),
    Column("name"),
    Column("fields"),
)
DEFAULT_TENANT = "default"
_SIGNS = {"add": "+", "set": "~", "remove": "-"}
_MEANINGS = {"add": "good", "set": "warn", "remove": "ill"}
_MOST_NAMED = 3
_LONGEST_LISTS = 56  # before and after; of longer ones only what comes and goes is told
_TITLES = ("slug", "name")

Difference = Mapping[str, Any]


def drawn(differences: Sequence[Difference], colours: Colours, most: int | None = None) -> Iterator[str]:
    """A line each; of more than `most` what the rest comes to."""
    for difference in differences[:most]:
        change = difference["change"]
        title = f"{_SIGNS[change]} {difference['kind']} {called(difference)}"
        yield painted(visible(title), colours.code(_MEANINGS[change])) + "\n"
        for field in difference["fields"] if change != "remove" else ():
            if change == "add" and field["field"] in _TITLES and field["after"] == difference["name"]:
                continue  # of one that changes, it is what changes
            for name, before, after in _parts(field["field"], field["before"], field["after"]):
                yield from (f"    {line}\n" for line in _field(name, before, after, change, colours))
    if most is not None and (rest := differences[most:]):
        yield f"  and {len(rest):,} more: {_counts(rest)}\n"


def called(difference: Difference) -> str:
    """Its name, and its tenant where that is another than `default`."""
    if difference["kind"] == "tenant" or difference["tenant"] == DEFAULT_TENANT:
        return str(difference["name"])
    return f"{difference['name']} in {difference['tenant']}"


def _parts(name: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Of a field with members those that differ, as `health.interval_s`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for member in dict.fromkeys((*before, *after)):
            if before.get(member) != after.get(member):
                yield f"{name}.{member}", *map(spelling.to_file, (before.get(member), after.get(member)))
    else:
        yield name, spelling.to_file(before, name), spelling.to_file(after, name)


def _field(name: str, before: Any, after: Any, change: str, colours: Colours) -> Iterator[str]:
    was, becomes = visible(_value(before)), visible(_value(after))
    if change == "add":
        yield f"{visible(name)}: {becomes}"
    elif len(was) + len(becomes) > _LONGEST_LISTS and (items := _items(before, after)):
        yield f"{visible(name)}:"
        for sign, item in items:
            yield painted(f"  {sign} {visible(_value(item))}", colours.code("good" if sign == "+" else "ill"))
    else:
        yield f"{visible(name)}: {painted(was, colours.code('ill'))} -> {painted(becomes, colours.code('good'))}"


def _items(before: Any, after: Any) -> list[tuple[str, Any]]:
    """What comes into a list and what goes; none where it is not only that."""
    if not (isinstance(before, list) and isinstance(after, list)):
        return []
    if [each for each in before if each in after] != [each for each in after if each in before]:
        return []  # the order is another
    gone = [("-", each) for each in before if each not in after]
    return gone + [("+", each) for each in after if each not in before]


def _value(value: Any) -> str:
    """As a file has it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_value(held)}" for name, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return value if isinstance(value, str) and value else json.dumps(value)


def visible(text: str) -> str:
    return text if text.isprintable() else "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in text)


def _counts(differences: Sequence[Difference]) -> str:
    """`2 services and 1 key`."""
    return _and([_many(count, kind) for kind, count in Counter(each["kind"] for each in differences).items()])


def _many(count: int, kind: str) -> str:
    return f"{count:,} {kind}{'s' * (count != 1)}"


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def summary(answer: Mapping[str, Any]) -> str:
    return f"{answer['added']:,} to add, {answer['changed']:,} to change, {answer['removed']:,} to remove"


def done(revision: Mapping[str, Any]) -> str:
    return f"{revision['added']:,} added, {revision['changed']:,} changed, {revision['removed']:,} removed"


def deed(differences: Sequence[Difference]) -> str:
    """What a person is asked to agree to: `add 2, change plan starter and revoke keys ci, web`."""
    deeds = []
    for change, verb in (("add", "add"), ("set", "change")):
        held = [each for each in differences if each["change"] == change]
        if held:
            deeds.append(f"{verb} {_named(held[0]['kind'], held) if len(held) == 1 else f'{len(held):,}'}")
    for verb, mine in (("revoke", True), ("remove", False)):
        kinds: dict[str, list[Difference]] = {}
        for each in differences:
            if each["change"] == "remove" and (each["kind"] == "key") is mine:
                kinds.setdefault(each["kind"], []).append(each)
        if kinds:
            deeds.append(f"{verb} {', '.join(_named(kind, held) for kind, held in kinds.items())}")
    return _and(deeds)


def _named(kind: str, held: Sequence[Difference]) -> str:
    if len(held) > _MOST_NAMED:
        return _many(len(held), kind)
    return f"{kind}{'s' * (len(held) != 1)} {', '.join(called(each) for each in held)}"


def removed_tenants(differences: Sequence[Difference]) -> str | None:
    """Their names, to be typed by whoever agrees."""
    gone = [each["name"] for each in differences if (each["kind"], each["change"]) == ("tenant", "remove")]
    return ",".join(gone) or None
