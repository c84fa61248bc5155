"""Services: upstream APIs with their targets, addresses and timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.conf import BreakerConf, HealthConf
from gatewayd.control.admin import hidden
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.bounds import names_bound, refuse_files, refuse_outside, refuse_own_machine
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.claims import refuse_claimed
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, Removal, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import new_public_id, service_by, tenant_by
from gatewayd.control.admin.service_options import (
    Balance,
    BreakerOptions,
    HeaderRule,
    HeaderRules,
    HealthOptions,
    breaker_of,
    changed_breaker,
    changed_health,
    check_hash_on,
    checked_rules,
    health_of,
    rules_of,
)
from gatewayd.control.admin.spelling import HeaderName, Path, Slug
from gatewayd.control.admin.state import control_of
from gatewayd.control.admin.tags import answer_one
from gatewayd.control.admin.targets import Targets, Weights, check_targets, replace_targets, targets_of
from gatewayd.control.compile import tls_conf
from gatewayd.control.tables import Route, Service, Target, Tenant
from gatewayd.policy.addresses import (
    DEFAULT_TENANT,
    Claim,
    check_key_header,
    check_path,
    check_server_name,
    check_slug,
)
from gatewayd.policy.amounts import format_time
from gatewayd.policy.routing import Match
from gatewayd.upstream_tls import TlsFileError, check_files

Paths = Annotated[tuple[Path, ...], msgspec.Meta(max_length=100)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Lifetime = Annotated[float, msgspec.Meta(gt=0, le=365 * 86400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Auth = Literal["key", "none"]

_paths = msgspec.json.Decoder(tuple[str, ...])


_RULES = "targets are URLs and not this gateway; headers are not its own; TLS files can be loaded"


class NewService(msgspec.Struct, forbid_unknown_fields=True):
    slug: Slug
    targets: Targets
    paths: Paths = ()
    auth: Auth = "key"
    preserve_host: bool = False
    timeout_s: Seconds | None = 30.0
    connect_timeout_s: Seconds = 10.0
    first_byte_timeout_s: Seconds = 30.0
    idle_timeout_s: Seconds = 300.0
    tunnel_lifetime_s: Lifetime | None = 86400.0
    body_limit_bytes: Bytes | None = None
    in_flight_limit: Count | None = None
    key_header: HeaderName = "X-API-Key"
    tls_verify: bool = True
    tls_server_name: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    weights: Weights = {}
    balance: Balance = "round-robin"
    hash_on: str = "address"
    health: HealthOptions = HealthOptions()
    breaker: BreakerOptions = BreakerOptions()
    request_headers: HeaderRules = ()
    response_headers: HeaderRules = ()


class ChangedService(msgspec.Struct, forbid_unknown_fields=True):
    targets: Targets | UnsetType = UNSET
    paths: Paths | UnsetType = UNSET
    auth: Auth | UnsetType = UNSET
    preserve_host: bool | UnsetType = UNSET
    timeout_s: Seconds | UnsetType | None = UNSET
    connect_timeout_s: Seconds | UnsetType = UNSET
    first_byte_timeout_s: Seconds | UnsetType = UNSET
    idle_timeout_s: Seconds | UnsetType = UNSET
    tunnel_lifetime_s: Lifetime | UnsetType | None = UNSET
    body_limit_bytes: Bytes | UnsetType | None = UNSET
    in_flight_limit: Count | UnsetType | None = UNSET
    key_header: HeaderName | UnsetType = UNSET
    tls_verify: bool | UnsetType = UNSET
    tls_server_name: str | UnsetType | None = UNSET
    tls_ca_file: str | UnsetType | None = UNSET
    tls_cert_file: str | UnsetType | None = UNSET
    tls_key_file: str | UnsetType | None = UNSET
    weights: Weights = {}
    balance: Balance | UnsetType = UNSET
    hash_on: str | UnsetType = UNSET
    health: HealthOptions = HealthOptions()
    breaker: BreakerOptions = BreakerOptions()
    request_headers: HeaderRules | UnsetType = UNSET
    response_headers: HeaderRules | UnsetType = UNSET


# Taken over as they are; the others are parsed or lie in a table of their own.
_PLAIN = (
    "auth", "preserve_host", "timeout_s", "connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s",
    "tunnel_lifetime_s", "body_limit_bytes", "in_flight_limit", "tls_verify", "balance",
)  # fmt: skip
MOST_NAMED = 10  # in an error
TLS_FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file")


class ForcibleRemoval(Removal, frozen=True, kw_only=True):
    force: bool = False  # with the routes that lead to it


class ServiceView(msgspec.Struct):
    id: str
    slug: str
    tenant: str
    targets: list[str]
    weights: dict[str, int]
    drained: list[str]
    paths: tuple[str, ...]
    auth: str
    preserve_host: bool
    timeout_s: float | None
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    tunnel_lifetime_s: float | None
    body_limit_bytes: int | None
    in_flight_limit: int | None
    key_header: str
    tls_verify: bool
    tls_server_name: str | None
    tls_ca_file: str | None
    tls_cert_file: str | None
    tls_key_file: str | None
    balance: str
    hash_on: str
    health: HealthConf
    breaker: BreakerConf
    request_headers: tuple[HeaderRule, ...]
    response_headers: tuple[HeaderRule, ...]
    url: str
    created_at: str


def show(service: Service, tenant: Tenant, targets: Sequence[Target], origin: str) -> ServiceView:
    paths = _paths.decode(service.paths)
    built_in = f"/{service.slug}/" if tenant.slug == DEFAULT_TENANT else f"/{tenant.slug}/{service.slug}/"
    return ServiceView(
        id=service.public_id,
        slug=service.slug,
        tenant=tenant.slug,
        targets=[target.url for target in targets],
        weights={target.url: target.weight for target in targets},
        drained=[target.url for target in targets if target.drained],
        paths=paths,
        key_header=service.key_header,
        hash_on=service.hash_on,
        health=health_of(service.health),
        breaker=breaker_of(service.breaker),
        request_headers=rules_of(service.header_rules, "request"),
        response_headers=rules_of(service.header_rules, "response"),
        tls_server_name=service.tls_server_name,
        url=f"{origin}{paths[0] if paths else built_in}",
        created_at=format_time(service.created_at),
        **{name: getattr(service, name) for name in (*_PLAIN, *TLS_FILES)},
    )


@documented("List services", query=PagedInTenant, answer=Page[ServiceView])
def list_(request: Request) -> Response:
    """A viewer is not shown what may be credentials: values of request header rules, the query of the health check."""
    asked, control = read_query(request, PagedInTenant), control_of(request)
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)

        def show_all(services: Sequence[Service]) -> list[ServiceView]:
            targets = targets_of(session, services)
            shown = [show(service, tenant, targets[service.id], control.url) for service in services]
            return [hidden.of_service(view) for view in shown] if hidden.hides(request) else shown

        query = select(Service).where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
        return answer(page(session, query, col(Service.slug), asked, show_all))


@documented("Show a service", query=InTenant, answer=ServiceView, shows_one=True)
def get(request: Request) -> Response:
    """A viewer is not shown what may be credentials: values of request header rules, the query of the health check."""
    asked, control = read_query(request, InTenant), control_of(request)
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        service = service_by(session, tenant, request.path_params["ref"])
        shown = show(service, tenant, targets_of(session, [service])[service.id], control.url)
        return answer_one(request, hidden.of_service(shown) if hidden.hides(request) else shown)


@documented("Add a service", query=InTenant, body=NewService, answer=ServiceView, status=201, rules=_RULES)
async def add(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    new = await read_body(request, NewService)
    columns, urls = columns_of(new), check_targets(new.targets, control)
    refuse_own_machine(request, "targets", urls)
    refuse_files(request, {name: getattr(new, name) for name in TLS_FILES}, {})
    paths = _paths.decode(columns["paths"])
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        _refuse_taken(made.session, tenant, new.slug)
        for path in paths:
            refuse_outside(request, made.session, tenant, Match(path), None)
        refuse_claimed(made.session, Claim(tenant.slug, new.slug, paths), None)
        assert tenant.id is not None
        public_id = new_public_id(made.session, Service, "svc_")
        service = Service(public_id=public_id, tenant_id=tenant.id, created_at=made.at, **columns)
        check_tls_files(service)
        made.session.add(service)
        targets = replace_targets(made.session, service, (), urls, new.weights, names_bound(request))
        shown = show(service, tenant, targets, control.url)
        made.note("service.add", tenant.slug, service.public_id, after=shown)
    await control.plane.publish_snapshot()
    return created(shown)


def columns_of(new: NewService) -> dict[str, Any]:
    """What the row of such a service holds, checked; its targets lie in a table of their own. Raises AdminError."""
    key_header = checked("key_header", check_key_header, new.key_header)
    return {
        "slug": checked("slug", check_slug, new.slug),
        "paths": _json(_check_paths(new.paths)),
        "key_header": key_header,
        "tls_server_name": _server_name(new.tls_server_name),
        "hash_on": checked("hash_on", check_hash_on, new.hash_on),
        "health": changed_health("{}", new.health),
        "breaker": changed_breaker("{}", new.breaker),
        "header_rules": checked_rules(new.request_headers, new.response_headers, key_header),
        **{name: getattr(new, name) for name in (*_PLAIN, *TLS_FILES)},
    }


@documented("Change a service", query=InTenant, body=ChangedService, answer=ServiceView, rules=_RULES, changes_one=True)
async def set_(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    wanted = await read_body(request, ChangedService)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        service = service_by(made.session, tenant, request.path_params["ref"])
        targets = targets_of(made.session, [service])[service.id]
        before = show(service, tenant, targets, control.url)
        for name in _PLAIN:
            if (value := getattr(wanted, name)) is not UNSET:
                setattr(service, name, value)
        if wanted.key_header is not UNSET:
            service.key_header = checked("key_header", check_key_header, wanted.key_header)
        if wanted.hash_on is not UNSET:
            service.hash_on = checked("hash_on", check_hash_on, wanted.hash_on)
        service.health = changed_health(service.health, wanted.health)
        service.breaker = changed_breaker(service.breaker, wanted.breaker)
        service.header_rules = checked_rules(  # also when the key's header is another now
            before.request_headers if wanted.request_headers is UNSET else wanted.request_headers,
            before.response_headers if wanted.response_headers is UNSET else wanted.response_headers,
            service.key_header,
        )
        if wanted.tls_server_name is not UNSET:
            service.tls_server_name = _server_name(wanted.tls_server_name)
        if any(getattr(wanted, name) is not UNSET for name in TLS_FILES):
            refuse_files(request, _files(wanted), _files(before))
            for name in TLS_FILES:
                if (value := getattr(wanted, name)) is not UNSET:
                    setattr(service, name, value)
            check_tls_files(service)
        if wanted.paths is not UNSET:
            paths = _check_paths(wanted.paths)
            for path in set(paths) - set(before.paths):
                refuse_outside(request, made.session, tenant, Match(path), None)
            refuse_claimed(made.session, Claim(tenant.slug, service.slug, paths), service.id)
            service.paths = _json(paths)
        if wanted.targets is not UNSET or wanted.weights:
            urls, bound = before.targets, None
            if wanted.targets is not UNSET:
                urls, bound = check_targets(wanted.targets, control), names_bound(request)
            refuse_own_machine(request, "targets", set(urls) - set(before.targets))
            targets = replace_targets(made.session, service, targets, urls, wanted.weights, bound)
        made.session.add(service)
        shown = show(service, tenant, targets, control.url)
        made.note("service.set", tenant.slug, service.public_id, before, shown)
    await control.plane.publish_snapshot()
    return answer(shown)


@documented("Remove a service", query=ForcibleRemoval, answer=ServiceView, changes_one=True)
async def remove(request: Request) -> Response:
    asked, control = read_query(request, ForcibleRemoval), control_of(request)
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, asked.tenant)
        service = service_by(made.session, tenant, request.path_params["ref"])
        before = show(service, tenant, targets_of(made.session, [service])[service.id], control.url)
        _remove_routes(made.session, service, tenant, made.at, force=asked.force)
        service.removed_at = made.at
        made.session.add(service)
        made.note("service.remove", tenant.slug, service.public_id, before)
    if not asked.dry_run:
        await control.plane.publish_snapshot()
    return answer(before)


def _server_name(name: str | None) -> str | None:
    return None if name is None else checked("tls_server_name", check_server_name, name)


def _files(of: ChangedService | ServiceView) -> dict[str, str | None]:
    given = {name: getattr(of, name) for name in TLS_FILES}
    return {name: None if file is UNSET else file for name, file in given.items()}


def check_tls_files(service: Any) -> None:
    """They are tried out now: what cannot be loaded would be found out by the service's callers."""
    try:
        check_files(tls_conf(service))
    except TlsFileError as error:
        raise invalid(error.field, str(error)) from None


