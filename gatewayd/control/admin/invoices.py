"""Invoices: the bills of closed cycles, which nothing changes any more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import invoices
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.bill_views import InvoiceBody, InvoiceItem, InvoiceView, Replay
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import not_found
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.collector import without_collections
from gatewayd.control.tables import Invoice, Tenant

_MOST_NAMES = 1000


@documented("List invoices", query=PagedInTenantByNumber, answer=Page[InvoiceItem])
def list_(request: Request) -> Response:
    asked = read_query(request, PagedInTenantByNumber)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
        query = select(Invoice).options(invoices.WITHOUT_BODY).where(Invoice.tenant_id == tenant.id)
        show_all = partial(invoices.show_all, session)
        return answer(page(session, query, col(Invoice.id), asked, show_all, newest_first=True))


@documented("Show an invoice", query=InTenant, answer=InvoiceView, shows_one=True)
async def get(request: Request) -> Response:
    return answer_one(request, await _read(request, invoices.show))


@documented("Give the bytes that the hash is of", query=InTenant, answer=InvoiceBody)
async def body(request: Request) -> Response:
    """The very bytes that the hash is of."""
    text = await _read(request, lambda _, invoice: invoice.body)
    return Response(text, media_type="application/json")


@documented("Make an invoice anew from the ledger", query=InTenant, answer=Replay)
async def replay(request: Request) -> Response:
    return answer(await _read(request, invoices.show_replay))


async def _read(request: Request, show: Callable[[Session, Invoice], Any]) -> Any:
    asked, number = read_query(request, InTenant), request.path_params["number"]
    return await run_in_threadpool(_find, control_of(request), asked.tenant, number, show)


def _find(control: ControlState, ref: str, number: str, show: Callable[[Session, Invoice], Any]) -> Any:
    with without_collections(), control.database.read() as session:
        return show(session, _by_number(session, tenant_by(session, ref, gone_too=True), number))


def _by_number(session: Session, tenant: Tenant, number: str) -> Invoice:
    own = Invoice.tenant_id == tenant.id
    found = session.exec(select(Invoice).where(Invoice.number == number.upper(), own)).first()
    if found is None:
        names = select(Invoice.number).where(own).order_by(col(Invoice.id).desc()).limit(_MOST_NAMES)
        raise not_found("invoice", number, session.exec(names))
    return found
