"""The heaviest, as `usage top` asks for them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import checked, read_query
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.spelling import Moment
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.usage_views import TopView
from gatewayd.control.heaviest import Measure, heaviest
from gatewayd.control.usage import Question
from gatewayd.policy.addresses import DEFAULT_TENANT
from gatewayd.policy.amounts import parse_time

_DEFAULT_RANGE_S = 3600


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # default, unless `by` is tenant: then every one
    since: Moment | None = None
    until: Moment | None = None
    by: Literal["key", "service", "route", "client", "status", "tenant"] = "key"
    of: Measure = "requests"
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10


@documented("Show who or what made the most", query=Asked, answer=TopView, rules="since is before until")
async def top(request: Request) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    until = now_s() if asked.until is None else checked("until", parse_time, asked.until)
    since = until - _DEFAULT_RANGE_S if asked.since is None else checked("since", parse_time, asked.since)
    if since >= until:
        raise invalid("since", "since is not before until")
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_answer, control, asked, since, until))


def _answer(control: ControlState, asked: Asked, since: int, until: int) -> dict[str, Any]:
    with control.database.read() as session:
        everyone = asked.tenant is None and asked.by == "tenant"
        tenant = tenant_by(session, asked.tenant or DEFAULT_TENANT, gone_too=True)
        question = Question(since, until, by=(asked.by,), tenant_id=None if everyone else tenant.id)
        return heaviest(session.connection(), question, asked.of, asked.limit)
