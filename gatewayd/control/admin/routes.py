"""Routes: what leads to a service beside the addresses it has of itself, and under what policy.

Which of them a request takes is told by `route_finding`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.conf import RateConf, ServiceConf
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.bounds import refuse_outside
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.claims import match_of, refuse_clash
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import new_public_id, route_by, service_by, tenant_by
from gatewayd.control.admin.services import Bytes, Seconds
from gatewayd.control.admin.spelling import DisplayName, Pattern, Rate
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.admin.terms import RateView, show_rates
from gatewayd.control.compile import snapshot
from gatewayd.control.tables import Route, Service, Tenant
from gatewayd.policy.addresses import check_characters, check_match_host, check_pattern
from gatewayd.policy.allowing import check_methods, check_network
from gatewayd.policy.amounts import format_time, parse_rate
from gatewayd.policy.routing import Match, Rank
from gatewayd.policy.snapshot import all_matches

Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]
Rates = Annotated[tuple[Rate, ...], msgspec.Meta(max_length=16)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Auth = Literal["key", "none"]

_strings = msgspec.json.Decoder(tuple[str, ...])
_rates = msgspec.json.Decoder(tuple[RateConf, ...])


_RULES = "hosts, methods, networks, rates and prefixes are what they are called; two windows differ"


class NewRoute(msgspec.Struct, forbid_unknown_fields=True):
    """`service` null: the key's own."""

    service: str | None
    path: Pattern = "/"
    exact: bool = False
    host: str | None = None
    methods: Texts | None = None
    prefix: str = "strip"
    name: DisplayName = ""
    auth: Auth | None = None
    rates: Rates = ()
    weight: Weight = 1
    timeout_s: Seconds | None = None
    first_byte_timeout_s: Seconds | None = None
    body_limit_bytes: Bytes | None = None
    networks: Texts = ()


class ChangedRoute(msgspec.Struct, forbid_unknown_fields=True):
    service: str | UnsetType | None = UNSET
    path: Pattern | UnsetType = UNSET
    exact: bool | UnsetType = UNSET
    host: str | UnsetType | None = UNSET
    methods: Texts | UnsetType | None = UNSET
    prefix: str | UnsetType = UNSET
    name: DisplayName | UnsetType = UNSET
    auth: Auth | UnsetType | None = UNSET
    rates: Rates | UnsetType = UNSET
    weight: Weight | UnsetType = UNSET
    timeout_s: Seconds | UnsetType | None = UNSET
    first_byte_timeout_s: Seconds | UnsetType | None = UNSET
    body_limit_bytes: Bytes | UnsetType | None = UNSET
    networks: Texts | UnsetType = UNSET


_FIELDS = tuple(field.name for field in msgspec.structs.fields(NewRoute))
_PLAIN = ("exact", "auth", "weight", "timeout_s", "first_byte_timeout_s", "body_limit_bytes")


class RouteView(msgspec.Struct):
    """`id` null: an address that its service has of itself."""

    id: str | None
    name: str
    tenant: str
    service: str | None
    host: str | None
    path: str
    exact: bool
    methods: tuple[str, ...] | None
    prefix: str
    auth: str | None
    rates: list[RateView]
    weight: int
    timeout_s: float | None
    first_byte_timeout_s: float | None
    body_limit_bytes: int | None
    networks: tuple[str, ...]
    created_at: str | None


class Listed(PagedInTenant, frozen=True, kw_only=True):
    addresses: bool = False  # those of the tenant's services too


def show(route: Route, tenant: Tenant, service: str | None) -> RouteView:
    return RouteView(
        id=route.public_id,
        name=route.name,
        tenant=tenant.slug,
        service=service,
        host=route.host,
        path=route.path,
        exact=route.exact,
        methods=match_of(route).methods,
        prefix=route.prefix,
        auth=route.auth,
        rates=show_rates(_rates.decode(route.rates)),
        weight=route.weight,
        timeout_s=route.timeout_s,
        first_byte_timeout_s=route.first_byte_timeout_s,
        body_limit_bytes=route.body_limit_bytes,
        networks=_strings.decode(route.networks),
        created_at=format_time(route.created_at),
    )


