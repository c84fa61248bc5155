"""When each generation of a key was used last, to the minute.

Kept with the rollups, in their transaction, and written only when a minute has passed: a busy key costs one update a
minute, however many requests it makes.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlmodel import Session

from gatewayd.control.batches import Group
from gatewayd.errors import DISABLED_KEY, EXPIRED_KEY, REVOKED_KEY

MINUTE_S = 60
_MINUTE_NS = MINUTE_S * 1_000_000_000
_REMEMBERED = 100_000  # keys of the last minutes: as many as one worker's cache holds
# A request refused for its key was no use of it: a generation that has ended would never be quiet.
_NO_USE = frozenset({REVOKED_KEY.number, EXPIRED_KEY.number, DISABLED_KEY.number})

# A record of a time before there were generations in it (number 0) is of the one that there is.
_CURRENT = (
    "UPDATE key SET last_used_at = ?, first_used_at = coalesce(first_used_at, ?) "
    "WHERE id = ? AND (? = 0 OR generation = ?) AND coalesce(last_used_at, -1) < ?"
)
_OLDER = "UPDATE key_generation SET last_used_at = ? WHERE key_id = ? AND number = ? AND coalesce(last_used_at, -1) < ?"


class LastUsed:
    """Notes uses within the caller's transaction. Remembers what is stored: it alone writes it."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, int], int] = {}

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._minutes.clear()

    def add(self, session: Session, groups: Iterable[Group]) -> None:
        latest: dict[tuple[int, int], int] = {}
        for group in groups:
            if group.key and group.problem not in _NO_USE:
                used = (group.key, group.generation)
                if group.last_ns > latest.get(used, 0):
                    latest[used] = group.last_ns
        minutes = {used: time_ns // _MINUTE_NS * MINUTE_S for used, time_ns in latest.items()}
        changed = {used: minute for used, minute in minutes.items() if minute > self._minutes.get(used, -1)}
        if not changed:
            return
        connection = session.connection()
        rows = [(minute, minute, key, number, number, minute) for (key, number), minute in changed.items()]
        moved = connection.exec_driver_sql(_CURRENT, rows).rowcount
        if moved < len(rows):  # else each was of the present generation
            older = [(minute, key, number, minute) for (key, number), minute in changed.items()]
            connection.exec_driver_sql(_OLDER, older)
        if len(self._minutes) > _REMEMBERED:
            self._minutes.clear()
        self._minutes.update(changed)
