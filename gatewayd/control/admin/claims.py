"""Whether a service or a route may have the addresses that it wants (`policy.claims`), by the database."""

from __future__ import annotations

import msgspec
from sqlmodel import Session, col, select

from gatewayd.control.admin.problems import TakenError
from gatewayd.control.tables import Route, Service, Tenant
from gatewayd.policy.addresses import Claim
from gatewayd.policy.claims import ClaimedRoute, Claims
from gatewayd.policy.routing import Match

_strings = msgspec.json.Decoder(tuple[str, ...])


def match_of(route: Route) -> Match:
    methods = None if route.methods is None else _strings.decode(route.methods)
    return Match(route.path, route.exact, route.host, methods)


def refuse_claimed(session: Session, claim: Claim, own_id: int | None) -> None:
    """`own_id`: of the service, where it exists already."""
    if taken := _claims(session).against_service(("service", own_id), claim):
        raise TakenError(taken.why, taken.tenant)


def refuse_clash(session: Session, tenant: str, match: Match, own_id: int | None) -> None:
    """`own_id`: of the route, where it exists already."""
    if taken := _claims(session).against_route(("route", own_id), ClaimedRoute(tenant, "", match)):
        raise TakenError(taken.why, taken.tenant)


def _claims(session: Session) -> Claims:
    """Of all that is live. By columns: as objects, thousands of routes would take three times as long."""
    claims = Claims()
    services = (
        select(Service.id, Tenant.slug, Service.slug, Service.paths)
        .join(Tenant, col(Tenant.id) == col(Service.tenant_id))
        .where(col(Service.removed_at).is_(None))
    )
    for id_, tenant, slug, paths in session.execute(services):
        claims.add_service(("service", id_), Claim(tenant, slug, _strings.decode(paths)))
    columns = (Route.id, Tenant.slug, Route.name, Route.public_id, Route.path, Route.exact, Route.host, Route.methods)
    routes = select(*columns).join(Tenant, col(Tenant.id) == col(Route.tenant_id))  # type: ignore[call-overload]
    for id_, tenant, name, public_id, path, exact, host, methods in session.execute(
        routes.where(col(Route.removed_at).is_(None))
    ):
        match = Match(path, exact, host, None if methods is None else _strings.decode(methods))
        claims.add_route(("route", id_), ClaimedRoute(tenant, name or public_id, match))
    return claims
