"""A change: one transaction that holds the change and its line in the audit, so neither is there without the other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlmodel import Session, col, select
from starlette.requests import Request

from gatewayd.control.admin.callers import actor_of
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import Condition, condition_of
from gatewayd.control.tables import Audit
from gatewayd.policy.audit_chain import GENESIS, Line, link

_audit = Audit.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Change:
    """An open transaction, who makes it and when."""

    session: Session
    actor: str
    at: int
    condition: Condition | None = None  # on what is changed, as the client has seen it

    def note(self, action: str, tenant: str, subject: str, before: Any = None, after: Any = None) -> None:
        """The audit line. `before` and `after` are what the API showed and will show of the subject.

        Raises AdminError where the client has seen another `before`.
        """
        self.expect(before)
        self.note_all([self.line(action, tenant, subject, before, after)])

    def line(self, action: str, tenant: str, subject: str, before: Any = None, after: Any = None) -> Line:
        return Line(self.at, self.actor, action, tenant, subject, _json(before), _json(after))

    def note_all(self, lines: Iterable[Line]) -> None:
        """Lines of a change of many things, in their order."""
        self.session.flush()  # or a line of this change might not be seen
        newest = select(Audit.sha256).order_by(col(Audit.id).desc()).limit(1)
        sha256, rows = self.session.exec(newest).first() or GENESIS, []
        for line in lines:
            sha256 = link(sha256, line)
            rows.append({**line._asdict(), "sha256": sha256})
        if rows:
            self.session.connection().execute(_audit.insert(), rows)

    def expect(self, before: Any) -> None:
        """Raises AdminError if the client has seen another. In the change's own transaction nobody comes between."""
        if self.condition is not None and before is not None:
            self.condition.check(before)


@contextmanager
def change(request: Request, *, dry_run: bool = False) -> Iterator[Change]:
    """Commits at the end, rolls back when anything is raised. Never await inside: the loop's only writer is held.

    A dry run is rolled back too: whatever would refuse the change has had its say.
    """
    with control_of(request).database.write() as session:
        yield Change(session, actor_of(request), now_s(), condition_of(request))
        if dry_run:
            session.rollback()


def now_s() -> int:
    """The clock, read at the edge: whole seconds since 1970."""
    return time.time_ns() // 1_000_000_000


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