@documented("List routes", query=Listed, answer=Page[RouteView], rules="`after` is a cursor that a list gave")
def list_(request: Request) -> Response:
    """In the order in which they are tried."""
    asked = read_query(request, Listed)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        names = _service_names(session, tenant)
        live = select(Route).where(Route.tenant_id == tenant.id, col(Route.removed_at).is_(None))
        ranked = [(match_of(route).rank(), route) for route in session.exec(live)]
        shown: list[tuple[Rank, RouteView | Route]] = [*ranked]
        if asked.addresses:
            services = [conf for conf in snapshot(session.connection()).services if conf.tenant_id == tenant.id]
            shown += [
                (match.rank(), _show_address(match, conf)) for match, conf, _ in all_matches(services, ()) if conf
            ]
        shown.sort(key=lambda pair: pair[0])
        if asked.after is not None:
            place = _place(asked.after)
            shown = [pair for pair in shown if pair[0] > place]
        items = [
            show(item, tenant, names.get(item.service_id)) if isinstance(item, Route) else item
            for _, item in shown[: asked.limit]
        ]
        more = len(shown) > asked.limit
        return answer({"items": items, "next": _cursor(items[-1]) if more else None})


@documented("Show a route", query=InTenant, answer=RouteView, shows_one=True)
def get(request: Request) -> Response:
    asked = read_query(request, InTenant)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        route = route_by(session, tenant, request.path_params["ref"])
        return answer_one(request, show(route, tenant, _service_names(session, tenant).get(route.service_id)))


