"""Tokens of the admin API: whose one is, when it was used last, and what is under way with it.

A token is looked up by its SHA-256 through an index, anew for each request, so a change of it bites at the next one.
How long that takes may tell how much of a digest agrees with one that is stored. That helps nobody: whoever can choose
a token by its digest has broken SHA-256, and one that agrees in part opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from gatewayd import keys
from gatewayd.control.admin.callers import Caller, Role
from gatewayd.control.database import Database
from gatewayd.control.tables import Tenant, Token
from gatewayd.policy.amounts import format_time

MINUTE_S = 60

_token, _tenant = Token.__table__, Tenant.__table__  # type: ignore[attr-defined]
_ROW = select(
    _token.c.id, _token.c.name, _token.c.role, _token.c.expires_at, _token.c.revoked_at, _token.c.tenant_id,
    _tenant.c.slug, _tenant.c.public_id, _tenant.c.removed_at,
).join_from(_token, _tenant, _tenant.c.id == _token.c.tenant_id, isouter=True)  # fmt: skip
_BY_DIGEST = _ROW.where(_token.c.digest == bindparam("digest"))
_BY_ID = _ROW.where(_token.c.id == bindparam("id"))
_USED = "UPDATE token SET last_used_at = ? WHERE id = ? AND coalesce(last_used_at, -1) < ?"

UNKNOWN = "the token is not known"


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    name: str
    role: Role
    expires_at: int | None
    revoked_at: int | None
    tenant_id: int | None
    slug: str | None
    public_id: str | None
    removed_at: int | None

    def ended(self, now_s: int) -> str | None:
        """Why it opens nothing any more, in a sentence for whoever holds it."""
        if self.revoked_at is not None:
            return f"token {self.name!r} was revoked"
        if self.expires_at is not None and self.expires_at <= now_s:
            return f"token {self.name!r} expired at {format_time(self.expires_at)}"
        if self.tenant_id is not None and self.removed_at is not None:
            return f"the tenant {self.slug!r} of token {self.name!r} was removed"
        return None


class Bearers:
    """Of the loop's thread. `<Bearers 2 requests under way, 1 use to be written>`"""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[int, int] = {}  # the last minute of each token, by its number
        self._written: dict[int, int] = {}
        self._visits: dict[int, set[Callable[[], None]]] = {}

    def __repr__(self) -> str:
        return f"<Bearers {sum(map(len, self._visits.values()))} requests under way, {len(self._unwritten())} to write>"

    def find(self, shown: bytes, now_s: int) -> Caller | str:
        """Whose token this is, or why it opens nothing. A mistyped one costs no look-up."""
        if not keys.is_token(shown):
            return UNKNOWN
        found = self._database.lookup.execute(_BY_DIGEST, {"digest": keys.digest(shown)}).first()
        if found is None:
            return UNKNOWN
        row = _Row(*found)
        if (ended := row.ended(now_s)) is not None:
            return ended
        self._used[row.id] = now_s // MINUTE_S * MINUTE_S
        return Caller(f"token:{row.name}", row.role, "token", row.slug, row.public_id, row.id, row.expires_at)

    def last_used(self, token_id: int | None, stored: int | None) -> int | None:
        """With what has yet to be written. May be called from any thread."""
        return max(filter(None, (stored, self._used.get(token_id or 0))), default=None)

    def write(self) -> None:
        """What tokens were used since the last time, in one transaction; none where there is nothing to write."""
        if self._database.is_lent or not (uses := self._unwritten()):
            return
        with self._database.write() as session:
            rows = [(minute, token_id, minute) for token_id, minute in uses.items()]
            session.connection().exec_driver_sql(_USED, rows)
        self._written.update(uses)

    def _unwritten(self) -> dict[int, int]:
        return {token_id: minute for token_id, minute in self._used.items() if self._written.get(token_id) != minute}

    @contextmanager
    def visit(self, token_id: int, hang_up: Callable[[], None]) -> Iterator[None]:
        """A request is under way with this token. `hang_up` ends its connection."""
        visits = self._visits.setdefault(token_id, set())
        visits.add(hang_up)
        try:
            yield
        finally:
            visits.discard(hang_up)
            if not visits:
                self._visits.pop(token_id, None)

    def end_visits(self, now_s: int, but: Callable[[], None] | None = None) -> None:
        """Hang up on requests whose token has ended meanwhile. Those that stream would go on for as long as they like.

        `but`: the request that has just revoked its own token may have its answer.
        """
        for token_id, visits in list(self._visits.items()):
            found = self._database.lookup.execute(_BY_ID, {"id": token_id}).first()
            if found is None or _Row(*found).ended(now_s) is not None:
                for hang_up in visits - {but}:
                    hang_up()
