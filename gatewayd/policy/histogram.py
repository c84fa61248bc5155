"""A mergeable histogram of microseconds: the latency of an hour in a few dozen bytes, summed over any hours later.

Log-linear buckets: every power of two is cut into 8 equal parts, so a bucket is at most 1/8 of its lower bound wide and
its middle is within 1/16 of every value in it; below 16 µs a bucket is one value. Merging adds counts and loses
nothing, which averages and stored percentiles cannot do.

    bucket of v = v                     for v < 8
                = 8 e + (v >> e)        where e is the number of bits of v beyond 4 (v >> e is then 8..15)

Packed, it is sparse and fixed-width: one byte with the width of a count (1, 2, 4 or 8), then all bucket numbers (u16),
then all counts. Fixed width lets `struct` unpack it in one call; varints are a quarter smaller and ten times slower to
read, and a year's view reads hundreds of thousands of these.
"""

from __future__ import annotations

import struct
from functools import cache
from math import ceil

_PARTS_BITS = 3  # 8 parts to a power of two
_PARTS = 1 << _PARTS_BITS
_LARGEST = (1 << 63) - 1
_COUNT_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_BUCKET_BYTES = 2


class Histogram:
    """Counts by bucket. `<Histogram 120 values, p50 812 µs>`"""

    __slots__ = ("counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: dict[int, int] = {} if counts is None else counts

    def __repr__(self) -> str:
        return f"<Histogram {self.total} values, p50 {self.quantile(0.5)} µs>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, micros: int, n: int = 1) -> None:
        bucket = bucket_of(micros)
        self.counts[bucket] = self.counts.get(bucket, 0) + n

    def merge(self, other: Histogram) -> None:
        counts = self.counts
        for bucket, n in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + n

    def merge_packed(self, packed: bytes) -> None:
        """`merge(unpack(packed))` without the object between: views merge one of these for each rollup row."""
        if not packed:
            return
        buckets, numbers = _layout(packed[0], len(packed))
        counts = self.counts
        for bucket, n in zip(
            buckets.unpack_from(packed, 1), numbers.unpack_from(packed, 1 + buckets.size), strict=True
        ):
            counts[bucket] = counts.get(bucket, 0) + n

    def pack(self) -> bytes:
        """Empty bytes for an empty histogram; equal histograms pack to equal bytes."""
        if not self.counts:
            return b""
        items = sorted(self.counts.items())
        width = _width_for(max(self.counts.values()))
        buckets, numbers = _layout(width, 1 + len(items) * (_BUCKET_BYTES + width))
        return bytes([width]) + buckets.pack(*(b for b, _ in items)) + numbers.pack(*(n for _, n in items))

    @classmethod
    def unpack(cls, packed: bytes) -> Histogram:
        """The histogram that was packed. Raises ValueError for bytes that are not one."""
        histogram = cls()
        histogram.merge_packed(packed)
        return histogram

    def quantile(self, q: float) -> int | None:
        """The value below which the share `q` lies (nearest rank), within 1/16; None when nothing was added."""
        if not self.counts:
            return None
        left = max(1, ceil(q * self.total))  # the rank of the value asked for
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                break
        return middle_of(bucket)


def bucket_of(micros: int) -> int:
    """The bucket of a value. A clock that ran backwards counts as 0; what no 64 bits hold counts as the largest."""
    micros = min(max(micros, 0), _LARGEST)
    shift = micros.bit_length() - _PARTS_BITS - 1
    return micros if shift <= 0 else (shift << _PARTS_BITS) + (micros >> shift)


def middle_of(bucket: int) -> int:
    """The value that stands for a bucket."""
    if bucket < 2 * _PARTS:
        return bucket
    shift = (bucket >> _PARTS_BITS) - 1
    return ((bucket - (shift << _PARTS_BITS)) << shift) + (1 << shift >> 1)


def _width_for(count: int) -> int:
    return next(width for width in _COUNT_FORMATS if count < 1 << 8 * width)


@cache  # sizes are few: at most 500 buckets times 4 widths
def _layout(width: int, packed_bytes: int) -> tuple[struct.Struct, struct.Struct]:
    buckets, rest = divmod(packed_bytes - 1, _BUCKET_BYTES + width) if width in _COUNT_FORMATS else (0, 1)
    if rest:
        raise ValueError("these bytes are not a packed histogram")
    return struct.Struct(f"<{buckets}H"), struct.Struct(f"<{buckets}{_COUNT_FORMATS[width]}")
