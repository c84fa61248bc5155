"""The worker's side of limits: tokens and slots that may be spent without asking, and what to say without any.

See `leases` for the whole. Times here are monotonic seconds; CLOCK_MONOTONIC is one clock for all processes of a
machine, but only intervals are ever sent.
"""

from __future__ import annotations

from enum import Enum

from gatewayd.channel import LeaseGranted, LeaseId, LimitConf
from gatewayd.conf import ClientConf, KeyConf
from gatewayd.errors import QUOTA_EXCEEDED, RATE_LIMITED, RETRY_SOON, TOO_MANY_IN_FLIGHT, Refusal
from gatewayd.policy.allowing import bounds_of
from gatewayd.policy.leases import RECHECK_S

_TOO_MANY = Refusal(TOO_MANY_IN_FLIGHT, "this API key has as many requests in flight as its plan allows", RETRY_SOON)


class Admission(Enum):
    ADMITTED = 1


ADMITTED = Admission.ADMITTED


# What a lease knows of its limits, taken as cheaply as can be, since every refusal keeps it: names with limit and
# window, what is left, when there is more, when that was heard, tokens in hand.
Known = tuple[tuple[LimitConf, ...], list[int], list[float], float, int]


class KeyEntry:
    """What a worker remembers of one key.

    `lease` is set where a request is charged to the key alone and nothing else is to be thought of: by far the most
    keys, which then cost one look at it. `more` is for the others.
    """

    __slots__ = ("bounds", "conf", "in_flight", "is_unquestioned", "lease", "leases", "more", "recently_used")

    def __init__(self, conf: KeyConf) -> None:
        self.conf = conf
        # No time and no state makes it invalid: by far the most, which then cost one look at this.
        self.is_unquestioned = (
            not conf.revoked and not conf.disabled and conf.expires_at is None and conf.generation == 1
        )
        self.bounds = bounds_of(conf.networks, conf.allow)
        self.in_flight = 0  # units of admitted requests whose record is still to come
        self.recently_used = True
        self.lease: Lease | None = None
        self.leases: dict[LeaseId, Lease] = {}  # its other combinations, as they were used
        self.more: KeyMore | None = None
        if conf.has_clients or conf.in_flight_limit is not None or conf.shadow:
            self.more = KeyMore()
        elif self.is_limited:
            self.lease = Lease(LeaseId(conf.id))

    def __repr__(self) -> str:
        return f"<KeyEntry gw_{self.conf.public_id} {self.in_flight} in flight, {self.lease}>"

    @property
    def is_limited(self) -> bool:
        """It has limits of its own."""
        return bool(self.conf.rates) or self.conf.quota is not None

    def all_leases(self) -> list[Lease]:
        return [*self.leases.values(), *(() if self.lease is None else (self.lease,))]


class KeyMore:
    """What the rarer plans need of a key: clients, slots, which requests were let pass only because of `shadow`."""

    __slots__ = ("clients", "let_pass", "look_ups", "no_look_ups_until", "slots")

    def __init__(self) -> None:
        self.clients: dict[str, ClientConf | None] = {}  # by X-Client-ID; None: not accepted
        self.look_ups = 0  # of clients, under way
        self.no_look_ups_until = 0.0  # unknown names are as not accepted until then
        self.slots = Slots()
        self.let_pass: set[object] = set()


class Slots:
    """Places for requests of one key in flight, of which control knows the number over all workers.

    A slot comes from control and goes back there when its request has ended: only so is none refused while another
    worker has a free one. A worker that is alone may keep them.
    """

    __slots__ = ("asked", "denied_at", "free", "idle_since", "in_use", "keep")

    def __init__(self) -> None:
        self.free = 0
        self.in_use: set[object] = set()  # the facts of requests. A set and not a count: to leave twice does no harm
        self.asked = 0  # requests, in an ask that is on its way
        self.denied_at = -1.0
        self.idle_since = 0.0
        self.keep = False

    def __repr__(self) -> str:
        return f"<Slots {len(self.in_use)} in use, {self.free} free>"

    def take(self, request: object, now: float) -> Admission | Refusal | None:
        """For a request that came at `now`. None when control must be asked."""
        if request in self.in_use:
            return ADMITTED
        if self.free:
            self.free -= 1
            self.in_use.add(request)
            return ADMITTED
        return _TOO_MANY if now <= self.denied_at else None


