"""Who may answer at which address: routes and services of all tenants, since callers know nothing of tenants.

A service claims the addresses that it has of itself. A route claims what it matches; beside it nothing may stand that
would tie with it, and without a host it may not lie below an address of another tenant's service, whose callers it
would take away with their keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlmodel import Session, col, select

from gatewayd.control.admin.problems import conflict
from gatewayd.control.tables import Route, Service, Tenant
from gatewayd.policy.addresses import Claim, claimed_already
from gatewayd.policy.routing import Match, clash

_strings = msgspec.json.Decoder(tuple[str, ...])


def match_of(route: Route) -> Match:
    methods = None if route.methods is None else _strings.decode(route.methods)
    return Match(route.path, route.exact, route.host, methods)


def refuse_claimed(session: Session, claim: Claim, own_id: int | None) -> None:
    """`own_id`: of the service, where it exists already."""
    reason = claimed_already(claim, (other for other, id_ in _claims(session) if id_ != own_id))
    if reason is not None:
        raise conflict(reason)
    for route, tenant in _routes(session, host=None):
        for address in claim.addresses():
            below = tenant != claim.tenant and address != "/" and route.path.startswith(f"{address}/")
            if below or clash(match_of(route), Match(address)):
                raise conflict(f"the address {address} is already that of {described(route, tenant)}")


def refuse_clash(session: Session, tenant: str, match: Match, own_id: int | None) -> None:
    """`own_id`: of the route, where it exists already."""
    for route, owner in _routes(session, match.host):
        if route.id != own_id and clash(match, match_of(route)):
            raise conflict(f"{match} would tie with {described(route, owner)}")
    if match.host is not None:
        return
    above = set(_prefixes(match.path))
    for claim, _ in _claims(session):
        for address in claim.addresses():
            if clash(match, Match(address)):
                raise conflict(f"the address {address} is already that of service {claim}")
            if claim.tenant != tenant and address in above:
                raise conflict(f"{match.path} lies below {address}, which is an address of service {claim}")


def described(route: Route, tenant: str) -> str:
    return f"route {route.name or route.public_id} ({match_of(route)}) of tenant {tenant}"


def _routes(session: Session, host: str | None) -> Iterator[tuple[Route, str]]:
    """With this host, of all tenants, and their tenants' slugs."""
    query = select(Route, Tenant.slug).join(Tenant, col(Tenant.id) == col(Route.tenant_id))
    yield from session.exec(query.where(col(Route.removed_at).is_(None), col(Route.host) == host))


def _claims(session: Session) -> Iterator[tuple[Claim, int | None]]:
    """Claim and number of each live service."""
    rows = session.execute(
        select(Tenant.slug, Service.slug, Service.paths, Service.id)
        .join(Tenant, col(Tenant.id) == col(Service.tenant_id))
        .where(col(Service.removed_at).is_(None))
    )
    return ((Claim(tenant, slug, _strings.decode(paths)), id_) for tenant, slug, paths, id_ in rows)


def _prefixes(path: str) -> Iterator[str]:
    """`/a`, `/a/b` of `/a/b/{id}/c`: the path, and what it lies below."""
    taken = ""
    for segment in Match(path).segments():
        if segment[:1] == "{":
            return
        taken += f"/{segment}"
        yield taken
