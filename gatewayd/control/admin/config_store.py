"""A plan carried out: rows, lines of the audit and a revision, in one transaction of a thread.

Many rows at a time, table by table. What goes goes first: a slug or a name is free again for what comes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlmodel import Session

from gatewayd import keys
from gatewayd.control.admin import key_views, plans, routes, services, tenants
from gatewayd.control.admin.changes import Change
from gatewayd.control.admin.config_definitions import NO_SERVICE
from gatewayd.control.admin.config_plan import Pair, Plan, Step
from gatewayd.control.admin.config_state import BoundTarget, Present, State, bound_targets, dump, let_go, read_state
from gatewayd.control.compile import Overrides
from gatewayd.control.key_past import keep, state_of
from gatewayd.control.prices import price_id_of
from gatewayd.control.tables import Audit, ConfigRevision, Key, PlanVersion, Route, Service, Target, Tenant
from gatewayd.control.tables import Plan as PlanRow
from gatewayd.policy.audit_chain import Line
from gatewayd.policy.differences import Kind
from gatewayd.policy.pricing import Terms

_TABLES: Mapping[Kind, Table] = {
    "tenant": Tenant.__table__,  # type: ignore[attr-defined]
    "service": Service.__table__,  # type: ignore[attr-defined]
    "plan": PlanRow.__table__,  # type: ignore[attr-defined]
    "route": Route.__table__,  # type: ignore[attr-defined]
    "key": Key.__table__,  # type: ignore[attr-defined]
}
_PREFIXES: Mapping[Kind, str] = {"tenant": "ten_", "service": "svc_", "plan": "pln_", "route": "rte_", "key": ""}
_target, _version = Target.__table__, PlanVersion.__table__  # type: ignore[attr-defined]
_audit, _revision = Audit.__table__, ConfigRevision.__table__  # type: ignore[attr-defined]
_overrides = msgspec.json.Decoder(Overrides)
_AT_ONCE = 1000  # rows or ids in a statement

ACTIONS = {
    ("key", "add"): "key.create",
    ("key", "remove"): "key.revoke",
}  # all others are called as the difference is: service.add


@dataclass(frozen=True, slots=True)
class Ordered:
    """What an apply or a rollback was asked for, as its revision tells it.

    Who applies a document answers for the targets that it adds. Who brings a revision back need not have looked at
    each: those that were bound in it are so again (`bound`). What stays is as it was, in either.
    """

    kind: str  # apply or rollback
    message: str
    restored: int | None = None
    bound: frozenset[BoundTarget] = frozenset()


class Store:
    """Carries out one plan. `done` counts steps, for whoever wants to know how far it is."""

    def __init__(self, made: Change, plan: Plan, origin: str) -> None:
        self.done = 0
        self._made = made
        self._session = made.session
        self._connection = made.session.connection()
        self._plan = plan
        self._origin = origin
        self._public_ids: dict[int, str] = {}  # of new rows, by the step's place
        self._ids: dict[Kind, dict[tuple[str, str], int]] = {}

    def __repr__(self) -> str:
        return f"<Store {self.done} of {len(self._plan.steps)} steps>"

    def run(self, ordered: Ordered) -> int:
        """The number of the revision."""
        self._remove()
        self._tenants()
        self._services(ordered.bound)
        self._plans()
        self._default_plans()
        self._routes()
        self._keys()
        after = read_state(self._session)
        number = self._record(ordered, after)
        let_go(after)
        return number

    # Rows.

    def _steps(self, kind: Kind, *changes: str) -> list[tuple[int, Step]]:
        steps = enumerate(self._plan.steps)
        return [(at, step) for at, step in steps if (step.difference.kind, step.difference.change) in
                [(kind, change) for change in changes]]  # fmt: skip

    def _remove(self) -> None:
        for kind, table in _TABLES.items():
            column = table.c.revoked_at if kind == "key" else table.c.get("removed_at")
            ids = [present_of(step).id for _, step in self._steps(kind, "remove")]
            for some in _bites(ids):
                self._connection.execute(update(table).where(table.c.id.in_(some)).values({column: self._made.at}))
            self.done += len(ids)

    def _write(
        self, kind: Kind, columns: Callable[[Pair], dict[str, Any]], new: Callable[[Pair], dict[str, Any]]
    ) -> None:
        """Rows that change and rows that come. `new`: what only the latter have."""
        table = _TABLES[kind]
        changed = [{**columns(step.pair), "row_id": present_of(step).id} for _, step in self._steps(kind, "set")]
        if changed:
            names: dict[str, Any] = {name: bindparam(name) for name in changed[0] if name != "row_id"}
            for some in _bites(changed):
                self._connection.execute(update(table).where(table.c.id == bindparam("row_id")).values(names), some)
                self.done += len(some)
        added = self._steps(kind, "add")
        ids = fresh_public_ids(self._session, table, _PREFIXES[kind], [self._given_id(step) for _, step in added])
        rows = []
        for (at, step), public_id in zip(added, ids, strict=True):
            self._public_ids[at] = public_id
            row = {"public_id": public_id, "created_at": self._made.at, **columns(step.pair), **new(step.pair)}
            rows.append(row)
        for some in _bites(rows):
            self._connection.execute(insert(table), some)
            self.done += len(some)

    def _given_id(self, step: Step) -> str | None:
        wanted = step.pair.wanted
        return wanted.id if wanted is not None and step.difference.kind == "key" else None

    def _id(self, kind: Kind, tenant: str, name: str) -> int:
        """Of a live row by its slug or name; read once, when those that come are there."""
        known = self._ids.get(kind)
        if known is None:
            known = self._ids[kind] = self._read_ids(kind)
        return known[tenant, name]

    def _read_ids(self, kind: Kind) -> dict[tuple[str, str], int]:
        table, tenant = _TABLES[kind], _TABLES["tenant"]
        if kind == "tenant":
            rows = self._connection.execute(select(table.c.id, table.c.slug).where(table.c.removed_at.is_(None)))
            return {(slug, slug): id_ for id_, slug in rows}
        name = table.c.slug if kind == "service" else table.c.name
        named = (
            select(table.c.id, tenant.c.slug, name)
            .join_from(table, tenant)
            .where(table.c.removed_at.is_(None), tenant.c.removed_at.is_(None))
        )
        return {(slug, called): id_ for id_, slug, called in self._connection.execute(named)}

    def _in_tenant(self, pair: Pair) -> dict[str, Any]:
        return {"tenant_id": self._id("tenant", pair.tenant, pair.tenant)}

    def _tenants(self) -> None:
        self._write("tenant", lambda pair: pair.columns, lambda _: {"suspended": False})

    def _default_plans(self) -> None:
        """Last of the tenants' fields: the plans are theirs."""
        table = _TABLES["tenant"]
        for _, step in self._steps("tenant", "add", "set"):
            slug, name = step.difference.tenant, step.pair.defined.get("default_plan")
            plan_id = None if name is None else self._id("plan", slug, name)
            where = table.c.id == self._id("tenant", slug, slug)
            self._connection.execute(update(table).where(where).values(default_plan_id=plan_id))

    def _services(self, bound: frozenset[BoundTarget]) -> None:
        self._write("service", lambda pair: pair.columns, self._in_tenant)
        ids, rows = [], []
        for _, step in self._steps("service", "add", "set"):
            pair = step.pair
            assert pair.wanted is not None
            service_id = self._id("service", pair.tenant, pair.columns["slug"])
            there = {each["url"]: each for each in pair.present.targets} if pair.present else {}
            ids.append(service_id)
            for position, (url, weight) in enumerate(pair.wanted.weights.items()):
                # Of a day the one, of who named it the other; no part of the document.
                new = {"drained": False, "bound": (pair.tenant, pair.columns["slug"], url) in bound}
                kept = there.get(url, new)
                rows.append({
                    "service_id": service_id, "position": position, "url": url, "weight": weight,
                    "drained": kept["drained"], "bound": kept["bound"],
                })  # fmt: skip
        for some in _bites(ids):
            self._connection.execute(delete(_target).where(_target.c.service_id.in_(some)))
        for targets in _bites(rows):
            self._connection.execute(insert(_target), targets)

    def _plans(self) -> None:
        prices: dict[Terms, int] = {}

        def columns(pair: Pair) -> dict[str, Any]:
            assert pair.wanted is not None and pair.wanted.price is not None
            price = pair.wanted.price
            if price not in prices:
                prices[price] = price_id_of(self._session, price)
            version = 1 if pair.present is None else pair.present.columns["version"] + 1
            return {**pair.columns, "price_id": prices[price], "version": version}

        self._write("plan", columns, self._in_tenant)
        versions = []
        for at, step in self._steps("plan", "add", "set"):
            pair = step.pair
            assert pair.wanted is not None and pair.wanted.price is not None
            there = {"public_id": self._public_ids.get(at), "created_at": self._made.at}
            row = SimpleNamespace(**(there if pair.present is None else pair.present.columns) | columns(pair))
            shown = plans.show(row, SimpleNamespace(slug=pair.tenant), pair.wanted.price)  # type: ignore[arg-type]
            versions.append({
                "plan_id": self._id("plan", pair.tenant, row.name),
                "version": row.version,
                "created_at": self._made.at,
                "terms": msgspec.json.encode(shown).decode(),
            })  # fmt: skip
        for some in _bites(versions):
            self._connection.execute(insert(_version), some)

    def _routes(self) -> None:
        def columns(pair: Pair) -> dict[str, Any]:
            service = pair.defined["service"]
            return {
                **pair.columns,
                "service_id": None if service is None else self._id("service", pair.tenant, service),
            }

        self._write("route", columns, self._in_tenant)

    def _keys(self) -> None:
        prices: dict[Terms, int] = {}

        def columns(pair: Pair) -> dict[str, Any]:
            assert pair.wanted is not None
            plan, scope, price = pair.defined.get("plan"), pair.defined.get("services"), pair.wanted.price
            row = {
                **pair.columns,
                "plan_id": None if plan is None else self._id("plan", pair.tenant, plan),
                "service_ids": None if scope is None else self._scope(pair.tenant, scope),
            }
            if price is not None:
                if price not in prices:
                    prices[price] = price_id_of(self._session, price)
                own = msgspec.structs.replace(_overrides.decode(row["overrides"]), price_id=prices[price])
                row["overrides"] = msgspec.json.encode(own).decode()
            return row

        def new(pair: Pair) -> dict[str, Any]:
            # Of random bytes that nobody keeps: a rotation gives the key its first secret.
            return {**self._in_tenant(pair), "digest": keys.digest(os.urandom(32)), "generation": 1}

        was = []
        for _, step in self._steps("key", "set"):
            present = present_of(step)
            before = state_of(present.columns)
            if before != state_of(present.columns | columns(step.pair)):
                was.append((present.id, before))
        keep(self._connection, was, self._made.at)
        self._write("key", columns, new)

    def _scope(self, tenant: str, slugs: Sequence[str]) -> str:
        ids = sorted(self._id("service", tenant, slug) for slug in slugs)
        return msgspec.json.encode(ids).decode() if ids else NO_SERVICE

    # What is told of it.

    def _record(self, ordered: Ordered, after: State) -> int:
        counts = self._plan.counts
        newest = select(_revision.c.document).order_by(_revision.c.id.desc()).limit(1)
        last = self._connection.execute(newest).scalar()
        if last is None or zlib.decompress(last) != self._plan.document:
            nothing = {"add": 0, "set": 0, "remove": 0}
            self._revision("found", "", self._plan.document, self._plan.bound, nothing, None)
        bound = bound_targets(after)
        number = self._revision(ordered.kind, ordered.message, dump(after), bound, counts, ordered.restored)
        self._made.note_all(self._lines(after))
        told = {"revision": number, "message": ordered.message, "restored": ordered.restored}
        self._made.note(
            f"config.{ordered.kind}",
            "",
            str(number),
            after={**told, "added": counts["add"], "changed": counts["set"], "removed": counts["remove"]},
        )
        return number

    def _revision(
        self,
        kind: str,
        message: str,
        document: bytes,
        bound: Sequence[BoundTarget],
        counts: Mapping[str, int],
        restored: int | None,
    ) -> int:
        row = {
            "at": self._made.at, "actor": self._made.actor, "kind": kind, "message": message, "restored": restored,
            "added": counts["add"], "changed": counts["set"], "removed": counts["remove"],
            "document": zlib.compress(document, 1), "bound": msgspec.json.encode(bound).decode(),
        }  # fmt: skip
        result = self._connection.execute(insert(_revision).values(row).returning(_revision.c.id))
        return int(result.scalar_one())

    def _lines(self, after: State) -> Iterable[Line]:
        """One for each object, as the command for it alone would write it."""
        by_id = {each.columns["public_id"]: each for state in after.values() for each in state.all()}
        before, now = (
            Views(self._session, self._origin, self._made.at),
            Views(self._session, self._origin, self._made.at),
        )
        present = [(step.difference.kind, step.difference.tenant, step.pair.present) for step in self._plan.steps]
        were = before.show_all(present)
        there = []
        for at, step in enumerate(self._plan.steps):
            public_id = self._public_ids.get(at) or present_of(step).columns["public_id"]
            gone = step.difference.change == "remove" and step.difference.kind != "key"
            found = None if gone else by_id.get(public_id)
            if found is None and step.difference.kind == "key":  # revoked: shown as it is now
                columns = {**present_of(step).columns, "revoked_at": self._made.at}
                found = Present(columns, {})
            there.append((step.difference.kind, step.difference.tenant, found))
        are = now.show_all(there)
        for at, step in enumerate(self._plan.steps):
            kind, change, tenant = step.difference.kind, step.difference.change, step.difference.tenant
            public_id = self._public_ids.get(at) or present_of(step).columns["public_id"]
            subject = f"key_{public_id}" if kind == "key" else public_id
            yield self._made.line(ACTIONS.get((kind, change), f"{kind}.{change}"), tenant, subject, were[at], are[at])


