"""Tenants: organisations that own services, plans, keys and bills."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import func, update
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import billing
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.bounds import refuse_fields
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import Nothing, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import Paged, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import new_public_id, plan_by, tenant_by
from gatewayd.control.admin.spelling import Currency, DisplayName, Slug, TimeZone
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.admin.terms import (
    Burst,
    Rates,
    RateView,
    decode_rates,
    encode_rates,
    show_rates,
    windows,
    with_bursts_kept,
)
from gatewayd.control.database import DEFAULT_TENANT_ID
from gatewayd.control.tables import Client, Cycle, Key, Plan, Route, Service, Tenant
from gatewayd.policy.addresses import check_slug
from gatewayd.policy.allowing import check_allow
from gatewayd.policy.amounts import format_time
from gatewayd.policy.claims import ambiguous
from gatewayd.policy.money import format_nanos

Allow = Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
# As the database of time zones names them. `ZoneInfo` would take a path, too.
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z][A-Za-z0-9_+-]{0,31}){0,2}", re.ASCII)


_RULES = "names are printable, zones exist, windows differ; a burst belongs to a rate"


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    slug: Slug
    name: DisplayName = ""
    currency: Currency = "USD"
    time_zone: TimeZone = "UTC"
    contact: DisplayName = ""
    allow: Allow = ()
    rates: Rates = ()
    burst: Burst | None = None


class ChangedTenant(msgspec.Struct, forbid_unknown_fields=True):
    name: DisplayName | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    suspended: bool | UnsetType = UNSET
    time_zone: TimeZone | UnsetType = UNSET
    contact: DisplayName | UnsetType = UNSET
    default_plan: str | UnsetType | None = UNSET
    allow: Allow | UnsetType = UNSET
    rates: Rates | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET


_OVER_THE_TENANT = ("suspended", "rates", "burst")


class Removed(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    force: bool = False
    dry_run: bool = False


class Listed(Paged, frozen=True, kw_only=True):
    tenant: str | None = None  # that one alone


class TenantView(msgspec.Struct):
    id: str
    slug: str
    name: str
    currency: str
    suspended: bool
    time_zone: str
    contact: str
    default_plan: str | None
    rates: list[RateView]
    allow: list[str]
    created_at: str


def show_all(session: Session, tenants: Sequence[Tenant]) -> list[TenantView]:
    """Their default plans are looked up for all of them at once."""
    plans = {tenant.default_plan_id for tenant in tenants} - {None}
    names = {plan.id: plan.name for plan in session.exec(select(Plan).where(col(Plan.id).in_(plans)))} if plans else {}
    return [
        TenantView(
            id=tenant.public_id,
            slug=tenant.slug,
            name=tenant.name,
            currency=tenant.currency,
            suspended=tenant.suspended,
            time_zone=tenant.time_zone,
            contact=tenant.contact,
            default_plan=names.get(tenant.default_plan_id),
            rates=show_rates(decode_rates(tenant.rates)),
            allow=msgspec.json.decode(tenant.allow),
            created_at=format_time(tenant.created_at),
        )
        for tenant in tenants
    ]


def show(session: Session, tenant: Tenant) -> TenantView:
    return show_all(session, [tenant])[0]


@documented("List tenants", query=Listed, answer=Page[TenantView])
def list_(request: Request) -> Response:
    asked = read_query(request, Listed)
    with control_of(request).database.read() as session:
        query = select(Tenant).where(col(Tenant.removed_at).is_(None))
        if asked.tenant is not None:
            query = query.where(Tenant.id == tenant_by(session, asked.tenant).id)
        return answer(page(session, query, col(Tenant.slug), asked, lambda found: show_all(session, found)))


@documented("Show a tenant", query=Nothing, answer=TenantView, shows_one=True)
def get(request: Request) -> Response:
    read_query(request, Nothing)
    with control_of(request).database.read() as session:
        return answer_one(request, show(session, tenant_by(session, request.path_params["ref"])))


@documented("Add a tenant", query=Nothing, body=NewTenant, answer=TenantView, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    read_query(request, Nothing)
    new = await read_body(request, NewTenant)
    tenant = Tenant(public_id="", created_at=0, **columns_of(new))
    with change(request) as made:
        _refuse_taken(made.session, tenant.slug)
        tenant.public_id = new_public_id(made.session, Tenant, "ten_")
        tenant.created_at = made.at
        made.session.add(tenant)
        shown = show(made.session, tenant)
        made.note("tenant.add", tenant.slug, tenant.public_id, after=shown)
    await control_of(request).plane.publish_snapshot()
    return created(shown)


def columns_of(new: NewTenant) -> dict[str, Any]:
    """What the row of such a tenant holds, checked. Raises AdminError."""
    return {
        "slug": checked("slug", check_slug, new.slug),
        "name": checked("name", check_display_name, new.name),
        "currency": checked("currency", _check_currency, new.currency),
        "time_zone": checked("time_zone", _check_time_zone, new.time_zone),
        "contact": checked("contact", check_display_name, new.contact),
        "allow": _allow(new.allow),
        "rates": encode_rates(windows(new.rates, new.burst)),
    }


@documented("Change a tenant", query=Nothing, body=ChangedTenant, answer=TenantView, rules=_RULES, changes_one=True)
async def set_(request: Request) -> Response:
    read_query(request, Nothing)
    wanted = await read_body(request, ChangedTenant)
    refuse_fields(request, (name for name in _OVER_THE_TENANT if getattr(wanted, name) is not UNSET))
    if wanted.currency is not UNSET:
        await control_of(request).plane.catch_up()  # whether there is a bill yet
    with change(request) as made:
        tenant = tenant_by(made.session, request.path_params["ref"])
        before = show(made.session, tenant)
        if wanted.currency is not UNSET and wanted.currency != tenant.currency:
            currency = checked("currency", _check_currency, wanted.currency)
            refuse_billed(made.session, tenant)
            tenant.currency = currency
        _change(made.session, tenant, wanted)
        made.session.add(tenant)
        shown = show(made.session, tenant)
        made.note("tenant.set", tenant.slug, tenant.public_id, before, shown)
    await control_of(request).plane.publish_snapshot()
    return answer(shown)


@documented("Remove a tenant", query=Removed, answer=TenantView, changes_one=True)
async def remove(request: Request) -> Response:
    asked = read_query(request, Removed)
    control = control_of(request)
    if not asked.force:
        await control.plane.catch_up()  # what it owes
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, request.path_params["ref"])
        if tenant.id == DEFAULT_TENANT_ID:
            raise conflict("the tenant default cannot be removed: addresses without a tenant are its own")
        if not asked.force:
            _refuse_in_use(made.session, tenant, made.at)
        before = show(made.session, tenant)
        tenant.removed_at = made.at
        made.session.add(tenant)
        _remove_all_of(made.session, tenant, made.at)
        made.note("tenant.remove", tenant.slug, tenant.public_id, before)
    if not asked.dry_run:
        await control.plane.publish_keys(None)
        await control.plane.publish_snapshot()
    return answer(before)


def _change(session: Session, tenant: Tenant, wanted: ChangedTenant) -> None:
    if wanted.name is not UNSET:
        tenant.name = checked("name", check_display_name, wanted.name)
    if wanted.suspended is not UNSET:
        tenant.suspended = wanted.suspended
    if wanted.time_zone is not UNSET:
        tenant.time_zone = checked("time_zone", _check_time_zone, wanted.time_zone)
    if wanted.contact is not UNSET:
        tenant.contact = checked("contact", check_display_name, wanted.contact)
    if wanted.default_plan is not UNSET:
        plan = None if wanted.default_plan is None else plan_by(session, tenant, wanted.default_plan)
        tenant.default_plan_id = None if plan is None else plan.id
    if wanted.allow is not UNSET:
        tenant.allow = _allow(wanted.allow)
    burst = None if wanted.burst is UNSET else wanted.burst
    before = decode_rates(tenant.rates)
    if wanted.rates is not UNSET:
        rates = windows(wanted.rates, burst)
        tenant.rates = encode_rates(with_bursts_kept(rates, before) if burst is None else rates)
    elif burst is not None:
        if not before:
            raise invalid("burst", f"burst belongs to a rate, and the tenant {tenant.slug!r} has none")
        tenant.rates = encode_rates([msgspec.structs.replace(rate, burst=burst) for rate in before])


def _allow(rules: Sequence[str]) -> str:
    return msgspec.json.encode([checked("allow", check_allow, rule) for rule in rules]).decode()


def _check_currency(currency: str) -> str:
    if _CURRENCY.fullmatch(currency) is None:
        raise ValueError(f"{currency[:40]!r} is not a currency code of three capitals such as USD")
    return currency


def _check_time_zone(name: str) -> str:
    try:
        if _ZONE.fullmatch(name) is not None:
            return ZoneInfo(name).key
    except (LookupError, ValueError, OSError):  # OSError: `Europe` is a folder of zones
        pass
    raise ValueError(f"{name[:40]!r} is not a time zone such as UTC or Europe/Berlin")


def _refuse_taken(session: Session, slug: str) -> None:
    if session.exec(select(Tenant.id).where(Tenant.slug == slug, col(Tenant.removed_at).is_(None))).first():
        raise conflict(f"tenant {slug!r} exists already")
    service = select(Service.id).where(
        Service.tenant_id == DEFAULT_TENANT_ID, Service.slug == slug, col(Service.removed_at).is_(None)
    )
    if session.exec(service).first():
        raise conflict(ambiguous(slug))


def refuse_billed(session: Session, tenant: Any) -> None:
    """Amounts are numbers of the tenant's currency: another one would turn 5 EUR of a bill into 5 JPY."""
    if session.exec(select(Cycle.id).where(Cycle.tenant_id == tenant.id)).first():
        raise conflict(f"tenant {tenant.slug!r} has bills in {tenant.currency}; add a tenant for another currency")


