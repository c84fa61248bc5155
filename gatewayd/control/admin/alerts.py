"""Alerts: who is told of what, where, and what has become of it.

A signing secret comes once, in the answer to the request that made it; of one that the client sent nothing comes back.
No view holds it, so neither does the audit. Some receivers are opened by their URL: of that a viewer sees the host.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import case, func, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import outbox, usage, webhooks
from gatewayd.control.admin import hidden
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.bounds import names_bound, refuse_own_machine
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, Removal, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import invalid, not_found
from gatewayd.control.admin.refs import key_by, new_public_id, tenant_by
from gatewayd.control.admin.spelling import KeyRef, RefusalsText, Spend
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.tables import Alert, AlertEvent, Tenant
from gatewayd.policy.alerting import (
    TEST_TYPE,
    Kind,
    event_body,
    in_words,
    parse_percent,
    parse_refusals,
    parse_spend,
)
from gatewayd.policy.amounts import format_time
from gatewayd.policy.money import format_nanos
from gatewayd.policy.webhooks import NEW_SECRET_BYTES, Reply, check_secret, check_url, write_secret

LAST_EVENTS = 10  # in the view of one alert
REMOVED = "the alert was removed"

_alert, _event = Alert.__table__, AlertEvent.__table__  # type: ignore[attr-defined]


_RULES = "it is of one of the three; urls can be called; a secret is one of Standard Webhooks"


class NewAlert(msgspec.Struct, forbid_unknown_fields=True):
    """One of `quota` (percent), `spend` (an amount) and `refusals` (a number a minute)."""

    url: str
    quota: int | None = None
    spend: Spend | None = None
    refusals: RefusalsText | int | None = None
    key: KeyRef | None = None
    secret: str | None = None


class AlertView(msgspec.Struct):
    """`key` null: for quota each key of the tenant on its own, else the tenant as a whole.

    `pending`: events yet to be delivered. `failed`: events that were given up.
    """

    VOLATILE: ClassVar = frozenset({"state", "delivered", "pending", "failed", "error"})

    id: str
    tenant: str
    kind: Kind
    when: str
    quota: int | None
    spend: str | None
    refusals: int | None
    key: str | None
    url: str
    state: str  # "active", "failing" (the latest attempt did) or "disabled"
    delivered: int
    pending: int
    failed: int
    error: str  # of the latest attempt, if that failed
    created_at: str


class EventView(msgspec.Struct):
    """`state`: delivered, pending or failed, that is given up. `body` is what is sent, as JSON."""

    id: str
    type: str
    state: str
    attempts: int
    created_at: str
    delivered_at: str | None
    next_at: str | None
    error: str
    body: msgspec.Raw


class WholeAlert(AlertView):
    events: list[EventView]


class CreatedAlert(AlertView, kw_only=True):
    """`secret` comes once, and only if the client sent none."""

    secret: str | UnsetType = UNSET


class Delivery(msgspec.Struct):
    """What the receiver answered to a test; `status` null: nothing."""

    id: str
    delivered: bool
    status: int | None
    error: str


@documented("List alerts", query=PagedInTenantByNumber, answer=Page[AlertView])
def list_(request: Request) -> Response:
    """Of a URL a viewer sees no more than the host: with some receivers the path is all that it takes."""
    asked = read_query(request, PagedInTenantByNumber)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        query = select(Alert).where(Alert.tenant_id == tenant.id, col(Alert.removed_at).is_(None))

        def show(found: Sequence[Alert]) -> list[AlertView]:
            shown = show_all(session, tenant, found)
            return [hidden.of_alert(view) for view in shown] if hidden.hides(request) else shown

        return answer(page(session, query, col(Alert.id), asked, show))


@documented("Show an alert with its latest events", query=InTenant, answer=WholeAlert, shows_one=True)
def get(request: Request) -> Response:
    """With its latest events. Of its URL a viewer sees no more than the host."""
    asked = read_query(request, InTenant)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        alert = _alert_by(session, tenant, request.path_params["ref"])
        latest = select(AlertEvent).where(AlertEvent.alert_id == alert.id).order_by(col(AlertEvent.id).desc())
        found = session.exec(latest.limit(LAST_EVENTS)).all()
        view = _show(session, tenant, alert)
        if hidden.hides(request):
            view = hidden.of_alert(view)
        return answer_one(request, view, {**msgspec.structs.asdict(view), "events": show_events(found)})


@documented("List the events of an alert", query=PagedInTenantByNumber, answer=Page[EventView])
def events(request: Request) -> Response:
    """The latest first."""
    asked = read_query(request, PagedInTenantByNumber)
    with control_of(request).database.read() as session:
        alert = _alert_by(session, tenant_by(session, asked.tenant), request.path_params["ref"])
        query = select(AlertEvent).where(AlertEvent.alert_id == alert.id)
        return answer(page(session, query, col(AlertEvent.id), asked, show_events, newest_first=True))


@documented("Add an alert", query=InTenant, body=NewAlert, answer=CreatedAlert, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    asked = read_query(request, InTenant)
    new = await read_body(request, NewAlert)
    kind, threshold = _threshold(new)
    url = checked("url", check_url, new.url)
    refuse_own_machine(request, "url", [url])
    secret = write_secret(secrets.token_bytes(NEW_SECRET_BYTES)) if new.secret is None else new.secret
    checked("secret", check_secret, secret)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        key = None if new.key is None else key_by(made.session, tenant, new.key)
        assert tenant.id is not None
        alert = Alert(
            public_id=new_public_id(made.session, Alert, "alr_"),
            tenant_id=tenant.id,
            kind=kind,
            key_id=None if key is None else key.id,
            threshold=threshold,
            url=url,
            secret=secret,
            created_at=made.at,
            bound=names_bound(request),
        )
        made.session.add(alert)
        made.session.flush()
        shown = _show(made.session, tenant, alert)
        made.note("alert.add", tenant.slug, alert.public_id, after=shown)
    control_of(request).plane.alert_added()
    shown_once = {"secret": secret} if new.secret is None else {}
    return created({**msgspec.structs.asdict(shown), **shown_once})


@documented("Remove an alert", query=Removal, answer=AlertView, changes_one=True)
async def remove(request: Request) -> Response:
    """What it has yet to tell is given up in the same transaction, and the secret is forgotten."""
    asked = read_query(request, Removal)
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, asked.tenant)
        alert = _alert_by(made.session, tenant, request.path_params["ref"])
        before = _show(made.session, tenant, alert)
        alert.removed_at, alert.secret = made.at, ""
        made.session.add(alert)
        assert alert.id is not None
        outbox.give_up(made.session.connection(), alert.id, REMOVED)
        made.note("alert.remove", tenant.slug, alert.public_id, before)
    if not asked.dry_run:
        control_of(request).plane.alert_removed(alert.id)
    return answer(before)


@documented("Send an event now", query=InTenant, answer=Delivery)
async def test(request: Request) -> Response:
    """Send an `alert.test` now, once, and say what came of it. One that arrives enables a disabled alert again."""
    asked, control = read_query(request, InTenant), control_of(request)
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        alert = _alert_by(session, tenant, request.path_params["ref"])
        shown = _show(session, tenant, alert)
    at, event_id = now_s(), outbox.new_event_id()
    data = {name: getattr(shown, name) for name in ("tenant", "key", "kind", "when")}
    body = event_body(TEST_TYPE, at, {"alert": shown.id, **data})
    reply = await webhooks.post_over_http(alert.url, alert.secret, event_id, body.encode(), at, alert.bound)
    await control.database.given_back()
    enabled = reply.delivered and alert.disabled_at is not None
    with change(request) as made:
        assert alert.id is not None
        made.session.add(_tested(alert.id, event_id, body, reply, at))
        if enabled:
            made.session.execute(update(_alert).where(_alert.c.id == alert.id).values(disabled_at=None))
            made.note("alert.enable", tenant.slug, alert.public_id)
    if enabled:
        control.plane.alert_added()
    return answer({"id": event_id, "delivered": reply.delivered, "status": reply.status, "error": reply.failure})


def show_all(session: Session, tenant: Tenant, found: Sequence[Alert]) -> list[AlertView]:
    ids = [alert.id for alert in found]
    keys = usage.key_names(session.connection(), (alert.key_id for alert in found if alert.key_id is not None))
    counts = _counts(session, ids)
    errors = {alert.id: _last_error(session, alert) for alert in found}
    return [
        AlertView(
            id=alert.public_id,
            tenant=tenant.slug,
            kind=alert.kind,  # type: ignore[arg-type]  # the table's own are no others
            when=in_words(alert.kind, alert.threshold, tenant.currency),
            quota=alert.threshold if alert.kind == "quota" else None,
            spend=format_nanos(alert.threshold) if alert.kind == "spend" else None,
            refusals=alert.threshold if alert.kind == "refusals" else None,
            key=None if alert.key_id is None else usage.name_of(keys, alert.key_id),
            url=alert.url,
            state="disabled" if alert.disabled_at is not None else "failing" if errors[alert.id] else "active",
            **counts.get(alert.id or 0, {"delivered": 0, "pending": 0, "failed": 0}),
            error=errors[alert.id],
            created_at=format_time(alert.created_at),
        )
        for alert in found
    ]


def show_events(found: Sequence[AlertEvent]) -> list[EventView]:
    return [
        EventView(
            id=event.public_id,
            type=event.type,
            state=_state(event),
            attempts=event.attempts,
            created_at=format_time(event.created_at),
            delivered_at=None if event.delivered_at is None else format_time(event.delivered_at),
            next_at=None if event.next_at is None else format_time(event.next_at),
            error=event.error,
            body=msgspec.Raw(event.body.encode()),
        )
        for event in found
    ]


def _show(session: Session, tenant: Tenant, alert: Alert) -> AlertView:
    return show_all(session, tenant, [alert])[0]


def _state(event: AlertEvent) -> str:
    if event.delivered_at is not None:
        return "delivered"
    return "failed" if event.next_at is None else "pending"


def _counts(session: Session, ids: Sequence[int | None]) -> dict[int, dict[str, int]]:
    """Events of each alert by their state; tests count as what came of them."""
    delivered, pending = _event.c.delivered_at.is_not(None), _event.c.next_at.is_not(None)
    query = (
        select_columns(
            _event.c.alert_id,
            func.sum(case((delivered, 1), else_=0)),
            func.sum(case((pending, 1), else_=0)),
            func.sum(case((delivered | pending, 0), else_=1)),
        )
        .where(_event.c.alert_id.in_(ids))
        .group_by(_event.c.alert_id)
    )
    rows = session.execute(query)
    return {row[0]: {"delivered": row[1], "pending": row[2], "failed": row[3]} for row in rows}


def _last_error(session: Session, alert: Alert) -> str:
    query = select(AlertEvent.error).where(AlertEvent.alert_id == alert.id, col(AlertEvent.attempts) > 0)
    return session.exec(query.order_by(col(AlertEvent.id).desc()).limit(1)).first() or ""


def _tested(alert_id: int, event_id: str, body: str, reply: Reply, at: int) -> AlertEvent:
    return AlertEvent(
        public_id=event_id,
        alert_id=alert_id,
        occasion=f"test:{event_id}",
        type=TEST_TYPE,
        body=body,
        created_at=at,
        attempts=1,
        delivered_at=at if reply.delivered else None,
        error=reply.failure,
    )


def _threshold(new: NewAlert) -> tuple[Kind, int]:
    given = [name for name in ("quota", "spend", "refusals") if getattr(new, name) is not None]
    if len(given) != 1:
        raise invalid("quota" if not given else given[1], "an alert is of one of quota, spend and refusals")
    if new.quota is not None:
        return "quota", checked("quota", parse_percent, new.quota)
    if new.spend is not None:
        return "spend", checked("spend", parse_spend, new.spend)
    return "refusals", checked("refusals", parse_refusals, str(new.refusals))


def _alert_by(session: Session, tenant: Tenant, ref: str) -> Alert:
    live = (col(Alert.tenant_id) == tenant.id, col(Alert.removed_at).is_(None))
    found = session.exec(select(Alert).where(Alert.public_id == ref, *live)).first()
    if found is None:
        raise not_found("alert", ref, session.exec(select(Alert.public_id).where(*live).limit(1000)))
    return found
