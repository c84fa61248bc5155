"""Rows to messages: the configuration as the data plane needs it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, select

from gatewayd.channel import KeyConf, RateConf, ServiceConf, TargetConf, TenantConf, TlsConf
from gatewayd.control.database import DEFAULT_PRICE_ID
from gatewayd.control.tables import Key, Plan, Service, Target, Tenant
from gatewayd.policy.amounts import DEFAULT_RATES

_tenant, _service, _target = Tenant.__table__, Service.__table__, Target.__table__  # type: ignore[attr-defined]
_key, _plan = Key.__table__, Plan.__table__  # type: ignore[attr-defined]

_rates = msgspec.json.Decoder(tuple[RateConf, ...])
_ids = msgspec.json.Decoder(frozenset[int])
_paths = msgspec.json.Decoder(tuple[str, ...])

_TENANTS = select(_tenant.c.id, _tenant.c.slug, _tenant.c.suspended).where(_tenant.c.removed_at.is_(None))
_SERVICES = (
    select(_service, _tenant.c.slug.label("tenant"))
    .join_from(_service, _tenant)
    .where(_service.c.removed_at.is_(None), _tenant.c.removed_at.is_(None))
    .order_by(_service.c.id)
)
_TARGETS = select(_target.c.service_id, _target.c.url, _target.c.weight).order_by(
    _target.c.service_id, _target.c.position
)
_KEYS = select(
    _key.c.id, _key.c.public_id, _key.c.digest, _key.c.tenant_id, _key.c.service_ids, _key.c.revoked_at,
    _key.c.expires_at, _key.c.plan_id, _plan.c.rates, _plan.c.quota, _plan.c.price_id,
).join_from(_key, _plan, _key.c.plan_id == _plan.c.id, isouter=True)  # fmt: skip
_KEY_BY_PUBLIC_ID = _KEYS.where(_key.c.public_id == bindparam("wanted"))
_KEY_BY_ID = _KEYS.where(_key.c.id == bindparam("wanted"))


def snapshot(connection: Connection) -> tuple[tuple[TenantConf, ...], tuple[ServiceConf, ...]]:
    """Every tenant and service that is not removed."""
    targets: dict[int, list[TargetConf]] = {}
    for service_id, url, weight in connection.execute(_TARGETS):
        targets.setdefault(service_id, []).append(TargetConf(url, weight))
    tenants = tuple(TenantConf(*row) for row in connection.execute(_TENANTS))
    return tenants, tuple(_service_conf(row, tuple(targets.get(row.id, ()))) for row in connection.execute(_SERVICES))


def find_key(connection: Connection, public_id: str) -> KeyConf | None:
    """The key with these 8 characters; None when there is none."""
    row = connection.execute(_KEY_BY_PUBLIC_ID, {"wanted": public_id}).first()
    return None if row is None else _key_conf(row)


def find_key_by_id(connection: Connection, key_id: int) -> KeyConf | None:
    row = connection.execute(_KEY_BY_ID, {"wanted": key_id}).first()
    return None if row is None else _key_conf(row)


def _service_conf(row: Row[*tuple[object, ...]], targets: tuple[TargetConf, ...]) -> ServiceConf:
    return ServiceConf(
        id=row.id,
        public_id=row.public_id,
        tenant_id=row.tenant_id,
        tenant=row.tenant,
        slug=row.slug,
        auth=row.auth,
        targets=targets,
        paths=_paths.decode(row.paths),
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


def _key_conf(row: Row[*tuple[object, ...]]) -> KeyConf:
    without_plan = row.plan_id is None
    return KeyConf(
        id=row.id,
        public_id=row.public_id,
        digest=row.digest,
        tenant_id=row.tenant_id,
        services=None if row.service_ids is None else _ids.decode(row.service_ids),
        revoked=row.revoked_at is not None,
        expires_at=row.expires_at,
        rates=DEFAULT_RATES if without_plan else _rates.decode(row.rates),
        quota=row.quota,
        price_id=DEFAULT_PRICE_ID if without_plan else row.price_id,
    )
