"""The snapshot: the configuration compiled into what a worker looks up, immutable, swapped by one assignment.

Routes of an operator's own and the addresses that a service has of itself (its `paths`; `/{tenant}/{slug}`; `/{slug}`
in the tenant `default`; `/proxy/{id}`) become one kind of thing, a `Route` with its whole policy; `routing` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from gatewayd.conf import RouteConf, ServiceConf, TenantConf, TlsConf
from gatewayd.policy.addresses import DEFAULT_PORTS, built_in_addresses, split_socket
from gatewayd.policy.allowing import compile_allow, compile_networks
from gatewayd.policy.balancing import Rotation
from gatewayd.policy.facts import Route, Service, Shared, Target
from gatewayd.policy.guards import guards_for
from gatewayd.policy.header_rules import compile_rules
from gatewayd.policy.routing import Match, Router


@dataclass(slots=True)
class Snapshot:
    """Compiled configuration. `version` only grows within a worker."""

    version: int
    router: Router[Route]
    key_headers: frozenset[str]
    services: dict[int, Service] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Snapshot {self.version}: {len(self.services)} services, {self.router.size} addresses>"


EMPTY = Snapshot(0, Router(), frozenset({"x-api-key"}))


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
    compiling = Compiling(version, tenants, services, routes, body_limit_bytes, before)
    for _ in compiling.steps():
        pass
    return compiling.snapshot


class Compiling:
    """The same in steps of some microseconds, between which others may have their turn.

    After the last of them `snapshot` is whole, and to be in force at once: how targets are chosen, which is told to the
    rotations that services of both snapshots have, changes with that step.
    """

    def __init__(
        self,
        version: int,
        tenants: Iterable[TenantConf],
        services: Iterable[ServiceConf],
        routes: Iterable[RouteConf],
        body_limit_bytes: int | None,
        before: Snapshot,
    ) -> None:
        self._tenants = {tenant.id: tenant for tenant in tenants}
        self._services = services
        self._routes = routes
        self._body_limit_bytes = body_limit_bytes
        self._before = before
        self.snapshot = Snapshot(version, Router(), EMPTY.key_headers)

    def __repr__(self) -> str:
        return f"<Compiling {self.snapshot}>"

    def steps(self) -> Iterator[None]:
        compiled, changed = self.snapshot.services, []
        for conf in self._services:
            previous = self._before.services.get(conf.id)
            if previous is None or conf != previous.conf:
                targets = _targets_of(conf)
                service = _service_of(conf, targets, Rotation() if previous is None else previous.rotation)
            else:
                service = _service_of(conf, previous.targets, previous.rotation)
            service.imported_keys = conf.tenant_id in self._tenants and self._tenants[conf.tenant_id].imported_keys
            compiled[conf.id] = service
            if previous is not None and service.in_flight is not None and previous.in_flight is not None:
                service.in_flight = previous.in_flight
            if previous is None:
                _configure(service)
            elif conf != previous.conf:
                changed.append(service)
            yield
        pairs = []
        for pair in _Compiler(self._tenants, compiled, self._body_limit_bytes).all_routes(self._routes):
            pairs.append(pair)
            yield
        yield from self.snapshot.router.arrange(pairs)
        self.snapshot.key_headers |= {service.key_header.decode() for service in compiled.values()}
        for service in changed:
            _configure(service)


def addresses(conf: ServiceConf) -> list[str]:
    """Every prefix under which a service answers."""
    return [f"/proxy/{conf.public_id}", *built_in_addresses(conf.tenant, conf.slug), *conf.paths]


def all_matches(
    services: Iterable[ServiceConf], routes: Iterable[RouteConf]
) -> Iterator[tuple[Match, ServiceConf | None, RouteConf | None]]:
    """What leads where: a service at an address of its own, or a route to a service; to none, to the key's own."""
    by_id = {conf.id: conf for conf in services}
    for service in by_id.values():
        for address in addresses(service):
            yield Match(address), service, None
    for route in routes:
        match = Match(route.path, route.exact, route.host, route.methods)
        if route.service_id is None:
            yield match, None, route
        elif route.service_id in by_id:
            yield match, by_id[route.service_id], route


def compile_service(conf: ServiceConf, rotation: Rotation) -> Service:
    """`rotation` is the service's from now on, in the snapshot before too: what is in flight there is told of here."""
    service = _service_of(conf, _targets_of(conf), rotation)
    _configure(service)
    return service


def _configure(service: Service) -> None:
    service.rotation.configure(service.conf, list(zip(service.conf.targets, service.targets, strict=True)))


def _targets_of(conf: ServiceConf) -> tuple[Target, ...]:
    return tuple(compile_target(target.url, conf.tls, target.bound) for target in conf.targets)


def _service_of(conf: ServiceConf, targets: tuple[Target, ...], rotation: Rotation) -> Service:
    """With a rotation that does not know of it yet."""
    return Service(
        conf=conf,
        id=conf.id,
        tenant_id=conf.tenant_id,
        key_header=conf.key_header.lower().encode(),
        targets=targets,
        rotation=rotation,
        idle_timeout_s=conf.idle_timeout_s,
        connect_timeout_s=conf.connect_timeout_s,
        in_flight_limit=conf.in_flight_limit,
        in_flight=None if conf.in_flight_limit is None else set(),
        request_rules=compile_rules(conf.header_rules, "request"),
        response_rules=compile_rules(conf.header_rules, "response"),
    )


def shared_limits(route_id: int = 0, tenant_id: int = 0) -> Shared | None:
    """The limits beside those of keys: those of this route and of this tenant; 0 where it has no rates."""
    return Shared(route_id, tenant_id) if route_id or tenant_id else None


