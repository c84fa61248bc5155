"""Targets of services: where they are, what share each gets, whether one is drained, and how they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import delete
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import change
from gatewayd.control.admin.documented import Items, documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.problems import conflict, invalid, not_found
from gatewayd.control.admin.refs import service_by, tenant_by
from gatewayd.control.admin.spelling import TargetUrl
from gatewayd.control.admin.state import ControlState, TargetView, control_of
from gatewayd.control.tables import Service, Target, Tenant
from gatewayd.policy.addresses import check_target, split_socket
from gatewayd.policy.amounts import format_time

Targets = Annotated[tuple[TargetUrl, ...], msgspec.Meta(min_length=1, max_length=100)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Weights = dict[str, Weight]  # by URL

# A worker looks once a second how its targets stand.
TOLD_WITHIN_S = 2.0
_POLL_S = 0.05


def targets_of(session: Session, services: Sequence[Service]) -> dict[int | None, list[Target]]:
    """By service, each in the order in which they were given."""
    targets: dict[int | None, list[Target]] = {service.id: [] for service in services}
    rows = session.exec(
        select(Target).where(col(Target.service_id).in_(targets)).order_by(col(Target.service_id), col(Target.position))
    )
    for target in rows:
        targets[target.service_id].append(target)
    return targets


def check_targets(urls: Sequence[str], control: ControlState) -> list[str]:
    targets = [checked("targets", check_target, url) for url in urls]
    for target in targets:
        if _is_ours(target, control):
            raise invalid("targets", f"{target} is this gateway itself; name the API behind it")
        if targets.count(target) > 1:
            raise invalid("targets", f"{target} is given twice")
    return targets


def _is_ours(target: str, control: ControlState) -> bool:
    """A listener: each hop would be one more request, until descriptors run out. A socket of ours: whoever calls the
    service would administer the gateway, for the workers run as the daemon's own user."""
    if not target.startswith("unix:"):
        return urlsplit(target).netloc in (control.listen, control.admin_listen)
    socket = Path(split_socket(target)[0]).resolve()
    admin_socket, state_dir = control.settings.admin_socket.resolve(), control.settings.state_dir.resolve()
    return socket == admin_socket or socket.is_relative_to(state_dir)


def replace_targets(
    session: Session,
    service: Service,
    before: Sequence[Target],
    urls: Sequence[str],
    weights: Mapping[str, int],
    bound: bool | None,
) -> list[Target]:
    """Targets that stay keep their weight, unless they are given another, and stay drained.

    `bound`: who names them is bound to a tenant. One who is not answers from now on for all that are named; one who is
    answers for those that come. None: nobody names any, only their weights.
    """
    weights = check_weights(urls, weights)
    kept = {target.url: (target.weight, target.drained, target.bound) for target in before}
    session.flush()
    assert service.id is not None
    session.execute(delete(Target).where(col(Target.service_id) == service.id))
    targets = []
    for position, url in enumerate(urls):
        weight, drained, was_bound = kept.get(url, (1, False, bool(bound)))
        targets.append(
            Target(
                service_id=service.id,
                position=position,
                url=url,
                weight=weights.get(url, weight),
                drained=drained,
                bound=was_bound and bound is not False,
            )
        )
    session.add_all(targets)
    return targets


def check_weights(urls: Sequence[str], weights: Mapping[str, int]) -> dict[str, int]:
    weights = {checked("weights", check_target, url): weight for url, weight in weights.items()}
    for url in weights:
        if url not in urls:
            raise invalid("weights", f"{url} is not a target of this service")
    return weights


class OfService(InTenant, frozen=True):
    service: str | None = None  # None: all of the tenant


class TargetItem(msgspec.Struct):
    """A target as those see it who agree on its state. Of workers that have said nothing of it, all is well."""

    service: str
    url: str
    weight: int
    state: str
    since: str | None
    seen_by: list[str]
    error: str | None
    error_at: str | None
    in_flight: int | None  # of a drained one


