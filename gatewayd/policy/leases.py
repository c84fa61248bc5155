"""Leases: how many workers share one key's limits without a round trip per request and without admitting one too many.

The lessor (control) owns the buckets. A worker asks for tokens of a key, all of whose limits are charged together or
not at all. The lessor grants

- one token for each request that waits at the worker, as far as all limits allow; these count as spent at the moment
  of the grant, which is the moment of admission;
- on top, a surplus for requests to come, sized so that it is used up within 50 ms and never takes more than a fair
  part of what is left: `min(rate / 20, available / (2 * workers))`. A slow bucket (below 20 per second) or one that is
  nearly empty gets no surplus: its tokens are leased one by one, so none can be stranded at an idle worker.

A surplus stays charged against the bucket's burst until the worker reports it spent or hands it back, which it does
within a second. So at any time level + away <= burst, and over any interval at most burst + rate * t are admitted,
however asks, grants, deaths and returns interleave. Tokens at a worker that dies are lost, never spent twice.

A refusal carries the time at which the limit has a token again; until then (but at most RECHECK_S, since another
worker may hand tokens back) the worker refuses without asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gatewayd.policy.buckets import NANOS, Bucket, Quota, month_of

SURPLUS_PER_S = 20  # a surplus lasts 1/20 s at the key's full rate
SURPLUS_WITHOUT_RATE = 256  # for a key that has a quota but no rate
RECHECK_S = 1.0


class Rate(NamedTuple):
    limit: int
    window_s: int
    burst: int


class LimitLeft(NamedTuple):
    remaining: int
    more_in_s: float


class Grant(NamedTuple):
    """`granted` tokens, `surplus` of them beyond the requests that wait. `blocked_by`: index of the empty limit."""

    granted: int
    surplus: int
    left: tuple[LimitLeft, ...]
    blocked_by: int | None


@dataclass(slots=True)
class KeyLimits:
    """All limits of one key at the lessor, and what each worker holds of them."""

    rates: tuple[Rate, ...]
    quota_limit: int | None
    buckets: list[Bucket]
    quota: Quota | None
    away: dict[bytes, int] = field(default_factory=dict)  # surplus per worker, not yet spent


class Lessor:
    """The owner of every limit on this machine. `now_ns` is monotonic, for buckets; `now_s` since 1970, for quotas."""

    def __init__(self) -> None:
        self.keys: dict[int, KeyLimits] = {}
        self.workers = 1

    def __repr__(self) -> str:
        return f"<Lessor {len(self.keys)} keys, {self.workers} workers>"

    def load(
        self, key_id: int, rates: tuple[Rate, ...], quota: int | None, recorded: int, now_ns: int, now_s: float
    ) -> None:
        """Begin to lease a key's limits. `recorded`: its admitted requests of this month that are on the rollups.

        A key whose limits have changed keeps what it has used: levels are cut to the new burst, never filled up.
        """
        before = self.keys.get(key_id)
        buckets = [Bucket.full(rate.limit, rate.window_s, rate.burst, now_ns) for rate in rates]
        if before is not None:
            for bucket in before.buckets:
                bucket.refill(now_ns)
            # A window that stays keeps its level: changing a plan must not hand out a fresh burst.
            old = {bucket.window_ns: bucket for bucket in before.buckets}
            for bucket in buckets:
                if kept := old.get(bucket.window_ns):
                    bucket.away = kept.away
                    missing = (kept.burst - kept.away) * kept.window_ns - kept.level
                    bucket.level = min(
                        (bucket.burst - bucket.away) * bucket.window_ns, bucket.burst * bucket.window_ns - missing
                    )
        state = KeyLimits(rates, quota, buckets, None, before.away if before else {})
        if quota is not None:
            start, end = month_of(now_s)
            out = before.quota.out if before and before.quota else {}
            state.quota = Quota(quota, start, end, recorded, out)
        self.keys[key_id] = state

    def month_passed(self, key_id: int, now_s: float) -> bool:
        """True when the key's quota is of another month than `now_s`; the caller then loads it anew."""
        quota = self.keys[key_id].quota
        return quota is not None and not quota.month_start_s <= now_s < quota.month_end_s

    def ask(self, worker: bytes, key_id: int, waiting: int, spent: int, now_ns: int, now_s: float) -> Grant:
        """Grant tokens for `waiting` requests and perhaps a surplus; `spent` of the earlier surplus are gone."""
        state = self.keys[key_id]
        self._refill(state, now_ns)
        self._came_home(state, worker, spent)
        available = _available(state)
        granted = min(waiting, available)
        surplus = 0
        if granted == waiting and (batch := _surplus(state, self.workers, granted)):
            surplus = batch
            state.away[worker] = state.away.get(worker, 0) + surplus
        total = granted + surplus
        for bucket in state.buckets:
            bucket.charge(total)
            bucket.away += surplus
        if state.quota is not None and total:
            state.quota.out[worker] = state.quota.out.get(worker, 0) + total
        left = _left(state, now_s)
        blocked_by = None if granted == waiting else _blocking(state)
        return Grant(total, surplus, left, blocked_by)

    def peek(self, key_id: int, waiting: int, now_ns: int, now_s: float) -> Grant:
        """What `waiting` requests would be granted, and what is left before they are. Nobody is charged."""
        state = self.keys[key_id]
        self._refill(state, now_ns)
        granted = min(waiting, _available(state))
        return Grant(granted, 0, _left(state, now_s), None if granted == waiting else _blocking(state, granted))

    def give_back(self, worker: bytes, key_id: int, returned: int, unused: int, spent: int, now_ns: int) -> None:
        """`returned` of a surplus come home; so do `unused` tokens whose request had gone before they arrived."""
        state = self.keys.get(key_id)
        if state is None:
            return
        self._refill(state, now_ns)
        returned = min(returned, max(0, state.away.get(worker, 0) - spent))
        self._came_home(state, worker, spent + returned)
        for bucket in state.buckets:
            bucket.restore(returned + unused)
        if state.quota is not None:
            state.quota.out[worker] = max(0, state.quota.out.get(worker, 0) - returned - unused)

    def resume(
        self, worker: bytes, key_id: int, unspent: int, in_flight: int, left: tuple[LimitLeft, ...] = ()
    ) -> None:
        """A worker that served on without us says what it holds: we have forgotten it.

        `left` is what it last heard of each bucket, as of now. Whoever was granted last has heard of all that was
        granted before, so the least of all workers' news, refilled since, is the level that we have forgotten. A
        surplus that was spent meanwhile has taken no part in that refill, hence the smaller room.
        """
        state = self.keys[key_id]
        state.away[worker] = unspent
        known = left if len(left) == len(state.buckets) else ()
        for index, bucket in enumerate(state.buckets):
            bucket.away += unspent
            if known:
                bucket.know(known[index].remaining, known[index].more_in_s)
            else:
                bucket.charge(unspent)
            spent_at_most = bucket.limit * NANOS // bucket.window_ns // SURPLUS_PER_S
            bucket.level = min(bucket.level, (bucket.burst - bucket.away - spent_at_most) * bucket.window_ns)
        if state.quota is not None:
            state.quota.out[worker] = unspent + in_flight

    def recorded(self, worker: bytes, key_id: int, admitted: int, oldest_s: float) -> None:
        """Ingest has moved `admitted` requests of a key from this worker's journal to the rollups."""
        state = self.keys.get(key_id)
        if state is None or state.quota is None:
            return
        if oldest_s >= state.quota.month_start_s:
            state.quota.recorded += admitted
        out = state.quota.out
        out[worker] = max(0, out.get(worker, 0) - admitted)

    def channel_lost(self, worker: bytes, now_ns: int) -> None:
        """What the worker held may have been spent, up to this moment: it stays charged, and a refill may begin."""
        for state in self.keys.values():
            if not state.away.get(worker):
                continue
            self._refill(state, now_ns)
            self._came_home(state, worker, state.away.get(worker, 0))
            state.away.pop(worker, None)

    def forget_full(self, now_ns: int) -> list[int]:
        """Drop every key that loading anew would give back the same, so that memory follows the keys in use.

        That is a key whose buckets are full and of which no token is out. Returns the ids.
        """
        full = []
        for key_id, state in self.keys.items():
            self._refill(state, now_ns)
            out = state.quota is not None and any(state.quota.out.values())
            if not out and all(bucket.is_full() for bucket in state.buckets):
                full.append(key_id)
        for key_id in full:
            del self.keys[key_id]
        return full

    def worker_gone(self, worker: bytes) -> None:
        """The worker is dead and its whole journal is ingested: what it had not recorded was never admitted."""
        for state in self.keys.values():
            if state.quota is not None:
                state.quota.out.pop(worker, None)

    def _refill(self, state: KeyLimits, now_ns: int) -> None:
        for bucket in state.buckets:
            bucket.refill(now_ns)

    def _came_home(self, state: KeyLimits, worker: bytes, tokens: int) -> None:
        tokens = min(tokens, state.away.get(worker, 0))
        if tokens:
            state.away[worker] -= tokens
            for bucket in state.buckets:
                bucket.away = max(0, bucket.away - tokens)


