"""Rows to messages: the configuration as the data plane needs it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, exists, func, select, union_all

from gatewayd.conf import (
    BreakerConf,
    HeaderRuleConf,
    HealthConf,
    KeyConf,
    OlderConf,
    RateConf,
    RouteConf,
    ServiceConf,
    TargetConf,
    TenantConf,
    TlsConf,
)
from gatewayd.control.database import DEFAULT_PRICE_ID
from gatewayd.control.tables import Client, Key, KeyGeneration, Plan, Route, Service, Target, Tenant
from gatewayd.keys import digest_of_name
from gatewayd.policy.amounts import DEFAULT_RATES

_tenant, _service, _target = Tenant.__table__, Service.__table__, Target.__table__  # type: ignore[attr-defined]
_key, _plan, _route = Key.__table__, Plan.__table__, Route.__table__  # type: ignore[attr-defined]
_generation, _client = KeyGeneration.__table__, Client.__table__  # type: ignore[attr-defined]

_rates = msgspec.json.Decoder(tuple[RateConf, ...])
_ids = msgspec.json.Decoder(frozenset[int])
_strings = msgspec.json.Decoder(tuple[str, ...])
_health = msgspec.json.Decoder(HealthConf)
_breaker = msgspec.json.Decoder(BreakerConf)
_header_rules = msgspec.json.Decoder(tuple[HeaderRuleConf, ...])

_TENANTS = select(
    _tenant.c.id, _tenant.c.slug, _tenant.c.suspended, _tenant.c.rates, _tenant.c.allow, _tenant.c.imported_keys,
).where(_tenant.c.removed_at.is_(None))  # fmt: skip
_SERVICES = (
    select(_service, _tenant.c.slug.label("tenant"))
    .join_from(_service, _tenant)
    .where(_service.c.removed_at.is_(None), _tenant.c.removed_at.is_(None))
    .order_by(_service.c.id)
)
_TARGETS = select(_target.c.service_id, _target.c.url, _target.c.weight, _target.c.drained, _target.c.bound).order_by(
    _target.c.service_id, _target.c.position
)
_ROUTES = (
    select(_route)
    .join_from(_route, _tenant)
    .outerjoin(_service, _route.c.service_id == _service.c.id)
    .where(_route.c.removed_at.is_(None), _tenant.c.removed_at.is_(None), _service.c.removed_at.is_(None))
    .order_by(_route.c.id)
)
_KEYS = select(
    _key.c.id, _key.c.public_id, _key.c.digest, _key.c.tenant_id, _key.c.service_ids, _key.c.revoked_at,
    _key.c.expires_at, _key.c.plan_id, _plan.c.rates, _plan.c.quota, _plan.c.price_id, _key.c.generation,
    _key.c.disabled_at, _key.c.allow, _key.c.networks, _key.c.overrides, _plan.c.in_flight_limit,
    _plan.c.quota_soft, _plan.c.shadow, _plan.c.clients_limit,
).join_from(_key, _plan, _key.c.plan_id == _plan.c.id, isouter=True)  # fmt: skip
_KEY_BY_PUBLIC_ID = _KEYS.where(_key.c.public_id == bindparam("wanted"))
_KEY_BY_ID = _KEYS.where(_key.c.id == bindparam("wanted"))
_KEY_BY_DIGEST = _KEYS.where(
    _key.c.id.in_(
        union_all(
            select(_key.c.id).where(_key.c.digest == bindparam("wanted")),
            select(_generation.c.key_id).where(_generation.c.digest == bindparam("wanted")),
        )
    )
)
# Those that work longest first: of a key that is rotated every day, some of the rest are told no more why.
OLDER_LIMIT = 16
_OLDER = (
    select(_generation.c.number, _generation.c.digest, _generation.c.until, _generation.c.ended_at.is_not(None))
    .where(_generation.c.key_id == bindparam("key_id"))
    .order_by(func.coalesce(_generation.c.ended_at, _generation.c.until).desc(), _generation.c.number.desc())
    .limit(OLDER_LIMIT)
)
_ROUTE_RATES = select(_route.c.rates).where(_route.c.id == bindparam("wanted"))
_TENANT_RATES = select(_tenant.c.rates).where(_tenant.c.id == bindparam("wanted"))
_HAS_CLIENTS = select(exists().where(_client.c.tenant_id == bindparam("tenant_id"), _client.c.removed_at.is_(None)))


class Overrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key has in place of its plan's. None: as the plan has it."""

    rates: tuple[RateConf, ...] | None = None
    quota: int | None = None
    in_flight_limit: int | None = None
    price_id: int | None = None


class Configuration(NamedTuple):
    """Everything that a worker serves from but the keys."""

    tenants: tuple[TenantConf, ...]
    services: tuple[ServiceConf, ...]
    routes: tuple[RouteConf, ...]