def _check_paths(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(_refuse_twice("paths", [checked("paths", check_path, path) for path in paths]))


def _refuse_twice(field: str, values: list[str]) -> list[str]:
    for value in values:
        if values.count(value) > 1:
            raise invalid(field, f"{value} is given twice")
    return values


def _refuse_taken(session: Session, tenant: Tenant, slug: str) -> None:
    live = (Service.tenant_id == tenant.id, Service.slug == slug, col(Service.removed_at).is_(None))
    if session.exec(select(Service.id).where(*live)).first():
        raise conflict(f"service {slug!r} exists already")
    if tenant.slug != DEFAULT_TENANT:
        return
    if session.exec(select(Tenant.id).where(Tenant.slug == slug, col(Tenant.removed_at).is_(None))).first():
        raise conflict(f"{slug!r} is a tenant, so /{slug}/ would be ambiguous for a service of the tenant default")


def _remove_routes(session: Session, service: Service, tenant: Tenant, at: int, *, force: bool) -> None:
    """With the service, if that was asked for: a route without its service would answer nobody."""
    live = select(Route).where(Route.service_id == service.id, col(Route.removed_at).is_(None))
    routes = session.exec(live.order_by(col(Route.id))).all()
    if routes and not force:
        named = ", ".join(route.name or route.public_id for route in routes[:MOST_NAMED])
        more = f" and {len(routes) - MOST_NAMED} more" if len(routes) > MOST_NAMED else ""
        have = "a route that leads" if len(routes) == 1 else "routes that lead"
        raise conflict(f"service {service.slug!r} has {have} to it: {named}{more}; force removes it with them")
    for route in routes:
        route.removed_at = at
        session.add(route)


def _json(paths: Sequence[str]) -> str:
    return msgspec.json.encode(paths).decode()
