"""Quotas of this month: what of them is used, more of one for a key, and a fresh start.

A grant and a reset are rows of their own: usage and the bill stay what they are.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.control import alerts
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import Change, change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import key_by, new_public_id, tenant_by
from gatewayd.control.admin.spelling import CountText, DisplayName, Expiry
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.compile import find_key_by_id
from gatewayd.control.quotas import KeyQuota, quota_of
from gatewayd.control.tables import Key, Plan, QuotaGrant, Tenant
from gatewayd.errors import CONFLICT
from gatewayd.policy.amounts import format_time, parse_count, parse_expiry, period_of

Mode = Literal["hard", "soft"]

_key, _plan = Key.__table__, Plan.__table__  # type: ignore[attr-defined]


_RULES = "reasons are printable, a grant ends within its month"


class NewGrant(msgspec.Struct, forbid_unknown_fields=True):
    units: CountText | int
    until: Expiry | None = None
    reason: DisplayName = ""


class NewReset(msgspec.Struct, forbid_unknown_fields=True):
    reason: DisplayName = ""


class Resetting(InTenant, frozen=True, kw_only=True):
    dry_run: bool = False


class QuotaView(msgspec.Struct):
    """`limit` is what the plan gives and what was granted; `remaining` of it is not used. Null: there is no quota."""

    VOLATILE: ClassVar = frozenset({"used", "remaining", "alerts_passed"})

    id: str
    key: str
    name: str
    tenant: str
    plan: str | None
    period: str
    quota: int | None
    granted: int
    limit: int | None
    used: int
    forgiven: int
    remaining: int | None
    mode: Mode
    alerts: list[int]
    alerts_passed: list[int]
    resets_at: str


class GrantView(msgspec.Struct):
    id: str
    kind: Literal["grant", "reset"]
    units: int
    until: str
    reason: str
    created_at: str


class WholeQuota(QuotaView):
    grants: list[GrantView]


@documented("List quotas of this month", query=PagedInTenantByNumber, answer=Page[QuotaView])
async def list_(request: Request) -> Response:
    """Keys that have a quota and are not revoked."""
    asked, control = read_query(request, PagedInTenantByNumber), control_of(request)
    await control.plane.catch_up()
    return answer(await run_in_threadpool(_list, control, asked, now_s()))


@documented("Show the quota of a key", query=InTenant, answer=WholeQuota, shows_one=True, also=(CONFLICT,))
async def get(request: Request) -> Response:
    """With its grants and resets of this month."""
    asked, control = read_query(request, InTenant), control_of(request)
    await control.plane.catch_up()
    view, whole = await run_in_threadpool(_get, control, asked.tenant, request.path_params["ref"], now_s())
    return answer_one(request, view, whole)


@documented(
    "Grant a key more of its quota",
    query=InTenant,
    body=NewGrant,
    answer=QuotaView,
    status=201,
    rules=_RULES,
    changes_one=True,
)
async def grant(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    new = await read_body(request, NewGrant)
    units = checked("units", lambda units: parse_count(str(units)), new.units)
    reason = checked("reason", check_display_name, new.reason)
    await control.plane.catch_up()
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        before = _with_quota(made.session, tenant, key, made.at)
        until = _until(new.until, made.at, _quota(made.session, key, made.at).ends_at)
        _add(made, key, units=units, until=until, reason=reason)
        shown = _note(made, "quota.grant", tenant, key, before)
    await control.plane.publish_keys([key.public_id])
    return created(shown)


@documented(
    "Forgive a key what it has used", query=Resetting, body=NewReset, answer=QuotaView, rules=_RULES, changes_one=True
)
async def reset(request: Request) -> Response:
    """All that was used up to now is forgiven."""
    asked, control = read_query(request, Resetting), control_of(request)
    reason = checked("reason", check_display_name, (await read_body(request, NewReset)).reason)
    await control.plane.catch_up()
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        before = _with_quota(made.session, tenant, key, made.at)
        _add(made, key, units=_quota(made.session, key, made.at).recorded, is_reset=True, reason=reason)
        shown = _note(made, "quota.reset", tenant, key, before)
    if not asked.dry_run:
        await control.plane.publish_keys([key.public_id])
    return answer(shown)


def show(session: Session, tenant: Tenant, key: Key, now: int) -> QuotaView:
    assert key.id is not None
    quota = _quota(session, key, now)
    plan = None if key.plan_id is None else session.get(Plan, key.plan_id)
    return QuotaView(
        id=f"key_{key.public_id}",
        key=keys.PREFIX + key.public_id,
        name=key.name,
        tenant=tenant.slug,
        plan=None if plan is None else plan.name,
        period=period_of(quota.starts_at),
        quota=quota.planned,
        granted=quota.granted,
        limit=quota.limit,
        used=quota.used,
        forgiven=quota.forgiven,
        remaining=quota.remaining,
        mode="soft" if plan is not None and plan.quota_soft else "hard",
        alerts=[] if plan is None else msgspec.json.decode(plan.alerts),
        alerts_passed=alerts.told_of(session.connection(), key.id, quota.starts_at),
        resets_at=format_time(quota.ends_at),
    )


def _list(control: ControlState, asked: PagedInTenantByNumber, now: int) -> dict[str, Any]:
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        # Of its own quota a key's overrides tell in JSON, which is written without spaces and without nulls.
        has_quota = _plan.c.quota.is_not(None) | _key.c.overrides.contains('"quota":')
        with_quota = select_columns(_key.c.id).join_from(_key, _plan, _key.c.plan_id == _plan.c.id, isouter=True)
        query = select(Key).where(
            Key.tenant_id == tenant.id, col(Key.revoked_at).is_(None), col(Key.id).in_(with_quota.where(has_quota))
        )
        return page(
            session, query, col(Key.id), asked, lambda found: [show(session, tenant, key, now) for key in found]
        )


def _get(control: ControlState, tenant_ref: str, ref: str, now: int) -> tuple[QuotaView, dict[str, Any]]:
    with control.database.read() as session:
        tenant = tenant_by(session, tenant_ref)
        key = key_by(session, tenant, ref)
        quota = _quota(session, key, now)
        rows = session.exec(
            select(QuotaGrant)
            .where(QuotaGrant.key_id == key.id, QuotaGrant.month == quota.starts_at)
            .order_by(col(QuotaGrant.id))
        )
        grants = [
            GrantView(
                id=row.public_id,
                kind="reset" if row.is_reset else "grant",
                units=row.units,
                until=format_time(quota.ends_at if row.until is None else row.until),
                reason=row.reason,
                created_at=format_time(row.created_at),
            )
            for row in rows
        ]
        view = show(session, tenant, key, now)
        return view, {**msgspec.structs.asdict(view), "grants": grants}


def _quota(session: Session, key: Key, now: int) -> KeyQuota:
    assert key.id is not None
    conf = find_key_by_id(session.connection(), key.id)
    assert conf is not None
    return quota_of(session.connection(), key.id, conf.quota, now)


def _with_quota(session: Session, tenant: Tenant, key: Key, now: int) -> QuotaView:
    shown = show(session, tenant, key, now)
    if shown.quota is None:
        raise conflict(f"the key {shown.key} has no quota; give it a plan that has one")
    return shown


def _until(text: str | None, now: int, month_ends_at: int) -> int | None:
    if text is None:
        return None
    until = checked("until", lambda written: parse_expiry(written, now), text)
    if until > month_ends_at:
        raise invalid("until", f"a grant is of one month's quota, and this one ends at {format_time(month_ends_at)}")
    return until


def _add(made: Change, key: Key, **columns: Any) -> None:
    assert key.id is not None
    month = _quota(made.session, key, made.at).starts_at
    public_id = new_public_id(made.session, QuotaGrant, "qgr_")
    made.session.add(QuotaGrant(public_id=public_id, key_id=key.id, month=month, created_at=made.at, **columns))
    made.session.flush()


def _note(made: Change, action: str, tenant: Tenant, key: Key, before: QuotaView) -> QuotaView:
    assert key.id is not None
    alerts.take_back(made.session, key.id, _quota(made.session, key, made.at))
    shown = show(made.session, tenant, key, made.at)
    made.note(action, tenant.slug, shown.id, before, shown)
    return shown
