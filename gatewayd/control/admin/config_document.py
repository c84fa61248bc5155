"""A document of the configuration, read: every object checked as the command for one such object checks it.

All mistakes are found, not the first alone: a field that is wrong is noted and taken out, and what is left is looked at
again. Each has a pointer (RFC 6901) to its place, from which a client that has the document in a file finds the line.

It is decoded by the object and never as a whole: one long call would keep the interpreter's lock, and control's loop
waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from gatewayd.control.admin import key_terms, plan_prices, plans, routes, services, targets, tenants
from gatewayd.control.admin.config_definitions import (
    ENTRIES,
    SECTIONS,
    Defined,
    KeyEntry,
    TenantEntry,
    default_of,
    define_key,
    define_plan,
    define_route,
    define_service,
    define_tenant,
)
from gatewayd.control.admin.inputs import (
    KNOWN_ARE,
    check_display_name,
    checked,
    in_plain_words,
    steps_to,
    type_name,
    unknown_name,
)
from gatewayd.control.admin.plans import NewPlan
from gatewayd.control.admin.problems import AdminError, invalid
from gatewayd.control.admin.routes import NewRoute
from gatewayd.control.admin.services import NewService
from gatewayd.control.admin.state import ControlState
from gatewayd.control.compile import Overrides
from gatewayd.control.importing import check_id
from gatewayd.errors import INVALID, MALFORMED
from gatewayd.policy.amounts import parse_time
from gatewayd.policy.differences import Kind
from gatewayd.policy.pricing import Terms

MOST_BYTES = 64 << 20
MOST_VALUES = 4_000_000  # twenty for each of 200,000 objects: as objects of Python they take half a gigabyte
MOST_MISTAKES = 100

_TOP = ("version", "tenants")
_SECRET = ("secret", "key", "api_key", "digest")
_NEVER_HERE = "no secret is in a document; `gatectl key rotate` gives a key its first one, shown once"

E = TypeVar("E", bound=msgspec.Struct)


@dataclass(slots=True)
class Mistakes:
    """What is wrong with a document, each with its place."""

    found: list[dict[str, str]] = field(default_factory=list)
    more: int = 0
    unread_tenants: set[str] = field(default_factory=set)  # slugs of tenants in which there is one

    def add(self, pointer: str, detail: str) -> None:
        if self.has_room:
            self.found.append({"pointer": pointer, "detail": detail})
        else:
            self.more += 1

    @property
    def has_room(self) -> bool:
        """For one that will be shown."""
        return len(self.found) < MOST_MISTAKES

    def refuse(self) -> None:
        """Raises AdminError with all of them, if there are any."""
        if not self.found:
            return
        count = len(self.found) + self.more
        first = self.found[0]
        detail = f"{first['pointer'] or 'the document'}: {first['detail']}"
        if count > 1:
            detail += f"; and {count - 1} more mistake{'s' * (count > 2)}"
        raise AdminError(INVALID, detail, errors=self.found)


@dataclass(slots=True)
class Wanted:
    """An object as a document wants it. `columns` are those of its row that name no other row."""

    pointer: str
    columns: dict[str, Any]
    defined: Defined
    weights: dict[str, int] = field(default_factory=dict)  # of a service: of each of its targets, in their order
    price: Terms | None = None  # of a plan, or of a key its own
    id: str | None = None  # of a key, where it is known by it
    scope: tuple[str, ...] = ()  # of a key: services as they were written


@dataclass(slots=True)
class WantedTenant:
    """A tenant, and those of its sections that are managed. `unread`: names of objects in which there is a mistake."""

    tenant: Wanted
    sections: dict[Kind, list[Wanted]] = field(default_factory=dict)
    unread: dict[Kind, set[str]] = field(default_factory=dict)


class DocumentReader:
    """Reads one document. `done` counts objects, for whoever wants to know how far it is."""

    def __init__(self, control: ControlState) -> None:
        self.mistakes = Mistakes()
        self.done = 0
        self._listed: set[str] = set()  # what is known, where that was told: a long list is told once
        self._build: dict[Kind, Callable[[Any, str], Wanted]] = {
            "tenant": _tenant,
            "service": partial(_service, control=control),
            "plan": _plan,
            "route": _route,
            "key": _key,
        }

    def __repr__(self) -> str:
        return f"<DocumentReader {self.done} objects, {len(self.mistakes.found)} mistakes>"

    def read(self, body: bytes | bytearray) -> list[WantedTenant]:
        """What it wants. What has mistakes is left out, and noted. Raises AdminError for what is no document."""
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES:
            raise AdminError(INVALID, f"the document has more than {MOST_VALUES:,} values")
        try:
            top = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            return self._read(top)
        except msgspec.ValidationError:
            raise AdminError(MALFORMED, "the document is not an object with a version and tenants") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AdminError(MALFORMED, f"the document is not JSON: {error}") from None
        except RecursionError:
            raise AdminError(MALFORMED, "the document has objects in objects, too many to follow") from None

    def _read(self, top: dict[str, msgspec.Raw]) -> list[WantedTenant]:
        for name in top:
            if name not in _TOP:
                self._unknown(_pointer("", name), _misplaced(name) or unknown_name(name, _TOP))
        version = msgspec.json.decode(top["version"]) if "version" in top else None
        if version is None:
            self.mistakes.add("", "version is missing; this gateway reads version: 1")
        elif version != 1 or version is True:
            shown = msgspec.json.encode(version)[:40].decode(errors="replace")  # "1" in quotes is another
            self.mistakes.add("/version", f"version must be 1, not {shown}: this gateway reads no other")
        if "tenants" not in top:
            self.mistakes.add("", "tenants is missing")
            return []
        found = [
            self._tenant(raw, f"/tenants/{index}")
            for index, raw in enumerate(self._list(top["tenants"], "/tenants", "tenants", "tenant") or ())
        ]
        return [tenant for tenant in found if tenant is not None]

    def _list(
        self, raw: msgspec.Raw, pointer: str, name: str, kind: Kind, unread: set[str] | None = None
    ) -> list[msgspec.Raw] | None:
        """None: it is no list, and that is noted."""
        try:
            return msgspec.json.decode(raw, type=list[msgspec.Raw])
        except msgspec.ValidationError:
            value = msgspec.json.decode(raw)
        why = f"{name} must be a list, each beginning with '- {_title(kind)}:', not {type_name(value)}"
        if value is None and kind == "tenant":
            why = f"nothing follows {name}: write [] for none, or a tenant, which begins with '- slug:'"
        elif value is None:  # taken for none, it would have all of them removed by a prune
            why = f"nothing follows {name}: write [] for none, or leave it out, and what is there stays as it is"
        if unread is not None and isinstance(value, dict):
            unread.update(value)
        self.mistakes.add(pointer, why)
        return None

    def _tenant(self, raw: msgspec.Raw, pointer: str) -> WantedTenant | None:
        try:
            fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            self.mistakes.add(pointer, _no_object("tenant", msgspec.json.decode(raw)))
            return None
        sections = {name: fields.pop(name) for name in SECTIONS if name in fields}
        wanted = self._object("tenant", b"{%s}" % b",".join(
            b"%s:%s" % (msgspec.json.encode(name), bytes(value)) for name, value in fields.items()
        ), pointer)  # fmt: skip
        if wanted is None and "slug" in fields and isinstance(slug := msgspec.json.decode(fields["slug"]), str):
            self.mistakes.unread_tenants.add(slug)
        read = WantedTenant(wanted or Wanted(pointer, {}, {}))
        for name, section in sections.items():
            kind, place = SECTIONS[name], f"{pointer}/{name}"
            unread = read.unread[kind] = set()
            raws = self._list(section, place, name, kind, unread)
            if raws is None:
                continue
            objects = [self._object(kind, each, f"{place}/{index}", unread) for index, each in enumerate(raws)]
            read.sections[kind] = [each for each in objects if each is not None]
        return None if wanted is None else read

    def _object(
        self, kind: Kind, raw: bytes | msgspec.Raw, pointer: str, unread: set[str] | None = None
    ) -> Wanted | None:
        """None: there is a mistake in it, and it is noted."""
        self.done += 1
        before = len(self.mistakes.found) + self.mistakes.more
        entry = self._entry(kind, ENTRIES[kind], raw, pointer)
        wanted = None if entry is None else self._built(entry, self._build[kind], pointer)
        if len(self.mistakes.found) + self.mistakes.more == before:
            return wanted
        if unread is not None:
            value = msgspec.json.decode(raw)
            names = (value.get("slug"), value.get("name")) if isinstance(value, dict) else ()
            unread |= {name for name in names if isinstance(name, str)}
        return None

    def _entry(self, kind: Kind, expected: type[E], raw: bytes | msgspec.Raw, pointer: str) -> E | None:
        try:
            entry: E = _decoder(expected).decode(raw)
        except msgspec.ValidationError:
            value = msgspec.json.decode(raw)
        else:
            return entry
        if not isinstance(value, dict):
            self.mistakes.add(pointer, _no_object(kind, value))
            return None
        taken_out: set[str] = set()
        while True:
            try:
                return msgspec.convert(value, expected)
            except msgspec.ValidationError as error:
                message = str(error)
            complaint, steps = in_plain_words(message, expected), steps_to(message)
            field_name = steps[0] if steps else complaint.members.get("field", "")
            if field_name in taken_out:  # it has to be there: that is why it is missing now
                return None
            why = _misplaced(field_name) if steps and KNOWN_ARE in complaint.detail else ""
            if kind == "key" and field_name in _SECRET:
                why = _NEVER_HERE
            self._unknown(_pointer(pointer, *steps), why or complaint.detail)
            if not steps:
                return None
            taken_out.add(field_name)
            value.pop(field_name, None)

    def _unknown(self, pointer: str, why: str) -> None:
        said, listing, known = why.partition(KNOWN_ARE)
        self.mistakes.add(pointer, said if listing and known in self._listed else why)
        if listing:
            self._listed.add(known)

    def _built(self, entry: E, build: Callable[[E, str], Wanted], pointer: str) -> Wanted | None:
        fields = _fields(type(entry))
        seen: set[str] = set()
        while True:
            try:
                return build(entry, pointer)
            except AdminError as error:
                steps = str(error.members.get("field", "")).split(".")
                if steps[0] in seen:  # it cannot be without
                    return None
                self.mistakes.add(_pointer(pointer, *filter(None, steps)), error.detail)
            if steps[0] not in fields or fields[steps[0]].required:
                return None
            seen.add(steps[0])
            entry = msgspec.structs.replace(entry, **{steps[0]: default_of(fields[steps[0]])})


@cache
def _decoder(expected: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(expected)


@cache
def _fields(of: type[Any]) -> dict[str, msgspec.structs.FieldInfo]:
    """By name. To look at a Struct's annotations takes a hundred times as long as to decode one."""
    return {each.encode_name: each for each in msgspec.structs.fields(of)}