class Views:
    """Objects as the API shows them, many at a time."""

    def __init__(self, session: Session, origin: str, now: int) -> None:
        self._session = session
        self._origin = origin
        self._now = now

    def show_all(self, objects: Sequence[tuple[Kind, str, Present | None]]) -> list[Any]:
        """In the order of `objects`; None for none."""
        shown: list[Any] = [None] * len(objects)
        keys_of: dict[str, list[int]] = {}
        for at, (kind, slug, present) in enumerate(objects):
            if present is None:
                continue
            row: Any = SimpleNamespace(**present.columns)
            tenant: Any = SimpleNamespace(slug=slug)
            if kind == "key":
                keys_of.setdefault(slug, []).append(at)
            elif kind == "service":
                targets: Any = [SimpleNamespace(**target) for target in present.targets]
                shown[at] = services.show(row, tenant, targets, self._origin)
            elif kind == "plan":
                assert present.price is not None
                shown[at] = plans.show(row, tenant, present.price)
            elif kind == "route":
                shown[at] = routes.show(row, tenant, present.service)
            else:
                shown[at] = tenants.show(self._session, row)
        for slug, places in keys_of.items():
            for some in _bites(places):
                rows: Any = [SimpleNamespace(**_there(objects[at]).columns) for at in some]
                views = key_views.show_all(self._session, SimpleNamespace(slug=slug), rows, self._now)  # type: ignore[arg-type]
                for at, view in zip(some, views, strict=True):
                    shown[at] = view
        return shown


