"""What a request is and what it meets: its facts, its service, the route and target, and the form of a guard.

One module, because these are one thought: guards decide on facts, facts name the service, a service knows its guards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from gatewayd.channel import LeaseId
from gatewayd.conf import KeyConf, ServiceConf, TlsConf
from gatewayd.errors import Refusal
from gatewayd.policy.allowing import Allowed
from gatewayd.policy.balancing import Rotation
from gatewayd.policy.forwarding import Networks
from gatewayd.policy.header_rules import HeaderRules
from gatewayd.policy.spending import KeyEntry, Lease

CHUNKED: Final = -1  # in place of a body's length: it comes in chunks
UNTIL_CLOSE: Final = -2  # it ends with the connection (responses only)


class Need(Enum):
    """What a guard lacks before it can decide."""

    KEY = "key"
    LEASE = "lease"
    ADDRESS = "address"
    ROUTE = "route"
    CLIENT = "client"
    SLOT = "slot"


NEED_KEY = Need.KEY
NEED_LEASE = Need.LEASE
# These two need no waiting. Asked for, since hardly any request is judged by them and setting one costs them all.
NEED_ADDRESS = Need.ADDRESS  # `facts.address`
NEED_ROUTE = Need.ROUTE  # `facts.route` is another now, by whose guards the request is judged from the first
NEED_CLIENT = Need.CLIENT
NEED_SLOT = Need.SLOT

Answer = Refusal | Need | None


class Fields:
    """What a request's header fields say. Made by `proxy.head`.

    Apart from the facts because a connection's requests mostly repeat them byte for byte: then they are read once.
    """

    __slots__ = (
        "body_length", "client", "connection_named", "credential", "cut", "expects_continue", "host", "http_1_0",
        "keep_alive", "kept", "passed", "pattern", "proven", "public_id", "raw", "read_for", "request_id", "sent",
        "takes_trailers", "upgrade",
    )  # fmt: skip

    raw: bytes  # as they came; with the two below, the same fields say the same
    pattern: re.Pattern[bytes]
    http_1_0: bool
    host: bytes
    keep_alive: bool
    body_length: int  # bytes, or CHUNKED
    expects_continue: bool  # of a body, before which it waits
    takes_trailers: bool
    upgrade: tuple[bytes, ...]  # protocols that it asks to switch to and may, lower case
    request_id: bytes | None
    connection_named: frozenset[bytes]  # headers that Connection names beside the usual, lower case
    cut: list[tuple[bytes, bytes, bytes]]  # lower name, name, value: were cut out and may yet have to pass
    kept: bytes  # the headers that pass, each beginning with CRLF, and the empty line
    read_for: Route | None  # what the next four were worked out for
    credential: bytes | None  # the API key, where the service asks for one
    public_id: str  # what it names, if it is one
    passed: bytes  # those of `cut` that pass to the service's upstream, each ending in CRLF
    client: str | None  # the X-Client-ID, "" where there is none that can be used; None: not looked for yet
    sent: bytes  # `kept`, by the service's rules
    proven: tuple[bytes, KeyConf, int] | None  # a credential that was found to be this key's generation


class Facts:
    """One request. Made by `proxy.head`; what stands below the blank line is filled in as it is judged.

    With slots and no initialiser: it is made for every request, and each level of call or object would cost more than
    a guard.
    """

    __slots__ = (
        "address",
        "client_id",
        "fields",
        "key",
        "keys",
        "lease",
        "method",
        "path",
        "query",
        "route",
        "service",
    )

    method: bytes
    path: bytes  # as it came, never decoded
    query: bytes  # with its question mark, or empty
    fields: Fields

    route: Route
    service: Service  # the route's
    keys: dict[str, KeyEntry]  # the worker's memory
    key: KeyEntry | None
    address: bytes  # the client's, once a guard has needed it
    lease: Lease | None  # what it is charged to, once its limits are looked at
    client_id: int  # set where its key has clients, and nowhere else


Guard = Callable[[Facts, float, float], Answer]  # facts, monotonic now, seconds since 1970


@dataclass(frozen=True, slots=True)
class Target:
    """One upstream base URL, ready for use. `host_header` is what goes on the wire; `base` has no trailing slash.

    `identity` tells apart whose connections may be shared: the URL, how TLS is spoken, and where it may lead. A string
    knows its hash.
    """

    url: str
    identity: str
    host: str  # or the path of a Unix socket
    port: int  # 0 for a Unix socket
    host_header: bytes
    base: bytes
    tls: TlsConf | None = None  # None: in the clear
    server_name: str = ""  # that the certificate must be for
    has_name: bool = False  # `host` must be looked up; else it is an address
    bound: bool = False  # no address of the gateway's own machine is connected to


@dataclass(slots=True)
class Service:
    """A service as a request meets it. Two things move: `rotation`, how its targets stand, and `in_flight`."""

    conf: ServiceConf
    id: int
    tenant_id: int
    key_header: bytes  # lower case
    targets: tuple[Target, ...]
    rotation: Rotation  # one for all snapshots that have this service
    idle_timeout_s: float
    connect_timeout_s: float
    in_flight_limit: int | None = None
    # The requests that have a place of the limit; one set for all snapshots that have this service. None: no limit. A
    # set and not a count: to leave it twice, or without having come in, does no harm.
    in_flight: set[Facts] | None = None
    request_rules: HeaderRules | None = None
    response_rules: HeaderRules | None = None
    imported_keys: bool = False  # its tenant has some: what is no key of ours is looked up by its digest

    def __repr__(self) -> str:
        return f"<Service {self.conf.tenant}/{self.conf.slug} {len(self.targets)} targets>"


@dataclass(slots=True, eq=False)
class Shared:
    """Limits that a route has beside those of its callers' keys: its own, its tenant's, or both. 0: not that one."""

    route_id: int
    tenant_id: int
    leases: dict[LeaseId, Lease] = field(default_factory=dict)  # of requests that are charged to no key


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Where a match leads, and under what policy. An address that a service has of itself is a route without a row."""

    service: Service
    guards: tuple[Guard, ...]  # of those in `guards.ORDER`, the ones that can refuse here
    needs_key: bool
    timeout_s: float  # infinite where there is no limit
    first_byte_timeout_s: float
    body_limit_bytes: int | None
    strip: int  # how many bytes of the path the prefix takes, 0 for `/`; below 0: how many segments
    rewrite: bytes = b""  # what stands in their place
    id: int = 0  # 0: no row
    weight: int = 1  # units that a request takes of limits and quotas
    networks: Networks = ()  # from which it may be called; empty: from everywhere
    allowed: Allowed | None = None  # what its tenant allows
    # Where the key's own service answers: the route for a service of the tenant. `service` is a stand-in until then.
    of_service: Callable[[int], Route | None] | None = None
    shared: Shared | None = None