def _title(kind: Kind) -> str:
    """The field that says which one it is."""
    return "slug" if kind in ("tenant", "service") else "name"


def _misplaced(name: str) -> str:
    """What to say of a section that stands elsewhere; nothing of any other name."""
    return f"{name} are a tenant's: they stand in tenants, below '- slug: default'" if name in SECTIONS else ""


def _no_object(kind: Kind, value: Any) -> str:
    return f"a {kind} must be an object, which begins with '- {_title(kind)}:', not {type_name(value)}"


def _pointer(base: str, *steps: str) -> str:
    return "".join([base, *("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)])


def _tenant(new: TenantEntry, pointer: str) -> Wanted:
    columns = tenants.columns_of(new)
    return Wanted(pointer, columns, define_tenant(columns, new.default_plan))


def _service(new: NewService, pointer: str, control: ControlState) -> Wanted:
    columns, urls = services.columns_of(new), targets.check_targets(new.targets, control)
    given = targets.check_weights(urls, new.weights)
    weights = {url: given.get(url, 1) for url in urls}
    return Wanted(pointer, columns, define_service(columns, list(weights.items())), weights=weights)


def _plan(new: NewPlan, pointer: str) -> Wanted:
    columns, price = plans.columns_of(new), plan_prices.new_terms(new)
    return Wanted(pointer, columns, define_plan(columns, price), price=price)


def _route(new: NewRoute, pointer: str) -> Wanted:
    columns = routes.columns_of(msgspec.structs.asdict(new))
    routes.check_auth(columns["auth"], serves_itself=new.service is not None)
    return Wanted(pointer, columns, define_route(columns, new.service))


_NO_TERMS = {"expires_at": None, "allow": "[]", "networks": "[]", "labels": "{}"}


def _key(new: KeyEntry, pointer: str) -> Wanted:
    id_ = None if new.id is UNSET else checked("id", check_id, new.id)
    name = checked("name", check_display_name, new.name)
    if id_ is None and not name:
        raise invalid("name", "a key needs a name here, or its id, or nobody could tell it from another")
    expires, terms = new.expires, msgspec.structs.replace(new, expires=UNSET)
    columns = {"name": name, **_NO_TERMS, **key_terms.columns_of(terms, 0)}
    if expires is not UNSET and expires is not None:
        # A time, also one that is past: a duration would move the end whenever the document is applied.
        columns["expires_at"] = checked("expires", parse_time, expires)
    columns["overrides"] = msgspec.json.encode(key_terms.changed_overrides(Overrides(), terms)).decode()
    price = key_terms.price_of(terms)
    scope = None if new.services is UNSET else new.services
    plan = None if new.plan is UNSET else new.plan
    defined = define_key(columns, None if scope is None else set(scope), plan, price)
    return Wanted(pointer, columns, defined, price=price, id=id_, scope=scope or ())