def _there(each: tuple[Kind, str, Present | None]) -> Present:
    assert each[2] is not None
    return each[2]


def present_of(step: Step) -> Present:
    assert step.pair.present is not None
    return step.pair.present


def newest_change(session: Session) -> int:
    """The number of the audit's last line: whoever changes the configuration writes one."""
    return int(session.connection().execute(select(func.max(_audit.c.id))).scalar() or 0)


def fresh_public_ids(session: Session, table: Table, prefix: str, given: Sequence[str | None]) -> list[str]:
    """One for each, those that are given as they are; of the others none is anybody's."""
    drawn = keys.drawn_public_ids()
    found: list[str | None] = list(given)
    taken = {id_ for id_ in given if id_ is not None}
    while missing := [at for at, id_ in enumerate(found) if id_ is None]:
        for some in _bites(missing):
            fresh = {prefix + id_ for id_, _ in zip(drawn, some, strict=False)} - taken
            rows = session.connection().execute(select(table.c.public_id).where(table.c.public_id.in_(fresh)))
            fresh -= set(rows.scalars())
            taken |= fresh
            for at, id_ in zip(some, fresh, strict=False):
                found[at] = id_
    return [id_ for id_ in found if id_ is not None]


def _bites(items: Sequence[Any]) -> Iterable[list[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield list(items[start : start + _AT_ONCE])
