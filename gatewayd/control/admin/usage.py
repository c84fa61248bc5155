"""Usage, as `usage show` asks for it."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import usage
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, checked, read_query
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import key_by, service_by, tenant_by
from gatewayd.control.admin.spelling import Dimensions, KeyRef, Moment
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.usage_views import UsageVerified, UsageView
from gatewayd.control.history import hours_from
from gatewayd.control.reconciling import Reconciliation, Recorded
from gatewayd.errors import CONFLICT
from gatewayd.policy.addresses import DEFAULT_TENANT
from gatewayd.policy.amounts import format_time, parse_time

_DEFAULT_RANGE_S = 24 * 3600


_RULES = "since is before until; hours are kept for a while"


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # default, unless `by` has tenant: then every one
    since: Moment | None = None
    until: Moment | None = None
    by: Dimensions = "service"
    interval: Literal["hour", "day"] | None = None
    service: str | None = None
    key: KeyRef | None = None


@documented("Show usage", query=Asked, answer=UsageView, rules=_RULES, also=(CONFLICT,))
async def show(request: Request) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    now = now_s()
    until = now if asked.until is None else checked("until", parse_time, asked.until)
    since = until - _DEFAULT_RANGE_S if asked.since is None else checked("since", parse_time, asked.since)
    if since >= until:
        raise invalid("since", "since is not before until")
    by = checked("by", _dimensions, asked.by)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_answer, control, asked, since, until, by))


@documented("Compare whatever of usage is counted twice", query=InTenant, answer=UsageVerified)
async def verify(request: Request) -> Response:
    """The counters of the lessor and the view of the database are of one moment: ingest moves both in one turn."""
    asked, control = read_query(request, InTenant), control_of(request)
    await control.plane.catch_up()
    with control.database.read() as session:
        connection = session.connection()
        tenant = tenant_by(session, asked.tenant, gone_too=True)  # begins the view
        recorded = {key_id: Recorded(*counted) for key_id, counted in control.plane.quotas().items()}
        assert tenant.id is not None
        journals = control.settings.state_dir / "journal"
        found = Reconciliation(connection, tenant.id, journals, time.time_ns() / 1e9)
        return answer(await run_in_threadpool(found.run, recorded))


def _answer(control: ControlState, asked: Asked, since: int, until: int, by: tuple[str, ...]) -> dict[str, Any]:
    with control.database.read() as session:
        everyone = asked.tenant is None and "tenant" in by
        tenant = tenant_by(session, asked.tenant or DEFAULT_TENANT, gone_too=True)
        if asked.interval == "hour" and (kept_from := hours_from(session.connection())) > since:
            raise invalid("interval", f"hours are kept since {format_time(kept_from)}; ask by day for what was before")
        question = usage.Question(
            since=since,
            until=until,
            by=by,
            interval=asked.interval,
            tenant_id=None if everyone else tenant.id,
            service_id=None if asked.service is None else service_by(session, tenant, asked.service, gone_too=True).id,
            key_id=None if asked.key is None else key_by(session, tenant, asked.key).id,
        )
        return usage.usage(session.connection(), question)


def _dimensions(by: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in by.split(",") if name))
    for name in names:
        if name not in usage.DIMENSIONS:
            raise ValueError(f"{name[:40]!r} is not one of {', '.join(usage.DIMENSIONS)}")
    return names
