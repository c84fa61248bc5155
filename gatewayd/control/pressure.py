"""How near a key is to its limits: of its buckets, its quota and its requests in flight, the one that is fullest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from gatewayd.policy.buckets import Bucket
from gatewayd.policy.grants import Lease
from gatewayd.policy.leases import Lessor


class Pressure(NamedTuple):
    """`share`: 0 nothing is used of it, 1 the next request may be refused. `limit`: which one that is."""

    share: float
    limit: str


def pressures(lessor: Lessor, in_flight_limits: Mapping[int, int | None], keys: Collection[int], now_ns: int) -> dict[
    int, Pressure
]:  # fmt: skip
    """Of those keys whose limits are in use. It changes nothing, so a thread may ask: a lease is looked at as it is."""
    found: dict[int, Pressure] = {}
    for lease in list(lessor.leases.values()):
        if lease.id.key_id in keys:
            for pressure in _of_lease(lease, now_ns):
                _keep_fullest(found, lease.id.key_id, pressure)
    for key_id in keys:
        limit = in_flight_limits.get(key_id)
        if limit:
            taken = sum(list(lessor.slots.get(key_id, {}).values()))
            _keep_fullest(found, key_id, Pressure(min(1.0, taken / limit), "in flight"))
    return found


def _keep_fullest(found: dict[int, Pressure], key_id: int, pressure: Pressure) -> None:
    if key_id not in found or pressure.share > found[key_id].share:
        found[key_id] = pressure


def _of_lease(lease: Lease, now_ns: int) -> list[Pressure]:
    every = [
        Pressure(_used_share(bucket, now_ns), f"{_scope(books.account.scope)}{rate.name}")
        for books in list(lease.books)
        for rate, bucket in zip(books.rates, books.buckets, strict=False)  # they may change while a thread looks
    ]
    quota = lease.quota
    if quota is not None:
        every.append(Pressure(1 - quota.remaining() / quota.limit if quota.limit else 1.0, "month"))
    return every


def _used_share(bucket: Bucket, now_ns: int) -> float:
    """Of the burst, without tokens that are leased out and may come back unspent."""
    whole = bucket.burst * bucket.window_ns
    level = min(bucket.room, bucket.level + max(0, now_ns - bucket.stamp_ns) * bucket.limit)
    free = max(level, bucket.level) + bucket.away * bucket.window_ns
    return min(1.0, max(0.0, 1 - free / whole)) if whole else 1.0


def _scope(scope: str) -> str:
    return "" if scope == "key" else f"{scope} "
