"""API keys: made, shown without their secret, changed, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.channel import RateConf
from gatewayd.control import usage
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.inputs import InTenant, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant, page
from gatewayd.control.admin.refs import key_by, plan_by, service_by, tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.terms import show_rates
from gatewayd.control.tables import Key, Plan, Tenant
from gatewayd.policy.amounts import DEFAULT_RATES, format_time, parse_expiry
from gatewayd.policy.buckets import month_of
from gatewayd.policy.pricing import format_nanos

# An empty list is refused: in an answer it means "all", and a script that found nothing must not open everything.
Scope = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
Status = Literal["active", "expired", "revoked"]

_ids = msgspec.json.Decoder(tuple[int, ...])
_rates = msgspec.json.Decoder(tuple[RateConf, ...])


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    services: Scope | None = None
    plan: str | None = None
    name: str = ""
    expires: str | None = None


class ChangedKey(msgspec.Struct, forbid_unknown_fields=True):
    services: Scope | UnsetType | None = UNSET
    plan: str | UnsetType | None = UNSET
    name: str | UnsetType = UNSET
    expires: str | UnsetType | None = UNSET


class Listed(PagedInTenant, frozen=True, kw_only=True):
    service: str | None = None
    plan: str | None = None
    status: Status | None = None


class KeyView(msgspec.Struct):
    id: str
    prefix: str
    tenant: str
    services: list[str]
    plan: str | None
    name: str
    status: Status
    expires_at: str | None
    created_at: str
    revoked_at: str | None


def show_all(session: Session, tenant: Tenant, found: Sequence[Key], now: int) -> list[KeyView]:
    """Keys of one tenant. What they refer to is looked up for all of them at once."""
    scopes = [_ids.decode(key.service_ids) if key.service_ids is not None else () for key in found]
    slugs = usage.service_names(session.connection(), (id_ for scope in scopes for id_ in scope))
    plans = {key.plan_id for key in found}
    names = {plan.id: plan.name for plan in session.exec(select(Plan).where(col(Plan.id).in_(plans)))}
    return [
        KeyView(
            id=f"key_{key.public_id}",
            prefix=keys.PREFIX + key.public_id,
            tenant=tenant.slug,
            services=[usage.name_of(slugs, id_) for id_ in scope],
            plan=names.get(key.plan_id),
            name=key.name,
            status=_status_of(key, now),
            expires_at=_time(key.expires_at),
            created_at=format_time(key.created_at),
            revoked_at=_time(key.revoked_at),
        )
        for key, scope in zip(found, scopes, strict=True)
    ]


def show(session: Session, tenant: Tenant, key: Key, now: int) -> KeyView:
    return show_all(session, tenant, [key], now)[0]


def list_(request: Request) -> Response:
    asked, now = read_query(request, Listed), now_s()
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        query = select(Key).where(Key.tenant_id == tenant.id)
        if asked.service is not None:
            query = query.where(_may_call(service_by(session, tenant, asked.service).id))
        if asked.plan is not None:
            query = query.where(Key.plan_id == plan_by(session, tenant, asked.plan).id)
        if asked.status is not None:
            query = query.where(*_having_status(asked.status, now))
        return answer(page(session, query, col(Key.id), asked, lambda found: show_all(session, tenant, found, now)))


async def get(request: Request) -> Response:
    """With this month's usage, and so only once the journals have been read."""
    asked, control = read_query(request, InTenant), control_of(request)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_show_with_usage, control, asked.tenant, request.path_params["ref"]))


async def create(request: Request) -> Response:
    """The one answer that holds the key itself."""
    asked = read_query(request, InTenant)
    new = await read_body(request, NewKey)
    name = checked("name", check_display_name, new.name)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        assert tenant.id is not None
        public_id, secret = _new_key(made.session)
        key = Key(
            public_id=public_id,
            digest=keys.digest(secret.encode()),
            tenant_id=tenant.id,
            name=name,
            service_ids=_scope(made.session, tenant, new.services),
            plan_id=None if new.plan is None else plan_by(made.session, tenant, new.plan).id,
            created_at=made.at,
            expires_at=_expiry(new.expires, made.at),
        )
        made.session.add(key)
        shown = show(made.session, tenant, key, made.at)
        made.note("key.create", tenant.slug, shown.id, after=shown)
    id_and_key = {"id": shown.id, "key": secret}
    return created(id_and_key | msgspec.structs.asdict(shown))


