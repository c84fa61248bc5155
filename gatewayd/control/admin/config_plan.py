"""What a document would change: each object that is wanted beside the one that is there, and what stands against it.

Rules that concern more than one object are checked on the end, not on the way: two services may exchange their paths,
and a plan may go together with its last key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

import msgspec
from sqlalchemy import select
from sqlmodel import Session

from gatewayd.control.admin.config_definitions import DEFAULTS
from gatewayd.control.admin.config_document import Mistakes, Wanted, WantedTenant
from gatewayd.control.admin.config_state import BoundTarget, Present, State, TenantState
from gatewayd.control.admin.problems import AdminError
from gatewayd.control.admin.services import TLS_FILES, check_tls_files
from gatewayd.control.admin.tenants import refuse_billed
from gatewayd.control.tables import Key
from gatewayd.policy.addresses import DEFAULT_TENANT, Claim
from gatewayd.policy.claims import ClaimedRoute, Claims, ambiguous
from gatewayd.policy.differences import (
    Difference,
    KeyName,
    Kind,
    Pairs,
    RouteName,
    compare,
    pair_keys,
    pair_named,
    pair_routes,
    place,
)
from gatewayd.policy.routing import Match

_key = Key.__table__  # type: ignore[attr-defined]
_strings = msgspec.json.Decoder(tuple[str, ...])
_AT_ONCE = 1000  # ids in a query


@dataclass(frozen=True, slots=True)
class Scope:
    """How far a document reaches. `prune`: what its sections do not name goes. `tenant`: it is about this one alone.

    `reissue`: a key whose id was one that is revoked gets another; so an old revision can come back.
    """

    prune: bool = False
    tenant: str | None = None
    reissue: bool = False


@dataclass(slots=True)
class Pair:
    """An object of a tenant, as it is wanted and as it is. In the end it is there, unless `goes`."""

    kind: Kind
    tenant: str
    wanted: Wanted | None
    present: Present | None
    goes: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        """Of the end."""
        of = self.wanted or self.present
        assert of is not None
        return of.columns

    @property
    def defined(self) -> dict[str, Any]:
        of = self.wanted or self.present
        assert of is not None
        return of.defined

    @property
    def name(self) -> str:
        """What people call it."""
        columns = self.columns
        if self.kind in ("tenant", "service"):
            return str(columns["slug"])
        if columns["name"]:
            return str(columns["name"])
        if self.kind == "route":
            return str(_match(columns))
        public_id = self.wanted.id if self.wanted is not None else self.present and self.present.columns["public_id"]
        return f"gw_{public_id}" if public_id else ""

    def difference(self) -> Difference | None:
        before = None if self.present is None else self.present.defined
        after = None if self.wanted is None else self.wanted.defined
        if self.wanted is None and not self.goes:
            return None
        return compare(self.kind, self.tenant, self.name, before, after, DEFAULTS[self.kind])


@dataclass(slots=True)
class Step:
    """A difference, and the two sides of it."""

    difference: Difference
    pair: Pair


@dataclass(slots=True)
class Plan:
    """What is to be done, in an order in which it can be. `base`: what it was made from."""

    steps: list[Step]
    base: str = ""
    document: bytes = b""  # as it is before
    bound: Sequence[BoundTarget] = ()  # as they are before
    last_change: int = 0  # the newest line of the audit, when this was read
    counts: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Plan {self.counts} of {self.base[:8]}>"

    def has(self, kind: Kind, name: str) -> bool:
        """Whether some object of this kind has another value in this field."""
        return any(
            each.field == name
            for step in self.steps
            if step.difference.kind == kind and step.difference.change == "set"
            for each in step.difference.fields
        )


class Planner:
    """Compares, with every mistake of the whole noted in `mistakes`."""

    def __init__(self, session: Session, state: State, scope: Scope, mistakes: Mistakes) -> None:
        self._session = session
        self._state = state
        self._scope = scope
        self._mistakes = mistakes
        self._pairs: dict[str, dict[Kind, list[Pair]]] = {}

    def plan(self, wanted: Sequence[WantedTenant]) -> Plan:
        wanted = self._once(wanted)
        for each in wanted:
            slug = each.tenant.columns["slug"]
            self._pairs[slug] = self._pair_all(slug, each, self._state.get(slug))
        for slug, state in self._state.items():
            if slug not in self._pairs:
                self._pairs[slug] = self._pair_all(slug, None, state)
        self._check_tenants(wanted)
        for each in wanted:
            self._check_references(each.tenant.columns["slug"], each)
        steps = [
            Step(difference, pair)
            for kinds in self._pairs.values()
            for pairs in kinds.values()
            for pair in pairs
            if (difference := pair.difference()) is not None
        ]
        steps.sort(key=lambda step: place(step.difference))
        self._check_ids(steps)
        for step in steps:
            self._check_alone(step)
        if not self._mistakes.found:  # else half of the end would be missing
            self._check_claims(steps)
        counts = {"add": 0, "set": 0, "remove": 0}
        for step in steps:
            counts[step.difference.change] += 1
        return Plan(steps, counts=counts)

    # Who is who.

    def _once(self, wanted: Sequence[WantedTenant]) -> list[WantedTenant]:
        found: dict[str, WantedTenant] = {}
        for each in wanted:
            slug = each.tenant.columns["slug"]
            if slug in found:
                self._mistakes.add(f"{each.tenant.pointer}/slug", f"tenant {slug!r} is there twice")
            elif self._scope.tenant not in (None, slug):
                self._mistakes.add(
                    f"{each.tenant.pointer}/slug", f"tenant {slug!r} is not {self._scope.tenant!r}, which this is about"
                )
            else:
                found[slug] = each
        return list(found.values())

    def _pair_all(self, slug: str, wanted: WantedTenant | None, state: TenantState | None) -> dict[Kind, list[Pair]]:
        tenant = Pair(
            "tenant", slug, None if wanted is None else wanted.tenant, None if state is None else state.tenant
        )
        present: dict[Kind, list[Present]] = {"service": [], "plan": [], "route": [], "key": []}
        if state is not None:
            present = {
                "service": list(state.services.values()),
                "plan": list(state.plans.values()),
                "route": state.routes,
                "key": state.keys,
            }
        pairs: dict[Kind, list[Pair]] = {"tenant": [tenant]}
        for kind, there in present.items():
            if wanted is None or kind not in wanted.sections:
                pairs[kind] = [Pair(kind, slug, None, each) for each in there]
                continue
            asked = wanted.sections[kind]
            unread = wanted.unread[kind]
            pairs[kind] = [
                Pair(
                    kind,
                    slug,
                    None if first is None else asked[first],
                    None if second is None else there[second],
                    # One that could not be read is not one that is not named.
                    goes=first is None and second is not None and self._scope.prune and not unread,
                )
                for first, second in self._pair(kind, asked, there)
            ]
        return pairs

    def _pair(self, kind: Kind, wanted: list[Wanted], there: list[Present]) -> Pairs:
        if kind == "key":
            keys = [KeyName(key.id, key.columns["name"]) for key in wanted]
            self._refuse_twice(wanted, [key.id or f"name {key.name}" for key in keys], "key")
            have = [KeyName(key.columns["public_id"], key.columns["name"]) for key in there]
            pairs, unclear = pair_keys(keys, have)
            for index in unclear:
                self._mistakes.add(
                    f"{wanted[index].pointer}/name",
                    f"more than one key is called {keys[index].name!r}; give the id of this one too",
                )
            return pairs
        if kind == "route":
            self._refuse_twice(wanted, [route.columns["name"] for route in wanted], "route")
            return pair_routes([_route_name(each.columns) for each in wanted], [_route_name(e.columns) for e in there])
        column = "slug" if kind == "service" else "name"
        names = [each.columns[column] for each in wanted]
        self._refuse_twice(wanted, names, kind)
        return pair_named(names, [each.columns[column] for each in there])

    def _refuse_twice(self, wanted: Sequence[Wanted], names: Sequence[str], noun: str) -> None:
        seen: set[str] = set()
        for each, name in zip(wanted, names, strict=True):
            if name and name in seen:
                column = "slug" if noun == "service" else "id" if each.id else "name"
                shown = name.removeprefix("name ") if noun == "key" else name
                self._mistakes.add(f"{each.pointer}/{column}", f"{noun} {shown!r} is there twice")
            seen.add(name)

    # What the whole must be.

    def _check_tenants(self, wanted: Sequence[WantedTenant]) -> None:
        named = {each.tenant.columns["slug"] for each in wanted}
        if self._scope.prune and self._scope.tenant is None:
            for slug in self._state.keys() - named - self._mistakes.unread_tenants - {DEFAULT_TENANT}:
                self._mistakes.add(
                    "/tenants",
                    f"tenant {slug!r} is not in the document, and is not pruned with all that it has and owes; "
                    f"`gatectl tenant remove {slug}` removes it; a document of one tenant can be applied to it alone",
                )
        services = {
            pair.columns["slug"]: pair
            for pair in self._pairs.get(DEFAULT_TENANT, {}).get("service", [])
            if not pair.goes
        }
        for slug in self._pairs.keys() & services.keys():
            tenant, service = self._pairs[slug]["tenant"][0], services[slug]
            at = tenant.wanted if tenant.present is None else service.wanted
            self._mistakes.add("" if at is None else f"{at.pointer}/slug", ambiguous(slug))

    def _check_references(self, slug: str, wanted: WantedTenant) -> None:
        pairs = self._pairs[slug]
        services, plans = (
            {pair.name for pair in pairs[kind] if not pair.goes} | wanted.unread.get(kind, set())
            for kind in ("service", "plan")
        )
        gone = {kind: {pair.name for pair in pairs[kind] if pair.goes} for kind in ("service", "plan")}
        for kind, column, names in (
            ("tenant", "default_plan", plans), ("route", "service", services), ("key", "plan", plans),
        ):  # fmt: skip
            for pair in pairs[kind]:  # type: ignore[index]
                name = pair.defined.get(column)
                if name is None or pair.goes or name in names:
                    continue
                noun = "service" if column == "service" else "plan"
                if pair.wanted is not None:
                    self._miss(f"{pair.wanted.pointer}/{column}", noun, name, names, gone[noun])
                else:
                    self._mistakes.add(
                        f"{wanted.tenant.pointer}/{noun}s",
                        f"{noun} {name!r} would go, and {kind} {pair.name or 'of no name'} needs it still",
                    )
        for name in sorted(gone["plan"] & (self._state[slug].imported_on if slug in self._state else set())):
            why = f"plan {name!r} would go, and keys that were imported need it still"
            self._mistakes.add(f"{wanted.tenant.pointer}/plans", why)
        for pair in pairs["key"]:
            for index, name in enumerate(pair.wanted.scope if pair.wanted is not None else ()):
                if pair.wanted is not None and name not in services:
                    self._miss(f"{pair.wanted.pointer}/services/{index}", "service", name, services, gone["service"])

    def _miss(self, pointer: str, noun: str, name: str, names: set[str], gone: set[str]) -> None:
        if name in gone:
            self._mistakes.add(pointer, f"{noun} {name!r} is not in the document, and would go")
            return
        near = get_close_matches(name[:100], names, n=1) if self._mistakes.has_room else []
        self._mistakes.add(
            pointer, f"there is no {noun} {name[:100]!r}" + (f"; did you mean {near[0]}?" if near else "")
        )

    def _check_ids(self, steps: Sequence[Step]) -> None:
        """A key's id is for ever: of this tenant, and once it is revoked of nobody."""
        new = {
            step.pair.wanted.id: step.pair.wanted
            for step in steps
            if step.difference.kind == "key" and step.difference.change == "add" and step.pair.wanted is not None
        }
        ids = [id_ for id_ in new if id_ is not None]
        for start in range(0, len(ids), _AT_ONCE):
            query = select(_key.c.public_id, _key.c.revoked_at).where(_key.c.public_id.in_(ids[start:][:_AT_ONCE]))
            for public_id, revoked_at in self._session.connection().execute(query):
                wanted = new[public_id]
                if self._scope.reissue:
                    wanted.id = None
                elif revoked_at is not None:
                    why = f"key gw_{public_id} is revoked, which is for ever; leave its id out for another key"
                    self._mistakes.add(f"{wanted.pointer}/id", why)
                else:
                    self._mistakes.add(
                        f"{wanted.pointer}/id", f"key gw_{public_id} is one of another tenant, or was imported"
                    )

    def _check_alone(self, step: Step) -> None:
        """What can be said against one object that becomes another."""
        pair, fields = step.pair, {each.field for each in step.difference.fields}
        if pair.wanted is None:
            return
        try:
            if step.difference.kind == "service" and not fields.isdisjoint((*TLS_FILES, "tls_verify")):
                check_tls_files(SimpleNamespace(**pair.wanted.columns))
            if step.difference.kind == "tenant" and pair.present is not None and "currency" in fields:
                refuse_billed(self._session, SimpleNamespace(**pair.present.columns))
        except AdminError as error:
            self._mistakes.add(f"{pair.wanted.pointer}/{error.members.get('field', 'currency')}", error.detail)

    def _check_claims(self, steps: Sequence[Step]) -> None:
        """Only of what changes: what has been there together is not this document's fault."""
        claims = Claims()
        for pair in self._end("service"):
            claims.add_service(id(pair), _claim(pair))
        for pair in self._end("route"):
            claims.add_route(id(pair), _claimed_route(pair))
        for step in steps:
            pair = step.pair
            if pair.wanted is None:
                continue
            if pair.kind == "service" and (taken := claims.against_service(id(pair), _claim(pair))):
                self._mistakes.add(
                    f"{pair.wanted.pointer}/{'paths' if pair.wanted.defined.get('paths') else 'slug'}", taken.why
                )
            elif pair.kind == "route" and (taken := claims.against_route(id(pair), _claimed_route(pair))):
                self._mistakes.add(f"{pair.wanted.pointer}/path", taken.why)

    def _end(self, kind: Kind) -> Iterator[Pair]:
        for kinds in self._pairs.values():
            yield from (pair for pair in kinds[kind] if not pair.goes)


def _match(columns: dict[str, Any]) -> Match:
    methods = None if columns["methods"] is None else _strings.decode(columns["methods"])
    return Match(columns["path"], columns["exact"], columns["host"], methods)


def _route_name(columns: dict[str, Any]) -> RouteName:
    match = _match(columns)
    return RouteName(columns["name"], (match.path, match.exact, match.host, match.methods))


def _claim(pair: Pair) -> Claim:
    return Claim(pair.tenant, pair.columns["slug"], _strings.decode(pair.columns["paths"]))


def _claimed_route(pair: Pair) -> ClaimedRoute:
    name = pair.columns["name"] or (pair.present.columns["public_id"] if pair.present is not None else "")
    return ClaimedRoute(pair.tenant, name, _match(pair.columns))
