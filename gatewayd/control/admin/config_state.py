"""The configuration that is there: rows of all tenants, what they define, and the document of it.

Read by columns and in one go for each table: of ten thousand objects it takes a third of a second in a thread. Keys
that were imported are no part of it: there may be a million, their secrets are their callers' own, and no document that
does not name them may take them away. They move by `key import`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import select
from sqlmodel import Session

from gatewayd.control.admin import hidden
from gatewayd.control.admin.config_definitions import (
    Defined,
    define_key,
    define_plan,
    define_route,
    define_service,
    define_tenant,
)
from gatewayd.control.compile import Overrides
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Key, Plan, Route, Service, Target, Tenant
from gatewayd.policy.pricing import Terms

_tenant, _service, _target = Tenant.__table__, Service.__table__, Target.__table__  # type: ignore[attr-defined]
_key, _plan, _route = Key.__table__, Plan.__table__, Route.__table__  # type: ignore[attr-defined]
_ids = msgspec.json.Decoder(tuple[int, ...])
_overrides = msgspec.json.Decoder(Overrides)

VERSION = 1
_LET_GO = 100


@dataclass(slots=True)
class Present:
    """An object that is there. `columns` are its row's."""

    columns: dict[str, Any]
    defined: Defined
    targets: list[dict[str, Any]] = field(default_factory=list)  # of a service
    price: Terms | None = None  # of a plan
    service: str | None = None  # of a route: the slug

    @property
    def id(self) -> int:
        number = self.columns["id"]
        assert isinstance(number, int)
        return number


@dataclass(slots=True)
class TenantState:
    """A tenant and what is in it. Services by slug, plans by name."""

    tenant: Present
    services: dict[str, Present] = field(default_factory=dict)
    plans: dict[str, Present] = field(default_factory=dict)
    routes: list[Present] = field(default_factory=list)
    keys: list[Present] = field(default_factory=list)
    imported_on: set[str] = field(default_factory=set)  # plans of keys that were imported

    def __repr__(self) -> str:
        sizes = f"{len(self.services)} services, {len(self.plans)} plans, {len(self.routes)} routes, {len(self.keys)}"
        return f"<TenantState {self.tenant.columns['slug']} {sizes} keys>"

    def all(self) -> Iterator[Present]:
        yield self.tenant
        yield from self.services.values()
        yield from self.plans.values()
        yield from self.routes
        yield from self.keys


State = dict[str, TenantState]  # by slug, in the order of slugs
BoundTarget = tuple[str, str, str]  # tenant, service, URL of a target that somebody bound to the tenant has named


def read_state(session: Session) -> State:
    """What is not removed; keys that are not revoked, but for those that were imported."""
    connection = session.connection()
    tenants = [
        dict(row._mapping)
        for row in connection.execute(select(_tenant).where(_tenant.c.removed_at.is_(None)).order_by(_tenant.c.slug))
    ]
    targets: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(select(_target).order_by(_target.c.service_id, _target.c.position)):
        targets.setdefault(row.service_id, []).append(dict(row._mapping))
    slugs: dict[int, str] = {}
    plan_names: dict[int, str] = {}
    prices = all_terms(connection)
    by_id = {row["id"]: TenantState(Present(row, {})) for row in tenants}
    for row in connection.execute(select(_service).where(_service.c.removed_at.is_(None)).order_by(_service.c.slug)):
        if (state := by_id.get(row.tenant_id)) is not None:
            slugs[row.id] = row.slug
            columns, own = dict(row._mapping), targets.get(row.id, [])
            defined = define_service(columns, [(each["url"], each["weight"]) for each in own])
            state.services[row.slug] = Present(columns, defined, targets=own)
    for row in connection.execute(select(_plan).where(_plan.c.removed_at.is_(None)).order_by(_plan.c.name)):
        if (state := by_id.get(row.tenant_id)) is not None:
            plan_names[row.id] = row.name
            columns, price = dict(row._mapping), prices[row.price_id]
            state.plans[row.name] = Present(columns, define_plan(columns, price), price=price)
    for row in connection.execute(select(_route).where(_route.c.removed_at.is_(None)).order_by(_route.c.id)):
        state = by_id.get(row.tenant_id)
        if state is not None and (row.service_id is None or row.service_id in slugs):
            columns, slug = dict(row._mapping), slugs.get(row.service_id)
            state.routes.append(Present(columns, define_route(columns, slug), service=slug))
    live = _key.c.revoked_at.is_(None)
    on = select(_key.c.tenant_id, _key.c.plan_id).where(live, _key.c.imported).distinct()
    for tenant_id, plan_id in connection.execute(on):
        if plan_id in plan_names and tenant_id in by_id:
            by_id[tenant_id].imported_on.add(plan_names[plan_id])
    for row in connection.execute(select(_key).where(live, ~_key.c.imported).order_by(_key.c.id)):
        if (state := by_id.get(row.tenant_id)) is not None:
            columns = dict(row._mapping)
            # A service that is gone cannot be called for: it goes from the scope, which stays one.
            scope = None if row.service_ids is None else _ids.decode(row.service_ids)
            services = None if scope is None else [slugs[id_] for id_ in scope if id_ in slugs]
            price_id = None if row.overrides == "{}" else _overrides.decode(row.overrides).price_id
            own_price = None if price_id is None else prices[price_id]
            state.keys.append(Present(columns, define_key(columns, services, plan_names.get(row.plan_id), own_price)))
    for state in by_id.values():
        columns = state.tenant.columns
        state.tenant.defined = define_tenant(columns, plan_names.get(columns["default_plan_id"]))
    return {state.tenant.columns["slug"]: state for state in by_id.values()}


