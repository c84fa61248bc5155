"""What control and a worker say to each other. `frames` carries it.

A worker connects to control's Unix socket, control greets it, it says Hello; control answers with Welcome and from then
on keeps it abreast. The worker waits for the greeting because the supervisor holds the socket: while control restarts,
the kernel takes connections on its behalf.

The order of messages is the order of events, which is what makes revocation safe: control answers a key look-up from
the database and announces changes on the same stream, so a worker can never learn an old state after a new one. A
worker that loses the channel serves on with what it has, and when control greets it again forgets every cached key.

A Changed carries a number; the worker answers Applied with it once the change is in force. The admin API waits for
these before it answers, so when `gatectl key revoke` returns the key is already refused everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gatewayd.conf import ClientConf, KeyConf, RouteConf, ServiceConf, TenantConf
from gatewayd.told import Told

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
    """What a worker has at a URL, whichever of its services lead there: in flight now, and sent within `LOAD_S`.

    `ended`: requests that it has answered within that time, or will never answer; `errors`: those of them that are
    errors; `times`: how long they took to be answered, a packed histogram (see `proxy.faring`).
    """

    url: str
    in_flight: int
    requests: int
    ended: int = 0
    errors: int = 0
    times: bytes = b""


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