async def set_(request: Request) -> Response:
    asked = read_query(request, InTenant)
    wanted = await read_body(request, ChangedKey)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        before = show(made.session, tenant, key, made.at)
        if wanted.name is not UNSET:
            key.name = checked("name", check_display_name, wanted.name)
        if wanted.plan is not UNSET:
            key.plan_id = None if wanted.plan is None else plan_by(made.session, tenant, wanted.plan).id
        if wanted.services is not UNSET:
            key.service_ids = _scope(made.session, tenant, wanted.services)
        if wanted.expires is not UNSET:
            key.expires_at = _expiry(wanted.expires, made.at)
        made.session.add(key)
        shown = show(made.session, tenant, key, made.at)
        made.note("key.set", tenant.slug, shown.id, before, shown)
    await control_of(request).plane.publish_keys([key.public_id])
    return answer(shown)


async def revoke(request: Request) -> Response:
    """Once more does nothing but make sure that every worker knows."""
    asked = read_query(request, InTenant)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        before = show(made.session, tenant, key, made.at)
        if key.revoked_at is None:
            key.revoked_at = made.at
            made.session.add(key)
            made.note("key.revoke", tenant.slug, before.id, before, show(made.session, tenant, key, made.at))
        shown = show(made.session, tenant, key, made.at)
    await control_of(request).plane.publish_keys([key.public_id])
    return answer(shown)


def _show_with_usage(control: ControlState, tenant_ref: str, ref: str) -> dict[str, Any]:
    now = now_s()
    with control.database.read() as session:
        tenant = tenant_by(session, tenant_ref)
        key = key_by(session, tenant, ref)
        assert key.id is not None
        sums = usage.used_in(session.connection(), key.id, *month_of(now))
        plan = session.get(Plan, key.plan_id) if key.plan_id is not None else None
        return {
            **msgspec.structs.asdict(show(session, tenant, key, now)),
            "usage": {
                "requests": sums.numbers["requests"],
                "billable": sums.numbers["billable"],
                "cost": format_nanos(sums.nanos),
            },
            "limits": _limits(plan, sums.numbers["requests"]),
        }


def _limits(plan: Plan | None, used: int) -> dict[str, Any]:
    rates = DEFAULT_RATES if plan is None else _rates.decode(plan.rates)
    quota = None
    if plan is not None and plan.quota is not None:
        quota = {"limit": plan.quota, "used": used, "remaining": max(0, plan.quota - used)}
    return {"rates": show_rates(rates), "quota": quota}


def _new_key(session: Session) -> tuple[str, str]:
    """Public id and key; the id is one that no key has or had."""
    while True:
        public_id, secret = keys.new_key()
        if session.exec(select(Key.id).where(Key.public_id == public_id)).first() is None:
            return public_id, secret


def _scope(session: Session, tenant: Tenant, refs: Sequence[str] | None) -> str | None:
    if refs is None:
        return None
    ids = {service_by(session, tenant, ref).id for ref in refs}
    return msgspec.json.encode(sorted(id_ for id_ in ids if id_ is not None)).decode()


def _expiry(text: str | None, now: int) -> int | None:
    return None if text is None else checked("expires", lambda written: parse_expiry(written, now), text)


def _status_of(key: Key, now: int) -> Status:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _having_status(status: Status, now: int) -> tuple[ColumnElement[bool], ...]:
    """`_status_of`, for the database."""
    revoked = col(Key.revoked_at).is_not(None)
    expired = func.coalesce(col(Key.expires_at) <= now, False)
    return {"revoked": (revoked,), "expired": (~revoked, expired), "active": (~revoked, ~expired)}[status]


def _may_call(service_id: int | None) -> ColumnElement[bool]:
    """Scoped to this service among others, or to none in particular. `[1,22]` is searched as `,1,22,` for `,22,`."""
    scope = "," + func.trim(col(Key.service_ids), "[]") + ","
    return col(Key.service_ids).is_(None) | scope.like(f"%,{service_id},%")


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else format_time(seconds)
