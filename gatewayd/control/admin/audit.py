"""The audit: every change, newest first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlmodel import col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.inputs import read_query
from gatewayd.control.admin.pages import Paged, page
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import Audit
from gatewayd.policy.amounts import format_time


class Listed(Paged, frozen=True, kw_only=True):
    tenant: str | None = None  # also one that is gone: its changes are not


class AuditView(msgspec.Struct):
    id: int
    at: str
    actor: str
    action: str
    tenant: str
    subject: str
    before: msgspec.Raw | None
    after: msgspec.Raw | None


def list_(request: Request) -> Response:
    asked = read_query(request, Listed)
    query = select(Audit)
    if asked.tenant is not None:
        query = query.where(Audit.tenant == asked.tenant)
    with control_of(request).database.read() as session:
        return answer(page(session, query, col(Audit.id), asked, _show_all, newest_first=True))


def _show_all(lines: Sequence[Audit]) -> list[AuditView]:
    return [
        AuditView(
            id=line.id or 0,
            at=format_time(line.at),
            actor=line.actor,
            action=line.action,
            tenant=line.tenant,
            subject=line.subject,
            before=_raw(line.before),
            after=_raw(line.after),
        )
        for line in lines
    ]


def _raw(json: str | None) -> msgspec.Raw | None:
    """It was JSON when it was written, and goes out as it is."""
    return None if json is None else msgspec.Raw(json.encode())
