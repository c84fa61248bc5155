"""What keys were: bills of times that are over look at what held then, not at what a key is when they are made.

A change of what decides about a fee leaves a row that says what it was until then. A key that never changed has none,
which is to say that it always was what it is; so does one that was last changed before there were such rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    ScalarSelect,
    and_,
    case,
    exists,
    func,
    insert,
    or_,
    select,
)

from gatewayd.control.compile import Overrides
from gatewayd.control.tables import Key, KeyWas

BITE = 10_000  # keys whose rows are looked up at once: a statement takes 32,766 parameters

_key, _was = Key.__table__, KeyWas.__table__  # type: ignore[attr-defined]
_overrides = msgspec.json.Decoder(Overrides)


class KeyState(NamedTuple):
    """What a bill wants to know of a key at some time. `price_id`: its own, in place of the plan's."""

    plan_id: int | None
    price_id: int | None
    disabled_at: int | None
    expires_at: int | None


class Past(NamedTuple):
    """It was so until then."""

    until: int
    state: KeyState


def state_of(columns: Mapping[str, Any]) -> KeyState:
    """Of a row of table `key`."""
    price_id = None if columns["overrides"] == "{}" else _overrides.decode(columns["overrides"]).price_id
    return KeyState(columns["plan_id"], price_id, columns["disabled_at"], columns["expires_at"])


def keep(connection: Connection, was: Iterable[tuple[int, KeyState]], until: int) -> None:
    """Keys, and what they were until now; they are something else from now on."""
    rows = [{"key_id": key_id, "until": until, **state._asdict()} for key_id, state in was]
    for start in range(0, len(rows), BITE):
        connection.execute(insert(_was), rows[start : start + BITE])


class KeysAt(NamedTuple):
    """Keys as they were just before a moment: a source to select from, and the columns that may have been others.

    `own_price_id` is null where the present overrides say it; `is_past` tells.
    """

    source: FromClause
    is_past: ColumnElement[bool]
    plan_id: ColumnElement[int]
    own_price_id: ColumnElement[int]
    disabled_at: ColumnElement[int]
    expires_at: ColumnElement[int]


def keys_at(moment: int) -> KeysAt:
    """Of several rows of one key the first that ended later holds: the others came after it."""
    was, other = _was.alias(), _was.alias()
    # Of each key by its own rows: as a list of all the first ones SQLite went through the whole of it for each key.
    first = select(func.min(other.c.id)).where(other.c.key_id == _key.c.id, other.c.until >= moment)
    is_past = was.c.id.is_not(None)

    def then(name: str) -> ColumnElement[int]:
        return case((is_past, was.c[name]), else_=_key.c[name])

    source = _key.outerjoin(was, was.c.id == first.correlate(_key).scalar_subquery())
    return KeysAt(source, is_past, then("plan_id"), was.c.price_id, then("disabled_at"), then("expires_at"))


def worked(then: KeysAt, since: int, moment: int) -> ColumnElement[bool]:
    """Whether a key was neither expired nor disabled at any time since, up to the moment that `then` is of.

    What it was at last does not tell: a configuration may name an expiry that was past when it was applied, and what
    had expired may be enabled.
    """
    before, last, other = _was.alias(), _was.alias(), _was.alias()
    began = _newest(other, other.c.key_id == before.c.key_id, other.c.id < before.c.id)
    earlier = exists().where(
        before.c.key_id == _key.c.id,
        before.c.until >= since,
        before.c.until < moment,
        _works(before.c.disabled_at, before.c.expires_at, since, began.correlate(before)),
    )
    began = _newest(last, last.c.key_id == _key.c.id, last.c.until < moment)
    return or_(_works(then.disabled_at, then.expires_at, since, began.correlate(_key)), earlier.correlate(_key))


def _newest(was: FromClause, *of: ColumnElement[bool]) -> ScalarSelect[int]:
    """Until when a key was the last of these; it was something else from then on."""
    return select(was.c.until).where(*of).order_by(was.c.id.desc()).limit(1).scalar_subquery()


def _works(
    disabled_at: ColumnElement[int], expires_at: ColumnElement[int], since: int, began: ScalarSelect[int]
) -> ColumnElement[bool]:
    """Of a second in which a key was disabled it worked for a part, of that at which it expires for none."""
    return and_(
        or_(disabled_at.is_(None), and_(disabled_at >= since, disabled_at >= func.coalesce(began, _key.c.created_at))),
        or_(expires_at.is_(None), and_(expires_at > since, expires_at > func.coalesce(began, _key.c.created_at))),
    )


def pasts_of(connection: Connection, ids: Iterable[int]) -> dict[int, list[Past]]:
    """What these keys were, the oldest first; of those alone that were something else."""
    wanted, found = sorted(ids), dict[int, list[Past]]()
    for start in range(0, len(wanted), BITE):
        some = _was.c.key_id.in_(wanted[start : start + BITE])
        for _, key_id, until, *state in connection.execute(select(_was).where(some).order_by(_was.c.id)):
            found.setdefault(key_id, []).append(Past(until, KeyState(*state)))
    return found
