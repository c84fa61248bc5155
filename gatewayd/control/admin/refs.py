"""From what a client calls a thing to its row: a slug or name, or the public id; of a key also what is visible."""

from __future__ import annotations

import re
from typing import TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Mapped
from sqlmodel import Session, SQLModel, col, select

from gatewayd import keys
from gatewayd.control.admin.problems import conflict, invalid, not_found
from gatewayd.control.tables import Key, Plan, Route, Service, Tenant

_MOST_NAMES = 1000  # searched for a near one
_KEY_ID = re.compile(r"(?:key_|gw_)?([a-z0-9]{8})", re.ASCII)
_WHOLE_KEY = re.compile(r"(gw_[a-z0-9]{8})_.+", re.ASCII | re.DOTALL)

Named = TypeVar("Named", Service, Plan)


def tenant_by(session: Session, ref: str, *, gone_too: bool = False) -> Tenant:
    """`gone_too`: also one that was removed, whose usage and bills are not; the living and the latest come first."""
    query = select(Tenant).where((col(Tenant.slug) == ref) | (col(Tenant.public_id) == ref))
    if not gone_too:
        query = query.where(col(Tenant.removed_at).is_(None))
    found = session.exec(query.order_by(col(Tenant.removed_at).is_not(None), col(Tenant.id).desc())).first()
    if found is None:
        names = session.exec(select(Tenant.slug).where(col(Tenant.removed_at).is_(None)).limit(_MOST_NAMES))
        raise not_found("tenant", ref, names)
    return found


def service_by(session: Session, tenant: Tenant, ref: str, *, gone_too: bool = False) -> Service:
    return _named(session, Service, col(Service.slug), tenant, ref, gone_too)


def plan_by(session: Session, tenant: Tenant, ref: str) -> Plan:
    return _named(session, Plan, col(Plan.name), tenant, ref)


def route_by(session: Session, tenant: Tenant, ref: str) -> Route:
    """By id, or by name where it has one."""
    live = (col(Route.tenant_id) == tenant.id, col(Route.removed_at).is_(None))
    found = session.exec(select(Route).where((Route.public_id == ref) | (Route.name == ref), *live)).first()
    if found is None or not ref:
        names = session.execute(select(Route.name, Route.public_id).where(*live).limit(_MOST_NAMES))
        raise not_found("route", ref, [name for row in names for name in row if name])
    return found


def key_by(session: Session, tenant: Tenant, ref: str) -> Key:
    """By id, prefix or 8 characters; else by name, when no other key of the tenant has it."""
    if whole := _WHOLE_KEY.fullmatch(ref):
        raise invalid("key", f"that is a whole key, which is a secret; call it {whole[1]}")
    if match := _KEY_ID.fullmatch(ref):
        found = session.exec(select(Key).where(Key.public_id == match[1], Key.tenant_id == tenant.id)).first()
        if found is not None:
            return found
    called = session.exec(select(Key).where(Key.tenant_id == tenant.id, Key.name == ref).limit(2)).all() if ref else []
    if len(called) > 1:
        raise conflict(f"more than one key is called {ref!r}; use its id or prefix")
    if not called:
        raise not_found("key", ref, _near_keys(session, tenant))
    return called[0]


def new_public_id(session: Session, table: type[SQLModel], prefix: str) -> str:
    """An id that no row of the table has."""
    column: ColumnElement[str] = table.__table__.c.public_id  # type: ignore[attr-defined]
    while True:
        public_id = prefix + keys.new_public_id()
        if session.execute(select(column).where(column == public_id)).first() is None:
            return public_id


def _named(
    session: Session, table: type[Named], name: Mapped[str], tenant: Tenant, ref: str, gone_too: bool = False
) -> Named:
    own, is_gone = col(table.tenant_id) == tenant.id, col(table.removed_at).is_not(None)
    live = (own, ~is_gone)
    query = select(table).where((name == ref) | (col(table.public_id) == ref), *((own,) if gone_too else live))
    found = session.exec(query.order_by(is_gone, col(table.id).desc())).first()
    if found is None:
        raise not_found(table.__name__.lower(), ref, session.exec(select(name).where(*live).limit(_MOST_NAMES)))
    return found


def _near_keys(session: Session, tenant: Tenant) -> list[str]:
    """Names and prefixes of the newest keys: a typing error is most likely in one of these."""
    rows = session.exec(
        select(Key.name, Key.public_id)
        .where(Key.tenant_id == tenant.id)
        .order_by(col(Key.id).desc())
        .limit(_MOST_NAMES)
    )
    return [name for name_, public_id in rows for name in (name_, keys.PREFIX + public_id) if name]
