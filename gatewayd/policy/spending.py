"""The worker's side of a lease: tokens of one key that may be spent without asking, and what to say without any.

See `leases` for the whole. Times here are monotonic seconds; CLOCK_MONOTONIC is one clock for all processes of a
machine, but only intervals are ever sent.
"""

from __future__ import annotations

from enum import Enum

from gatewayd.channel import KeyConf, LeaseGranted, Left, RateConf
from gatewayd.errors import QUOTA_EXCEEDED, RATE_LIMITED, Refusal
from gatewayd.policy.allowing import bounds_of
from gatewayd.policy.leases import RECHECK_S


class Admission(Enum):
    ADMITTED = 1


ADMITTED = Admission.ADMITTED


# What a lease knows of its limits, taken as cheaply as can be, since every refusal keeps it: names with limit and
# window, what is left, when there is more, when that was heard, tokens in hand.
Known = tuple[tuple[tuple[str, int, int], ...], list[int], list[float], float, int]


class KeyEntry:
    """What a worker remembers of one key."""

    __slots__ = ("bounds", "conf", "in_flight", "lease", "recently_used")

    def __init__(self, conf: KeyConf) -> None:
        self.conf = conf
        self.bounds = bounds_of(conf.networks, conf.allow)
        self.lease = KeyLease(conf) if conf.rates or conf.quota is not None else None
        self.in_flight = 0  # admitted requests whose record is still to come
        self.recently_used = True

    def __repr__(self) -> str:
        return f"<KeyEntry gw_{self.conf.public_id} {self.in_flight} in flight, {self.lease}>"


class KeyLease:
    """Tokens in hand and the last news of the limits."""

    __slots__ = (
        "_counts", "_fields", "_formatted", "_formatted_until", "asked", "blocked_by",
        "blocked_until", "key_id", "limits", "low", "more_at", "remaining", "spent", "surplus", "touched_at",
        "waiting_tokens",
    )  # fmt: skip

    def __init__(self, conf: KeyConf) -> None:
        self.key_id = conf.id
        self.surplus = 0  # tokens in hand
        self.waiting_tokens = 0  # granted to requests that have not been woken yet
        self.spent = 0  # of surpluses, since control was last told
        self.low = 0  # ask for more when the surplus has fallen to this
        self.asked = False  # an ask is on its way
        self.blocked_until = 0.0
        self.blocked_by = 0
        self.touched_at = 0.0
        names = [(rate.name, rate.limit, rate.window_s) for rate in conf.rates]
        if conf.quota is not None:
            names.append(("month", conf.quota, 0))
        self.limits = tuple(names)  # all that headers and refusals say: another window is another limit
        self.remaining = [0] * len(names)
        self.more_at = [0.0] * len(names)
        self._fields = _policy_fields(names) + _limit_fields(names)
        self._formatted = b""
        self._formatted_until = 0.0
        self._counts: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<KeyLease {self.surplus} in hand, {self.spent} spent, {'asked' if self.asked else 'quiet'}>"

    def take(self, now: float) -> Admission | Refusal | None:
        """Spend a token. A Refusal while a limit is known to be empty; None when control must be asked."""
        if self.waiting_tokens:
            self.waiting_tokens -= 1
            return ADMITTED
        if self.surplus:
            self.surplus -= 1
            self.spent += 1
            return ADMITTED
        return self.refusal(now) if now < self.blocked_until else None

    def granted(self, grant: LeaseGranted, now: float) -> None:
        """News from control. A grant of fewer than waited says which limit is empty and when it has more."""
        self.asked = False
        self.touched_at = now
        self._formatted_until = 0.0
        self.surplus += grant.surplus
        self.waiting_tokens += grant.granted - grant.surplus
        self.low = self.surplus // 4
        if grant.left:  # new lists: the old ones may be remembered (see `known`)
            self.remaining = [left.remaining for left in grant.left]
            self.more_at = [now + left.more_in_s for left in grant.left]
        if grant.blocked_by is not None:
            self.blocked_by = grant.blocked_by
            self.blocked_until = now + min(RECHECK_S, grant.left[grant.blocked_by].more_in_s)

    def news(self, rates: tuple[RateConf, ...], now: float) -> tuple[Left, ...]:
        """What was last heard of the rates, for a control that has forgotten; nothing once all are full again."""
        if not self.touched_at:
            return ()
        left = tuple(
            Left(remaining, at - now) for remaining, at, _ in zip(self.remaining, self.more_at, rates, strict=False)
        )
        full = all(
            limit.remaining + 1 - limit.more_in_s * rate.limit / rate.window_s >= rate.burst
            for limit, rate in zip(left, rates, strict=True)
        )
        return () if full else left

    def known(self) -> Known:
        """For whoever wants to tell later what there was."""
        return self.limits, self.remaining, self.more_at, self.touched_at, self.surplus + self.waiting_tokens

    def refusal(self, now: float) -> Refusal:
        """The 429 for the limit that is empty, with a Retry-After that is never before its `t`."""
        index = self.blocked_by
        wait_s = max(1, _seconds(self.more_at[index] - max(now, self.touched_at)))
        name, limit, _ = self.limits[index]
        problem = QUOTA_EXCEEDED if name == "month" else RATE_LIMITED
        detail = f"{limit} requests per {name} are used up; more in {wait_s} s"
        return Refusal(problem, detail, ((b"Retry-After", b"%d" % wait_s),))

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
        now = max(now, self.touched_at)  # a request that waited for a grant is older than the news it brought
        waits_s = [at - now for at in self.more_at]
        seconds = [_seconds(wait_s) for wait_s in waits_s]
        least = min(self.remaining)
        tightest = self.remaining.index(least)
        self._counts = (*self.remaining, least)
        self._formatted = self._fields % (*seconds, self.limits[tightest][1], seconds[tightest])
        # Until the first of them has a whole second less to wait; what has passed stays 0.
        rests_s = [wait_s - second + 1 for wait_s, second in zip(waits_s, seconds, strict=True) if second]
        self._formatted_until = now + min(rests_s, default=1.0)


def _seconds(wait_s: float) -> int:
    """Whole seconds, rounded up; 0 for what has passed."""
    return -int(-wait_s // 1) if wait_s > 0 else 0


def _policy_fields(names: list[tuple[str, int, int]]) -> bytes:
    """RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers-10. A calendar month has no fixed window: no `w`."""
    items = [f'"{name}";q={limit}' + (f";w={window_s}" if window_s else "") for name, limit, window_s in names]
    return f"RateLimit-Policy: {', '.join(items)}\r\n".encode()


def _limit_fields(names: list[tuple[str, int, int]]) -> bytes:
    """A template for the seconds and the tightest limit, whose result is a template for the counts."""
    items = ", ".join(f'"{name}";r=%%d;t=%d' for name, _, _ in names)
    older = "X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %%d\r\nX-RateLimit-Reset: %d\r\n"
    return f"RateLimit: {items}\r\n{older}".encode()
