"""What the admin API shows of a key. Never its secret, nor the digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import func
from sqlmodel import Session, col, select

from gatewayd import keys
from gatewayd.conf import RateConf
from gatewayd.control import usage
from gatewayd.control.admin.terms import RateView, show_rates
from gatewayd.control.compile import Overrides
from gatewayd.control.quotas import quota_of
from gatewayd.control.tables import Key, KeyGeneration, Plan, Price, Tenant
from gatewayd.policy.amounts import DEFAULT_RATES, format_time
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import decode_terms

Status = Literal["active", "disabled", "expired", "revoked"]

_ids = msgspec.json.Decoder(tuple[int, ...])
_strings = msgspec.json.Decoder(list[str])
_labels = msgspec.json.Decoder(dict[str, str])
_rates = msgspec.json.Decoder(tuple[RateConf, ...])
_overrides = msgspec.json.Decoder(Overrides)


class OverridesView(msgspec.Struct):
    """What it has in place of its plan's: no more than that."""

    rates: list[RateView] | UnsetType = UNSET
    quota: int | UnsetType = UNSET
    in_flight_limit: int | UnsetType = UNSET
    price: str | UnsetType = UNSET


class KeyView(msgspec.Struct):
    VOLATILE: ClassVar = frozenset({"last_used_at"})

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
    disabled_at: str | None
    last_used_at: str | None
    generation: int
    imported: bool
    allow: list[str]
    networks: list[str]
    overrides: OverridesView
    labels: dict[str, str]


class CreatedKey(KeyView):
    """`key` comes once, and in no other answer but that of a rotation."""

    key: str


class GenerationView(msgspec.Struct):
    """`expires_at`: when it ceases to work because a newer one is there; null for the current one."""

    number: int
    status: Literal["current", "active", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    ended_at: str | None


class KeyUsage(msgspec.Struct):
    """Of this calendar month, UTC."""

    requests: int
    billable: int
    cost: str


class QuotaLeft(msgspec.Struct):
    """`limit`: with what was granted."""

    limit: int
    used: int
    remaining: int


class LimitsView(msgspec.Struct):
    """Those that are in force."""

    rates: list[RateView]
    quota: QuotaLeft | None
    in_flight_limit: int | None


class WholeKey(KeyView):
    generations: list[GenerationView]
    usage: KeyUsage
    limits: LimitsView


class RotatedKey(CreatedKey):
    generations: list[GenerationView]


def show_all(session: Session, tenant: Tenant, found: Sequence[Key], now: int) -> list[KeyView]:
    """Keys of one tenant. What they refer to is looked up for all of them at once."""
    scopes = [_ids.decode(key.service_ids) if key.service_ids is not None else () for key in found]
    slugs = usage.service_names(session.connection(), (id_ for scope in scopes for id_ in scope))
    plans = {key.plan_id for key in found}
    names = {plan.id: plan.name for plan in session.exec(select(Plan).where(col(Plan.id).in_(plans)))}
    used_before = _older_uses(session, found)
    return [
        KeyView(
            id=f"key_{key.public_id}",
            prefix=keys.PREFIX + key.public_id,
            tenant=tenant.slug,
            services=[usage.name_of(slugs, id_) for id_ in scope],
            plan=names.get(key.plan_id),
            name=key.name,
            status=status_of(key, now),
            expires_at=_time(key.expires_at),
            created_at=format_time(key.created_at),
            revoked_at=_time(key.revoked_at),
            disabled_at=_time(key.disabled_at),
            last_used_at=_time(max(key.last_used_at or 0, used_before.get(key.id, 0)) or None),
            generation=key.generation,
            imported=key.imported,
            allow=_strings.decode(key.allow),
            networks=_strings.decode(key.networks),
            overrides=_show_overrides(session, key),
            labels=_labels.decode(key.labels),
        )
        for key, scope in zip(found, scopes, strict=True)
    ]


def _older_uses(session: Session, found: Sequence[Key]) -> dict[int | None, int]:
    """When an older secret of a key was used last. The key's own column knows the current one alone."""
    rotated = [key.id for key in found if key.generation > 1]
    if not rotated:
        return {}
    of_key, used = col(KeyGeneration.key_id), func.max(col(KeyGeneration.last_used_at))
    rows = session.exec(select(of_key, used).where(of_key.in_(rotated)).group_by(of_key))
    return {key_id: last for key_id, last in rows if last is not None}


def show(session: Session, tenant: Tenant, key: Key, now: int) -> KeyView:
    return show_all(session, tenant, [key], now)[0]


def show_generations(session: Session, key: Key, now: int) -> list[GenerationView]:
    """The newest first."""
    older = session.exec(
        select(KeyGeneration).where(KeyGeneration.key_id == key.id).order_by(col(KeyGeneration.number).desc())
    )
    created_at = key.created_at if key.generation_at is None else key.generation_at
    current = GenerationView(
        key.generation, "current", format_time(created_at), None, _time(key.last_used_at), ended_at=None
    )
    return [current, *(_show_older(generation, now) for generation in older)]


def show_limits(session: Session, key: Key, now: int) -> dict[str, Any]:
    """Those that are in force: the key's own, else its plan's, else what a key without a plan has."""
    plan = session.get(Plan, key.plan_id) if key.plan_id is not None else None
    own = _overrides.decode(key.overrides)
    rates = own.rates or (DEFAULT_RATES if plan is None else _rates.decode(plan.rates))
    limit, in_flight_limit = own.quota, own.in_flight_limit
    if plan is not None:
        limit = plan.quota if limit is None else limit
        in_flight_limit = plan.in_flight_limit if in_flight_limit is None else in_flight_limit
    assert key.id is not None
    month = quota_of(session.connection(), key.id, limit, now)
    quota = None if limit is None else {"limit": month.limit, "used": month.used, "remaining": month.remaining}
    return {"rates": show_rates(rates), "quota": quota, "in_flight_limit": in_flight_limit}


def status_of(key: Key, now: int) -> Status:
    """The first of these that holds: a key that is revoked is nothing else."""
    if key.revoked_at is not None:
        return "revoked"
    if key.disabled_at is not None:
        return "disabled"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _show_older(generation: KeyGeneration, now: int) -> GenerationView:
    expired = generation.until is not None and generation.until <= now
    return GenerationView(
        number=generation.number,
        status="revoked" if generation.ended_at is not None else "expired" if expired else "active",
        created_at=format_time(generation.created_at),
        expires_at=_time(generation.until),
        last_used_at=_time(generation.last_used_at),
        ended_at=_time(generation.ended_at),
    )


def _show_overrides(session: Session, key: Key) -> OverridesView:
    """Only what the key has of its own."""
    if key.overrides == "{}":  # nearly all of them
        return OverridesView()
    own = _overrides.decode(key.overrides)
    price = None if own.price_id is None else session.get(Price, own.price_id)
    return OverridesView(
        rates=UNSET if own.rates is None else show_rates(own.rates),
        quota=UNSET if own.quota is None else own.quota,
        in_flight_limit=UNSET if own.in_flight_limit is None else own.in_flight_limit,
        price=UNSET if price is None else format_nanos(decode_terms(price.terms).request_nanos),
    )


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else format_time(seconds)
