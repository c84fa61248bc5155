"""API keys: made, shown without their secret, changed, disabled, revoked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.control import usage
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import Change, change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.key_rotation import end_generation
from gatewayd.control.admin.key_terms import RULES, KeyTerms, set_terms
from gatewayd.control.admin.key_views import (
    CreatedKey,
    KeyView,
    Status,
    WholeKey,
    show,
    show_all,
    show_generations,
    show_limits,
)
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import key_by, plan_by, service_by, tenant_by
from gatewayd.control.admin.spelling import DisplayName, LabelFilter
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.key_past import keep, state_of
from gatewayd.control.tables import Key, Plan, Tenant
from gatewayd.errors import CONFLICT
from gatewayd.policy.buckets import month_of

_LABEL_FILTER = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/-]{0,62})(=(?P<value>[^\x00-\x1f]{0,200}))?")


class NewKey(KeyTerms, kw_only=True):
    name: DisplayName = ""


class ChangedKey(KeyTerms, kw_only=True):
    name: DisplayName | UnsetType = UNSET


class Revocation(msgspec.Struct, forbid_unknown_fields=True):
    generation: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Listed(PagedInTenantByNumber, frozen=True, kw_only=True):
    service: str | None = None
    plan: str | None = None
    status: Status | None = None
    label: LabelFilter | None = None


@documented("List keys", query=Listed, answer=Page[KeyView], also=(CONFLICT,))
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
        if asked.label is not None:
            query = query.where(_labelled(asked.label))
        return answer(page(session, query, col(Key.id), asked, lambda found: show_all(session, tenant, found, now)))


@documented("Show a key", query=InTenant, answer=WholeKey, shows_one=True, also=(CONFLICT,))
async def get(request: Request) -> Response:
    """With its generations and this month's usage, and so only once the journals have been read."""
    asked, control = read_query(request, InTenant), control_of(request)
    await control.plane.catch_up()
    view, whole = await run_in_threadpool(_show_whole, control, asked.tenant, request.path_params["ref"])
    return answer_one(request, view, whole)


@documented("Create a key", query=InTenant, body=NewKey, answer=CreatedKey, status=201, rules=RULES)
async def create(request: Request) -> Response:
    """The one answer, beside that of a rotation, that holds the key itself."""
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
            # Copied, not followed: another default changes what new keys get, never the price of one that is in use.
            plan_id=_default_plan(made.session, tenant),
            created_at=made.at,
        )
        set_terms(made.session, tenant, key, new, made.at)
        made.session.add(key)
        shown = show(made.session, tenant, key, made.at)
        made.note("key.create", tenant.slug, shown.id, after=shown)
    id_and_key = {"id": shown.id, "key": secret}
    return created(id_and_key | msgspec.structs.asdict(shown))


@documented("Change a key", query=InTenant, body=ChangedKey, answer=KeyView, rules=RULES, changes_one=True)
async def set_(request: Request) -> Response:
    wanted = await read_body(request, ChangedKey)

    def set_given(made: Change, tenant: Tenant, key: Key) -> None:
        if wanted.name is not UNSET:
            key.name = checked("name", check_display_name, wanted.name)
        set_terms(made.session, tenant, key, wanted, made.at)

    return await _changed(request, "key.set", set_given)


@documented("Disable a key", query=InTenant, answer=KeyView, changes_one=True)
async def disable(request: Request) -> Response:
    """Refused until it is enabled again."""

    def set_disabled(made: Change, tenant: Tenant, key: Key) -> None:
        key.disabled_at = key.disabled_at or made.at

    return await _changed(request, "key.disable", set_disabled)


@documented("Enable a key again", query=InTenant, answer=KeyView, changes_one=True)
async def enable(request: Request) -> Response:
    def set_enabled(made: Change, tenant: Tenant, key: Key) -> None:
        if key.revoked_at is not None:
            raise conflict(f"key gw_{key.public_id} is revoked, which is for ever; create another")
        key.disabled_at = None

    return await _changed(request, "key.enable", set_enabled)