@documented("Add a route", query=InTenant, body=NewRoute, answer=RouteView, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    asked = read_query(request, InTenant)
    new = await read_body(request, NewRoute)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        assert tenant.id is not None
        route = Route(
            public_id=new_public_id(made.session, Route, "rte_"), tenant_id=tenant.id, path="/", created_at=made.at
        )
        _set(made.session, tenant, route, {name: getattr(new, name) for name in _FIELDS})
        refuse_outside(request, made.session, tenant, match_of(route), None)
        made.session.add(route)
        shown = show(route, tenant, _service_names(made.session, tenant).get(route.service_id))
        made.note("route.add", tenant.slug, route.public_id, after=shown)
    await control_of(request).plane.publish_snapshot()
    return created(shown)


@documented("Change a route", query=InTenant, body=ChangedRoute, answer=RouteView, rules=_RULES, changes_one=True)
async def set_(request: Request) -> Response:
    asked = read_query(request, InTenant)
    wanted = await read_body(request, ChangedRoute)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        route = route_by(made.session, tenant, request.path_params["ref"])
        names = _service_names(made.session, tenant)
        before, matched = show(route, tenant, names.get(route.service_id)), match_of(route)
        given = {name: value for name in _FIELDS if (value := getattr(wanted, name)) is not UNSET}
        _set(made.session, tenant, route, given)
        refuse_outside(request, made.session, tenant, match_of(route), route.id, matched)
        made.session.add(route)
        shown = show(route, tenant, names.get(route.service_id))
        made.note("route.set", tenant.slug, route.public_id, before, shown)
    await control_of(request).plane.publish_snapshot()
    return answer(shown)


@documented("Remove a route", query=InTenant, answer=RouteView, changes_one=True)
async def remove(request: Request) -> Response:
    asked = read_query(request, InTenant)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        route = route_by(made.session, tenant, request.path_params["ref"])
        before = show(route, tenant, _service_names(made.session, tenant).get(route.service_id))
        route.removed_at = made.at
        made.session.add(route)
        made.note("route.remove", tenant.slug, route.public_id, before)
    await control_of(request).plane.publish_snapshot()
    return answer(before)


def _show_address(match: Match, service: ServiceConf) -> RouteView:
    return RouteView(
        id=None, name="", tenant=service.tenant, service=service.slug, host=None, path=match.path, exact=False,
        methods=None, prefix="strip", auth=None, rates=[], weight=1, timeout_s=None, first_byte_timeout_s=None,
        body_limit_bytes=None, networks=(), created_at=None,
    )  # fmt: skip


def _cursor(item: RouteView) -> str:
    """The place behind this one. By what it matches, so that the list goes on where it was though that is gone."""
    match = [item.path, item.exact, item.host, item.methods]
    return base64.urlsafe_b64encode(msgspec.json.encode(match)).decode().rstrip("=")


def _place(cursor: str) -> Rank:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        place = msgspec.json.decode(text, type=tuple[str, bool, str | None, tuple[str, ...] | None])
        return Match(*place).rank()
    except ValueError:
        raise invalid("after", f"{cursor[:40]!r} is not a cursor that a list gave") from None


def _service_names(session: Session, tenant: Tenant) -> dict[int | None, str]:
    return dict(session.exec(select(Service.id, Service.slug).where(Service.tenant_id == tenant.id)).all())


def _set(session: Session, tenant: Tenant, route: Route, given: dict[str, Any]) -> None:
    """Check what was given, take it over, and see whether the whole may stand."""
    if "service" in given:
        ref = given["service"]
        route.service_id = None if ref is None else service_by(session, tenant, ref).id
    columns = columns_of(given)
    if "name" in columns:
        _refuse_taken(session, tenant, route, columns["name"])
    for name, value in columns.items():
        setattr(route, name, value)
    check_auth(route.auth, serves_itself=route.service_id is not None)
    refuse_clash(session, tenant.slug, match_of(route), route.id)


def columns_of(given: dict[str, Any]) -> dict[str, Any]:
    """What the row holds of these fields, checked; its service is another row. Raises AdminError."""
    columns = {name: given[name] for name in _PLAIN if name in given}
    if "name" in given:
        columns["name"] = checked("name", check_display_name, given["name"])
    if "path" in given:
        columns["path"] = checked("path", check_pattern, given["path"])
    if "host" in given:
        columns["host"] = None if given["host"] is None else checked("host", check_match_host, given["host"])
    if "methods" in given:
        methods = checked("methods", check_methods, ",".join(given["methods"])) if given["methods"] else None
        columns["methods"] = None if methods is None else _json(methods)
    if "prefix" in given:
        columns["prefix"] = checked("prefix", _check_prefix, given["prefix"])
    if "rates" in given:
        columns["rates"] = _json(_read_rates(given["rates"]))
    if "networks" in given:
        networks = [checked("networks", check_network, network) for network in given["networks"]]
        columns["networks"] = _json(tuple(dict.fromkeys(networks)))
    return columns


def check_auth(auth: str | None, *, serves_itself: bool) -> None:
    """Who has no key chooses no service. `serves_itself`: the route names one."""
    if auth == "none" and not serves_itself:
        raise invalid("auth", "auth must be key where the key's own service answers")


def _refuse_taken(session: Session, tenant: Tenant, route: Route, name: str) -> None:
    """A route is called by its name, where it has one."""
    live = (Route.tenant_id == tenant.id, Route.name == name, col(Route.removed_at).is_(None))
    other = session.exec(select(Route.id).where(*live, col(Route.public_id) != route.public_id)).first()
    if name and other is not None:
        raise conflict(f"route {name!r} exists already")


def _check_prefix(prefix: str) -> str:
    if prefix in ("strip", "keep"):
        return prefix
    if not prefix.startswith("/"):
        raise ValueError(f"{prefix[:80]!r} is neither strip nor keep nor a path such as /v2 in the prefix's place")
    if "{" in prefix:
        raise ValueError(f"{prefix[:80]!r} has a name, which stands for nothing here")
    check_characters(prefix)
    return prefix.rstrip("/") or "strip"


def _read_rates(texts: Sequence[str]) -> tuple[RateConf, ...]:
    rates = tuple(checked("rates", parse_rate, text) for text in texts)
    if len({rate.window_s for rate in rates}) < len(rates):
        raise invalid("rates", "two rates have the same window; give one of them")
    return rates


def _json(values: Iterable[Any]) -> str:
    return msgspec.json.encode(values).decode()
