"""Simulations of plans: what the usage of a time would have met under other terms. Nothing is changed by one."""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET
from sqlalchemy import ColumnElement, and_
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import simulate as simulation
from gatewayd.control.admin import plans
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.price_views import PriceView
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import key_by, plan_by, tenant_by
from gatewayd.control.admin.spelling import KeyRef, Moment
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.terms import RateView, decode_rates, show_rates
from gatewayd.control.history import hours_from
from gatewayd.control.prices import terms_of
from gatewayd.control.tables import Key, Plan, Tenant
from gatewayd.control.usage import Question
from gatewayd.policy.amounts import format_time, parse_time
from gatewayd.policy.invoicing import show_terms
from gatewayd.policy.simulation import Terms

_DEFAULT_RANGE_S = 30 * 86400

_key = Key.__table__  # type: ignore[attr-defined]


_RULES = "those of plans; since is before until, and hours are kept of it; not `billable`"


class Wanted(plans.ChangedTerms):
    """Whose usage: the plan's keys, or `keys`. Against what: the plan, or the plan `like`, with what is given here."""

    like: str | None = None
    keys: Annotated[tuple[KeyRef, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    since: Moment | None = None
    until: Moment | None = None


class SimulatedNumbers(msgspec.Struct, kw_only=True):
    """What was admitted, how much of it would have been refused at least, and what it earned and would have."""

    requests: int
    units: int
    would_refuse: int
    earned: str
    would_earn: str


class SimulatedKey(SimulatedNumbers, kw_only=True):
    key: str
    name: str


class SimulatedTerms(PriceView, kw_only=True):
    rates: list[RateView]
    quota: int | None
    quota_mode: plans.QuotaMode
    shadow: bool


class SimulationView(msgspec.Struct):
    """`missing_before`: what was used before this is no longer known, and counts towards nothing."""

    plan: str
    tenant: str
    currency: str
    since: str
    until: str
    missing_before: str | None
    terms: SimulatedTerms
    items: list[SimulatedKey]
    total: SimulatedNumbers


@documented("Replay usage against other terms", query=InTenant, body=Wanted, answer=SimulationView, rules=_RULES)
async def simulate(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    wanted = await read_body(request, Wanted)
    now = now_s()
    until = now if wanted.until is None else checked("until", parse_time, wanted.until)
    since = until - _DEFAULT_RANGE_S if wanted.since is None else checked("since", parse_time, wanted.since)
    if since >= until:
        raise invalid("since", "since is not before until")
    if wanted.billable is not UNSET:  # rollups have what was billable, not each outcome: a guess would look like a sum
        raise invalid("billable", "billable cannot be tried: usage is kept as it was billable then")
    await control.plane.catch_up()
    question = Question(since, until)
    ref = request.path_params["ref"]
    return answer(await run_in_threadpool(_answer, control, asked.tenant, ref, wanted, question))


def _answer(control: ControlState, tenant_ref: str, ref: str, wanted: Wanted, hours: Question) -> dict[str, Any]:
    with control.database.read() as session:
        tenant = tenant_by(session, tenant_ref)
        plan = plan_by(session, tenant, ref)
        base = plan if wanted.like is None else plan_by(session, tenant, wanted.like)
        tried = Plan(**base.model_dump())  # never added to the session
        price = plans.change_terms(tried, wanted, terms_of(session, base.price_id))
        trial = simulation.Trial(
            since=hours.starts_at,
            until=hours.ends_at,
            terms=Terms(decode_rates(tried.rates), tried.quota, price),
            quota_refuses=not tried.quota_soft,
            shadow=tried.shadow,
            zone=ZoneInfo(tenant.time_zone),
        )
        kept_from = hours_from(session.connection())
        if trial.since < kept_from:  # by the day nobody can tell what a window would have refused
            raise invalid("since", f"hours are kept since {format_time(kept_from)}, and it is hours that are replayed")
        replayed = simulation.replay(session.connection(), _keys(session, tenant, plan, wanted), trial)
    return {
        "plan": plan.name,
        "tenant": tenant.slug,
        "currency": tenant.currency,
        "since": format_time(hours.starts_at),
        "until": format_time(hours.ends_at),
        # What came before in the month counts towards quota and price; hours before this are gone.
        "missing_before": format_time(kept_from) if trial.replayed_from < kept_from else None,
        "terms": {
            "rates": show_rates(trial.terms.rates),
            "quota": tried.quota,
            "quota_mode": "soft" if tried.quota_soft else "hard",
            "shadow": tried.shadow,
            **show_terms(price),
        },
        **replayed,
    }


def _keys(session: Session, tenant: Tenant, plan: Plan, wanted: Wanted) -> ColumnElement[bool]:
    chosen: ColumnElement[bool] = _key.c.plan_id == plan.id
    if wanted.keys is not None:
        chosen = _key.c.id.in_([key_by(session, tenant, ref).id for ref in wanted.keys])
    return and_(_key.c.tenant_id == tenant.id, chosen)
