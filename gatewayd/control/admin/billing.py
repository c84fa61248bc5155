"""Bills, live: by service and key, or by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import billing
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.inputs import InTenant, checked, read_query
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.policy.amounts import parse_period, period_of

Bill = Callable[[Connection, billing.Account, str], dict[str, Any]]


class Asked(InTenant, frozen=True, kw_only=True):
    period: str | None = None


async def show(request: Request) -> Response:
    return await _answer(request, billing.bill)


async def show_by_key(request: Request) -> Response:
    return await _answer(request, billing.bill_by_key)


async def _answer(request: Request, bill: Bill) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    period = period_of(now_s()) if asked.period is None else asked.period
    checked("period", parse_period, period)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_read, control, asked.tenant, bill, period))


def _read(control: ControlState, tenant_ref: str, bill: Bill, period: str) -> dict[str, Any]:
    with control.database.read() as session:
        tenant = tenant_by(session, tenant_ref, gone_too=True)
        assert tenant.id is not None
        return bill(session.connection(), billing.Account(tenant.id, tenant.slug, tenant.currency), period)
