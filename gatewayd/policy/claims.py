"""Who may answer at which address: services and routes of all tenants, since callers know nothing of tenants.

A service claims the addresses that it has of itself. A route claims what it matches; beside it nothing may stand that
would tie with it, and without a host it may not lie at or below an address of another tenant's service, whose callers
it would take away with their keys.

What is there is arranged so that a question costs the same however much there is: a configuration of thousands is
asked about each of its objects.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from gatewayd.policy.addresses import Claim
from gatewayd.policy.routing import Match, clash


class ClaimedRoute(NamedTuple):
    """A route as far as addresses go. `name`: what it is called, its public id where it has no name."""

    tenant: str
    name: str
    match: Match

    def __str__(self) -> str:
        return f"route {f'{self.name} ' if self.name else ''}({self.match}) of tenant {self.tenant}"


class Taken(NamedTuple):
    """Why an address cannot be had, in a sentence, and whose it is: not everybody gets to know."""

    why: str
    tenant: str


class Claims:
    """Services and routes by what they claim. Each is known by an `own`, so that none is in its own way."""

    def __init__(self) -> None:
        self._addresses: dict[str, list[tuple[Hashable, Claim]]] = {}
        self._matches: dict[tuple[str | None, bool, str], list[tuple[Hashable, ClaimedRoute]]] = {}
        self._below: dict[str, list[tuple[Hashable, ClaimedRoute]]] = {}  # routes for any host, by what they lie below

    def __repr__(self) -> str:
        return f"<Claims {len(self._addresses)} addresses, {len(self._matches)} kinds of routes>"

    def add_service(self, own: Hashable, claim: Claim) -> None:
        for address in claim.addresses():
            self._addresses.setdefault(address, []).append((own, claim))

    def add_route(self, own: Hashable, route: ClaimedRoute) -> None:
        match = route.match
        self._matches.setdefault((match.host, match.exact, match.shape()), []).append((own, route))
        if match.host is None:
            for prefix in _prefixes(match):
                self._below.setdefault(prefix, []).append((own, route))

    def against_service(self, own: Hashable, claim: Claim) -> Taken | None:
        """None when it can be."""
        addresses = claim.addresses()
        for address in addresses:
            for other, claimed in self._addresses.get(address, ()):
                if other != own:
                    return Taken(f"the address {address} is already that of service {claimed}", claimed.tenant)
        for address in addresses:
            for _, route in self._below.get(address, ()):
                if route.tenant != claim.tenant:
                    return Taken(f"the address {address} is already that of {route}", route.tenant)
            match = Match(address)
            for _, route in self._matches.get((None, False, match.shape()), ()):
                if clash(route.match, match):
                    return Taken(f"the address {address} is already that of {route}", route.tenant)
        return None

    def against_route(self, own: Hashable, route: ClaimedRoute) -> Taken | None:
        """None when it can be."""
        match = route.match
        for other, there in self._matches.get((match.host, match.exact, match.shape()), ()):
            if other != own and clash(match, there.match):
                return Taken(f"{match} would tie with {there}", there.tenant)
        if match.host is not None:
            return None
        for _, claim in self._addresses.get(match.path, ()):
            if clash(match, Match(match.path)):
                return Taken(f"the address {match.path} is already that of service {claim}", claim.tenant)
        for prefix in _prefixes(match):
            for _, claim in self._addresses.get(prefix, ()):
                if claim.tenant != route.tenant:
                    why = f"{match.path} lies below {prefix}, which is an address of service {claim}"
                    return Taken(why, claim.tenant)
        return None


def ambiguous(slug: str) -> str:
    """A tenant and a service of the tenant default of one name: `/acme/orders` would be either's."""
    return f"{slug!r} is a service of the tenant default, so /{slug}/ would be ambiguous"


def _prefixes(match: Match) -> Iterator[str]:
    """`/a`, `/a/b` of `/a/b/{id}/c`: the path, and what it lies below."""
    taken = ""
    for segment in match.segments():
        if segment[:1] == "{":
            return
        taken += f"/{segment}"
        yield taken