def snapshot(connection: Connection) -> Configuration:
    """Every tenant, service and route that is not removed."""
    targets: dict[int, list[TargetConf]] = {}
    for service_id, *target in connection.execute(_TARGETS):
        targets.setdefault(service_id, []).append(TargetConf(*target))
    tenants = tuple(
        TenantConf(id_, slug, suspended, _rates.decode(rates), _strings.decode(allow), imported_keys)
        for id_, slug, suspended, rates, allow, imported_keys in connection.execute(_TENANTS)
    )
    services = tuple(_service_conf(row, tuple(targets.get(row.id, ()))) for row in connection.execute(_SERVICES))
    return Configuration(tenants, services, tuple(_route_conf(row) for row in connection.execute(_ROUTES)))


def find_key(connection: Connection, name: str) -> KeyConf | None:
    """The key with these 8 characters, or with the digest that it is named by; None when there is none."""
    digest = digest_of_name(name)
    if digest is None:
        row = connection.execute(_KEY_BY_PUBLIC_ID, {"wanted": name}).first()
    else:
        row = connection.execute(_KEY_BY_DIGEST, {"wanted": digest}).first()
    return None if row is None else _key_conf(connection, row)


def find_key_by_id(connection: Connection, key_id: int) -> KeyConf | None:
    row = connection.execute(_KEY_BY_ID, {"wanted": key_id}).first()
    return None if row is None else _key_conf(connection, row)


def route_rates(connection: Connection, route_id: int) -> tuple[RateConf, ...]:
    return _rates.decode(connection.execute(_ROUTE_RATES, {"wanted": route_id}).scalar() or "[]")


def tenant_rates(connection: Connection, tenant_id: int) -> tuple[RateConf, ...]:
    return _rates.decode(connection.execute(_TENANT_RATES, {"wanted": tenant_id}).scalar() or "[]")


def _service_conf(row: Row[*tuple[object, ...]], targets: tuple[TargetConf, ...]) -> ServiceConf:
    return ServiceConf(
        id=row.id,
        public_id=row.public_id,
        tenant_id=row.tenant_id,
        tenant=row.tenant,
        slug=row.slug,
        auth=row.auth,
        targets=targets,
        paths=_strings.decode(row.paths),
        preserve_host=row.preserve_host,
        timeout_s=row.timeout_s,
        connect_timeout_s=row.connect_timeout_s,
        body_limit_bytes=row.body_limit_bytes,
        key_header=row.key_header,
        first_byte_timeout_s=row.first_byte_timeout_s,
        idle_timeout_s=row.idle_timeout_s,
        tunnel_lifetime_s=row.tunnel_lifetime_s,
        in_flight_limit=row.in_flight_limit,
        tls=tls_conf(row),
        balance=row.balance,
        hash_on=row.hash_on,
        health=_health.decode(row.health),
        breaker=_breaker.decode(row.breaker),
        header_rules=_header_rules.decode(row.header_rules),
    )


def _route_conf(row: Row[*tuple[object, ...]]) -> RouteConf:
    return RouteConf(
        id=row.id,
        public_id=row.public_id,
        tenant_id=row.tenant_id,
        service_id=row.service_id,
        path=row.path,
        exact=row.exact,
        host=row.host,
        methods=None if row.methods is None else _strings.decode(row.methods),
        prefix=row.prefix,
        auth=row.auth,
        rates=_rates.decode(row.rates),
        weight=row.weight,
        timeout_s=row.timeout_s,
        first_byte_timeout_s=row.first_byte_timeout_s,
        body_limit_bytes=row.body_limit_bytes,
        networks=_strings.decode(row.networks),
    )


def tls_conf(service: Any) -> TlsConf:
    """The TLS options of a row, read in either way."""
    return TlsConf(
        verify=service.tls_verify,
        server_name=service.tls_server_name,
        ca_file=service.tls_ca_file,
        cert_file=service.tls_cert_file,
        key_file=service.tls_key_file,
    )


def _key_conf(connection: Connection, row: Row[*tuple[object, ...]]) -> KeyConf:
    without_plan = row.plan_id is None
    older = connection.execute(_OLDER, {"key_id": row.id}) if row.generation > 1 else ()
    has_clients = bool(row.clients_limit) or connection.execute(_HAS_CLIENTS, {"tenant_id": row.tenant_id}).scalar_one()
    overrides = msgspec.json.decode(row.overrides, type=Overrides)
    return KeyConf(
        id=row.id,
        public_id=row.public_id,
        digest=row.digest,
        tenant_id=row.tenant_id,
        services=None if row.service_ids is None else _ids.decode(row.service_ids),
        revoked=row.revoked_at is not None,
        expires_at=row.expires_at,
        rates=overrides.rates or (DEFAULT_RATES if without_plan else _rates.decode(row.rates)),
        quota=row.quota if overrides.quota is None else overrides.quota,
        price_id=overrides.price_id or (DEFAULT_PRICE_ID if without_plan else row.price_id),
        generation=row.generation,
        older=tuple(OlderConf(*each) for each in older),
        disabled=row.disabled_at is not None,
        allow=_strings.decode(row.allow),
        networks=_strings.decode(row.networks),
        in_flight_limit=row.in_flight_limit if overrides.in_flight_limit is None else overrides.in_flight_limit,
        quota_soft=bool(row.quota_soft),
        shadow=bool(row.shadow),
        has_clients=has_clients,
    )
