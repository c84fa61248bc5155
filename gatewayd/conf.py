"""What the data plane is configured with: tenants, services, routes and keys as a snapshot and a look-up carry them.

Control makes these of the database's rows, the channel carries them to the workers, and policy decides by them. They
hold what was decided, and nothing of how it is stored or shown.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class RateConf(msgspec.Struct, frozen=True, array_like=True):
    """One window of a plan: `limit` per `window_s` seconds, refilled continuously, at most `burst` at once."""

    name: str  # "minute", "second", ..., or "90s"
    limit: int
    window_s: int
    burst: int


class TargetConf(msgspec.Struct, frozen=True, array_like=True):
    url: str  # http://host:port[/base], https://... or unix:/socket[:/base]
    weight: int
    drained: bool = False  # by an operator: it gets no new request
    bound: bool = False  # somebody bound to a tenant has named it: it may not lead to the gateway's own machine


class TlsConf(msgspec.Struct, frozen=True):
    """How a service's `https` targets are spoken to. Files are on the gateway's machine, in PEM."""

    verify: bool = True
    server_name: str | None = None  # for SNI and verification; None: the target's host
    ca_file: str | None = None  # None: the system's
    cert_file: str | None = None  # of a client certificate
    key_file: str | None = None


class HealthConf(msgspec.Struct, frozen=True):
    """How a service's targets are watched. Active checks need a path; passive ejection needs a count."""

    path: str | None = None  # asked of every target by control; None: no active checks
    interval_s: float = 10.0
    timeout_s: float = 5.0
    healthy_after: int = 2  # good answers (2xx, 3xx) in a row
    unhealthy_after: int = 3  # bad ones
    eject_after: int | None = None  # 5xx answers and failed connections in a row, as callers meet them; None: never
    eject_s: float = 30.0
    slow_start_s: float = 0.0  # over which a target that has come back takes its full share again


class BreakerConf(msgspec.Struct, frozen=True):
    """When a target's circuit opens: `failures` of the last `window_s` at least, and this part of all in them."""

    failures: int = 20  # no connection, no answer in time, a broken or invalid answer; 0: no breaker
    ratio: float = 0.5
    window_s: float = 10.0
    open_s: float = 10.0  # then half-open: one request at a time may try


class HeaderRuleConf(msgspec.Struct, frozen=True, array_like=True):
    side: Literal["request", "response"]
    action: Literal["set", "add", "remove"]
    name: str
    value: str = ""


class ServiceConf(msgspec.Struct, frozen=True):
    """A service as the data plane needs it."""

    id: int
    public_id: str
    tenant_id: int
    tenant: str
    slug: str
    auth: str  # "key" or "none"
    targets: tuple[TargetConf, ...]
    paths: tuple[str, ...]  # prefixes of its own, beside the built-in addresses
    preserve_host: bool
    timeout_s: float | None  # from the request's head to the response's last byte; None: as long as it takes
    connect_timeout_s: float
    body_limit_bytes: int | None
    key_header: str
    first_byte_timeout_s: float = 30.0  # from the request's head, or what has come of its body, to the response's head
    idle_timeout_s: float = 300.0  # without a byte either way, in a response that streams or a tunnel
    tunnel_lifetime_s: float | None = 86400.0  # of a tunnel after an upgrade; None: no limit
    in_flight_limit: int | None = None  # requests at once, in each worker
    tls: TlsConf = TlsConf()
    balance: str = "round-robin"  # or "least-outstanding" or "hash"
    hash_on: str = "address"  # or "key", "client", "header:NAME"
    health: HealthConf = HealthConf()
    breaker: BreakerConf = BreakerConf()
    header_rules: tuple[HeaderRuleConf, ...] = ()


class TenantConf(msgspec.Struct, frozen=True, array_like=True):
    id: int
    slug: str
    suspended: bool
    rates: tuple[RateConf, ...] = ()  # of all its services together
    allow: tuple[str, ...] = ()  # "GET /v1/users/*"; empty: everything
    imported_keys: bool = False  # there are some: a credential that is no key of ours may yet be one


class RouteConf(msgspec.Struct, frozen=True):
    """A route of an operator's own. What is None here is as the service has it."""

    id: int
    public_id: str
    tenant_id: int
    service_id: int | None  # None: the key's own service
    path: str  # "/v1/users/{name}"
    exact: bool = False  # else what is below it matches too
    host: str | None = None  # "api.example.com", "*.example.com"; None: any
    methods: tuple[str, ...] | None = None  # None: all
    prefix: str = "strip"  # or "keep", or what stands in its place: "/v2"
    auth: str | None = None  # "key" or "none"
    rates: tuple[RateConf, ...] = ()  # of all its callers together
    weight: int = 1
    timeout_s: float | None = None
    first_byte_timeout_s: float | None = None
    body_limit_bytes: int | None = None
    networks: tuple[str, ...] = ()  # from which it may be called; empty: from everywhere


class OlderConf(msgspec.Struct, frozen=True, array_like=True):
    """A generation of a key that was rotated away: it works until then, or is known so that its refusal says why."""

    number: int
    digest: bytes
    until: float | None  # seconds since 1970
    ended: bool = False  # before that, by an operator or because it was quiet


class KeyConf(msgspec.Struct, frozen=True):
    """A key as the data plane needs it. Its limits stay with the lessor: a worker spends leases."""

    id: int
    public_id: str
    digest: bytes
    tenant_id: int
    services: frozenset[int] | None  # None: every service of the tenant
    revoked: bool
    expires_at: float | None  # seconds since 1970
    rates: tuple[RateConf, ...]
    quota: int | None  # units of admitted requests per calendar month, UTC; without what was granted on top
    price_id: int
    generation: int = 1
    older: tuple[OlderConf, ...] = ()
    disabled: bool = False
    allow: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    in_flight_limit: int | None = None  # requests at once, over all workers
    quota_soft: bool = False  # counted, and passed beyond
    shadow: bool = False  # no limit of this key is enforced; what it would have refused is flagged
    has_clients: bool = False  # X-Client-ID means something


class ClientConf(msgspec.Struct, frozen=True, array_like=True):
    """A client that counts on its own within a key."""

    id: int
    limited: bool  # it has rates of its own, or the plan has
