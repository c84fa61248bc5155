"""Services: upstream APIs with their targets, addresses and timeouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import delete
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenant, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import new_public_id, service_by, tenant_by
from gatewayd.control.admin.state import control_of
from gatewayd.control.tables import Service, Target, Tenant
from gatewayd.policy.addresses import (
    DEFAULT_TENANT,
    Claim,
    check_key_header,
    check_path,
    check_slug,
    check_target,
    claimed_already,
)
from gatewayd.policy.amounts import format_time

Targets = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=100)]
Paths = Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Auth = Literal["key", "none"]

_paths = msgspec.json.Decoder(tuple[str, ...])


class NewService(msgspec.Struct, forbid_unknown_fields=True):
    slug: str
    targets: Targets
    paths: Paths = ()
    auth: Auth = "key"
    preserve_host: bool = False
    timeout_s: Seconds = 30.0
    connect_timeout_s: Seconds = 10.0
    body_limit_bytes: Bytes | None = None
    key_header: str = "X-API-Key"


class ChangedService(msgspec.Struct, forbid_unknown_fields=True):
    targets: Targets | UnsetType = UNSET
    paths: Paths | UnsetType = UNSET
    auth: Auth | UnsetType = UNSET
    preserve_host: bool | UnsetType = UNSET
    timeout_s: Seconds | UnsetType = UNSET
    connect_timeout_s: Seconds | UnsetType = UNSET
    body_limit_bytes: Bytes | UnsetType | None = UNSET
    key_header: str | UnsetType = UNSET


# Taken over as they are; the others are parsed or lie in a table of their own.
_PLAIN = ("auth", "preserve_host", "timeout_s", "connect_timeout_s", "body_limit_bytes")


class ServiceView(msgspec.Struct):
    id: str
    slug: str
    tenant: str
    targets: list[str]
    paths: tuple[str, ...]
    auth: str
    preserve_host: bool
    timeout_s: float
    connect_timeout_s: float
    body_limit_bytes: int | None
    key_header: str
    url: str
    created_at: str


def show(service: Service, tenant: Tenant, targets: list[str], listen: str) -> ServiceView:
    paths = _paths.decode(service.paths)
    built_in = f"/{service.slug}/" if tenant.slug == DEFAULT_TENANT else f"/{tenant.slug}/{service.slug}/"
    return ServiceView(
        id=service.public_id,
        slug=service.slug,
        tenant=tenant.slug,
        targets=targets,
        paths=paths,
        auth=service.auth,
        preserve_host=service.preserve_host,
        timeout_s=service.timeout_s,
        connect_timeout_s=service.connect_timeout_s,
        body_limit_bytes=service.body_limit_bytes,
        key_header=service.key_header,
        url=f"http://{listen}{paths[0] if paths else built_in}",
        created_at=format_time(service.created_at),
    )


def list_(request: Request) -> Response:
    asked, control = read_query(request, PagedInTenant), control_of(request)
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)

        def show_all(services: Sequence[Service]) -> list[ServiceView]:
            targets = _targets_of(session, services)
            return [show(service, tenant, targets[service.id], control.listen) for service in services]

        query = select(Service).where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
        return answer(page(session, query, col(Service.slug), asked, show_all))


def get(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        service = service_by(session, tenant, request.path_params["ref"])
        return answer(show(service, tenant, _targets_of(session, [service])[service.id], control.listen))


async def add(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    new = await read_body(request, NewService)
    slug = checked("slug", check_slug, new.slug)
    targets, paths = _check_targets(new.targets, control.listen), _check_paths(new.paths)
    key_header = checked("key_header", check_key_header, new.key_header)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        _refuse_taken(made.session, tenant, slug)
        _refuse_conflict(made.session, Claim(tenant.slug, slug, paths), None)
        assert tenant.id is not None
        service = Service(
            public_id=new_public_id(made.session, Service, "svc_"),
            tenant_id=tenant.id,
            slug=slug,
            paths=_json(paths),
            key_header=key_header,
            created_at=made.at,
            **{name: getattr(new, name) for name in _PLAIN},
        )
        made.session.add(service)
        _replace_targets(made.session, service, targets)
        shown = show(service, tenant, targets, control.listen)
        made.note("service.add", tenant.slug, service.public_id, after=shown)
    await control.plane.publish_snapshot()
    return created(shown)


async def set_(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    wanted = await read_body(request, ChangedService)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        service = service_by(made.session, tenant, request.path_params["ref"])
        before = show(service, tenant, _targets_of(made.session, [service])[service.id], control.listen)
        targets = before.targets
        for name in _PLAIN:
            if (value := getattr(wanted, name)) is not UNSET:
                setattr(service, name, value)
        if wanted.key_header is not UNSET:
            service.key_header = checked("key_header", check_key_header, wanted.key_header)
        if wanted.paths is not UNSET:
            paths = _check_paths(wanted.paths)
            _refuse_conflict(made.session, Claim(tenant.slug, service.slug, paths), service.id)
            service.paths = _json(paths)
        if wanted.targets is not UNSET:
            targets = _check_targets(wanted.targets, control.listen)
            _replace_targets(made.session, service, targets)
        made.session.add(service)
        shown = show(service, tenant, targets, control.listen)
        made.note("service.set", tenant.slug, service.public_id, before, shown)
    await control.plane.publish_snapshot()
    return answer(shown)


async def remove(request: Request) -> Response:
    asked, control = read_query(request, InTenant), control_of(request)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        service = service_by(made.session, tenant, request.path_params["ref"])
        before = show(service, tenant, _targets_of(made.session, [service])[service.id], control.listen)
        service.removed_at = made.at
        made.session.add(service)
        made.note("service.remove", tenant.slug, service.public_id, before)
    await control.plane.publish_snapshot()
    return answer(before)


def _check_targets(urls: Sequence[str], listen: str) -> list[str]:
    targets = [checked("targets", check_target, url) for url in urls]
    for target in targets:
        if urlsplit(target).netloc == listen:  # each hop would be one more request, until descriptors run out
            raise invalid("targets", f"{target} is this gateway itself; name the API behind it")
    return _refuse_twice("targets", targets)


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


def _refuse_conflict(session: Session, claim: Claim, own_id: int | None) -> None:
    reason = claimed_already(claim, _claims(session, own_id))
    if reason is not None:
        raise conflict(reason)


def _claims(session: Session, but: int | None) -> Iterator[Claim]:
    rows = session.execute(
        select(Tenant.slug, Service.slug, Service.paths, Service.id)
        .join(Tenant, col(Tenant.id) == col(Service.tenant_id))
        .where(col(Service.removed_at).is_(None))
    )
    return (Claim(tenant, slug, _paths.decode(paths)) for tenant, slug, paths, id_ in rows if id_ != but)


def _targets_of(session: Session, services: Sequence[Service]) -> dict[int | None, list[str]]:
    targets: dict[int | None, list[str]] = {service.id: [] for service in services}
    rows = session.exec(
        select(Target).where(col(Target.service_id).in_(targets)).order_by(col(Target.service_id), col(Target.position))
    )
    for target in rows:
        targets[target.service_id].append(target.url)
    return targets


def _replace_targets(session: Session, service: Service, urls: Sequence[str]) -> None:
    session.flush()
    assert service.id is not None
    session.execute(delete(Target).where(col(Target.service_id) == service.id))
    session.add_all(Target(service_id=service.id, position=position, url=url) for position, url in enumerate(urls))


def _json(paths: Sequence[str]) -> str:
    return msgspec.json.encode(paths).decode()
