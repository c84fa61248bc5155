"""Plans: limits and a price under one name. A change is in force at once for every key of the plan.

A plan is what its row says; each change also leaves a row of its own, so that what a plan was can still be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import func
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin import plan_prices
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import Change, change
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, Removal, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant, PagedInTenantByNumber, page
from gatewayd.control.admin.plan_prices import AskedPrice, TierMode
from gatewayd.control.admin.price_views import PackageView, TierView
from gatewayd.control.admin.problems import AdminError, conflict, invalid
from gatewayd.control.admin.refs import new_public_id, plan_by, tenant_by
from gatewayd.control.admin.spelling import PlanName, Price, QuotaText
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.admin.terms import (
    Burst,
    Rates,
    RateView,
    decode_rates,
    encode_rates,
    show_rates,
    windows_and_quota,
    with_bursts_kept,
)
from gatewayd.control.prices import price_id_of, terms_of
from gatewayd.control.tables import Key, Plan, PlanVersion, Tenant
from gatewayd.errors import NOT_FOUND
from gatewayd.policy.amounts import LARGEST_COUNT, format_time, parse_quota
from gatewayd.policy.invoicing import show_terms
from gatewayd.policy.pricing import Counted, Outcome, Terms

QuotaMode = Literal["hard", "soft"]
InFlight = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)]
# Beyond 100 %: a soft quota goes on, and somebody may want to know at twice of it.
Alerts = Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1000)], ...], msgspec.Meta(max_length=10)]
# Each has a bucket of its own at control: what one key may cost in memory must have a bound.
Clients = Annotated[int, msgspec.Meta(ge=0, le=100_000)]

_NAME = re.compile(r"(?!pln_)[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


_RULES = "one thing has one price; windows differ; a burst belongs to a rate, a mode to tiers"


class NewPlan(AskedPrice, kw_only=True):
    name: PlanName
    rates: Rates = ()
    burst: Burst | None = None
    quota: QuotaText | int | None = None
    quota_mode: QuotaMode = "hard"
    in_flight_limit: InFlight | None = None
    shadow: bool = False
    alerts: Alerts = ()
    clients_limit: Clients = 0
    price: Price | UnsetType | None = UNSET  # type: ignore[assignment]  # null is the default, as it always was


class ChangedTerms(AskedPrice, kw_only=True):
    """What of a plan is another."""

    rates: Rates | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET
    quota: QuotaText | int | UnsetType | None = UNSET
    quota_mode: QuotaMode | UnsetType = UNSET
    in_flight_limit: InFlight | UnsetType | None = UNSET
    shadow: bool | UnsetType = UNSET
    alerts: Alerts | UnsetType = UNSET
    clients_limit: Clients | UnsetType = UNSET


class ChangedPlan(ChangedTerms, kw_only=True):
    name: PlanName | UnsetType = UNSET


class Asked(InTenant, frozen=True, kw_only=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)] | None = None


class PlanView(msgspec.Struct, kw_only=True):
    """A version that is older than a field shows what held then: its default."""

    id: str
    name: str
    tenant: str
    version: int
    rates: list[RateView]
    quota: int | None
    quota_mode: QuotaMode
    in_flight_limit: int | None
    shadow: bool
    alerts: list[int]
    clients_limit: int
    price: str
    unit_price: str = "0"
    mib_price: str = "0"
    base_fee: str = "0"
    minimum: str = "0"
    included: int = 0
    tiers: list[TierView] = msgspec.field(default_factory=list)
    tier_mode: TierMode | None = None
    package: PackageView | None = None
    counts: Counted = "requests"
    billable: tuple[Outcome, ...] = Terms().billable
    created_at: str


class PlanVersionView(PlanView, kw_only=True):
    """`since` when it held."""

    since: str


class PlanThen(PlanView, kw_only=True):
    """`since` of a version that was asked for."""

    since: str | UnsetType = UNSET


def show(plan: Plan, tenant: Tenant, price: Terms) -> PlanView:
    return PlanView(
        id=plan.public_id,
        name=plan.name,
        tenant=tenant.slug,
        version=plan.version,
        rates=show_rates(decode_rates(plan.rates)),
        quota=plan.quota,
        quota_mode="soft" if plan.quota_soft else "hard",
        in_flight_limit=plan.in_flight_limit,
        shadow=plan.shadow,
        alerts=msgspec.json.decode(plan.alerts),
        clients_limit=plan.clients_limit,
        **{**show_terms(price), "billable": price.billable},
        created_at=format_time(plan.created_at),
    )


@documented("List plans", query=PagedInTenant, answer=Page[PlanView])
def list_(request: Request) -> Response:
    asked = read_query(request, PagedInTenant)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)

        def show_all(plans: Sequence[Plan]) -> list[PlanView]:
            return [show(plan, tenant, terms_of(session, plan.price_id)) for plan in plans]

        query = select(Plan).where(Plan.tenant_id == tenant.id, col(Plan.removed_at).is_(None))
        return answer(page(session, query, col(Plan.name), asked, show_all))


@documented("Show a plan, as it is or was", query=Asked, answer=PlanThen, shows_one=True)
def get(request: Request) -> Response:
    """As it is, or as it was in `version`."""
    asked = read_query(request, Asked)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        plan = plan_by(session, tenant, request.path_params["ref"])
        if asked.version is None:
            return answer_one(request, show(plan, tenant, terms_of(session, plan.price_id)))
        version = session.get(PlanVersion, (plan.id, asked.version))
        if version is None:
            raise AdminError(NOT_FOUND, f"plan {plan.name!r} has no version {asked.version}")
        return answer_one(request, show_version(version))


@documented("List the versions of a plan", query=PagedInTenantByNumber, answer=Page[PlanVersionView])
def versions(request: Request) -> Response:
    """What it was and since when, the newest first."""
    asked = read_query(request, PagedInTenantByNumber)
    with control_of(request).database.read() as session:
        plan = plan_by(session, tenant_by(session, asked.tenant), request.path_params["ref"])
        query = select(PlanVersion).where(PlanVersion.plan_id == plan.id)

        def show_all(found: Sequence[PlanVersion]) -> list[dict[str, Any]]:
            return [show_version(version) for version in found]

        return answer(page(session, query, col(PlanVersion.version), asked, show_all, newest_first=True))


def show_version(version: PlanVersion) -> dict[str, Any]:
    shown = msgspec.json.decode(version.terms, type=PlanView)
    return {**msgspec.structs.asdict(shown), "since": format_time(version.created_at)}


@documented("Add a plan", query=InTenant, body=NewPlan, answer=PlanView, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    asked = read_query(request, InTenant)
    new = await read_body(request, NewPlan)
    columns, price = columns_of(new), plan_prices.new_terms(new)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        _refuse_taken(made.session, tenant, new.name)
        assert tenant.id is not None
        plan = Plan(
            public_id=new_public_id(made.session, Plan, "pln_"),
            tenant_id=tenant.id,
            price_id=price_id_of(made.session, price),
            version=1,
            created_at=made.at,
            **columns,
        )
        shown = show(plan, tenant, price)
        _keep_version(made, plan, shown)
        made.note("plan.add", tenant.slug, plan.public_id, after=shown)
    return created(shown)


def columns_of(new: NewPlan) -> dict[str, Any]:
    """What the row of such a plan holds, checked, but for its price. Raises AdminError."""
    rates, quota = windows_and_quota(new.rates, new.burst, new.quota)
    return {
        "name": checked("name", _check_name, new.name),
        "rates": encode_rates(rates),
        "quota": quota,
        "quota_soft": new.quota_mode == "soft",
        "in_flight_limit": new.in_flight_limit,
        "shadow": new.shadow,
        "alerts": _alerts(new.alerts),
        "clients_limit": new.clients_limit,
    }


@documented("Change a plan", query=InTenant, body=ChangedPlan, answer=PlanView, rules=_RULES, changes_one=True)
async def set_(request: Request) -> Response:
    """A new version, unless nothing is different."""
    asked = read_query(request, InTenant)
    wanted = await read_body(request, ChangedPlan)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        plan = plan_by(made.session, tenant, request.path_params["ref"])
        before = show(plan, tenant, terms_of(made.session, plan.price_id))
        if wanted.name is not UNSET and wanted.name != plan.name:
            _refuse_taken(made.session, tenant, checked("name", _check_name, wanted.name))
            plan.name = wanted.name
        price = change_terms(plan, wanted, terms_of(made.session, plan.price_id))
        plan.price_id = price_id_of(made.session, price)
        shown = show(plan, tenant, price)
        if shown == before:
            made.expect(before)
            return answer(before)
        plan.version = shown.version = before.version + 1
        _keep_version(made, plan, shown)
        made.note("plan.set", tenant.slug, plan.public_id, before, shown)
    await control_of(request).plane.publish_keys(None)
    return answer(shown)


@documented("Remove a plan", query=Removal, answer=PlanView, changes_one=True)
async def remove(request: Request) -> Response:
    asked = read_query(request, Removal)
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, asked.tenant)
        plan = plan_by(made.session, tenant, request.path_params["ref"])
        _refuse_in_use(made.session, tenant, plan)
        before = show(plan, tenant, terms_of(made.session, plan.price_id))
        plan.removed_at = made.at
        made.session.add(plan)
        made.note("plan.remove", tenant.slug, plan.public_id, before)
    return answer(before)


def change_terms(plan: Plan, wanted: ChangedTerms, price: Terms) -> Terms:
    """Change the row as asked; its price, which was `price`."""
    _change_limits(plan, wanted)
    if wanted.quota_mode is not UNSET:
        plan.quota_soft = wanted.quota_mode == "soft"
    if wanted.in_flight_limit is not UNSET:
        plan.in_flight_limit = wanted.in_flight_limit
    if wanted.shadow is not UNSET:
        plan.shadow = wanted.shadow
    if wanted.alerts is not UNSET:
        plan.alerts = _alerts(wanted.alerts)
    if wanted.clients_limit is not UNSET:
        plan.clients_limit = wanted.clients_limit
    return plan_prices.changed_terms(price, wanted)


def _change_limits(plan: Plan, wanted: ChangedTerms) -> None:
    burst = None if wanted.burst is UNSET else wanted.burst
    if wanted.rates is not UNSET:
        rates, monthly = windows_and_quota(wanted.rates, burst, None)
        if monthly is not None and wanted.quota is not UNSET:  # also `null`: neither may win quietly
            raise invalid("quota", "the quota is given twice; N/month among the rates is one too")
        if burst is None:
            rates = with_bursts_kept(rates, decode_rates(plan.rates))
        plan.rates = encode_rates(rates)
        plan.quota = plan.quota if monthly is None else monthly
    elif burst is not None:
        rates = decode_rates(plan.rates)
        if not rates:
            raise invalid("burst", f"burst belongs to a rate, and the plan {plan.name!r} has none")
        plan.rates = encode_rates(tuple(msgspec.structs.replace(rate, burst=burst) for rate in rates))
    if wanted.quota is not UNSET:
        plan.quota = None if wanted.quota is None else checked("quota", parse_quota, wanted.quota)


def _keep_version(made: Change, plan: Plan, shown: PlanView) -> None:
    made.session.add(plan)
    made.session.flush()  # a new plan has its number from here on
    assert plan.id is not None
    terms = msgspec.json.encode(shown).decode()
    made.session.add(PlanVersion(plan_id=plan.id, version=plan.version, created_at=made.at, terms=terms))


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name[:80]!r} is not a name: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return name


def _alerts(percents: Sequence[int]) -> str:
    return msgspec.json.encode(sorted(set(percents))).decode()


def _refuse_taken(session: Session, tenant: Tenant, name: str) -> None:
    live = (Plan.tenant_id == tenant.id, Plan.name == name, col(Plan.removed_at).is_(None))
    if session.exec(select(Plan.id).where(*live)).first():
        raise conflict(f"plan {name!r} exists already")


def _refuse_in_use(session: Session, tenant: Tenant, plan: Plan) -> None:
    if tenant.default_plan_id == plan.id:
        raise conflict(f"new keys of the tenant {tenant.slug!r} take the plan {plan.name!r}; give it another first")
    in_use = select(func.count()).where(Key.plan_id == plan.id, col(Key.revoked_at).is_(None))
    if keys := session.exec(in_use).one():
        have = "1 key has" if keys == 1 else f"{keys} keys have"
        raise conflict(f"{have} the plan {plan.name!r}; give them another first")