def dump(state: State, *, hides: bool = False) -> bytes:
    """The document in JSON. The same configuration has the same bytes. `hides`: it is for a viewer.

    Encoded by the object: a megabyte in one go would keep the lock of the interpreter, and the loop waiting.
    """
    tenants = []
    for each in state.values():
        head = msgspec.json.encode(each.tenant.defined)[:-1]
        sections = {
            "services": [
                hidden.of_definition(service.defined) if hides else service.defined
                for service in each.services.values()
            ],
            "plans": [plan.defined for plan in each.plans.values()],
            "routes": sorted((route.defined for route in each.routes), key=_route_order),
            "keys": _with_ids(each.keys),
        }
        parts = [b'"%s":%s' % (name.encode(), joined(objects)) for name, objects in sections.items()]
        tenants.append(b"%s,%s}" % (head, b",".join(parts)))
    return b'{"version":%d,"tenants":[%s]}' % (VERSION, b",".join(tenants))


def bound_targets(state: State) -> list[BoundTarget]:
    """They are no part of the document: on another gateway nobody of this one's has named them."""
    return [
        (tenant, service, target["url"])
        for tenant, each in state.items()
        for service, present in each.services.items()
        for target in present.targets
        if target["bound"]
    ]


def digest_of(document: bytes) -> str:
    """What tells whether the configuration is still the same."""
    return hashlib.sha256(document).hexdigest()


def let_go(state: State) -> None:
    """Of a state that is not needed any more, bit by bit: to free it all at once would keep everybody waiting."""
    for each in state.values():
        for objects in (each.routes, each.keys):
            while objects:
                del objects[-_LET_GO:]
        for named in (each.services, each.plans):
            while named:
                named.popitem()


def joined(objects: list[Any]) -> bytes:
    """A JSON list, encoded one by one."""
    return b"[%s]" % b",".join(map(msgspec.json.encode, objects))


def _route_order(route: Defined) -> tuple[Any, ...]:
    return (
        route.get("name", ""), route.get("host") or "", route.get("path", "/"), route.get("exact", False),
        route.get("methods") or [],
    )  # fmt: skip


def _with_ids(keys: list[Present]) -> list[Defined]:
    """By name where that is enough. Ids are this gateway's: on another one, a key that has a name is found by it."""
    named: dict[str, int] = {}
    for key in keys:
        name = key.columns["name"]
        named[name] = named.get(name, 0) + 1
    shown = [
        key.defined
        if key.columns["name"] and named[key.columns["name"]] == 1
        else {"id": key.columns["public_id"], **key.defined}
        for key in keys
    ]
    return sorted(shown, key=lambda key: (key.get("name", ""), key.get("id", "")))
