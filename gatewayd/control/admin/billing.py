"""Bills, live: by service and key, or by key; as they would be closed, or will come to; and closing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import billing, closing, invoices, verification
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.bill_views import BillsVerified, BillView, Forecast, InvoiceBody, InvoiceView, KeyBills
from gatewayd.control.admin.callers import actor_of
from gatewayd.control.admin.changes import Change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import AdminError, conflict, not_found
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.spelling import Period
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.collector import without_collections
from gatewayd.control.cycles import CycleRow, cycle_named, oldest_due, period_meant, running
from gatewayd.control.tables import Cycle, Invoice
from gatewayd.policy.amounts import format_time
from gatewayd.policy.cycles import check_period, first_of
from gatewayd.policy.money import format_nanos

_MOST_NAMES = 1000

# Of a connection, a tenant, a period and the time.
Bill = Callable[[Connection, int, str | None, int], dict[str, Any]]


class Asked(InTenant, frozen=True, kw_only=True):
    period: Period | None = None


class Verified(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # every one's


class Tried(InTenant, frozen=True, kw_only=True):
    dry_run: bool = False


class Closing(msgspec.Struct, forbid_unknown_fields=True):
    period: Period | None = None


class CycleView(msgspec.Struct):
    """`id` is the period. `total`: of the invoice, or what it comes to so far.

    A cycle with nothing to bill closes without an invoice.
    """

    id: str
    period: str
    starts_at: str
    ends_at: str
    state: str
    invoice: str | None
    total: str


@documented("Show the bill of a cycle", query=Asked, answer=BillView)
async def show(request: Request) -> Response:
    return await _answer(request, billing.bill)


@documented("Show the bill of a cycle by key", query=Asked, answer=KeyBills)
async def show_by_key(request: Request) -> Response:
    return await _answer(request, billing.bill_by_key)


@documented("Show the invoice that a cycle would have", query=Asked, answer=InvoiceBody)
async def preview(request: Request) -> Response:
    return await _answer(request, billing.preview)


@documented("Tell what the running cycle will come to", query=InTenant, answer=Forecast)
async def forecast(request: Request) -> Response:
    asked, control, now = read_query(request, InTenant), control_of(request), now_s()
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_read, control, asked.tenant, billing.forecast, now))


async def _answer(request: Request, bill: Bill) -> Response:
    asked, control, now = read_query(request, Asked), control_of(request), now_s()
    _check_period(asked.period)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_bill, control, asked, bill, now))


def _bill(control: ControlState, asked: Asked, bill: Bill, now: int) -> dict[str, Any]:
    with without_collections(), control.database.read() as session:
        connection, tenant = session.connection(), tenant_by(session, asked.tenant, gone_too=True)
        assert tenant.id is not None
        period = None if asked.period is None else period_meant(connection, tenant.id, asked.period, now)
        if period is not None and _is_made_up(connection, tenant.id, period, now):
            raise _no_cycle(session, tenant.id, period)
        return bill(connection, tenant.id, period, now)


def _is_made_up(connection: Connection, tenant_id: int, period: str, now: int) -> bool:
    """Every month has a bill, if an empty one. Its second cycle has one when it was begun."""
    if period == first_of(period) or period == running(connection, tenant_id, now).period:
        return False
    return cycle_named(connection, tenant_id, period) is None


def _no_cycle(session: Session, tenant_id: int, period: str) -> AdminError:
    names = session.exec(select(Cycle.period).where(Cycle.tenant_id == tenant_id).limit(_MOST_NAMES))
    return not_found("billing cycle", period, names)


def _read(control: ControlState, ref: str, read: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with without_collections(), control.database.read() as session:
        tenant = tenant_by(session, ref, gone_too=True)
        return read(session.connection(), tenant.id, *arguments)


@documented("List billing cycles", query=PagedInTenantByNumber, answer=Page[CycleView])
async def cycles(request: Request) -> Response:
    asked, control = read_query(request, PagedInTenantByNumber), control_of(request)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_list_cycles, control, asked, now_s()))


def _list_cycles(control: ControlState, asked: PagedInTenantByNumber, now: int) -> dict[str, Any]:
    with without_collections(), control.database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
        query = select(Cycle).where(Cycle.tenant_id == tenant.id)
        show_all = partial(_show_cycles, session, now)
        return page(session, query, col(Cycle.starts_at), asked, show_all, newest_first=True)


def _show_cycles(session: Session, now: int, found: Sequence[Cycle]) -> list[CycleView]:
    wanted = select(Invoice).options(invoices.WITHOUT_BODY).where(col(Invoice.cycle_id).in_([c.id for c in found]))
    issued = {invoice.cycle_id: invoice for invoice in session.exec(wanted)}
    views = []
    for cycle in found:
        assert cycle.id is not None
        row = CycleRow(cycle.id, cycle.tenant_id, cycle.period, cycle.starts_at, cycle.ends_at, cycle.closed_at)
        invoice = issued.get(cycle.id)
        total = "0" if invoice is None else invoice.total
        if cycle.closed_at is None:
            total = format_nanos(billing.total_of(session.connection(), row, now))
        views.append(
            CycleView(
                id=cycle.period,
                period=cycle.period,
                starts_at=format_time(cycle.starts_at),
                ends_at=format_time(cycle.ends_at),
                state=row.state(now),
                invoice=None if invoice is None else invoice.number,
                total=total,
            )
        )
    return views


@documented("Close a cycle that is over", query=Tried, body=Closing, body_optional=True, answer=InvoiceView)
async def close(request: Request) -> Response:
    """A cycle that is over: this one, or the oldest that is open."""
    asked, wanted = read_query(request, Tried), await read_body(request, Closing, optional=True)
    _check_period(wanted.period)
    return await _close(request, asked, partial(_close_due, asked.tenant, wanted.period))


@documented("End the running cycle and close it", query=Tried, answer=InvoiceView)
async def reset(request: Request) -> Response:
    """The running cycle, now."""
    asked = read_query(request, Tried)
    return await _close(request, asked, partial(_reset, asked.tenant))


async def _close(request: Request, asked: Tried, work: Callable[[Change], dict[str, Any]]) -> Response:
    control = control_of(request)
    await control.plane.catch_up()
    done = closing.in_one_go(control.database, actor_of(request), work, dry_run=asked.dry_run)
    return answer(await done)


def _close_due(ref: str, period: str | None, made: Change) -> dict[str, Any]:
    connection, tenant = made.session.connection(), tenant_by(made.session, ref, gone_too=True)
    assert tenant.id is not None
    if period is None:
        cycle = oldest_due(connection, tenant.id, made.at)
        if cycle is None:
            raise conflict(f"no cycle of tenant {tenant.slug!r} is over and open; a reset ends the running one")
    else:
        period = period_meant(connection, tenant.id, period, made.at)
        cycle = cycle_named(connection, tenant.id, period)
        if cycle is None:
            raise _no_cycle(made.session, tenant.id, period)
    if cycle.closed_at is not None:
        raise conflict(f"cycle {cycle.period} of tenant {tenant.slug!r} is closed already")
    if cycle.ends_at > made.at:
        raise conflict(f"cycle {cycle.period} runs until {format_time(cycle.ends_at)}; a reset ends it now")
    return _show_issued(made, closing.close(made, cycle))


def _reset(ref: str, made: Change) -> dict[str, Any]:
    tenant = tenant_by(made.session, ref)
    assert tenant.id is not None
    return _show_issued(made, closing.reset(made, tenant.id))


def _show_issued(made: Change, issued: closing.Issued) -> dict[str, Any]:
    return invoices.show(made.session, made.session.get_one(Invoice, issued.id))


@documented("Make every invoice anew and compare", query=Verified, answer=BillsVerified)
async def verify(request: Request) -> Response:
    """Every invoice, or a tenant's."""
    asked, control = read_query(request, Verified), control_of(request)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_verify, control, asked.tenant))


def _verify(control: ControlState, ref: str | None) -> dict[str, Any]:
    with without_collections(), control.database.read() as session:
        tenant_id = None if ref is None else tenant_by(session, ref, gone_too=True).id
        return verification.verify(session.connection(), tenant_id)


def _check_period(period: str | None) -> None:
    if period is not None:
        checked("period", check_period, period)
