"""What control and a worker say to each other, and how it is framed.

A worker connects to control's Unix socket, control greets it, it says Hello; control answers with Welcome and from then
on keeps it abreast. The worker waits for the greeting because the supervisor holds the socket: while control restarts,
the kernel takes connections on its behalf.

Both directions are streams of frames: length u32, then one message in MessagePack. The order of frames is the order of
events, which is what makes revocation safe: control answers a key look-up from the database and announces changes on
the same stream, so a worker can never learn an old state after a new one. A worker that loses the channel serves on
with what it has, and when control greets it again forgets every cached key.

A Changed carries a number; the worker answers Applied with it once the change is in force. The admin API waits for
these before it answers, so when `gatectl key revoke` returns the key is already refused everywhere.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 256 << 20  # a snapshot of a hundred thousand services is far below; beyond it is garbage


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


# What a worker remembers of the requests that have been, for `explain`.
REFUSED_KEPT = 512  # of each code, of which few are ever in use: 0.4 MB for each that is
OTHERS_KEPT = 1024
SAMPLED: Final = 128  # one of so many of the rest is kept
KEPT = (
    f"each worker keeps the last {REFUSED_KEPT} refusals of each code, and of the others 1 in {SAMPLED}, "
    f"the last {OTHERS_KEPT}"
)

# What becomes of a request, step by step: what `explain` answers, as it stands in the admin API too.


class LimitTold(msgspec.Struct, frozen=True):
    """One limit as it was when the request was judged. `detail` is its arithmetic in words."""

    of: str  # whose it is: "key", "client", "route", "tenant"
    name: str  # "minute", "month"
    limit: int
    window_s: int | None  # None: a calendar month, UTC
    burst: int | None
    remaining: int
    more_in_s: float  # until one more is left, or until the month ends
    detail: str


class StepTold(msgspec.Struct, frozen=True):
    """One step. `fail`: the request was admitted, and could not be answered."""

    step: str
    outcome: Literal["pass", "refuse", "fail", "skip"]
    detail: str
    limits: tuple[LimitTold, ...] = ()


class RequestTold(msgspec.Struct, frozen=True):
    """`path` is without its query; `key` is what is public of it."""

    id: str | None  # None: it has not been sent
    at: str
    method: str
    path: str
    host: str
    address: str
    key: str | None


class ForwardTold(msgspec.Struct, frozen=True):
    """What a target would get. Of headers only names: a value may be the upstream's secret."""

    target: str
    url: str
    headers_set: tuple[str, ...]
    headers_removed: tuple[str, ...]
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    timeout_s: float | None


class Told(msgspec.Struct, frozen=True):
    """`status` and `code`: of the gateway's own answer, or the status that an upstream has answered with."""

    request: RequestTold
    outcome: Literal["admitted", "refused"]
    status: int | None
    code: str | None
    steps: tuple[StepTold, ...]
    would_pass: str | None  # what would have let it pass
    forward: ForwardTold | None = None
    worker: int = 0  # who tells; places in flight are counted in each worker


# From a worker.


class LeaseId(NamedTuple):
    """What a request is charged to, all at once or not at all. 0: nothing of that kind limits it.

    With a client, its own buckets stand in place of the key's; the quota is the key's still. A tenant's limits count
    for every request to its services, a route's for all its callers.
    """

    key_id: int
    client_id: int = 0
    route_id: int = 0
    tenant_id: int = 0


class Left(msgspec.Struct, frozen=True, array_like=True):
    """What one limit has left after a grant, and when it next has more (seconds from now; past is negative)."""

    remaining: int
    more_in_s: float


class LimitConf(msgspec.Struct, frozen=True, array_like=True):
    """One limit as it is told to callers. A calendar month has no fixed window: 0."""

    window: str  # "minute", "90s", "month"
    limit: int
    window_s: int
    scope: str = ""  # whose it is: the key's own, "client", "route" or "tenant"
    burst: int = 0

    @property
    def name(self) -> str:
        """Unique among the limits of a request."""
        return f"{self.scope}-{self.window}" if self.scope else self.window