@documented(
    "Revoke a key, or an older secret of it",
    query=InTenant,
    body=Revocation,
    body_optional=True,
    answer=KeyView,
    changes_one=True,
)
async def revoke(request: Request) -> Response:
    """The key, or one of its older generations. Once more does nothing but make sure that every worker knows."""
    wanted = await read_body(request, Revocation, optional=True)

    def set_revoked(made: Change, tenant: Tenant, key: Key) -> None:
        if wanted.generation is not None:
            end_generation(made, tenant, key, wanted.generation)
        else:
            key.revoked_at = key.revoked_at or made.at

    return await _changed(request, "key.revoke", set_revoked)


async def _changed(request: Request, action: str, make: Callable[[Change, Tenant, Key], None]) -> Response:
    """Change one key, note it if it is another now, and answer once every worker knows."""
    asked = read_query(request, InTenant)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = key_by(made.session, tenant, request.path_params["ref"])
        before, was = show(made.session, tenant, key, made.at), state_of(key.model_dump())
        make(made, tenant, key)
        made.expect(before)  # also where nothing is noted of the key itself
        made.session.add(key)
        shown = show(made.session, tenant, key, made.at)
        if shown != before:
            made.note(action, tenant.slug, shown.id, before, shown)
        if key.id is not None and state_of(key.model_dump()) != was:
            keep(made.session.connection(), [(key.id, was)], made.at)
    await control_of(request).plane.publish_keys([key.public_id])
    return answer(shown)


def _show_whole(control: ControlState, tenant_ref: str, ref: str) -> tuple[KeyView, dict[str, Any]]:
    now = now_s()
    with control.database.read() as session:
        tenant = tenant_by(session, tenant_ref)
        key = key_by(session, tenant, ref)
        assert key.id is not None
        used = usage.used_in(session.connection(), key.id, *month_of(now)).shown()
        view = show(session, tenant, key, now)
        return view, {
            **msgspec.structs.asdict(view),
            "generations": show_generations(session, key, now),
            "usage": {name: used[name] for name in ("requests", "billable", "cost")},
            "limits": show_limits(session, key, now),
        }


def _default_plan(session: Session, tenant: Tenant) -> int | None:
    plan = None if tenant.default_plan_id is None else session.get(Plan, tenant.default_plan_id)
    return None if plan is None or plan.removed_at is not None else plan.id


def _new_key(session: Session) -> tuple[str, str]:
    """Public id and key; the id is one that no key has or had."""
    while True:
        public_id, secret = keys.new_key()
        if session.exec(select(Key.id).where(Key.public_id == public_id)).first() is None:
            return public_id, secret


def _having_status(status: Status, now: int) -> tuple[ColumnElement[bool], ...]:
    """`status_of`, for the database."""
    revoked, disabled = col(Key.revoked_at).is_not(None), col(Key.disabled_at).is_not(None)
    expired = func.coalesce(col(Key.expires_at) <= now, False)
    return {
        "revoked": (revoked,),
        "disabled": (~revoked, disabled),
        "expired": (~revoked, ~disabled, expired),
        "active": (~revoked, ~disabled, ~expired),
    }[status]


def _may_call(service_id: int | None) -> ColumnElement[bool]:
    """Scoped to this service among others, or to none in particular. `[1,22]` is searched as `,1,22,` for `,22,`."""
    scope = "," + func.trim(col(Key.service_ids), "[]") + ","
    return col(Key.service_ids).is_(None) | scope.like(f"%,{service_id},%")


def _labelled(written: str) -> ColumnElement[bool]:
    """`team=a`, or `team` with whatever value."""
    match = _LABEL_FILTER.fullmatch(written)
    if match is None:
        raise invalid("label", f"{written[:40]!r} is not a label such as team or team=a")
    found = func.json_extract(col(Key.labels), f'$."{match["name"]}"')
    return found.is_not(None) if match["value"] is None else found == match["value"]
