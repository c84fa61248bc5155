"""The audit: every change, newest first, and whether its lines are those that were written.

Nothing is ever taken out of it, so it has no retention: a change is some hundred bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from sqlmodel import col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import audit_check
from gatewayd.control.admin import hidden
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.callers import caller_of
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import checked, read_query
from gatewayd.control.admin.pages import PagedByNumber, page
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.spelling import Moment
from gatewayd.control.admin.state import control_of
from gatewayd.control.short_turns import short_turns
from gatewayd.control.tables import Audit
from gatewayd.policy.amounts import format_time, parse_time


class Listed(PagedByNumber, frozen=True, kw_only=True):
    tenant: str | None = None  # also one that is gone: its changes are not
    actor: str | None = None
    action: str | None = None  # `key.revoke`, or `key` for all that happens to keys
    subject: str | None = None
    since: Moment | None = None
    until: Moment | None = None


class Noted(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`sha256`: what a verification answered some day, kept where whoever could write the database cannot."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None


class AuditView(msgspec.Struct):
    id: int
    at: str
    actor: str
    action: str
    tenant: str
    subject: str
    before: msgspec.Raw | None
    after: msgspec.Raw | None
    sha256: str


class Verified(msgspec.Struct):
    """`sha256` is the newest, null where there is no line yet. `differences`: at most 100, the first of them first."""

    ok: bool
    lines: int
    sha256: str | None
    differences: list[audit_check.BrokenLine]


@documented("List changes, newest first", query=Listed, answer=Page[AuditView], rules="since is before until")
def list_(request: Request) -> Response:
    """A viewer is shown what a service or an alert was as it is shown the one that is there: without credentials."""
    asked, bound = read_query(request, Listed), caller_of(request).tenant
    since = None if asked.since is None else checked("since", parse_time, asked.since)
    until = None if asked.until is None else checked("until", parse_time, asked.until)
    if since is not None and until is not None and since >= until:
        raise invalid("since", "since is not before until")
    query = select(Audit)
    for column, value in ((Audit.tenant, asked.tenant), (Audit.actor, asked.actor), (Audit.subject, asked.subject)):
        if value is not None:
            query = query.where(col(column) == value)
    if asked.action is not None:
        query = query.where(
            (col(Audit.action) == asked.action) | col(Audit.action).startswith(f"{asked.action}.", autoescape=True)
        )
    if since is not None:
        query = query.where(col(Audit.at) >= since)
    if until is not None:
        query = query.where(col(Audit.at) < until)
    with control_of(request).database.read() as session:
        if bound is not None:  # what was done to another of this name, which is gone, is not its business
            query = query.where(col(Audit.at) >= tenant_by(session, bound).created_at)
        hides = hidden.hides(request)
        return answer(page(session, query, col(Audit.id), asked, lambda lines: _show_all(lines, hides), True))


@documented("Verify the chain of the audit", query=Noted, answer=Verified)
def verify(request: Request) -> Response:
    """In a thread: a million lines take seconds."""
    asked = read_query(request, Noted)
    with short_turns(), control_of(request).database.read() as session:
        found = audit_check.check(session.connection(), asked.sha256)
    return answer(Verified(not found.differences, found.lines, found.sha256 or None, found.differences))


def _show_all(lines: Sequence[Audit], hides: bool) -> list[AuditView]:
    return [
        AuditView(
            id=line.id or 0,
            at=format_time(line.at),
            actor=line.actor,
            action=line.action,
            tenant=line.tenant,
            subject=line.subject,
            before=_raw(hidden.of_audited(line.action, line.before) if hides else line.before),
            after=_raw(hidden.of_audited(line.action, line.after) if hides else line.after),
            sha256=line.sha256,
        )
        for line in lines
    ]


def _raw(json: str | None) -> msgspec.Raw | None:
    """It was JSON when it was written, and goes out as it is."""
    return None if json is None else msgspec.Raw(json.encode())
