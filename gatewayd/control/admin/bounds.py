"""What one who is bound to a tenant may not name, though its role could: the gateway's own machine and the addresses of
others.

Workers run as the daemon's user, on its machine. A target there, such as a socket, a service that believes whoever
comes from loopback, or the machine's metadata service (169.254.169.254), would be open to the callers of the tenant's
service, and so would files. What is behind a name may change at any time: where DNS leads it is judged when it is
connected to (`own_machine`), and here no more than what is written. So targets and alerts keep whether somebody who is
bound has named them (`names_bound`).

Addresses are one space for all tenants. An operator of one has what is below `/TENANT/`, and hosts that are the
tenant's alone because somebody who is not bound has made a route for them; else it could put a longer path below
another's address and be sent that one's callers with their keys.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from sqlmodel import Session, col, select
from starlette.requests import Request

from gatewayd import own_machine
from gatewayd.control.admin.callers import caller_of
from gatewayd.control.admin.problems import AdminError
from gatewayd.control.tables import Route, Service, Tenant
from gatewayd.errors import NOT_PERMITTED
from gatewayd.policy.addresses import DEFAULT_TENANT
from gatewayd.policy.routing import Match

_OWN_NAMES = ("localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback")  # as /etc/hosts has


def refuse_own_machine(request: Request, field: str, urls: Iterable[str]) -> None:
    if caller_of(request).tenant is None:
        return
    for url in urls:
        if names_this_machine(url):
            raise _not_for(request, field, f"{url} is of the gateway's own machine or network link")


def names_bound(request: Request) -> bool:
    """Whether what is named by this request may never lead to the gateway's own machine, whatever DNS says."""
    return caller_of(request).tenant is not None


def refuse_files(request: Request, files: Mapping[str, str | None], before: Mapping[str, str | None]) -> None:
    """By field. What stays as it is may be sent along."""
    if caller_of(request).tenant is None:
        return
    for field, file in files.items():
        if file is not None and file != before.get(field):
            raise _not_for(request, field, f"{field} names a file of the gateway's machine")


def refuse_fields(request: Request, fields: Iterable[str]) -> None:
    """Fields that say how the gateway treats the tenant."""
    if caller_of(request).tenant is not None:
        for field in fields:
            raise _not_for(request, field, f"{field} is the gateway's word over the tenant")


def refuse_outside(
    request: Request, session: Session, tenant: Tenant, match: Match, own_id: int | None, before: Match | None = None
) -> None:
    """`before`: what was matched until now, by the route `own_id`."""
    if caller_of(request).tenant is None:
        return
    if match.host is None:
        as_it_was = before is not None and (before.host, before.path) == (None, match.path)
        if not as_it_was and match.path.split("/")[1] not in _own_segments(session, tenant):
            raise _not_for(request, "path", f"{match.path} is not below an address of the tenant's own")
        return
    others, own = _with_host(session, match.host, tenant, own_id)
    if others or not (own or (before is not None and before.host == match.host)):
        raise _not_for(request, "host", f"the host {match.host} is not the tenant's alone")


def names_this_machine(url: str) -> bool:
    if url[:5].lower() == "unix:":
        return True
    host = (urlsplit(url).hostname or "").rstrip(".")
    address = _address(host)
    if address is None:
        return host in _OWN_NAMES or host.endswith(".localhost") or host == socket.gethostname().lower()
    return own_machine.is_of_this_machine(str(address))


def _address(host: str) -> own_machine.Address | None:
    """Also in the forms that the resolver takes for one: `127.1`, `2130706433`, `0x7f000001` (inet_aton(3))."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _own_segments(session: Session, tenant: Tenant) -> set[str]:
    """What the path of an address of the tenant's own begins with."""
    if tenant.slug != DEFAULT_TENANT:
        return {tenant.slug}
    live = (Service.tenant_id == tenant.id, col(Service.removed_at).is_(None))
    return {DEFAULT_TENANT, *session.exec(select(Service.slug).where(*live))}


def _with_host(session: Session, host: str, tenant: Tenant, own_id: int | None) -> tuple[bool, bool]:
    """Whether others, and whether the tenant has routes with this host, but for the one in question."""
    with session.no_autoflush:  # it may have been changed already, and is not to be its own leave
        query = select(Route.tenant_id).where(Route.host == host, col(Route.removed_at).is_(None))
        owners = set(session.exec(query if own_id is None else query.where(Route.id != own_id)))
    return bool(owners - {tenant.id}), tenant.id in owners


def _not_for(request: Request, field: str, why: str) -> AdminError:
    return AdminError(NOT_PERMITTED, f"{why}, and {caller_of(request)}", field=field)