class Lease:
    """Tokens in hand and the last news of the limits."""

    __slots__ = (
        "_counts", "_fields", "_formatted", "_formatted_until", "asked", "blocked_by", "blocked_units",
        "blocked_until", "id", "least", "limits", "low", "more_at", "remaining", "spent", "surplus", "terms",
        "touched_at", "waiting_tokens", "waiting_units",
    )  # fmt: skip

    def __init__(self, id_: LeaseId) -> None:
        self.id = id_
        self.surplus = 0  # tokens in hand
        self.waiting_tokens = 0  # granted to requests that have not been woken yet
        self.spent = 0  # of surpluses, since control was last told
        self.low = 0  # ask for more when the surplus has fallen to this
        self.asked = False  # an ask is on its way
        self.waiting_units = 0  # that requests wait for
        self.least = 1  # which of these needs the fewest
        self.blocked_until = 0.0
        self.blocked_by = 0
        self.blocked_units = 1  # for requests of so many or more
        self.touched_at = 0.0
        self.terms = 0  # which limits these are; control says so
        self.limits: tuple[LimitConf, ...] = ()
        self.remaining: list[int] = []
        self.more_at: list[float] = []
        self._fields = b""
        self._formatted = b""
        self._formatted_until = 0.0
        self._counts: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<Lease {self.surplus} in hand, {self.spent} spent, {'asked' if self.asked else 'quiet'}>"

    @property
    def is_busy(self) -> bool:
        """News of it is on the way."""
        return self.asked or self.waiting_tokens > 0 or self.waiting_units > 0

    def take(self, now: float) -> Admission | Refusal | None:
        """Spend a token. A Refusal while a limit is known to be empty; None when control must be asked."""
        if self.waiting_tokens:
            self.waiting_tokens -= 1
            return ADMITTED
        if self.surplus:
            self.surplus -= 1
            self.spent += 1
            return ADMITTED
        return self.refusal(now, 1) if now < self.blocked_until and self.blocked_units == 1 else None

    def take_units(self, now: float, units: int) -> Admission | Refusal | None:
        """The same for a request that takes so many."""
        if self.waiting_tokens + self.surplus >= units:
            waiting = min(units, self.waiting_tokens)
            self.waiting_tokens -= waiting
            self.surplus -= units - waiting
            self.spent += units - waiting
            return ADMITTED
        return self.refusal(now, units) if now < self.blocked_until and units >= self.blocked_units else None

    def wants(self, units: int) -> None:
        """A request waits for so many."""
        self.least = min(units, self.least) if self.waiting_units else units
        self.waiting_units += units

    def granted(self, grant: LeaseGranted, now: float) -> None:
        """News from control. A grant of fewer than waited says which limit has too few and when it has more."""
        self.asked = False
        self.touched_at = now
        self.surplus += grant.surplus
        self.waiting_tokens += grant.granted - grant.surplus
        self.low = self.surplus // 4
        if grant.limits is not None:
            self._learn(grant.terms, grant.limits)
        if len(grant.left) != len(self.limits) or grant.terms != self.terms:
            return  # of limits that it has no more: what it has now comes with the next grant
        self._formatted_until = 0.0
        self.remaining = [left.remaining for left in grant.left]
        self.more_at = [now + left.more_in_s for left in grant.left]
        if grant.blocked_by is not None:
            left = grant.left[grant.blocked_by]
            self.blocked_by = grant.blocked_by
            self.blocked_units = left.remaining + 1
            self.blocked_until = now + min(RECHECK_S, left.more_in_s)

    def _learn(self, terms: int, limits: tuple[LimitConf, ...]) -> None:
        self.terms, self.limits = terms, limits
        self.blocked_until = self._formatted_until = 0.0
        self.remaining, self.more_at = [], []
        self._fields = _policy_fields(limits) + _limit_fields(limits) if limits else b""

    def known(self) -> Known:
        """For whoever wants to tell later what there was."""
        return self.limits, self.remaining, self.more_at, self.touched_at, self.surplus + self.waiting_tokens

    def _wait_s(self, index: int, now: float, units: int) -> float:
        """Until this limit has so many, if nobody takes any."""
        limit = self.limits[index]
        more = max(0, units - self.remaining[index] - 1)  # beyond the one that comes next
        return self.more_at[index] - now + more * limit.window_s / limit.limit

    @property
    def is_blocked_by_others(self) -> bool:
        """The limit that has too few is not of the key or its client."""
        return self.limits[self.blocked_by].scope in ("route", "tenant")

    def left(self) -> int | None:
        """Of the limit that has the least; None while nothing is known of any."""
        return min(self.remaining) + self.surplus + self.waiting_tokens if self.remaining else None

    def refusal(self, now: float, units: int) -> Refusal:
        """The 429 for the limit that has too few, with a Retry-After that is never before its `t`."""
        index = self.blocked_by
        wait_s = max(1, _seconds(self._wait_s(index, max(now, self.touched_at), units)))
        limit = self.limits[index]
        problem = RATE_LIMITED if limit.window_s else QUOTA_EXCEEDED
        of = f" of this {limit.scope}" if limit.scope else ""
        used_up = f"{limit.limit} requests per {limit.window}{of} are used up"
        if units > 1:
            used_up = f"this request counts as {units}, and of {limit.limit} per {limit.window}{of} fewer are left"
        return Refusal(problem, f"{used_up}; more in {wait_s} s", ((b"Retry-After", b"%d" % wait_s),))

    def header_fields(self, now: float) -> bytes:
        """RateLimit-Policy, RateLimit and X-RateLimit-*, each ending in CRLF, as of this moment.

        `r` counts what the lessor has left and what is in hand here; `t` is when it next grows, in whole seconds.
        X-RateLimit-* speaks of the limit that has the least left. All but the counts is formatted ahead and holds until
        a `t` changes, which is once a second: formatting it for each request would cost 1 µs.
        """
        if now >= self._formatted_until:
            self._format(now)
        in_hand = self.surplus + self.waiting_tokens
        return self._formatted % tuple([count + in_hand for count in self._counts])

    def _format(self, now: float) -> None:
        if not self.remaining:
            self._formatted, self._counts = b"", ()
            return
        now = max(now, self.touched_at)  # a request that waited for a grant is older than the news it brought
        waits_s = [at - now for at in self.more_at]
        seconds = [_seconds(wait_s) for wait_s in waits_s]
        least = min(self.remaining)
        tightest = self.remaining.index(least)
        self._counts = (*self.remaining, least)
        self._formatted = self._fields % (*seconds, self.limits[tightest].limit, seconds[tightest])
        # Until the first of them has a whole second less to wait; what has passed stays 0.
        rests_s = [wait_s - second + 1 for wait_s, second in zip(waits_s, seconds, strict=True) if second]
        self._formatted_until = now + min(rests_s, default=1.0)


def _seconds(wait_s: float) -> int:
    """Whole seconds, rounded up; 0 for what has passed."""
    return -int(-wait_s // 1) if wait_s > 0 else 0


def _policy_fields(limits: tuple[LimitConf, ...]) -> bytes:
    """RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers-10. A calendar month has no fixed window: no `w`."""
    items = [f'"{each.name}";q={each.limit}' + (f";w={each.window_s}" if each.window_s else "") for each in limits]
    return f"RateLimit-Policy: {', '.join(items)}\r\n".encode()


def _limit_fields(limits: tuple[LimitConf, ...]) -> bytes:
    """A template for the seconds and the tightest limit, whose result is a template for the counts."""
    items = ", ".join(f'"{each.name}";r=%%d;t=%d' for each in limits)
    older = "X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %%d\r\nX-RateLimit-Reset: %d\r\n"
    return f"RateLimit: {items}\r\n{older}".encode()