@documented("List targets, and how they stand", query=OfService, answer=Items[TargetItem])
def list_(request: Request) -> Response:
    asked, control = read_query(request, OfService), control_of(request)
    workers = _serving(control)
    items: list[TargetItem] = []
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        if asked.service is not None:
            services: Sequence[Service] = [service_by(session, tenant, asked.service)]
        else:
            services = _live(session, tenant)
        for service_id, targets in targets_of(session, services).items():
            assert service_id is not None
            slug = next(service.slug for service in services if service.id == service_id)
            views = control.plane.targets(service_id)
            for target in targets:
                items += _items(slug, target, [view for view in views if view.url == target.url], workers)
    return answer({"items": items})


def _live(session: Session, tenant: Tenant) -> Sequence[Service]:
    query = select(Service).where(Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
    return session.exec(query.order_by(col(Service.slug))).all()


def _serving(control: ControlState) -> list[str]:
    return [f"worker-{worker.slot}" for worker in control.plane.workers() if worker.state == "serving"]


def _items(slug: str, target: Target, views: list[TargetView], workers: list[str]) -> Iterator[TargetItem]:
    unmarked = "drained" if target.drained else "healthy"
    said = {view.seen_by for view in views}
    views = views + [TargetView(each, target.url, unmarked, 0, "", 0) for each in workers if each not in said]
    for state in dict.fromkeys(view.state for view in views):
        agreed = [view for view in views if view.state == state]
        since_s = min((view.since_s for view in agreed if view.since_s), default=0)
        last = max(agreed, key=lambda view: view.error_at_s)
        yield TargetItem(
            service=slug,
            url=target.url,
            weight=target.weight,
            state=state,
            since=format_time(since_s) if since_s else None,
            seen_by=[view.seen_by for view in agreed],
            error=last.error or None,
            error_at=format_time(last.error_at_s) if last.error else None,
            in_flight=sum(view.in_flight for view in agreed) if state == "drained" else None,
        )


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    target: TargetUrl
    service: str | None = None  # None: the one that has it
    undo: bool = False


class Drained(msgspec.Struct):
    service: str
    target: str
    drained: bool
    in_flight: int | None


@documented(
    "Drain a target, or undo that", query=InTenant, body=Drain, answer=Drained, rules="`target` is the URL of one"
)
async def drain(request: Request) -> Response:
    """From now on the target gets no new request, in any worker; what it has goes on."""
    asked, control = read_query(request, InTenant), control_of(request)
    wanted = await read_body(request, Drain)
    url = checked("target", check_target, wanted.target)
    with change(request) as made:
        tenant = tenant_by(made.session, asked.tenant)
        service, target = _find(made.session, tenant, url, wanted.service)
        before = target.drained
        target.drained = not wanted.undo
        made.session.add(target)
        shown = Drained(service.slug, url, target.drained, None)
        action = "service.undrain" if wanted.undo else "service.drain"
        made.note(action, tenant.slug, service.public_id, {"target": url, "drained": before}, shown)
        service_id = service.id
        assert service_id is not None
    await control.plane.publish_snapshot()
    if shown.drained:
        shown.in_flight = await _in_flight(control, service_id, url)
    return answer(shown)


def _find(session: Session, tenant: Tenant, url: str, ref: str | None) -> tuple[Service, Target]:
    services = [service_by(session, tenant, ref)] if ref is not None else _live(session, tenant)
    found = [
        (service, target)
        for service in services
        for target in targets_of(session, [service])[service.id]
        if target.url == url
    ]
    if not found:
        raise not_found("target", url, {t.url for targets in targets_of(session, services).values() for t in targets})
    if len(found) > 1:
        slugs = ", ".join(service.slug for service, _ in found)
        raise conflict(f"{url} is a target of several services: {slugs}")
    return found[0]


async def _in_flight(control: ControlState, service_id: int, url: str) -> int | None:
    """What the workers still have there; None if not all have told in time."""
    try:
        async with asyncio.timeout(TOLD_WITHIN_S):
            while True:
                views = [view for view in control.plane.targets(service_id) if view.url == url]
                told = {view.seen_by: view.in_flight for view in views if view.state == "drained"}
                if told.keys() >= set(_serving(control)):
                    return sum(told.values())
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return None
