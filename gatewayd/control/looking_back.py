"""The newest requests that match, from the journals that are there: those being filled and those that are kept.

From the end of each segment backwards, a block at a time, always of the segment whose next record ended last; until
enough are found that no older one could take the place of, or all has been seen. Runs in a thread, and lets go of the
interpreter after each block: control's loop waits 0.5 ms for it at most. 100 of two million records take 2 s where none
before the last matches, and 1 ms where each does.

A request stands where it ended. So `since` is where looking may stop, since what ended before it also began before it.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Mapping
from pathlib import Path
from struct import Struct
from typing import Literal, NamedTuple

from gatewayd.control.segments import TAKEN_FOLDER
from gatewayd.control.tailing import Wanted
from gatewayd.records import SLOT_BYTES, Record, ended_ns, unpack_records

# Of all that may be kept by default twice as much: 4 million requests, 4 s.
MOST_BYTES = 512 << 20
_BLOCK_BYTES = 1024 * SLOT_BYTES
# Of a slot: flags; time; tenant, service, route, key, client; status. See `records`.
_LOOK = Struct("<6xHQIIIII8xH82x")

# Why it went no further back: enough were found; they are not wanted; there are none; it would take too long.
EndedBy = Literal["limit", "since", "kept", "bytes"]


class Past(NamedTuple):
    """Records by their time. All that match and ended at `looked_back_to_ns` or later are among them."""

    records: list[Record]
    looked_back_to_ns: int
    ended_by: EndedBy


class _Tail(NamedTuple):
    """What is left of a segment; the first in the order of these is the one that was filled last."""

    newest_first: int  # the negative of when its last record ended
    name: str
    end: int


def newest(
    folder: Path,
    ends: Mapping[str, int],
    wanted: Wanted,
    limit: int,
    since_ns: int = 0,
    until_ns: int = 1 << 63,
    most_bytes: int = MOST_BYTES,
) -> Past:
    """At most `limit`, of requests that came from `since_ns` on and before `until_ns`.

    `ends`: up to where each segment is looked at, by the names of files. One that is gone meanwhile had its time.
    """
    tails = [tail for name, end in ends.items() if (tail := _tail(folder, name, end, 0)) is not None]
    heapq.heapify(tails)
    found: list[tuple[int, int, Record]] = []
    seen_bytes = count = 0
    oldest_ns = time.time_ns()
    while tails:
        ended_last = -tails[0].newest_first
        if len(found) >= limit and found[0][0] >= ended_last:
            return _past(found, ended_last, "limit")
        if ended_last < since_ns:
            return _past(found, since_ns, "since")
        if seen_bytes >= most_bytes:
            return _past(found, ended_last, "bytes")
        _, name, end = tails[0]
        begin = max(SLOT_BYTES, end - _BLOCK_BYTES)
        block = _read(folder, name, begin, end)
        seen_bytes += len(block)
        for record in _matching(block, wanted, since_ns, until_ns):
            count += 1
            entry = (ended_ns(record), count, record)
            if len(found) < limit:
                heapq.heappush(found, entry)
            elif entry > found[0]:
                heapq.heapreplace(found, entry)
        rest = _tail(folder, name, begin, ended_last) if block else None
        if rest is None:
            oldest_ns = min([oldest_ns, ended_last, *map(ended_ns, unpack_records(block[:SLOT_BYTES])[0])])
            heapq.heappop(tails)
        else:
            heapq.heapreplace(tails, rest)
        time.sleep(0)
    return _past(found, oldest_ns, "kept" if len(found) < limit else "limit")


def _past(found: list[tuple[int, int, Record]], back_to_ns: int, ended_by: EndedBy) -> Past:
    records = [record for _, _, record in sorted(found)]
    records.sort(key=lambda record: record.time_ns)
    return Past(records, back_to_ns, ended_by)


def _tail(folder: Path, name: str, end: int, before_ns: int) -> _Tail | None:
    """`before_ns`: when what follows ended, for a last record that is torn."""
    if end <= SLOT_BYTES:
        return None
    slot = _read(folder, name, end - SLOT_BYTES, end)
    if not slot:
        return None
    records, _ = unpack_records(slot)
    return _Tail(-(ended_ns(records[0]) if records else before_ns or time.time_ns()), name, end)


def _read(folder: Path, name: str, begin: int, end: int) -> bytes:
    """Wherever the segment is by now: it is put away once it is full and taken, and goes in the end."""
    for place in (folder / name, folder / TAKEN_FOLDER / name):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            return os.pread(descriptor, end - begin, begin)
        finally:
            os.close(descriptor)
    return b""


def _matching(block: bytes, wanted: Wanted, since_ns: int, until_ns: int) -> list[Record]:
    whole = len(block) - len(block) % SLOT_BYTES
    tenants, services, routes, keys = wanted.tenant_id, wanted.service_id, wanted.route_id, wanted.key_id
    clients, statuses = wanted.client_ids, wanted.statuses
    records: list[Record] = []
    looked = _LOOK.iter_unpack(memoryview(block)[:whole])
    for number, (flags, time_ns, tenant, service, route, key, client, status) in enumerate(looked):
        if (
            not since_ns <= time_ns < until_ns
            or not time_ns
            or (tenants is not None and tenant != tenants)
            or (services is not None and service != services)
            or (routes is not None and route != routes)
            or (keys is not None and key != keys)
            or (clients is not None and client not in clients)
            or (statuses and status not in statuses and status // 100 not in statuses)
            or not wanted.takes_kind(flags, status)
        ):
            continue
        records += unpack_records(block[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])[0]
    return records