class Held(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of one lease that a worker has not spent yet."""

    lease: LeaseId
    unspent: int


class KeyHeld(msgspec.Struct, frozen=True, array_like=True):
    """Of one key: `out` units, in hand or of requests in flight, that are not on the journal, and `slots` taken."""

    key_id: int
    out: int
    slots: int


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """`records`: how many the worker has put on its journal, so that none is counted both there and in `held`."""

    worker_id: bytes
    slot: int
    pid: int
    held: tuple[Held, ...]
    records: int
    keys: tuple[KeyHeld, ...] = ()


class FindKey(msgspec.Struct, frozen=True, tag="find_key"):
    """`public_id`, or `keys.name_of_digest` of a credential that has none in it. The answer comes under that name."""

    public_id: str


class FindClient(msgspec.Struct, frozen=True, tag="find_client"):
    """Who is this X-Client-ID, of requests with this key?"""

    key_id: int
    name: str


class LeaseAsked(msgspec.Struct, frozen=True, tag="lease_asked"):
    """`count` units are waited for, by requests of `least` or more; `spent` tokens have gone since the last word of it.

    `terms`: which limits the worker knows the lease to have.
    """

    lease: LeaseId
    count: int
    spent: int
    least: int = 1
    terms: int = 0


class LeaseReturned(msgspec.Struct, frozen=True, tag="lease_returned"):
    """Tokens handed back: `returned` of an idle surplus, `unused` whose request had gone when they came."""

    lease: LeaseId
    returned: int
    unused: int
    spent: int


class SlotsAsked(msgspec.Struct, frozen=True, tag="slots_asked"):
    """`count` requests wait for a slot of this key."""

    key_id: int
    count: int


class SlotsReturned(msgspec.Struct, frozen=True, tag="slots_returned"):
    key_id: int
    count: int


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    change: int


class WorkerStats(msgspec.Struct, frozen=True, tag="stats"):
    """Once a second, for `status`."""

    requests: int
    in_flight: int
    connections: int
    cached_keys: int
    journal_full: bool
    journal_lost: int  # requests that were served and not recorded
    journal_error: str  # why there is no room, or no way to the disk


Question = FindKey | FindClient | LeaseAsked | SlotsAsked  # what a request may have to ask control


class Inquiry(msgspec.Struct, frozen=True, tag="inquiry"):
    """A question about a request that is not there: the answer is what it would get, and charges nothing."""

    ask: int
    question: Question


class Explained(msgspec.Struct, frozen=True, tag="explained"):
    """The answer to a WhatIf or a Recall. None: nothing is known of it here."""

    ask: int
    told: Told | None


class TargetSeen(msgspec.Struct, frozen=True, array_like=True):
    """How a worker sees a target of a service. Times are seconds since 1970."""

    service_id: int
    url: str
    state: str  # of `policy.health.State`
    since_s: int
    error: str = ""  # the last one
    error_at_s: int = 0
    in_flight: int = 0  # of one that is drained


class TargetsSeen(msgspec.Struct, frozen=True, tag="targets_seen"):
    """All targets that are not healthy or have failed, in place of those that were told before."""

    targets: tuple[TargetSeen, ...]


LOAD_S = 10.0


class TargetLoad(msgspec.Struct, frozen=True, array_like=True):
    """What a worker has at a URL, whichever of its services lead there: in flight now, and sent within `LOAD_S`."""

    url: str
    in_flight: int
    requests: int


class Loads(msgspec.Struct, frozen=True, tag="loads"):
    """Where a worker's requests in flight are, in place of what was told before: the most of each kind.

    `services` and `keys`: pairs of a number and how many.
    """

    services: tuple[tuple[int, int], ...]
    keys: tuple[tuple[int, int], ...]
    targets: tuple[TargetLoad, ...]


# From control.


class Greeting(msgspec.Struct, frozen=True, tag="greeting"):
    """Control is there."""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    tenants: tuple[TenantConf, ...]
    services: tuple[ServiceConf, ...]
    routes: tuple[RouteConf, ...] = ()


class SnapshotChanged(msgspec.Struct, frozen=True, tag="snapshot_changed"):
    change: int
    tenants: tuple[TenantConf, ...]
    services: tuple[ServiceConf, ...]
    routes: tuple[RouteConf, ...] = ()


class KeysChanged(msgspec.Struct, frozen=True, tag="keys_changed"):
    """These keys are not what they were: forget them. None: forget all (a plan changed, a tenant went)."""

    change: int
    public_ids: tuple[str, ...] | None


class KeyFound(msgspec.Struct, frozen=True, tag="key_found"):
    public_id: str
    key: KeyConf | None


class ClientConf(msgspec.Struct, frozen=True, array_like=True):
    """A client that counts on its own within a key."""

    id: int
    limited: bool  # it has rates of its own, or the plan has


class ClientFound(msgspec.Struct, frozen=True, tag="client_found"):
    """None: not registered and not accepted; the key's own buckets count."""

    key_id: int
    name: str
    client: ClientConf | None


class LeaseGranted(msgspec.Struct, frozen=True, tag="lease_granted"):
    """`granted` tokens, of which `surplus` are beyond the requests that waited.

    `left` in the order of the lease's limits; `limits` says what these are, where the worker does not know: it knew
    other `terms`. Where fewer were granted than waited, `blocked_by` is the index in `left` of the limit that has too
    few, and its `more_in_s` is when to ask again.
    """

    lease: LeaseId
    granted: int
    surplus: int
    left: tuple[Left, ...]
    blocked_by: int | None
    terms: int = 0
    limits: tuple[LimitConf, ...] | None = None


class SlotsGranted(msgspec.Struct, frozen=True, tag="slots_granted"):
    """`keep`: this is the only worker, and may keep a slot for its next request."""

    key_id: int
    granted: int
    keep: bool


class WhatIf(msgspec.Struct, frozen=True, tag="what_if"):
    """What would become of this request? Its key is named or shown, beside what its head holds."""

    ask: int
    head: bytes
    address: str  # of whoever sends it
    public_id: str | None = None  # the key's owner is believed to hold it
    secret: bytes | None = None

    def __repr__(self) -> str:
        return f"<WhatIf {self.ask}>"  # its head and its secret must not stand in a log


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """What became of the request with this id?"""

    ask: int
    request_id: str


Found = KeyFound | ClientFound | LeaseGranted | SlotsGranted


class Finding(msgspec.Struct, frozen=True, tag="finding"):
    """The answer to an Inquiry."""

    ask: int
    answer: Found


class TargetChecked(msgspec.Struct, frozen=True, array_like=True):
    service_id: int
    url: str
    healthy: bool


class TargetsChecked(msgspec.Struct, frozen=True, tag="targets_checked"):
    """What control's probes have found out of these targets. Of others, the last news stands."""

    targets: tuple[TargetChecked, ...]


FromWorker = (
    Hello
    | FindKey
    | FindClient
    | LeaseAsked
    | LeaseReturned
    | SlotsAsked
    | SlotsReturned
    | Applied
    | WorkerStats
    | TargetsSeen
    | Loads
    | Inquiry
    | Explained
)
FromControl = (
    Greeting
    | Welcome
    | SnapshotChanged
    | KeysChanged
    | KeyFound
    | ClientFound
    | LeaseGranted
    | SlotsGranted
    | TargetsChecked
    | WhatIf
    | Recall
    | Finding
)

_encoder = msgspec.msgpack.Encoder()


def frame(message: FromWorker | FromControl) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameProtocol(asyncio.Protocol):
    """One end of the channel: bytes in, messages out. `on_message` is called for each, `on_lost` once at the end."""

    def __init__(
        self,
        expected: Any,
        on_message: Callable[[FrameProtocol, Any], None],
        on_lost: Callable[[FrameProtocol], None],
        on_made: Callable[[FrameProtocol], None] | None = None,
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(expected)
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_made = on_made
        self._pending = bytearray()
        self.transport: asyncio.Transport | None = None

    def send(self, message: FromWorker | FromControl) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame(message))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        pending = self._pending
        pending += data
        offset = 0
        while len(pending) - offset >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, offset)
            if length > MAX_FRAME_BYTES:
                self.close()
                return
            end = offset + _LENGTH.size + length
            if len(pending) < end:
                break
            message = self._decoder.decode(memoryview(pending)[offset + _LENGTH.size : end].tobytes())
            offset = end
            self._on_message(self, message)
        del pending[:offset]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)
