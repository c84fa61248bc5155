"""When each generation of a key was used last, to the minute.

Kept with the rollups, in their transaction, and written only when a minute has passed: a busy key costs one update a
minute, however many requests it makes.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BindParameter, bindparam, func, or_, update
from sqlmodel import Session

from gatewayd.control.tables import Key, KeyGeneration
from gatewayd.errors import DISABLED_KEY, EXPIRED_KEY, REVOKED_KEY
from gatewayd.records import Record

MINUTE_S = 60
_MINUTE_NS = MINUTE_S * 1_000_000_000
_REMEMBERED = 100_000  # keys of the last minutes: as many as one worker's cache holds
# A request refused for its key was no use of it: a generation that has ended would never be quiet.
_NO_USE = frozenset({REVOKED_KEY.number, EXPIRED_KEY.number, DISABLED_KEY.number})

_key, _generation = Key.__table__, KeyGeneration.__table__  # type: ignore[attr-defined]
_number: BindParameter[int] = bindparam("number")
_minute: BindParameter[int] = bindparam("minute")
# A record of a time before there were generations in it (number 0) is of the one that there is.
_CURRENT = (
    update(_key)
    .where(_key.c.id == bindparam("key_id"), or_(_number == 0, _key.c.generation == _number))
    .where(func.coalesce(_key.c.last_used_at, -1) < _minute)
    .values(last_used_at=_minute, first_used_at=func.coalesce(_key.c.first_used_at, _minute))
)
_OLDER = (
    update(_generation)
    .where(_generation.c.key_id == bindparam("of_key"), _generation.c.number == bindparam("of_number"))
    .where(func.coalesce(_generation.c.last_used_at, -1) < _minute)
    .values(last_used_at=_minute)
)


class LastUsed:
    """Notes uses within the caller's transaction. Remembers what is stored: it alone writes it."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, int], int] = {}

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._minutes.clear()

    def add(self, session: Session, records: Iterable[Record]) -> None:
        latest: dict[tuple[int, int], int] = {}
        for record in records:
            if record.key and record.problem not in _NO_USE:
                used = (record.key, record.generation)
                if record.time_ns > latest.get(used, 0):
                    latest[used] = record.time_ns
        minutes = {used: time_ns // _MINUTE_NS * MINUTE_S for used, time_ns in latest.items()}
        changed = {used: minute for used, minute in minutes.items() if minute > self._minutes.get(used, -1)}
        if not changed:
            return
        connection = session.connection()
        connection.execute(
            _CURRENT, [{"key_id": key, "number": number, "minute": minute} for (key, number), minute in changed.items()]
        )
        connection.execute(
            _OLDER,
            [{"of_key": key, "of_number": number, "minute": minute} for (key, number), minute in changed.items()],
        )
        if len(self._minutes) > _REMEMBERED:
            self._minutes.clear()
        self._minutes.update(changed)