def _refuse_in_use(session: Session, tenant: Tenant, now: int) -> None:
    services = session.exec(
        select(func.count()).where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
    ).one()
    keys = session.exec(select(func.count()).where(Key.tenant_id == tenant.id, col(Key.revoked_at).is_(None))).one()
    has = " and ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in ((services, "service"), (keys, "key")) if n)
    assert tenant.id is not None
    owed = billing.unbilled(session.connection(), tenant.id, now)
    owes = " and ".join(f"{format_nanos(nanos)} {tenant.currency} for {period}" for period, nanos in owed)
    # In one sentence: who forces the one must have heard of the other.
    reasons = [f"still has {has}"] * bool(has) + [f"owes {owes} that no invoice has billed"] * bool(owes)
    if reasons:
        what = "it all the same" if owes else "them with it"
        raise conflict(f"tenant {tenant.slug!r} {' and '.join(reasons)}; force removes {what}")


def _remove_all_of(session: Session, tenant: Tenant, at: int) -> None:
    """But rollups, cycles, prices and versions of plans: what was used stays on the books."""
    for table in (Service, Plan, Route, Client):
        session.execute(
            update(table)
            .where(col(table.tenant_id) == tenant.id, col(table.removed_at).is_(None))
            .values(removed_at=at)
        )
    session.execute(
        update(Key).where(col(Key.tenant_id) == tenant.id, col(Key.revoked_at).is_(None)).values(revoked_at=at)
    )
