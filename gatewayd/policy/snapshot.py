"""The snapshot: the configuration compiled into what a worker looks up, immutable, swapped by one assignment.

Addresses of a service, all equal in standing: its own `paths`; `/{tenant}/{slug}`; `/{slug}` in the tenant `default`;
`/proxy/{id}`. The most specific wins, and that is the one with the most path segments; no two of the same length can
match (control refuses to create the second). So matching is: cut the path after n segments, for n from the longest
prefix known with the path's first segment down to one, and look the cut up; last comes `/`. Its cost depends on the
depth of the prefixes, not on their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from gatewayd.channel import RouteConf, ServiceConf, TenantConf, TlsConf
from gatewayd.policy.addresses import DEFAULT_PORTS, built_in_addresses, split_socket
from gatewayd.policy.facts import Route, Service, Target
from gatewayd.policy.guards import guards_for


@dataclass(slots=True)
class Snapshot:
    """Compiled configuration. `version` only grows within a worker."""

    version: int
    routes: dict[bytes, Route]
    depths: dict[bytes, int]  # by first segment: how many segments the longest prefix has that begins with it
    key_headers: frozenset[str]
    services: dict[int, Service] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Snapshot {self.version}: {len(self.services)} services, {len(self.routes)} addresses>"

    def match(self, path: bytes) -> Route | None:
        """The route of this raw path (no query), or None. Bytes are compared as they came, never decoded."""
        end = path.find(b"/", 1)
        depth = self.depths.get(path if end < 0 else path[:end], 0)
        if depth == 1:  # no longer prefix begins like this
            return self.routes[path if end < 0 else path[:end]]
        if depth:
            segments = path.split(b"/", depth + 1)
            for count in range(min(len(segments), depth + 1), 1, -1):
                route = self.routes.get(b"/".join(segments[:count]))
                if route is not None:
                    return route
        return self.routes.get(b"/")


EMPTY = Snapshot(0, {}, {}, frozenset({"x-api-key"}))


def compile_snapshot(
    version: int,
    tenants: Iterable[TenantConf],
    services: Iterable[ServiceConf],
    routes: Iterable[RouteConf] = (),
    body_limit_bytes: int | None = None,
    before: Snapshot = EMPTY,
) -> Snapshot:
    """Everything a request will look up, worked out once. `body_limit_bytes`: for services without their own.

    `before`: the snapshot that this one replaces. What is in flight goes on, and keeps its places.
    """
    suspended = {tenant.id for tenant in tenants if tenant.suspended}
    table: dict[bytes, Route] = {}
    compiled: dict[int, Service] = {}
    for conf in services:
        service = compile_service(conf)
        compiled[conf.id] = service
        previous = before.services.get(conf.id)
        if service.in_flight is not None and previous is not None and previous.in_flight is not None:
            service.in_flight = previous.in_flight
        for address in addresses(conf):
            prefix = address.encode()
            table[prefix] = compile_address(service, prefix, conf.tenant_id in suspended, body_limit_bytes)
    depths: dict[bytes, int] = {}
    for prefix in table.keys() - {b"/"}:
        first = b"/" + prefix.split(b"/", 2)[1]
        depths[first] = max(depths.get(first, 0), prefix.count(b"/"))
    key_headers = frozenset(service.key_header.decode() for service in compiled.values()) | {"x-api-key"}
    return Snapshot(version, table, depths, key_headers, compiled)


def addresses(conf: ServiceConf) -> list[str]:
    """Every prefix under which a service answers."""
    return [f"/proxy/{conf.public_id}", *built_in_addresses(conf.tenant, conf.slug), *conf.paths]


def compile_service(conf: ServiceConf) -> Service:
    targets = tuple(compile_target(target.url, conf.tls) for target in conf.targets for _ in range(target.weight))
    return Service(
        conf=conf,
        id=conf.id,
        tenant_id=conf.tenant_id,
        key_header=conf.key_header.lower().encode(),
        targets=targets,
        idle_timeout_s=conf.idle_timeout_s,
        connect_timeout_s=conf.connect_timeout_s,
        in_flight_limit=conf.in_flight_limit,
        in_flight=None if conf.in_flight_limit is None else set(),
    )


def compile_address(service: Service, prefix: bytes, tenant_suspended: bool, body_limit_bytes: int | None) -> Route:
    """One of the addresses that a service has of itself: its policy is the service's."""
    conf = service.conf
    limit = body_limit_bytes if conf.body_limit_bytes is None else conf.body_limit_bytes
    needs_key = conf.auth != "none"
    return Route(
        service=service,
        guards=guards_for(
            tenant_suspended=tenant_suspended,
            has_body_limit=limit is not None,
            has_in_flight_limit=conf.in_flight_limit is not None,
            needs_key=needs_key,
        ),
        needs_key=needs_key,
        timeout_s=math.inf if conf.timeout_s is None else conf.timeout_s,
        first_byte_timeout_s=conf.first_byte_timeout_s,
        body_limit_bytes=limit,
        strip=0 if prefix == b"/" else len(prefix),
    )


def compile_target(url: str, tls: TlsConf) -> Target:
    """From a URL that was checked when the service was added."""
    if url.startswith("unix:"):
        path, base = split_socket(url)
        return Target(url, url, path, 0, b"localhost", base.encode())
    parts = urlsplit(url)
    assert parts.hostname is not None
    default_port = DEFAULT_PORTS[parts.scheme]
    port = parts.port or default_port
    # An IPv6 zone is this machine's affair and not the upstream's (RFC 6874 section 4).
    name = parts.hostname.partition("%")[0]
    host_header = f"[{name}]" if ":" in name else name
    if port != default_port:
        host_header += f":{port}"
    encrypted = parts.scheme == "https"
    return Target(
        url=url,
        identity=f"{url} {tls!r}" if encrypted else url,
        host=parts.hostname,
        port=port,
        host_header=host_header.encode(),
        base=parts.path.rstrip("/").encode(),
        tls=tls if encrypted else None,
        # The dot that ends an absolute name is no part of it in TLS (RFC 6066 section 3).
        server_name=(tls.server_name or name).rstrip(".") if encrypted else "",
        has_name=not _is_address(parts.hostname),
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
