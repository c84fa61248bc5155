"""Tenants: organisations that own services, plans, keys and bills."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import func, update
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.inputs import check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import Paged, page
from gatewayd.control.admin.problems import conflict
from gatewayd.control.admin.refs import new_public_id, tenant_by
from gatewayd.control.admin.state import control_of
from gatewayd.control.database import DEFAULT_TENANT_ID
from gatewayd.control.tables import Cycle, Key, Plan, Service, Tenant
from gatewayd.policy.addresses import check_slug
from gatewayd.policy.amounts import format_time

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    slug: str
    name: str = ""
    currency: str = "USD"


class ChangedTenant(msgspec.Struct, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET


class Removal(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    force: bool = False


class TenantView(msgspec.Struct):
    id: str
    slug: str
    name: str
    currency: str
    suspended: bool
    created_at: str


def show(tenant: Tenant) -> TenantView:
    return TenantView(
        id=tenant.public_id,
        slug=tenant.slug,
        name=tenant.name,
        currency=tenant.currency,
        suspended=tenant.suspended,
        created_at=format_time(tenant.created_at),
    )


def list_(request: Request) -> Response:
    asked = read_query(request, Paged)

    def show_all(tenants: Sequence[Tenant]) -> list[TenantView]:
        return [show(tenant) for tenant in tenants]

    with control_of(request).database.read() as session:
        query = select(Tenant).where(col(Tenant.removed_at).is_(None))
        return answer(page(session, query, col(Tenant.slug), asked, show_all))


def get(request: Request) -> Response:
    with control_of(request).database.read() as session:
        return answer(show(tenant_by(session, request.path_params["ref"])))


async def add(request: Request) -> Response:
    new = await read_body(request, NewTenant)
    slug = checked("slug", check_slug, new.slug)
    name = checked("name", check_display_name, new.name)
    currency = checked("currency", _check_currency, new.currency)
    with change(request) as made:
        _refuse_taken(made.session, slug)
        tenant = Tenant(
            public_id=new_public_id(made.session, Tenant, "ten_"),
            slug=slug,
            name=name,
            currency=currency,
            created_at=made.at,
        )
        made.session.add(tenant)
        shown = show(tenant)
        made.note("tenant.add", slug, tenant.public_id, after=shown)
    await control_of(request).plane.publish_snapshot()
    return created(shown)


async def set_(request: Request) -> Response:
    wanted = await read_body(request, ChangedTenant)
    if wanted.currency is not UNSET:
        await control_of(request).plane.catch_up()  # whether there is a bill yet
    with change(request) as made:
        tenant = tenant_by(made.session, request.path_params["ref"])
        before = show(tenant)
        if wanted.name is not UNSET:
            tenant.name = checked("name", check_display_name, wanted.name)
        if wanted.currency is not UNSET and wanted.currency != tenant.currency:
            currency = checked("currency", _check_currency, wanted.currency)
            _refuse_billed(made.session, tenant)
            tenant.currency = currency
        if wanted.suspended is not UNSET:
            tenant.suspended = wanted.suspended
        made.session.add(tenant)
        shown = show(tenant)
        made.note("tenant.set", tenant.slug, tenant.public_id, before, shown)
    await control_of(request).plane.publish_snapshot()
    return answer(shown)


async def remove(request: Request) -> Response:
    asked = read_query(request, Removal)
    control = control_of(request)
    with change(request) as made:
        tenant = tenant_by(made.session, request.path_params["ref"])
        if tenant.id == DEFAULT_TENANT_ID:
            raise conflict("the tenant default cannot be removed: addresses without a tenant are its own")
        if not asked.force:
            _refuse_in_use(made.session, tenant)
        before = show(tenant)
        tenant.removed_at = made.at
        made.session.add(tenant)
        _remove_all_of(made.session, tenant, made.at)
        made.note("tenant.remove", tenant.slug, tenant.public_id, before)
    await control.plane.publish_keys(None)
    await control.plane.publish_snapshot()
    return answer(before)


def _check_currency(currency: str) -> str:
    if _CURRENCY.fullmatch(currency) is None:
        raise ValueError(f"{currency[:40]!r} is not a currency code of three capitals such as USD")
    return currency


def _refuse_taken(session: Session, slug: str) -> None:
    if session.exec(select(Tenant.id).where(Tenant.slug == slug, col(Tenant.removed_at).is_(None))).first():
        raise conflict(f"tenant {slug!r} exists already")
    ambiguous = select(Service.id).where(
        Service.tenant_id == DEFAULT_TENANT_ID, Service.slug == slug, col(Service.removed_at).is_(None)
    )
    if session.exec(ambiguous).first():
        raise conflict(f"{slug!r} is a service of the tenant default, so /{slug}/ would be ambiguous")


def _refuse_billed(session: Session, tenant: Tenant) -> None:
    """Amounts are numbers of the tenant's currency: another one would turn 5 EUR of a bill into 5 JPY."""
    if session.exec(select(Cycle.id).where(Cycle.tenant_id == tenant.id)).first():
        raise conflict(f"tenant {tenant.slug!r} has bills in {tenant.currency}; add a tenant for another currency")


def _refuse_in_use(session: Session, tenant: Tenant) -> None:
    services = session.exec(
        select(func.count()).where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
    ).one()
    keys = session.exec(select(func.count()).where(Key.tenant_id == tenant.id, col(Key.revoked_at).is_(None))).one()
    if services or keys:
        has = " and ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in ((services, "service"), (keys, "key")) if n)
        raise conflict(f"tenant {tenant.slug!r} still has {has}; force removes them with it")


def _remove_all_of(session: Session, tenant: Tenant, at: int) -> None:
    for table in (Service, Plan):
        session.execute(
            update(table)
            .where(col(table.tenant_id) == tenant.id, col(table.removed_at).is_(None))
            .values(removed_at=at)
        )
    session.execute(
        update(Key).where(col(Key.tenant_id) == tenant.id, col(Key.revoked_at).is_(None)).values(revoked_at=at)
    )
