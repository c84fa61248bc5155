"""What is going on now, for `top` and `status`: figures of the last seconds, from the records as ingest takes them.

Nobody pays while nobody looks: `take` only keeps the bytes that there are anyway, of as many as `REMEMBERED` records
and half a minute. (Groups, kept so long, were work for the collector of garbage: 7% of ingest, with 1000 keys.) Who
looks sums them, in a thread and once, by the second, by service and by key: 1 µs a record with ten keys, and at worst,
with as many groups as records, 10. So the first look has figures at once, and each later one sums what has come since.

A batch counts in the second in which its last request ended. Control looks five times a second, so a request near the
edge of a window may fall on the other side of it; one that took long counts when it ended, not when it came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nlargest
from operator import attrgetter
from typing import NamedTuple, TypeVar

from gatewayd.control.batches import Batch, Group, batch_of
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.histogram import merge_packed, pack_values, quantiles_of, sum_packed
from gatewayd.records import ADMITTED, MORE_BYTES, SLOT_BYTES, UPSTREAM_BROKE, ended_ns, unpack_records

LONGEST_S = 30  # of a window
REMEMBERED = 50_000  # records that nobody has looked at: 6 MB, or a second of 50,000 requests
WATCHED = 400_000  # the same while somebody looks once a second
WATCHERS = 8
KEYS_A_SECOND = 1000  # that are told apart; the others are summed
_GROUP = 8  # records that take as much memory as a group
SHARES = (0.5, 0.99)  # of requests: the quantiles that are shown
_NO_KEY, _OTHERS = 0, -1

_P = TypeVar("_P")
Place = tuple[int, int]  # a tenant, and a service or key of it


@dataclass(slots=True)
class Sums:
    """What requests add up to; latencies are of those that were admitted, as in `usage show`."""

    requests: int = 0  # refused ones too
    errors: int = 0
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    packed: bytes = b""

    def add(self, group: Group, packed: bytes) -> None:
        count = len(group.micros)
        self.requests += count
        self.bytes_in += group.bytes_in
        self.bytes_out += group.bytes_out
        if not group.flags & ADMITTED:
            self.refused += count
            return
        if group.status >= 500 or group.flags & UPSTREAM_BROKE:
            self.errors += count
        self.packed = merge_packed(self.packed, packed)


@dataclass(slots=True)
class _Second:
    tenants: dict[int, Sums] = field(default_factory=dict)
    services: dict[Place, Sums] = field(default_factory=dict)
    keys: dict[Place, Sums] = field(default_factory=dict)

    def add(self, group: Group) -> None:
        packed = pack_values(group.micros) if group.flags & ADMITTED else b""
        tenant, key = group.tenant, (group.tenant, group.key)
        if group.key and len(self.keys) >= KEYS_A_SECOND and key not in self.keys:
            key = tenant, _OTHERS
        _at(self.tenants, tenant).add(group, packed)
        _at(self.services, (tenant, group.service)).add(group, packed)
        _at(self.keys, key).add(group, packed)


class Figure(NamedTuple):
    """Of a window. `place`: whose they are."""

    place: Place
    requests: int
    requests_s: float
    errors_ratio: float
    refused_ratio: float
    bytes_in_s: float
    bytes_out_s: float
    p50_ms: float | None
    p99_ms: float | None


class Figures(NamedTuple):
    """Of the `window_s` seconds up to `until_s`. Those of services and keys that most went on with."""

    until_s: int
    window_s: int
    total: Figure
    services: list[Figure]
    keys: list[Figure]
    other_services: Figure
    other_keys: Figure


class _Heard(NamedTuple):
    second: int
    records: list[Group] | bytes
    weight: int

    def groups(self) -> list[Group]:
        return batch_of(self.records).groups if isinstance(self.records, bytes) else self.records


class Watch:
    """Hears from ingest, tells who looks. `begun_s`: when control began; what was before is not known."""

    def __init__(self, begun_s: int) -> None:
        self._heard: deque[_Heard] = deque()
        self._weight = 0
        self._known_s = begun_s  # of all seconds from this one on everything is known
        self._seconds: dict[int, _Second] = {}
        self._watchers = 0
        self._ended = asyncio.Event()
        self._summing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Watch {self._watchers} watchers, {len(self._heard)} batches, {len(self._seconds)} seconds>"

    def take(self, batch: Batch) -> None:
        """A batch that has been stored."""
        last, _ = unpack_records(batch.data[-SLOT_BYTES:])
        if not last:  # nothing but torn slots
            return
        second = ended_ns(last[0]) // 1_000_000_000
        count = len(batch.data) // SLOT_BYTES
        if self._watchers:
            heard, most = _Heard(second, batch.groups, count + _GROUP * len(batch.groups)), WATCHED
        else:
            heard, most = _Heard(second, batch.data, count), REMEMBERED
        self._heard.append(heard)
        self._weight += heard.weight
        while self._weight > most or self._heard[0].second < second - LONGEST_S:
            dropped = self._heard.popleft()
            self._weight -= dropped.weight
            self._known_s = max(self._known_s, dropped.second + 1)
            if not self._heard:
                break

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Somebody looks again and again. Raises GatewayError where too many do."""
        if self._ended.is_set():
            raise GatewayError(UNAVAILABLE, "the gateway is stopping")
        if self._watchers >= WATCHERS:
            raise GatewayError(UNAVAILABLE, f"{WATCHERS} watch the gateway already, which is the most; end one")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def end(self) -> None:
        """Control drains."""
        self._ended.set()

    async def ends_within(self, wait_s: float) -> bool:
        """Wait that long; True at once when the gateway stops."""
        try:
            async with asyncio.timeout(wait_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def figures(self, window_s: int, until_s: int, tenant_id: int | None = None, most: int = 100) -> Figures:
        """Of the seconds before `until_s`, as many as are wanted and known."""
        async with self._summing:
            heard, self._heard, self._weight = self._heard, deque(), 0
            return await asyncio.to_thread(self._figures, heard, window_s, until_s, tenant_id, most)

    def _figures(
        self, heard: Iterable[_Heard], window_s: int, until_s: int, tenant_id: int | None, most: int
    ) -> Figures:
        for each in heard:
            summed = self._seconds.setdefault(each.second, _Second())
            # The busiest first: they are told apart, should there be too many keys.
            for group in sorted(each.groups(), key=_size_of, reverse=True):
                if not group.flags & MORE_BYTES:  # its request has a record of its own
                    summed.add(group)
        for second in [second for second in self._seconds if second < until_s - LONGEST_S or second > until_s + 5]:
            del self._seconds[second]
        known_s = max(1, min(window_s, until_s - self._known_s))
        seconds = [self._seconds[at] for at in range(until_s - known_s, until_s) if at in self._seconds]
        return _summed(seconds, known_s, until_s, tenant_id, most)


def _summed(seconds: Sequence[_Second], window_s: int, until_s: int, tenant_id: int | None, most: int) -> Figures:
    tenants: dict[Place, list[Sums]] = {}
    services: dict[Place, list[Sums]] = {}
    keys: dict[Place, list[Sums]] = {}
    for second in seconds:
        for tenant, sums in second.tenants.items():
            if tenant_id in (None, tenant):
                tenants.setdefault((0, 0), []).append(sums)
        for into, parts in ((services, second.services), (keys, second.keys)):
            for place, sums in parts.items():
                if tenant_id in (None, place[0]):
                    into.setdefault(place, []).append(sums)
    for place in [place for place in keys if place[1] == _NO_KEY]:
        del keys[place]
    total = _figure((0, 0), tenants.get((0, 0), []), window_s)
    shown_services, other_services = _chosen(services, window_s, most)
    shown_keys, other_keys = _chosen(keys, window_s, most)
    return Figures(until_s, window_s, total, shown_services, shown_keys, other_services, other_keys)


class _Ranked(NamedTuple):
    place: Place
    requests: int
    errors: int
    refused: int


def _chosen(found: dict[Place, list[Sums]], window_s: int, most: int) -> tuple[list[Figure], Figure]:
    """The busiest, then those with the most errors and refusals, half as many each; and all others as one."""
    every = [
        _Ranked(
            place,
            sum([part.requests for part in parts]),
            sum([part.errors for part in parts]),
            sum([part.refused for part in parts]),
        )
        for place, parts in found.items()
        if place[1] != _OTHERS
    ]
    chosen = dict.fromkeys(each.place for each in nlargest(most, every, key=attrgetter("requests")))
    for field_name in ("errors", "refused"):
        worst = nlargest(most // 2, every, key=attrgetter(field_name))
        chosen.update(dict.fromkeys(each.place for each in worst if getattr(each, field_name)))
    others = [part for place, parts in found.items() if place not in chosen for part in parts]
    return [_figure(place, found[place], window_s) for place in chosen], _figure((0, _OTHERS), others, window_s)


def _figure(place: Place, parts: Sequence[Sums], window_s: int) -> Figure:
    requests = sum([part.requests for part in parts])
    p50, p99 = quantiles_of(sum_packed([part.packed for part in parts]), SHARES)
    return Figure(
        place,
        requests,
        requests / window_s,
        sum([part.errors for part in parts]) / requests if requests else 0.0,
        sum([part.refused for part in parts]) / requests if requests else 0.0,
        sum([part.bytes_in for part in parts]) / window_s,
        sum([part.bytes_out for part in parts]) / window_s,
        None if p50 is None else p50 / 1000,
        None if p99 is None else p99 / 1000,
    )


def _at(found: dict[_P, Sums], place: _P) -> Sums:
    sums = found.get(place)
    if sums is None:
        sums = found[place] = Sums()
    return sums


def _size_of(group: Group) -> int:
    return len(group.micros)
