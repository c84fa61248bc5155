"""The snapshot: the configuration compiled into what a worker looks up, immutable, swapped by one assignment.

Addresses of a service, all equal in standing: its own `paths`; `/{tenant}/{slug}`; `/{slug}` in the tenant `default`;
`/proxy/{id}`. The most specific wins, and that is the one with the most path segments; no two of the same length can
match (control refuses to create the second). So matching is: cut the path after n segments, for n from the longest
prefix known down to none, and look the cut up. Its cost depends on the depth of the prefixes, not on their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gatewayd.channel import ServiceConf, TenantConf

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Target:
    """One upstream base URL, ready for use. `host_header` is what goes on the wire; `base` has no trailing slash."""

    url: str
    host: str
    port: int
    host_header: bytes
    base: bytes


@dataclass(slots=True)
class Service:
    """A service as a request meets it. `turn` is the one thing that moves: whose turn it is among the targets."""

    conf: ServiceConf
    tenant_suspended: bool
    id: int
    tenant_id: int
    needs_key: bool
    key_header: bytes  # lower case
    targets: tuple[Target, ...]  # each as often as its weight says
    timeout_s: float
    connect_timeout_s: float
    body_limit_bytes: int | None
    turn: int = 0

    def __repr__(self) -> str:
        return f"<Service {self.conf.tenant}/{self.conf.slug} {len(set(self.targets))} targets>"

    def next_target(self) -> Target:
        """Round robin in proportion to the weights."""
        self.turn = (self.turn + 1) % len(self.targets)
        return self.targets[self.turn]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a prefix leads. `strip`: how many bytes of the path the prefix takes, 0 for `/`."""

    service: Service
    strip: int


@dataclass(slots=True)
class Snapshot:
    """Compiled configuration. `version` only grows within a worker."""

    version: int
    routes: dict[bytes, Route]
    depth: int  # segments of the longest prefix
    key_headers: frozenset[str]
    services: dict[int, Service] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Snapshot {self.version}: {len(self.services)} services, {len(self.routes)} addresses>"

    def match(self, path: bytes) -> Route | None:
        """The route of this raw path (no query), or None. Bytes are compared as they came, never decoded."""
        routes = self.routes
        segments = path.split(b"/", self.depth + 1)
        for count in range(min(len(segments), self.depth + 1), 1, -1):
            route = routes.get(b"/".join(segments[:count]))
            if route is not None:
                return route
        return routes.get(b"/")


EMPTY = Snapshot(0, {}, 0, frozenset({"x-api-key"}))


def compile_snapshot(
    version: int, tenants: Iterable[TenantConf], services: Iterable[ServiceConf], body_limit_bytes: int | None = None
) -> Snapshot:
    """Everything a request will look up, worked out once. `body_limit_bytes`: for services without their own."""
    suspended = {tenant.id for tenant in tenants if tenant.suspended}
    routes: dict[bytes, Route] = {}
    compiled: dict[int, Service] = {}
    for conf in services:
        service = compile_service(conf, conf.tenant_id in suspended, body_limit_bytes)
        compiled[conf.id] = service
        for address in addresses(conf):
            prefix = address.encode()
            routes[prefix] = Route(service, 0 if prefix == b"/" else len(prefix))
    depth = max((prefix.count(b"/") for prefix in routes), default=0)
    key_headers = frozenset(service.key_header.decode() for service in compiled.values()) | {"x-api-key"}
    return Snapshot(version, routes, depth, key_headers, compiled)


def addresses(conf: ServiceConf) -> list[str]:
    """Every prefix under which a service answers."""
    found = [f"/proxy/{conf.public_id}", f"/{conf.tenant}/{conf.slug}", *conf.paths]
    if conf.tenant == DEFAULT_TENANT:
        found.append(f"/{conf.slug}")
    return found


def compile_service(conf: ServiceConf, tenant_suspended: bool, body_limit_bytes: int | None) -> Service:
    targets = tuple(compile_target(target.url) for target in conf.targets for _ in range(target.weight))
    return Service(
        conf=conf,
        tenant_suspended=tenant_suspended,
        id=conf.id,
        tenant_id=conf.tenant_id,
        needs_key=conf.auth != "none",
        key_header=conf.key_header.lower().encode(),
        targets=targets,
        timeout_s=conf.timeout_s,
        connect_timeout_s=conf.connect_timeout_s,
        body_limit_bytes=body_limit_bytes if conf.body_limit_bytes is None else conf.body_limit_bytes,
    )


def compile_target(url: str) -> Target:
    parts = urlsplit(url)
    assert parts.hostname is not None  # checked when the service was added
    host_header = re.sub(r":80$", "", parts.netloc).encode()
    return Target(url, parts.hostname, parts.port or 80, host_header, parts.path.rstrip("/").encode())
