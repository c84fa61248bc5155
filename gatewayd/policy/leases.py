"""Leases: how many workers share limits without a round trip per request and without admitting one too many.

The lessor (control) owns the buckets, which belong to accounts: a key, a client within a key, a route, a tenant. A
request is charged to several accounts at once, and a lease is for one such combination (`channel.LeaseId`). A worker
asks for tokens of a lease; all its buckets and the key's quota are charged together or not at all. A token is one unit,
of which a request takes as many as its route weighs. The lessor grants

- tokens for the requests that wait at the worker, as far as all limits allow; these count as spent at the moment of
  the grant, which is the moment of admission;
- on top, a surplus for requests to come, whose size is a matter of `grants`.

A surplus stays charged against the bucket's burst until the worker reports it spent or hands it back, which it does
within a second. So at any time level + away <= burst, and over any interval at most burst + rate * t are admitted,
however asks, grants, deaths and returns interleave. Tokens at a worker that dies are lost, never spent twice.

Every change of a bucket is saved (`Levels`) before anybody hears of it. A lessor that begins anew finds each bucket as
it was, with what was away as `unclaimed`: no room is refilled for that until all workers have said what they hold of it
(`resume`), or are known to be dead (`settle`).

A refusal carries the time at which the limit has a token again; until then (but at most RECHECK_S, since another
worker may hand tokens back) the worker refuses without asking.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gatewayd.channel import LeaseId
from gatewayd.conf import RateConf
from gatewayd.policy.accounts import Account, Books, Levels, NoLevels, Part, fitted
from gatewayd.policy.buckets import NANOS, Bucket, Quota
from gatewayd.policy.grants import SURPLUS_LASTS_S, Grant, Lease, left_of, surplus_of, within

RECHECK_S = 1.0


class Lessor:
    """The owner of every limit on this machine. `now_ns` is monotonic, for buckets; `now_s` since 1970, for quotas."""

    def __init__(self, levels: Levels | None = None) -> None:
        self.leases: dict[LeaseId, Lease] = {}
        self.accounts: dict[Account, Books] = {}
        self.quotas: dict[int, Quota] = {}
        self.slots: dict[int, dict[bytes, int]] = {}  # taken, by key and worker
        self.workers = 1
        self._levels = levels or NoLevels()
        self._settled_ns: int | None = None

    def __repr__(self) -> str:
        return f"<Lessor {len(self.leases)} leases, {len(self.accounts)} accounts, {self.workers} workers>"

    # What there is to lease.

    def load(self, id_: LeaseId, parts: Sequence[Part], now_ns: int) -> None:
        """Begin to lease a combination, or go on with what its limits are now. Its key's quota is loaded before.

        An account whose limits have changed keeps what it has used.
        """
        lease = self.leases.get(id_)
        books = [self._open(part, now_ns) for part in parts if part.rates]
        if lease is None:
            lease = self.leases[id_] = Lease(id_, books, None)
        else:
            self._rebook(lease, books)
        lease.quota = self.quotas.get(id_.key_id) if id_.key_id else None
        lease.name_limits()

    def load_quota(self, key_id: int, quota: Quota | None) -> None:
        """What the database says of a key's quota. What is on its way stays so."""
        known = self.quotas.get(key_id)
        if quota is None:
            self.quotas.pop(key_id, None)
        elif known is None:
            self.quotas[key_id] = quota
        else:  # the one that all leases of the key have
            is_other = quota.limit != known.limit
            known.become(quota)
            for lease in self.leases.values() if is_other else ():
                if lease.quota is known:
                    lease.name_limits()

    def has_quota_of(self, key_id: int, now_s: float) -> bool:
        """What is known of the key's quota is so at this time."""
        quota = self.quotas.get(key_id)
        return quota is None or quota.is_of(now_s)

    def _open(self, part: Part, now_ns: int) -> Books:
        books = self.accounts.get(part.account)
        if books is None:
            buckets = [self._find(part.account, rate, now_ns) for rate in part.rates]
            books = self.accounts[part.account] = Books(part.account, part.rates, buckets)
        elif books.rates != part.rates:
            self._change(books, part.rates, now_ns)
        return books

    def _find(self, account: Account, rate: RateConf, now_ns: int) -> Bucket:
        bucket = self._levels.find(account, rate, now_ns)
        if bucket is None:
            return Bucket.full(rate.limit, rate.window_s, rate.burst, now_ns)
        if self._settled_ns is not None:
            bucket.refill(self._settled_ns)
            bucket.unclaimed = 0
        bucket.refill(now_ns)
        return fitted(bucket, rate)

    def _change(self, books: Books, rates: tuple[RateConf, ...], now_ns: int) -> None:
        """A window that stays keeps its level; one that is new begins as it was found, less what is away."""
        before = {bucket.window_ns: bucket for bucket in books.buckets}
        for bucket in books.buckets:
            bucket.refill(now_ns)
        away = max((bucket.away for bucket in books.buckets), default=0)
        books.rates, books.buckets = rates, []
        for rate in rates:
            kept = before.pop(rate.window_s * NANOS, None)
            if kept is not None:
                bucket = fitted(kept, rate)
            else:
                bucket = self._find(books.account, rate, now_ns)
                bucket.claim(away)
            books.buckets.append(bucket)
        for bucket in before.values():
            self._levels.release(bucket)
        self._save(books)

    def _rebook(self, lease: Lease, books: list[Books]) -> None:
        """What is away of a lease is away of all its accounts, those that it has only now too."""
        away = sum(lease.away.values())
        before, lease.books = lease.books, books
        if away:
            for each in books:
                if each not in before:
                    for bucket in each.buckets:
                        bucket.claim(away)
                    self._save(each)
            for each in before:
                if each not in books:
                    for bucket in each.buckets:
                        bucket.away = max(0, bucket.away - away)
                    self._save(each)

    # Tokens.

    def ask(
        self, worker: bytes, id_: LeaseId, waiting: int, spent: int, now_ns: int, now_s: float, least: int = 1
    ) -> Grant:
        """Grant tokens for `waiting` units and perhaps a surplus; `spent` of the earlier surplus are gone.

        No request that waits can do with less than `least`.
        """
        lease = self.leases[id_]
        self._refill(lease, now_ns)
        self._came_home(lease, worker, spent)
        granted, blocked_by = within(lease, waiting, least)
        quota = lease.quota
        may_last = blocked_by is None and (quota is None or not quota.shrinks_by(now_s + SURPLUS_LASTS_S))
        surplus = surplus_of(lease, self.workers, granted) if may_last else 0
        if surplus:
            lease.away[worker] = lease.away.get(worker, 0) + surplus
        total = granted + surplus
        for books in lease.books:
            for bucket in books.buckets:
                bucket.charge(total)
                bucket.away += surplus
            if total or spent:
                self._save(books)
        if lease.quota is not None and total:
            lease.quota.out[worker] = lease.quota.out.get(worker, 0) + total
        return Grant(total, surplus, left_of(lease, now_s), blocked_by)

    def peek(self, id_: LeaseId, waiting: int, now_ns: int, now_s: float, least: int = 1) -> Grant:
        """What `waiting` units would be granted, and what is left before they are. Nobody is charged."""
        lease = self.leases[id_]
        self._refill(lease, now_ns)
        granted, blocked_by = within(lease, waiting, least)
        return Grant(granted, 0, left_of(lease, now_s), blocked_by)

    def give_back(self, worker: bytes, id_: LeaseId, returned: int, unused: int, spent: int, now_ns: int) -> None:
        """`returned` of a surplus come home; so do `unused` tokens whose request had gone before they arrived."""
        lease = self.leases.get(id_)
        if lease is None:
            return
        self._refill(lease, now_ns)
        returned = min(returned, max(0, lease.away.get(worker, 0) - spent))
        self._came_home(lease, worker, spent + returned)
        for books in lease.books:
            for bucket in books.buckets:
                bucket.restore(returned + unused)
            self._save(books)
        if lease.quota is not None:
            lease.quota.out[worker] = max(0, lease.quota.out.get(worker, 0) - returned - unused)

    def resume(self, worker: bytes, id_: LeaseId, unspent: int, now_ns: int) -> None:
        """A worker that served on without us says what it holds: we have forgotten it."""
        lease = self.leases[id_]
        self._refill(lease, now_ns)
        lease.away[worker] = lease.away.get(worker, 0) + unspent
        for books in lease.books:
            for bucket in books.buckets:
                bucket.claim(unspent)
            self._save(books)

    def resume_quota(self, worker: bytes, key_id: int, out: int) -> None:
        """So much of a key's quota is there, in hand or in flight, and not on its journal."""
        quota = self.quotas.get(key_id)
        if quota is not None:
            quota.out[worker] = out

    def resume_slots(self, worker: bytes, slots: dict[int, int]) -> None:
        """Which slots it has, by key: these and no others."""
        for taken in self.slots.values():
            taken.pop(worker, None)
        for key_id, count in slots.items():
            if count:
                self.slots.setdefault(key_id, {})[worker] = count

    def settle(self, now_ns: int) -> None:
        """Every worker of before has said what it holds, or is dead: what nobody has claimed is spent."""
        if self._settled_ns is None:
            self._settled_ns = now_ns
            for books in self.accounts.values():
                for bucket in books.buckets:
                    bucket.refill(now_ns)
                    bucket.unclaimed = 0

    def recorded(self, worker: bytes, key_id: int, units: int, hour_s: float) -> None:
        """Ingest has moved admitted requests of a key, so many units, from this worker's journal to the rollups.

        `hour_s`: the begin of the hour that they count for.
        """
        quota = self.quotas.get(key_id)
        if quota is None:
            return
        if hour_s >= quota.month_start_s:
            quota.recorded += units
        quota.out[worker] = max(0, quota.out.get(worker, 0) - units)

    # Slots.

    def take_slots(self, worker: bytes, key_id: int, count: int, limit: int | None) -> int:
        """How many of `count` requests may begin, when `limit` of the key's are allowed at once over all workers."""
        granted = min(count, self.free_slots(key_id, limit))
        if granted:
            taken = self.slots.get(key_id, {})
            taken[worker] = taken.get(worker, 0) + granted
            self.slots[key_id] = taken
        return granted

    def free_slots(self, key_id: int, limit: int | None) -> int:
        return sys.maxsize if limit is None else max(0, limit - sum(self.slots.get(key_id, {}).values()))

    def give_slots_back(self, worker: bytes, key_id: int, count: int) -> None:
        taken = self.slots.get(key_id, {})
        left = taken.pop(worker, 0) - count
        if left > 0:
            taken[worker] = left
        elif not taken:
            self.slots.pop(key_id, None)

    # Workers that come and go.

    def channel_lost(self, worker: bytes, now_ns: int) -> None:
        """What the worker held may have been spent, up to this moment: it stays charged, and a refill may begin.

        Slots stay taken until it is known to be dead.
        """
        for lease in self.leases.values():
            if lease.away.get(worker):
                self._refill(lease, now_ns)
                self._came_home(lease, worker, lease.away[worker])
                for books in lease.books:
                    self._save(books)
            lease.away.pop(worker, None)

    def worker_gone(self, worker: bytes) -> None:
        """The worker is dead and its whole journal is ingested: what it had not recorded was never admitted."""
        self.resume_slots(worker, {})
        for quota in self.quotas.values():
            quota.out.pop(worker, None)

    def forget_full(self, now_ns: int) -> list[LeaseId]:
        """Drop what loading anew would give back the same, so that memory follows the keys in use. Returns leases.

        That is a lease of which nothing is away and whose key or client has full buckets; an account that is full and
        in no lease; a quota of which nothing is out and that is in no lease.
        """
        dropped = []
        for lease in self.leases.values():
            out = lease.quota is not None and any(lease.quota.out.values())
            own = [books for books in lease.books if not books.is_shared] or lease.books
            if not out and not any(lease.away.values()) and all(books.is_full(now_ns) for books in own):
                dropped.append(lease.id)
        for id_ in dropped:
            del self.leases[id_]
        booked = {books.account for lease in self.leases.values() for books in lease.books}
        for account in [account for account in self.accounts if account not in booked]:
            books = self.accounts[account]
            if books.is_full(now_ns):
                for bucket in books.buckets:
                    self._levels.release(bucket)
                del self.accounts[account]
        leased = {id_.key_id for id_ in self.leases}
        for key_id in [key_id for key_id in self.quotas if key_id not in leased]:
            if not any(self.quotas[key_id].out.values()):
                del self.quotas[key_id]
        return dropped

    # Parts.

    def _refill(self, lease: Lease, now_ns: int) -> None:
        for books in lease.books:
            for bucket in books.buckets:
                bucket.refill(now_ns)

    def _came_home(self, lease: Lease, worker: bytes, tokens: int) -> None:
        tokens = min(tokens, lease.away.get(worker, 0))
        if tokens:
            lease.away[worker] -= tokens
            for books in lease.books:
                for bucket in books.buckets:
                    bucket.away = max(0, bucket.away - tokens)

    def _save(self, books: Books) -> None:
        for bucket in books.buckets:
            self._levels.save(books.account, bucket)