class _Compiler:
    """Routes with their policy: the route's own where it has one, else the service's, else everybody's."""

    def __init__(
        self, tenants: dict[int, TenantConf], services: dict[int, Service], body_limit_bytes: int | None
    ) -> None:
        self._tenants = tenants
        self._services = services
        self._body_limit_bytes = body_limit_bytes

    def all_routes(self, routes: Iterable[RouteConf]) -> Iterator[tuple[Match, Route]]:
        for match, of, conf in all_matches((service.conf for service in self._services.values()), routes):
            if of is not None:
                yield match, self.compile(conf or _own_route(of, match.path), self._services[of.id])
            elif conf is not None:
                yield match, self._key_routed(conf)

    def compile(self, conf: RouteConf, service: Service, *, chooses: _Choice | None = None) -> Route:
        of = service.conf
        tenant = self._tenants.get(service.tenant_id)
        needs_key = (conf.auth or of.auth) != "none"
        limits = (conf.body_limit_bytes, of.body_limit_bytes, self._body_limit_bytes)
        if chooses is not None:  # the chosen service may have more than the default; the route's own holds for all
            limits = (conf.body_limit_bytes, None, None)
        limit = next((given for given in limits if given is not None), None)
        timeout_s = of.timeout_s if conf.timeout_s is None else conf.timeout_s
        first_byte_timeout_s = conf.first_byte_timeout_s
        allow = tenant.allow if tenant is not None and chooses is None else ()
        strip, rewrite = _prefix(conf)
        shared = shared_limits(
            route_id=conf.id if conf.rates else 0,
            tenant_id=service.tenant_id if tenant is not None and tenant.rates else 0,
        )
        return Route(
            service=service,
            guards=guards_for(
                tenant_suspended=tenant is not None and tenant.suspended,
                has_body_limit=limit is not None,
                has_in_flight_limit=of.in_flight_limit is not None,
                needs_key=needs_key,
                has_shared_limits=shared is not None,
                weight=conf.weight,
                has_networks=bool(conf.networks),
                has_allow_list=bool(allow),
                key_chooses=chooses is not None,
            ),
            needs_key=needs_key,
            timeout_s=math.inf if timeout_s is None else timeout_s,
            first_byte_timeout_s=of.first_byte_timeout_s if first_byte_timeout_s is None else first_byte_timeout_s,
            body_limit_bytes=limit,
            strip=strip,
            rewrite=rewrite,
            id=conf.id,
            weight=conf.weight,
            networks=compile_networks(conf.networks),
            allowed=compile_allow(allow) if allow else None,
            of_service=chooses,
            shared=shared,
        )

    def _key_routed(self, conf: RouteConf) -> Route:
        """Until the key is known a service stands in that has no targets and reads keys where they usually are."""
        tenant = self._tenants.get(conf.tenant_id)
        nobodys = ServiceConf(
            id=0, public_id="", tenant_id=conf.tenant_id, tenant="" if tenant is None else tenant.slug, slug="",
            auth="key", targets=(), paths=(), preserve_host=False, timeout_s=None, connect_timeout_s=1.0,
            body_limit_bytes=None, key_header="X-API-Key",
        )  # fmt: skip
        own = msgspec.structs.replace(conf, auth="key")
        stand_in = compile_service(nobodys, Rotation())
        stand_in.imported_keys = tenant is not None and tenant.imported_keys
        return self.compile(own, stand_in, chooses=_Choice(self, own, self._services))


class _Choice:
    """The routes of one key-routed match by service, each compiled when a key first chooses it."""

    def __init__(self, compiler: _Compiler, conf: RouteConf, services: dict[int, Service]) -> None:
        self._compiler = compiler
        self._conf = conf
        self._services = services
        self._routes: dict[int, Route] = {}

    def __repr__(self) -> str:
        return f"<_Choice {self._conf.path} {len(self._routes)} chosen>"

    def __call__(self, service_id: int) -> Route | None:
        route = self._routes.get(service_id)
        service = self._services.get(service_id)
        if route is None and service is not None and service.tenant_id == self._conf.tenant_id:
            route = self._routes[service_id] = self._compiler.compile(self._conf, service)
        return route


def _own_route(service: ServiceConf, address: str) -> RouteConf:
    return RouteConf(0, "", service.tenant_id, service.id, address)


def _prefix(conf: RouteConf) -> tuple[int, bytes]:
    """What is taken off the path, in bytes, or in segments as a number below 0; and what stands in its place."""
    if conf.prefix == "keep":
        return 0, b""
    rewrite = b"" if conf.prefix == "strip" else conf.prefix.encode()
    if conf.path == "/":
        return 0, rewrite
    return -conf.path.count("/") if "{" in conf.path else len(conf.path), rewrite


def compile_target(url: str, tls: TlsConf, bound: bool = False) -> Target:
    """From a URL that was checked when the service was added."""
    if url.startswith("unix:"):
        path, base = split_socket(url)
        return Target(url, _identity(url, bound), path, 0, b"localhost", base.encode(), bound=bound)
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
        identity=_identity(f"{url} {tls!r}" if encrypted else url, bound),
        host=parts.hostname,
        port=port,
        host_header=host_header.encode(),
        base=parts.path.rstrip("/").encode(),
        tls=tls if encrypted else None,
        # The dot that ends an absolute name is no part of it in TLS (RFC 6066 section 3).
        server_name=(tls.server_name or name).rstrip(".") if encrypted else "",
        has_name=not _is_address(parts.hostname),
        bound=bound,
    )


def _identity(shared: str, bound: bool) -> str:
    """A connection that was made for who may go anywhere serves nobody who may not. No URL holds a space."""
    return f"bound {shared}" if bound else shared


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