def _available(state: KeyLimits) -> int:
    amounts = [bucket.available() for bucket in state.buckets]
    if state.quota is not None:
        amounts.append(state.quota.available())
    return min(amounts)


def _surplus(state: KeyLimits, workers: int, granted: int) -> int:
    share = 2 * workers
    amounts = [(bucket.available() - granted) // share for bucket in state.buckets]
    amounts += [bucket.limit * NANOS // bucket.window_ns // SURPLUS_PER_S for bucket in state.buckets]
    if state.quota is not None:
        amounts.append((state.quota.available() - granted) // share)
    return max(0, min(amounts, default=0)) if state.buckets else max(0, min(*amounts, SURPLUS_WITHOUT_RATE))


def _left(state: KeyLimits, now_s: float) -> tuple[LimitLeft, ...]:
    left = [LimitLeft(bucket.available(), bucket.wait_s(bucket.available() + 1)) for bucket in state.buckets]
    if state.quota is not None:
        left.append(LimitLeft(state.quota.available(), max(0.0, state.quota.month_end_s - now_s)))
    return tuple(left)


def _blocking(state: KeyLimits, after: int = 0) -> int:
    """The limit to name in the refusal: of those that are empty, the one that stays so the longest, the quota.

    `after`: tokens that are thought to be taken.
    """
    if state.quota is not None and state.quota.available() <= after:
        return len(state.buckets)
    empty = [index for index, bucket in enumerate(state.buckets) if bucket.available() <= after]
    return max(empty, key=lambda index: state.buckets[index].wait_s(after + 1))
