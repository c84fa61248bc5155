"""Accidents of the past: what was lost, torn or set aside stays so, and its count never goes.

They degrade the gateway until an operator has taken note of them, so that they are never passed over and yet do not
hide what comes next. Noted is up to a count: one more degrades again. What was noted stays on record, here and in the
audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from gatewayd.control.admin.changes import Change
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.state import JournalView
from gatewayd.control.tables import Acknowledgement
from gatewayd.policy.amounts import format_time

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
_DAMAGED = "damaged:"

_noted = Acknowledgement.__table__  # type: ignore[attr-defined]


class Past(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`torn` records and `lost` requests up to this count of all that there ever were; `damaged` files by name."""

    torn: _Count = 0
    lost: _Count = 0
    damaged: tuple[str, ...] = ()


class Note(msgspec.Struct, frozen=True):
    """Who has taken note, when, and up to which count."""

    count: int
    at: int
    actor: str

    def __str__(self) -> str:
        return f"acknowledged at {format_time(self.at)} by {self.actor}"


class Noted:
    """Of what somebody has taken note."""

    def __init__(self, notes: Mapping[str, Note]) -> None:
        self._notes = notes

    def __repr__(self) -> str:
        return f"<Noted {', '.join(self._notes) or 'nothing'}>"

    @classmethod
    def read(cls, connection: Connection) -> Noted:
        rows = connection.execute(select(_noted.c.subject, _noted.c.count, _noted.c.at, _noted.c.actor))
        return cls({subject: Note(*rest) for subject, *rest in rows})

    def of(self, subject: str) -> Note | None:
        return self._notes.get(subject)

    def of_file(self, name: str) -> Note | None:
        return self._notes.get(_DAMAGED + name)

    def new(self, subject: str, count: int) -> int:
        """How many of `count` nobody has taken note of."""
        note = self.of(subject)
        return max(0, count - (note.count if note else 0))

    def unseen(self, journal: JournalView) -> Past:
        """What is to be taken note of."""
        return Past(
            journal.torn if self.new("torn", journal.torn) else 0,
            journal.lost if self.new("lost", journal.lost) else 0,
            tuple(name for name in journal.damaged if self.of_file(name) is None),
        )


def acknowledge(made: Change, seen: Past, journal: JournalView) -> None:
    """Take note of what somebody has seen. Raises AdminError for what there never was: that nobody has seen."""
    for name, asked, there in (("torn", seen.torn, journal.torn), ("lost", seen.lost, journal.lost)):
        if asked > there:
            raise invalid(name, f"{asked} are more than the {there} that there are")
    if strange := [name for name in seen.damaged if name not in journal.damaged]:
        raise invalid("damaged", f"no file {strange[0][:80]!r} is set aside")
    connection = made.session.connection()
    noted = Noted.read(connection)
    new = {subject: count for subject, count in _counts(seen) if noted.new(subject, count)}
    if not new:
        return
    before = {subject: note.count for subject in new if (note := noted.of(subject))}
    rows = [{"subject": subject, "count": count, "at": made.at, "actor": made.actor} for subject, count in new.items()]
    statement = insert(_noted)
    newer = {name: statement.excluded[name] for name in ("count", "at", "actor")}
    connection.execute(statement.on_conflict_do_update(["subject"], set_=newer), rows)
    made.note("doctor.acknowledge", "", "journal", before or None, new)


def _counts(seen: Past) -> Iterator[tuple[str, int]]:
    yield "torn", seen.torn
    yield "lost", seen.lost
    for name in seen.damaged:
        yield _DAMAGED + name, 1
