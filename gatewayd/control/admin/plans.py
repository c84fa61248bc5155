"""Plans: limits and a price under one name. A change is in force at once for every key of the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import func
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.channel import RateConf
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import new_public_id, plan_by, tenant_by
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import Key, Plan, Price, Tenant
from gatewayd.policy.amounts import LARGEST_COUNT, format_time, is_month, parse_quota, parse_rate
from gatewayd.policy.pricing import DEFAULT_PRICE_NANOS, format_nanos, parse_price

Rates = Annotated[tuple[str, ...], msgspec.Meta(max_length=16)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)]

_NAME = re.compile(r"(?!pln_)[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_rates = msgspec.json.Decoder(tuple[RateConf, ...])


class NewPlan(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    rates: Rates = ()
    burst: Burst | None = None
    quota: str | int | None = None
    price: str | None = None


class ChangedPlan(msgspec.Struct, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET
    rates: Rates | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET
    quota: str | int | UnsetType | None = UNSET
    price: str | UnsetType = UNSET


class PlanView(msgspec.Struct):
    id: str
    name: str
    tenant: str
    rates: list[dict[str, Any]]
    quota: int | None
    price: str
    created_at: str


def show(plan: Plan, tenant: Tenant, request_nanos: int) -> PlanView:
    return PlanView(
        id=plan.public_id,
        name=plan.name,
        tenant=tenant.slug,
        rates=show_rates(_rates.decode(plan.rates)),
        quota=plan.quota,
        price=format_nanos(request_nanos),
        created_at=format_time(plan.created_at),
    )


def show_rates(rates: Sequence[RateConf]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(rate) for rate in rates]


def list_(request: Request) -> Response:
    asked = read_query(request, PagedInTenant)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)

        def show_all(plans: Sequence[Plan]) -> list[PlanView]:
            return [show(plan, tenant, _nanos_of(session, plan)) for plan in plans]

        query = select(Plan).where(Plan.tenant_id == tenant.id, col(Plan.removed_at).is_(None))
        return answer(page(session, query, col(Plan.name), asked, show_all))


def get(request: Request) -> Response:
    asked = read_query(request, InTenant)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        plan = plan_by(session, tenant, request.path_params["ref"])
        return answer(show(plan, tenant, _nanos_of(session, plan)))


async def add(request: Request) -> Response:
    asked = read_query(request, InTenant)
    new = await read_body(request, NewPlan)
    name = checked("name", _check_name, new.name)
    rates, quota = _limits(new.rates, new.burst, new.quota)
    nanos = DEFAULT_PRICE_NANOS if new.price is None else checked("price", parse_price, new.price)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        _refuse_taken(made.session, tenant, name)
        assert tenant.id is not None
        plan = Plan(
            public_id=new_public_id(made.session, Plan, "pln_"),
            tenant_id=tenant.id,
            name=name,
            rates=_json(rates),
            quota=quota,
            price_id=_price_id(made.session, nanos),
            created_at=made.at,
        )
        made.session.add(plan)
        shown = show(plan, tenant, nanos)
        made.note("plan.add", tenant.slug, plan.public_id, after=shown)
    return created(shown)


async def set_(request: Request) -> Response:
    asked = read_query(request, InTenant)
    wanted = await read_body(request, ChangedPlan)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        plan = plan_by(made.session, tenant, request.path_params["ref"])
        before = show(plan, tenant, _nanos_of(made.session, plan))
        if wanted.name is not UNSET and wanted.name != plan.name:
            _refuse_taken(made.session, tenant, checked("name", _check_name, wanted.name))
            plan.name = wanted.name
        _set_limits(plan, wanted)
        if wanted.price is not UNSET:
            plan.price_id = _price_id(made.session, checked("price", parse_price, wanted.price))
        made.session.add(plan)
        shown = show(plan, tenant, _nanos_of(made.session, plan))
        made.note("plan.set", tenant.slug, plan.public_id, before, shown)
    await control_of(request).plane.publish_keys(None)
    return answer(shown)


async def remove(request: Request) -> Response:
    asked = read_query(request, InTenant)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        plan = plan_by(made.session, tenant, request.path_params["ref"])
        in_use = select(func.count()).where(Key.plan_id == plan.id, col(Key.revoked_at).is_(None))
        if keys := made.session.exec(in_use).one():
            have = "1 key has" if keys == 1 else f"{keys} keys have"
            raise conflict(f"{have} the plan {plan.name!r}; give them another first")
        before = show(plan, tenant, _nanos_of(made.session, plan))
        plan.removed_at = made.at
        made.session.add(plan)
        made.note("plan.remove", tenant.slug, plan.public_id, before)
    return answer(before)


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name[:80]!r} is not a name: 1 to 63 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return name


def _limits(
    texts: Sequence[str], burst: int | None, quota: str | int | None
) -> tuple[tuple[RateConf, ...], int | None]:
    """Windows and quota as they were written; `10000/month` among the rates is the quota."""
    monthly = [text for text in texts if is_month(text.partition("/")[2])]
    if len(monthly) + (quota is not None) > 1:
        raise invalid("quota", "the quota is given twice; N/month among the rates is one too")
    rates = tuple(checked("rates", lambda text: parse_rate(text, burst), text) for text in texts if text not in monthly)
    if len({rate.window_s for rate in rates}) < len(rates):
        raise invalid("rates", "two rates have the same window; give one of them")
    if burst is not None and not rates:
        raise invalid("burst", "burst belongs to a rate; give one such as 60/min")
    written = monthly[0] if monthly else quota
    return rates, None if written is None else checked("rates" if monthly else "quota", parse_quota, written)


def _set_limits(plan: Plan, wanted: ChangedPlan) -> None:
    burst = None if wanted.burst is UNSET else wanted.burst
    if wanted.rates is not UNSET:
        rates, monthly = _limits(wanted.rates, burst, wanted.quota or None)
        if burst is None:
            rates = _with_bursts_kept(rates, _rates.decode(plan.rates))
        plan.rates = _json(rates)
        plan.quota = monthly if monthly is not None else plan.quota
    elif burst is not None:
        rates = _rates.decode(plan.rates)
        if not rates:
            raise invalid("burst", f"burst belongs to a rate, and the plan {plan.name!r} has none")
        plan.rates = _json(tuple(msgspec.structs.replace(rate, burst=burst) for rate in rates))
    if wanted.quota is not UNSET:
        plan.quota = None if wanted.quota is None else checked("quota", parse_quota, wanted.quota)


def _with_bursts_kept(rates: tuple[RateConf, ...], before: tuple[RateConf, ...]) -> tuple[RateConf, ...]:
    """A window that stays keeps the burst that was set for it; one that had the limit for its burst still does."""
    bursts = {rate.window_s: rate.burst for rate in before if rate.burst != rate.limit}
    return tuple(msgspec.structs.replace(rate, burst=bursts.get(rate.window_s, rate.burst)) for rate in rates)


def _price_id(session: Session, nanos: int) -> int:
    """Prices are immutable rows: the one of this amount, made when it is the first."""
    price = session.exec(select(Price).where(Price.request_nanos == nanos)).first()
    if price is None:
        price = Price(request_nanos=nanos)
        session.add(price)
        session.flush()
    assert price.id is not None
    return price.id


def _nanos_of(session: Session, plan: Plan) -> int:
    price = session.get(Price, plan.price_id)
    assert price is not None
    return price.request_nanos


def _refuse_taken(session: Session, tenant: Tenant, name: str) -> None:
    live = (Plan.tenant_id == tenant.id, Plan.name == name, col(Plan.removed_at).is_(None))
    if session.exec(select(Plan.id).where(*live)).first():
        raise conflict(f"plan {name!r} exists already")


def _json(rates: Sequence[RateConf]) -> str:
    return msgspec.json.encode(rates).decode()
