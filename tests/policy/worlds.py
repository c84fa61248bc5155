"""A lessor, its file of levels, workers, a clock, and a note of every request that was admitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from gatewayd.channel import LeaseGranted, LeaseId, Left
from gatewayd.conf import RateConf
from gatewayd.policy.accounts import Account, Part
from gatewayd.policy.buckets import NANOS, Bucket, Quota
from gatewayd.policy.leases import Lessor
from gatewayd.policy.spending import ADMITTED, Lease

NOW_S = 1_795_000_000.0  # in November 2026
WORKERS = 3
IDLE_NS = NANOS


class MemoryLevels:
    """What the file of levels keeps, for as long as the test runs."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Account, int], tuple[int, int, int, int, int]] = {}

    def find(self, account: Account, rate: RateConf, now_ns: int) -> Bucket | None:
        found = self.kept.get((account, rate.window_s * NANOS))
        if found is None:
            return None
        limit, burst, level, stamp_ns, away = found
        return Bucket(limit, rate.window_s * NANOS, burst, level, stamp_ns, unclaimed=away)

    def save(self, account: Account, bucket: Bucket) -> None:
        away = bucket.away + bucket.unclaimed
        self.kept[account, bucket.window_ns] = (bucket.limit, bucket.burst, bucket.level, bucket.stamp_ns, away)

    def release(self, bucket: Bucket) -> None:
        assert bucket.is_full() or bucket.place == -1


@dataclass
class Worker:
    """A worker as the lessor sees it: it spends what it holds whenever it likes, and reports it later."""

    name: bytes
    surplus: dict[LeaseId, int] = field(default_factory=dict)
    spent: dict[LeaseId, int] = field(default_factory=dict)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)  # of a worker that keeps the rules (`World.request`)
    touched_ns: dict[LeaseId, int] = field(default_factory=dict)

    def holds(self, id_: LeaseId) -> int:
        return self.surplus.get(id_, 0)


