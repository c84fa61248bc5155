"""Who stands behind X-Client-ID: registered by an operator, or accepted within a key as far as its plan allows.

A caller cannot mint itself fresh buckets: beyond the plan's number an unknown client is not accepted, and the key's own
buckets count for its requests.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, or_, select

from gatewayd.conf import ClientConf, KeyConf, RateConf
from gatewayd.control.database import Database
from gatewayd.control.tables import Client, Key, Plan
from gatewayd.keys import new_public_id

_client, _key, _plan = Client.__table__, Key.__table__, Plan.__table__  # type: ignore[attr-defined]
_rates = msgspec.json.Decoder(tuple[RateConf, ...])

# One that the operator has registered for this key comes before one of its tenant.
_BY_NAME = (
    select(_client.c.id, _client.c.rates)
    .where(
        _client.c.tenant_id == bindparam("tenant_id"),
        _client.c.name == bindparam("name"),
        or_(_client.c.key_id == bindparam("key_id"), _client.c.key_id.is_(None)),
        _client.c.removed_at.is_(None),
    )
    .order_by(_client.c.key_id.is_(None))
)
_BY_ID = select(_client.c.id, _client.c.rates).where(_client.c.id == bindparam("client_id"))
_ACCEPTED = select(func.count()).where(_client.c.key_id == bindparam("key_id"), _client.c.removed_at.is_(None))
_ACCEPTS = (
    select(_plan.c.clients_limit)
    .join_from(_key, _plan, _key.c.plan_id == _plan.c.id)
    .where(_key.c.id == bindparam("key_id"))
)


class FoundClient(NamedTuple):
    id: int
    rates: tuple[RateConf, ...] | None  # None: the plan's


def find_client(connection: Connection, key: KeyConf, name: str) -> FoundClient | None:
    """The client of this name within the key, or of the whole tenant."""
    asked = {"tenant_id": key.tenant_id, "key_id": key.id, "name": name}
    return _found(connection.execute(_BY_NAME, asked).first())


def find_client_by_id(connection: Connection, client_id: int) -> FoundClient | None:
    return _found(connection.execute(_BY_ID, {"client_id": client_id}).first())


def accept_client(database: Database, key: KeyConf, name: str, now: int) -> FoundClient | None:
    """Find the client, or make it while the key has fewer than its plan accepts; None beyond that."""
    found = find_client(database.lookup, key, name)
    if found is not None:
        return found
    asked = {"key_id": key.id}
    accepts = database.lookup.execute(_ACCEPTS, asked).scalar() or 0
    if accepts <= database.lookup.execute(_ACCEPTED, asked).scalar_one():
        return None
    client = Client(
        public_id="cli_" + new_public_id(), tenant_id=key.tenant_id, key_id=key.id, name=name, created_at=now
    )
    with database.write() as session:
        session.add(client)
        session.flush()
        assert client.id is not None
        return FoundClient(client.id, None)


def conf_of(client: FoundClient, key: KeyConf) -> ClientConf:
    """What a worker needs to know of it."""
    return ClientConf(client.id, limited=bool(key.rates if client.rates is None else client.rates))


def _found(row: Row[int, str | None] | None) -> FoundClient | None:
    if row is None:
        return None
    return FoundClient(row[0], None if row[1] is None else _rates.decode(row[1]))
