"""Limits given out to workers: what the lessor goes by is what the database says, read when it is asked for.

The times of limits are taken here, once per message.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from gatewayd.channel import (
    Hello,
    LeaseAsked,
    LeaseGranted,
    LeaseId,
    LeaseReturned,
    Left,
    SlotsAsked,
    SlotsGranted,
    SlotsReturned,
)
from gatewayd.control.compile import find_key_by_id
from gatewayd.control.database import Database
from gatewayd.control.levels import LevelFile
from gatewayd.control.pressure import Pressure, pressures
from gatewayd.control.terms import quota_terms, terms_of
from gatewayd.policy.leases import Lessor

# Of keys whose number of slots is known; beyond it they are looked up again when they are needed.
_SLOT_LIMITS_KEPT = 10_000


class Leasing:
    """The lessor, and which of its limits are as the database has them."""

    def __init__(self, database: Database, levels: LevelFile, workers: int) -> None:
        self._database = database
        self._levels = levels
        self.lessor = Lessor(levels)
        self.lessor.workers = workers
        self._current: set[LeaseId] = set()  # leases whose limits at the lessor are as the database has them
        self._slot_limits: dict[int, int | None] = {}  # by key, as the database has them
        self._heard: set[bytes] = set()  # workers that have said Hello to this control

    def __repr__(self) -> str:
        return f"<Leasing {len(self._current)} current, {self.lessor}>"

    # What changes.

    def shared_limits_changed(self) -> None:
        """Of routes and tenants the rates may have changed."""
        self._current = {id_ for id_ in self._current if not id_.route_id and not id_.tenant_id}

    def keys_changed(self, key_ids: Collection[int] | None) -> None:
        """None: any may have."""
        if key_ids is None:
            self._current.clear()
            self._slot_limits.clear()
        else:
            self._current = {id_ for id_ in self._current if id_.key_id not in key_ids}
            for key_id in key_ids:
                self._slot_limits.pop(key_id, None)

    def forget_full(self) -> None:
        """What nobody has used for long enough to be full again."""
        self._current.difference_update(self.lessor.forget_full(time.monotonic_ns()))
        if len(self._slot_limits) > _SLOT_LIMITS_KEPT:
            self._slot_limits.clear()

    # What workers ask for, and give back.

    def lease(self, worker_id: bytes, message: LeaseAsked) -> LeaseGranted:
        id_ = message.lease
        if not self._ensure_current(id_):  # its limits were lifted while requests waited for them
            return _without_limits(message)
        now_ns, now_s = time.monotonic_ns(), time.time_ns() / 1e9
        grant = self.lessor.ask(worker_id, id_, message.count, message.spent, now_ns, now_s, message.least)
        left = tuple(Left(*limit) for limit in grant.left)
        lease = self.lessor.leases[id_]
        limits = None if message.terms == lease.terms else lease.limits
        return LeaseGranted(id_, grant.granted, grant.surplus, left, grant.blocked_by, lease.terms, limits)

    def slots(self, worker_id: bytes, message: SlotsAsked) -> SlotsGranted:
        limit = self._slot_limit(message.key_id)
        granted = self.lessor.take_slots(worker_id, message.key_id, message.count, limit)
        return SlotsGranted(message.key_id, granted, self.lessor.workers == 1)

    def give_back(self, worker_id: bytes, message: LeaseReturned | SlotsReturned) -> None:
        if isinstance(message, SlotsReturned):
            self.lessor.give_slots_back(worker_id, message.key_id, message.count)
            return
        now_ns = time.monotonic_ns()
        self.lessor.give_back(worker_id, message.lease, message.returned, message.unused, message.spent, now_ns)

    def peek(self, message: LeaseAsked) -> LeaseGranted:
        """As `lease`, but nobody is charged, and the limits are named."""
        id_ = message.lease
        if not self._ensure_current(id_):
            return _without_limits(message)
        now_ns, now_s = time.monotonic_ns(), time.time_ns() / 1e9
        peek = self.lessor.peek(id_, message.count, now_ns, now_s, message.least)
        lease = self.lessor.leases[id_]
        left = tuple(Left(*limit) for limit in peek.left)
        return LeaseGranted(id_, peek.granted, 0, left, peek.blocked_by, lease.terms, lease.limits)

    def peek_slots(self, message: SlotsAsked) -> SlotsGranted:
        """As `slots`, but none is taken."""
        free = self.lessor.free_slots(message.key_id, self._slot_limit(message.key_id))
        return SlotsGranted(message.key_id, min(message.count, free), False)

    # Workers that come and go.

    def resume(self, hello: Hello) -> None:
        """What this worker holds. Of quotas only what we have forgotten: else it is known better than it can say."""
        worker_id, now_ns, now_s = hello.worker_id, time.monotonic_ns(), time.time_ns() / 1e9
        for held in hello.held:
            if self._ensure_current(held.lease):
                self.lessor.resume(worker_id, held.lease, held.unspent, now_ns)
        if worker_id not in self._heard:
            for key in hello.keys:
                self._load_quota(key.key_id, now_s)
                self.lessor.resume_quota(worker_id, key.key_id, key.out)
        self.lessor.resume_slots(worker_id, {key.key_id: key.slots for key in hello.keys})
        self._heard.add(worker_id)

    def settle(self) -> None:
        """Every worker of before has said what it holds, or is dead."""
        now_ns = time.monotonic_ns()
        self.lessor.settle(now_ns)
        self._levels.forget_full(now_ns)

    def channel_lost(self, worker_id: bytes) -> None:
        self.lessor.channel_lost(worker_id, time.monotonic_ns())

    def worker_gone(self, worker_id: bytes) -> None:
        """The worker is dead and all that it has recorded is on the rollups."""
        self.lessor.worker_gone(worker_id)
        self._heard.discard(worker_id)

    # For status.

    def pressures(self, keys: Collection[int]) -> dict[int, Pressure]:
        """How near these keys are to their limits. A thread may ask."""
        return pressures(self.lessor, self._slot_limits, keys, time.monotonic_ns())

    def quotas(self) -> dict[int, tuple[float, int]]:
        """Of each key that is in use: since when its quota counts, and what is recorded since."""
        return {key_id: (quota.month_start_s, quota.recorded) for key_id, quota in self.lessor.quotas.items()}

    # By the database.

    def _slot_limit(self, key_id: int) -> int | None:
        if key_id not in self._slot_limits:
            key = find_key_by_id(self._database.lookup, key_id)
            self._slot_limits[key_id] = None if key is None else key.in_flight_limit
        return self._slot_limits[key_id]

    def _ensure_current(self, id_: LeaseId) -> bool:
        """The lessor has the limits of this lease as the database has them. False where there are none."""
        now_s = time.time_ns() / 1e9
        if id_ in self._current and self.lessor.has_quota_of(id_.key_id, now_s):
            return True
        parts = terms_of(self._database.lookup, id_)
        has_quota = self._load_quota(id_.key_id, now_s)
        if not has_quota and not any(part.rates for part in parts):
            self._current.discard(id_)
            return False
        self.lessor.load(id_, parts, time.monotonic_ns())
        self._current.add(id_)
        return True

    def _load_quota(self, key_id: int, now_s: float) -> bool:
        """True for a key that has one."""
        quota = quota_terms(self._database.lookup, key_id, now_s) if key_id else None
        self.lessor.load_quota(key_id, quota)
        return quota is not None


def _without_limits(message: LeaseAsked) -> LeaseGranted:
    return LeaseGranted(message.lease, message.count, 0, (), None, 0, ())
