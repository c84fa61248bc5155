"""What a lease's limits are, by the database: the rates of each account that it is charged to, and its key's quota."""

from __future__ import annotations

from sqlalchemy import Connection

from gatewayd.channel import LeaseId
from gatewayd.conf import KeyConf, RateConf
from gatewayd.control.clients import find_client_by_id
from gatewayd.control.compile import find_key_by_id, route_rates, tenant_rates
from gatewayd.control.quotas import quota_of
from gatewayd.policy.accounts import Account, Part
from gatewayd.policy.buckets import Quota


def terms_of(connection: Connection, lease: LeaseId) -> list[Part]:
    """In the order in which callers are told of them. What is gone has no rates."""
    key_id, client_id, route_id, tenant_id = lease
    parts = []
    if key_id:
        key = find_key_by_id(connection, key_id)
        if client_id:
            parts.append(Part(Account("client", key_id, client_id), _client_rates(connection, key, client_id)))
        else:
            parts.append(Part(Account("key", key_id), () if key is None else key.rates))
    if route_id:
        parts.append(Part(Account("route", route_id), route_rates(connection, route_id)))
    if tenant_id:
        parts.append(Part(Account("tenant", tenant_id), tenant_rates(connection, tenant_id)))
    return parts


def _client_rates(connection: Connection, key: KeyConf | None, client_id: int) -> tuple[RateConf, ...]:
    client = find_client_by_id(connection, client_id)
    if client is None or key is None:
        return ()
    return key.rates if client.rates is None else client.rates


def quota_terms(connection: Connection, key_id: int, now_s: float) -> Quota | None:
    """The key's quota of this month, with what is granted on top and less what is forgiven; None where it has none."""
    key = find_key_by_id(connection, key_id)
    if key is None or key.quota is None:
        return None
    found = quota_of(connection, key_id, key.quota, now_s)
    assert found.limit is not None  # there is a plan's
    return Quota(
        found.limit, found.starts_at, found.ends_at, found.used, soft=key.quota_soft, changes_at=found.changes_at
    )
