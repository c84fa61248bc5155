"""Where a worker's requests are: by service, key and target. Looked up once a second, so that no request pays for it.

To look through 1,000 requests in flight takes 0.2 ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from gatewayd.channel import LOAD_S, Loads, TargetLoad
from gatewayd.proxy.pool import Pool

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange

MOST_TOLD = 200  # of each kind
NO_LOADS = Loads((), (), ())


def loads_of(exchanges: Iterable[Exchange], pools: Iterable[Pool], now: float) -> Loads:
    """Those with the most, of what is not idle."""
    services: Counter[int] = Counter()
    keys: Counter[int] = Counter()
    for exchange in exchanges:
        if exchange.service is not None:
            services[exchange.service.id] += 1
        if exchange.entry is not None:
            keys[exchange.entry.conf.id] += 1
    return Loads(tuple(services.most_common(MOST_TOLD)), tuple(keys.most_common(MOST_TOLD)), _targets(pools, now))


def _targets(pools: Iterable[Pool], now: float) -> tuple[TargetLoad, ...]:
    found = [_Busy(pool.busy, pool.requests_within(LOAD_S, now), pool.faring.ended, pool) for pool in pools]
    busy = [each for each in found if each.in_flight or each.requests or each.ended]
    busy.sort(key=_how_busy, reverse=True)
    return tuple([_load_of(each) for each in busy[:MOST_TOLD]])


class _Busy(NamedTuple):
    in_flight: int
    requests: int
    ended: int
    pool: Pool


def _how_busy(each: _Busy) -> tuple[int, int, int]:
    return each.in_flight, each.requests, each.ended


def _load_of(each: _Busy) -> TargetLoad:
    faring = each.pool.faring
    url = each.pool.target.url
    return TargetLoad(url, each.in_flight, each.requests, each.ended, faring.errors, faring.packed())
