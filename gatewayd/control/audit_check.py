"""Whether the lines of the audit are those that were written: each hash is computed again from what stands there.

A line that was altered, added, taken out of the middle or put elsewhere breaks the chain at its place, which is named.
Lines taken from the end leave a chain that is whole; they are missed by the number that SQLite keeps of the last line
it gave, and whoever turned that back, or wrote all later lines anew, is found by a hash that was noted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from gatewayd.policy.audit_chain import GENESIS, Line, link

MOST_DIFFERENCES = 100
_AT_ONCE = 1000  # lines in memory

_LINES = text("SELECT id, sha256, at, actor, action, tenant, subject, before, after FROM audit ORDER BY id")
_LAST_GIVEN = text("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")


class BrokenLine(msgspec.Struct):
    """`id` null: of no line that is there."""

    id: int | None
    expected: str
    found: str | None
    detail: str


@dataclass(slots=True)
class Checked:
    """`sha256`: of the newest line."""

    lines: int = 0
    sha256: str = GENESIS
    differences: list[BrokenLine] = field(default_factory=list)


def check(connection: Connection, noted: str | None = None) -> Checked:
    """Go through all lines. `noted`: a hash that one of them had some day."""
    found, last_id, seen = Checked(), 0, noted is None
    for lines in _read(connection, found):
        for id_, sha256, *line in lines:
            expected = _link(found.sha256, Line(*line))
            if expected != sha256 and len(found.differences) < MOST_DIFFERENCES:
                # From here on by the hash that stands there: what follows is no worse for it.
                found.differences.append(BrokenLine(id_, expected, sha256, _what_happened(found.lines)))
            seen = seen or sha256 == noted
            found.sha256, last_id = sha256, id_
            found.lines += 1
    _count(connection, found, last_id)
    if not seen and noted is not None:
        detail = "the noted hash is that of no line: lines were taken from the end, or written anew, since it was noted"
        found.differences.append(BrokenLine(None, noted, None, detail))
    return found


def _read(connection: Connection, found: Checked) -> Iterator[Sequence[Any]]:
    """All lines in their order, so many at once; up to one that Python takes for no text, which only others write."""
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(_LINES)
    try:
        yield from rows.partitions()
    except OperationalError:
        detail = f"one of the {_AT_ONCE} lines after this many holds what is no text; from there on none was looked at"
        found.differences.append(BrokenLine(None, "text", str(found.lines), detail))


def _link(previous: str, line: Line) -> str:
    """Empty where a column holds what the gateway never writes, such as bytes."""
    try:
        return link(previous, line)
    except TypeError:
        return ""


def _what_happened(lines_before: int) -> str:
    after = "the first line that is there" if lines_before == 0 else "the line before it"
    return f"this line, or {after}, is not as it was written, or one between them is gone or was added"


def _count(connection: Connection, found: Checked, last_id: int) -> None:
    given = connection.execute(_LAST_GIVEN).scalar() or 0
    if given > last_id:
        detail = f"lines were written up to number {given}, and the last that is there is {last_id}"
        found.differences.append(BrokenLine(None, str(given), str(last_id), detail))