class World:
    """`rates` of every account, `quotas` by key, and the combinations that requests come in."""

    def __init__(
        self,
        rates: dict[Account, tuple[RateConf, ...]],
        quotas: dict[int, int | None],
        leases: list[LeaseId],
        workers: int = WORKERS,
    ) -> None:
        self.rates, self.quotas = rates, quotas
        self.levels = MemoryLevels()
        self.now_ns = 0
        self.admitted: list[tuple[int, int, LeaseId]] = []  # when, units, of what
        self.workers = [Worker(bytes([ord("a") + number])) for number in range(workers)]
        self.lessor = self._lessor()
        self.lessor.settle(0)
        self.leases = [id_ for id_ in leases if self.load(id_, rates)] or [LeaseId(1)]
        if self.leases == [LeaseId(1)] and LeaseId(1) not in self.lessor.leases:  # nothing had a limit
            self.rates = {Account("key", 1): (RateConf("1s", 1, 1, 1),)}
            self.load(LeaseId(1), self.rates)

    def _lessor(self) -> Lessor:
        lessor = Lessor(self.levels)
        lessor.workers = len(self.workers)
        return lessor

    def load(self, id_: LeaseId, rates: dict[Account, tuple[RateConf, ...]]) -> bool:
        """False for what has no limit."""
        limit = self.quotas.get(id_.key_id)
        if limit is not None:
            used = sum(units for _, units, of in self.admitted if of.key_id == id_.key_id)
            known = self.lessor.quotas.get(id_.key_id)
            self.lessor.load_quota(id_.key_id, Quota(limit, 0, 1 << 40, known.recorded if known else used))
        parts = [Part(account, rates.get(account, ())) for account in accounts_of(id_)]
        if not any(part.rates for part in parts) and id_.key_id not in self.lessor.quotas:
            return False
        self.lessor.load(id_, parts, self.now_ns)
        return True

    def change(self, account: Account, *rates: RateConf) -> None:
        self.rates[account] = rates
        for id_ in self.leases:
            self.load(id_, self.rates)

    def _admit(self, id_: LeaseId, units: int) -> None:
        if units:
            self.admitted.append((self.now_ns, units, id_))

    # What happens.

    def ask(self, worker: Worker, id_: LeaseId, waiting: int, *, least: int = 1, arrives: bool = True) -> int:
        """How many units were granted to those that wait. Of a grant that does not arrive nothing is spent."""
        spent = worker.spent.pop(id_, 0)
        grant = self.lessor.ask(worker.name, id_, waiting, spent, self.now_ns, NOW_S, least)
        granted = grant.granted - grant.surplus
        assert granted <= waiting
        assert granted == waiting or grant.blocked_by is not None
        if not arrives:
            return 0
        worker.surplus[id_] = worker.holds(id_) + grant.surplus
        self._admit(id_, granted)
        return granted

    def give_unused(self, worker: Worker, id_: LeaseId, units: int) -> None:
        """Some of those that waited, and were just admitted, had gone."""
        when, admitted, _ = self.admitted.pop()
        self.admitted.append((when, admitted - units, id_))
        self.lessor.give_back(worker.name, id_, 0, units, 0, self.now_ns)

    def spend(self, worker: Worker, id_: LeaseId, tokens: int) -> None:
        tokens = min(tokens, worker.holds(id_))
        worker.surplus[id_] = worker.holds(id_) - tokens
        worker.spent[id_] = worker.spent.get(id_, 0) + tokens
        self._admit(id_, tokens)

    def hand_back(self, worker: Worker, id_: LeaseId) -> None:
        spent = worker.spent.pop(id_, 0)
        self.lessor.give_back(worker.name, id_, worker.surplus.pop(id_, 0), 0, spent, self.now_ns)

    def die(self, worker: Worker) -> None:
        """Its channel closes and nobody knows what it had spent; another takes its place under a new name."""
        self.lessor.channel_lost(worker.name, self.now_ns)
        worker.surplus.clear()
        worker.spent.clear()
        worker.name += b"'"

    def restart(self, away_ns: int, dead: int) -> None:
        """Control is killed, and comes back after a while in which workers spend what they have and some die.

        Those with a number below `dead` do, before anybody could hear what they held.
        """
        for worker in self.workers:
            for id_ in list(worker.surplus):
                self.spend(worker, id_, worker.holds(id_) // 3)
        self.now_ns += away_ns
        for number, worker in enumerate(self.workers):
            for id_ in list(worker.surplus):
                self.spend(worker, id_, worker.holds(id_) // 2)
            worker.spent.clear()
            if number < dead:
                worker.surplus.clear()
                worker.name += b"'"
        self.lessor = self._lessor()
        for worker in self.workers:
            for id_, unspent in worker.surplus.items():
                if unspent:
                    assert self.load(id_, self.rates)
                    self.lessor.resume(worker.name, id_, unspent, self.now_ns)
            for key_id in self.quotas:
                held = sum(unspent for id_, unspent in worker.surplus.items() if id_.key_id == key_id)
                self.lessor.resume_quota(worker.name, key_id, held)
        self.lessor.settle(self.now_ns)
        for id_ in self.leases:
            self.load(id_, self.rates)

    def request(self, worker: Worker, id_: LeaseId) -> None:
        """As a real worker does it, but that control answers at once."""
        for other, lease in worker.leases.items():
            if lease.surplus and self.now_ns - worker.touched_ns[other] > IDLE_NS:
                self.lessor.give_back(worker.name, other, lease.surplus, 0, lease.spent, self.now_ns)
                lease.surplus = lease.spent = lease.low = 0
        lease = worker.leases.setdefault(id_, Lease(id_))
        now = self.now_ns / NANOS
        verdict = lease.take(now)
        if verdict is None:
            self._fetch(worker, lease, 1)
            verdict = lease.take(now)
        if verdict is ADMITTED:
            self._admit(id_, 1)
            if lease.low and lease.surplus <= lease.low:
                self._fetch(worker, lease, 0)

    def _fetch(self, worker: Worker, lease: Lease, waiting: int) -> None:
        spent, lease.spent = lease.spent, 0
        grant = self.lessor.ask(worker.name, lease.id, waiting, spent, self.now_ns, NOW_S)
        left = tuple(Left(*each) for each in grant.left)
        known = self.lessor.leases[lease.id]
        message = LeaseGranted(
            lease.id, grant.granted, grant.surplus, left, grant.blocked_by, known.terms, known.limits
        )
        lease.granted(message, self.now_ns / NANOS)
        worker.touched_ns[lease.id] = self.now_ns

    # What must be so.

    def check(self) -> None:
        """Over every interval between two admissions: at most burst + rate * t, of every account."""
        for account, rates in self.rates.items():
            of_it = [(when, units) for when, units, id_ in self.admitted if account in accounts_of(id_)]
            for rate in rates:
                assert_within(rate, of_it)
        for key_id, quota in self.quotas.items():
            used = sum(units for _, units, id_ in self.admitted if id_.key_id == key_id)
            assert quota is None or used <= quota

    def come_to_rest(self) -> None:
        """All hand back what they have, and after long enough nothing is left that a fresh lessor would not have."""
        for worker in self.workers:
            for id_ in list(worker.surplus):
                self.hand_back(worker, id_)
            self.lessor.channel_lost(worker.name, self.now_ns)
            self.lessor.worker_gone(worker.name)
            self.lessor.worker_gone(worker.name.rstrip(b"'"))
        self.now_ns += 10_000 * NANOS
        for quota in self.lessor.quotas.values():
            quota.out.clear()
        self.lessor.forget_full(self.now_ns)
        assert (self.lessor.leases, self.lessor.accounts, self.lessor.quotas) == ({}, {}, {})


def accounts_of(id_: LeaseId) -> list[Account]:
    own = Account("client", id_.key_id, id_.client_id) if id_.client_id else Account("key", id_.key_id)
    accounts = [own] if id_.key_id else []
    accounts += [Account("route", id_.route_id)] if id_.route_id else []
    return accounts + ([Account("tenant", id_.tenant_id)] if id_.tenant_id else [])


def assert_within(rate: RateConf, admitted: list[tuple[int, int]]) -> None:
    """A full bucket of exact fractions could have admitted these: so no interval holds more than burst + rate * t."""
    level, before = Fraction(rate.burst), 0
    for when, units in admitted:
        level = min(Fraction(rate.burst), level + Fraction(rate.limit * (when - before), rate.window_s * NANOS)) - units
        before = when
        assert level >= 0, f"{-level} too many by {when} ns"


def admitted_at_most(rate: RateConf, elapsed_ns: int) -> int:
    return rate.burst + rate.limit * elapsed_ns // (rate.window_s * NANOS)
