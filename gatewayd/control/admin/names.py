"""Names alone, by how they begin: what completes a word at a terminal, out of a million keys within some milliseconds.

Whoever typed the beginning waits for the end, so an answer costs the same whatever there is: ranges of an index, never
a scan without a bound. The lists show whole objects and have no such filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.conf import RateConf
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.documented import Items, documented
from gatewayd.control.admin.inputs import InTenant, read_query
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import Alert, Client, Cycle, Invoice, Key, Plan, Route, Service, Target, Tenant
from gatewayd.policy.webhooks import destination

_LAST = chr(0x10FFFF)
# Shorter beginnings of an id are looked for among so many of the newest keys; of a million, a thousand share 2 letters.
_WHOLE_INDEX_FROM = 2
_NEWEST_KEYS = 5_000

Of = Literal["service", "target", "route", "plan", "key", "client", "alert", "invoice"]


class Asked(InTenant, frozen=True, kw_only=True):
    of: Of
    starts_with: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class NameView(msgspec.Struct):
    """`name` is empty where it has none; `id` may be typed in its place. `about` tells it from others."""

    name: str
    id: str
    about: str


@documented("List names, for completion", query=Asked, answer=Items[NameView])
def list_(request: Request) -> Response:
    """Names of one kind that begin so, in their order; keys by their prefix too, and newest first where all do."""
    asked = read_query(request, Asked)
    with control_of(request).database.read() as session:
        found = _FINDERS[asked.of](session, tenant_by(session, asked.tenant), asked)
        return answer({"items": found})


def _services(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    found = _first(session, _live(Service, tenant), col(Service.slug), asked)
    targets: dict[int, list[str]] = {}
    of_these = col(Target.service_id).in_([service.id for service in found])
    for target in session.exec(select(Target).where(of_these).order_by(col(Target.position))):
        targets.setdefault(target.service_id, []).append(target.url)
    return [NameView(each.slug, each.public_id, _and_more(targets.get(each.id or 0, []))) for each in found]


def _targets(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    query = (
        select(Target.url, Service.slug)
        .join(Service, col(Target.service_id) == col(Service.id))
        .where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
    )
    return [NameView(url, "", slug) for url, slug in _first(session, query, col(Target.url), asked, rows=True)]


def _routes(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    live = _live(Route, tenant)
    found = _first(session, live.where(col(Route.name) != ""), col(Route.name), asked)
    if not asked.starts_with or asked.starts_with.startswith("rte_"):
        found += _first(session, live.where(col(Route.name) == ""), col(Route.public_id), asked)
    return [NameView(each.name, each.public_id, f"{each.host or ''}{each.path}") for each in found]


def _plans(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    found = _first(session, _live(Plan, tenant), col(Plan.name), asked)
    return [NameView(each.name, each.public_id, _rates(each.rates)) for each in found]


def _keys(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    named = select(Key).where(Key.tenant_id == tenant.id, col(Key.name) != "")
    found = _first(session, named, col(Key.name), asked) if asked.starts_with else []
    found += [key for key in _by_prefix(session, tenant, asked) if key not in found]
    plans = {plan.id: plan.name for plan in session.exec(select(Plan).where(col(Plan.id).in_(_plan_ids(found))))}
    return [NameView(key.name, keys.PREFIX + key.public_id, _about(key, plans)) for key in found[: asked.limit]]


def _by_prefix(session: Session, tenant: Tenant, asked: Asked) -> Sequence[Key]:
    """Keys whose `gw_ab12cd34` begins like that."""
    text, newest_first = asked.starts_with, col(Key.id).desc()
    own = select(Key).where(Key.tenant_id == tenant.id)
    if keys.PREFIX.startswith(text):
        return session.exec(own.order_by(newest_first).limit(asked.limit)).all()
    if not text.startswith(keys.PREFIX):
        return []
    begins = _begins(col(Key.public_id), text.removeprefix(keys.PREFIX))
    if len(text) - len(keys.PREFIX) < _WHOLE_INDEX_FROM:
        newest = select(Key.id).where(Key.tenant_id == tenant.id).order_by(newest_first).limit(_NEWEST_KEYS)
        return session.exec(select(Key).where(col(Key.id).in_(newest), begins).limit(asked.limit)).all()
    # `+ 0`: else SQLite goes through all keys of the tenant, which it takes for few.
    owned = col(Key.tenant_id) + 0 == tenant.id
    return session.exec(select(Key).where(begins, owned).order_by(col(Key.public_id)).limit(asked.limit)).all()


def _plan_ids(found: Sequence[Key]) -> set[int]:
    return {key.plan_id for key in found if key.plan_id is not None}


def _about(key: Key, plans: Mapping[int | None, str]) -> str:
    state = "revoked" if key.revoked_at is not None else "disabled" if key.disabled_at is not None else ""
    return ", ".join(filter(None, (plans.get(key.plan_id, "no plan"), state)))


def _clients(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    found = _first(session, _live(Client, tenant), col(Client.name), asked)
    of_keys = col(Key.id).in_({client.key_id for client in found if client.key_id is not None})
    owners = {key.id: key.public_id for key in session.exec(select(Key).where(of_keys))}
    return [
        NameView(each.name, each.public_id, f"of {keys.PREFIX}{owners[each.key_id]}" if each.key_id else "of all keys")
        for each in found
    ]


def _alerts(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    """By the host alone: a path may open the receiver, and completion shows it to whoever looks on."""
    found = _first(session, _live(Alert, tenant), col(Alert.public_id), asked)
    return [NameView("", each.public_id, f"{each.kind}, {destination(each.url)}") for each in found]


def _invoices(session: Session, tenant: Tenant, asked: Asked) -> list[NameView]:
    query = (
        select(Invoice.number, Invoice.total, Cycle.period)
        .join(Cycle, col(Invoice.cycle_id) == col(Cycle.id))
        .where(Invoice.tenant_id == tenant.id)
    )
    found = _first(session, query, col(Invoice.number), asked, rows=True, newest_first=True)
    return [NameView(number, "", f"{period}, {total} {tenant.currency}") for number, total, period in found]


_FINDERS: Mapping[Of, Callable[[Session, Tenant, Asked], list[NameView]]] = {
    "service": _services,
    "target": _targets,
    "route": _routes,
    "plan": _plans,
    "key": _keys,
    "client": _clients,
    "alert": _alerts,
    "invoice": _invoices,
}


def _live(table: Any, tenant: Tenant) -> Select[Any]:
    query: Select[Any] = select(table).where(table.tenant_id == tenant.id, col(table.removed_at).is_(None))
    return query


def _first(
    session: Session, query: Any, order: Mapped[Any], asked: Asked, *, rows: bool = False, newest_first: bool = False
) -> list[Any]:
    by = col(order).desc() if newest_first else order
    found = session.execute(query.where(_begins(order, asked.starts_with)).order_by(by).limit(asked.limit))
    return list(found if rows else found.scalars())


def _begins(column: Mapped[Any], text: str) -> ColumnElement[bool]:
    """As a range, which an index serves: LIKE does not tell case apart and so is served by none."""
    begins: ColumnElement[bool] = (col(column) >= text) & (col(column) < text + _LAST)
    return begins


def _rates(text: str) -> str:
    rates = msgspec.json.decode(text, type=list[RateConf])
    return ", ".join(f"{rate.limit} per {rate.name}" for rate in rates) or "no rates"


def _and_more(urls: Sequence[str]) -> str:
    return f"{urls[0]} and {len(urls) - 1} more" if len(urls) > 1 else "".join(urls)
