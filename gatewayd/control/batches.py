"""Records as ingest takes them: a stretch of a segment, grouped by what a rollup row, a price or a quota tells apart.

Of two million records an hour a few thousand differ in more than their moment, sizes and times, so records are grouped
by slices of their bytes and never become objects of their own: 0.9 µs a record with its checksum, where a NamedTuple
each and a pass for every use took 5 (measured, ten keys).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from gatewayd.records import SLOT_BYTES, Record, unpack_records

HOUR_S = 3600
DAY_S = 86400
HOUR_NS = HOUR_S * 1_000_000_000

_CHECKED = struct.Struct("<I124s")
# Of a slot: flags; time; tenant, service, route, key, client; price, status, problem; units, bytes in and out,
# microseconds of gateway and upstream; generation. See `records`.
_PARTS = struct.Struct("<6x2sQ20s4x8sIQQII16x2s34x")
_WHOSE = struct.Struct("<H5IIHHH")

Row = tuple[int, int, int, int, int]  # time_ns, units, bytes in, bytes out, microseconds


class Group(NamedTuple):
    """Records of one hour that agree in all else but what is in `rows`."""

    rows: list[Row]
    hour: int
    flags: int
    tenant: int
    service: int
    route: int
    key: int
    client: int
    price: int
    status: int
    problem: int
    generation: int


class Batch(NamedTuple):
    """The whole records at the start of some bytes of a segment."""

    groups: list[Group]
    data: bytes

    def records(self) -> list[Record]:
        """One by one, for whoever wants to look at them; sums do not."""
        return unpack_records(self.data)[0]


def batch_of(data: bytes) -> Batch:
    """Up to the first slot that is empty, cut short, or fails its checksum: an empty one does."""
    whole = len(data) // SLOT_BYTES
    taken = data[: whole * SLOT_BYTES]
    crc32 = zlib.crc32
    for place, (crc, payload) in enumerate(_CHECKED.iter_unpack(taken)):
        if crc32(payload) != crc:
            taken = taken[: place * SLOT_BYTES]
            break
    return Batch(_grouped(taken), taken)


def _grouped(data: bytes) -> list[Group]:
    groups: dict[tuple[int, bytes, bytes, bytes, bytes], list[Row]] = {}
    for flags, time_ns, whose, outcome, units, size_in, size_out, gateway_us, upstream_us, number in _PARTS.iter_unpack(
        data
    ):
        same = (time_ns // HOUR_NS, whose, outcome, flags, number)
        row = (time_ns, units, size_in, size_out, gateway_us + upstream_us)
        try:
            groups[same].append(row)
        except KeyError:
            groups[same] = [row]
    return [
        Group(rows, hour * HOUR_S, *_WHOSE.unpack(flags + whose + outcome + number))
        for (hour, whose, outcome, flags, number), rows in groups.items()
    ]


def grouped(records: Iterable[Record]) -> list[Group]:
    """The same of records that are objects already."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for each in records:
        same = (
            each.time_ns // HOUR_NS * HOUR_S, each.flags, each.tenant, each.service, each.route, each.key, each.client,
            each.price, each.status, each.problem, each.generation,
        )  # fmt: skip
        row = (each.time_ns, each.units, each.bytes_in, each.bytes_out, each.gateway_us + each.upstream_us)
        groups.setdefault(same, []).append(row)
    return [Group(rows, *same) for same, rows in groups.items()]
