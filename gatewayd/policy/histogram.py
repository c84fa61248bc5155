"""A mergeable histogram of microseconds: the latency of an hour in a few dozen bytes, summed over any hours later.

Log-linear buckets: every power of two is cut into 8 equal parts, so a bucket is at most 1/8 of its lower bound wide and
its middle is within 1/16 of every value in it; below 16 µs a bucket is one value. Merging adds counts and loses
nothing, which averages and stored percentiles cannot do.

    bucket of v = v                     for v < 8
                = 8 e + (v >> e)        where e is the number of bits of v beyond 4 (v >> e is then 8..15)

In memory it is one large integer with 64 bits for each bucket, bucket 0 lowest: to merge two is an addition, at the
speed of C however many buckets they have (0.2 µs; a dict of counts took 2, measured), and a view merges tens of
thousands. Packed, it is what lies between its first and its last bucket:

    one byte 0x10 + the width of a count (1, 2, 4 or 8), the number of the first bucket (u16), then all counts

little-endian. Rows that were packed before have the width alone in the first byte, then the numbers of all buckets
that count (u16), then their counts; they are read as they are.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate

_PARTS_BITS = 3  # 8 parts to a power of two
_PARTS = 1 << _PARTS_BITS
_LARGEST = (1 << 63) - 1
_WIDTHS = (1, 2, 4, 8)
_COUNT_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_BUCKET_BYTES = 2
_LANE_BYTES = 8
_LANE_BITS = 8 * _LANE_BYTES
_LANE = (1 << _LANE_BITS) - 1
# By width, every other count of all the buckets that there are.
_PAIRED = {width: int.from_bytes((b"\xff" * width + b"\0" * width) * 256, "little") for width in (1, 2)}
_DENSE = 0x10
_HEAD = struct.Struct("<BH")
_FLOAT, _HALVES = struct.Struct("<f"), struct.Struct("<HH")
_UPPER = 1 if sys.byteorder == "little" else 0
_NO_HISTOGRAM = "these bytes are not a packed histogram"


class Histogram:
    """Counts by bucket. `<Histogram 120 values, p50 812 µs>`"""

    __slots__ = ("lanes",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.lanes = 0
        for bucket, n in (counts or {}).items():
            self.lanes += n << bucket * _LANE_BITS

    def __repr__(self) -> str:
        return f"<Histogram {self.total} values, p50 {self.quantile(0.5)} µs>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.lanes == other.lanes

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def counts(self) -> dict[int, int]:
        first, counts = _counts(self.lanes)
        return {first + place: n for place, n in enumerate(counts) if n}

    @property
    def total(self) -> int:
        return sum(_counts(self.lanes)[1])

    def add(self, micros: int, n: int = 1) -> None:
        self.lanes += n << bucket_of(micros) * _LANE_BITS

    def merge(self, other: Histogram) -> None:
        self.lanes += other.lanes

    def merge_packed(self, packed: bytes) -> None:
        """`merge(unpack(packed))` without the object between. Raises ValueError for bytes that are not one."""
        self.lanes += lanes_of(packed)

    def pack(self) -> bytes:
        """Empty bytes for an empty histogram; equal histograms pack to equal bytes."""
        return pack_lanes(self.lanes)

    @classmethod
    def unpack(cls, packed: bytes) -> Histogram:
        """The histogram that was packed. Raises ValueError for bytes that are not one."""
        histogram = cls()
        histogram.lanes = lanes_of(packed)
        return histogram

    def quantile(self, q: float) -> int | None:
        """The value below which the share `q` lies (nearest rank), within 1/16; None when nothing was added."""
        return self.quantiles((q,))[0]

    def quantiles(self, shares: Sequence[float]) -> list[int | None]:
        """Several at once."""
        return _quantiles(*_counts(self.lanes), shares) if self.lanes else [None] * len(shares)


def merge_packed(ours: bytes, theirs: bytes) -> bytes:
    """Two packed ones as one: what the database calls when it adds to a row."""
    if not ours or not theirs:
        return ours or theirs
    if len(theirs) == _HEAD.size + 1 and ours[0] > _DENSE:  # one bucket, as with many keys: a fifth of the time
        width = ours[0] - _DENSE
        at = _HEAD.size + (theirs[1] - ours[1] + (theirs[2] - ours[2] << 8)) * width
        if _HEAD.size <= at < len(ours):
            n = int.from_bytes(ours[at : at + width], "little") + theirs[-1]
            if n < 1 << 8 * width:
                return ours[:at] + n.to_bytes(width, "little") + ours[at + width :]
    return pack_lanes(lanes_of(ours) + lanes_of(theirs))


def pack_values(micros: Iterable[int]) -> bytes:
    """A packed histogram of these values."""
    # `bucket_of`, without a call for each of the commonest values
    buckets = [
        ((value.bit_length() - 4) << _PARTS_BITS) + (value >> value.bit_length() - 4)
        if 16 <= value <= _LARGEST
        else bucket_of(value)
        for value in micros
    ]
    return _pack_buckets(buckets)


def _pack_buckets(buckets: list[int]) -> bytes:
    if len(buckets) == 1:
        return _HEAD.pack(_DENSE + 1, buckets[0]) + b"\x01"
    if not 0 < len(buckets) < 256:
        return Histogram(Counter(buckets)).pack()
    first = min(buckets)
    counts = bytearray(max(buckets) - first + 1)
    for bucket in buckets:
        counts[bucket - first] += 1
    return _HEAD.pack(_DENSE + 1, first) + counts


def pack_seconds(seconds: array[float]) -> bytes:
    """A packed histogram of times in seconds, that are floats of 32 bits, none negative.

    The upper half of such a float (its sign, its exponent and 7 bits of its fraction) is a bucket by itself, 128 of
    them to a power of two: they need only be counted, which takes 0.05 µs a value, where `pack_values` takes 0.2. So a
    value may be taken for one that is 1/256 off.
    """
    halves = array("H", seconds.tobytes())[_UPPER::2]
    if len(halves) < 256:
        return _pack_buckets([_bucket_of_upper(half) for half in halves])
    counts: dict[int, int] = {}
    for half, n in Counter(halves).items():
        bucket = _bucket_of_upper(half)
        counts[bucket] = counts.get(bucket, 0) + n
    return Histogram(counts).pack()


@cache  # of times from 1 µs to an hour there are 4000
def _bucket_of_upper(half: int) -> int:
    """The bucket of the middle of these times."""
    (middle,) = _FLOAT.unpack(_HALVES.pack(0x8000, half))
    return bucket_of(int(middle * 1e6))


def bucket_of(micros: int) -> int:
    """The bucket of a value. A clock that ran backwards counts as 0; what no 64 bits hold counts as the largest."""
    if micros < 2 * _PARTS:
        return max(micros, 0)
    if micros > _LARGEST:
        micros = _LARGEST
    shift = micros.bit_length() - _PARTS_BITS - 1
    return (shift << _PARTS_BITS) + (micros >> shift)


def sum_packed(every: Iterable[bytes]) -> bytes:
    """Packed ones as one, for who reads it at once: not in the fewest bytes. Raises ValueError where one is damaged."""
    packed = [each for each in every if each]
    widths = {each[0] - _DENSE for each in packed}
    if len(widths) == 1 and (width := widths.pop()) in _PAIRED and len(packed) <= 1 << 8 * width:
        return _sum_in_pairs(packed, width)
    return pack_lanes(sum(map(lanes_of, packed)))


def _sum_in_pairs(every: Sequence[bytes], width: int) -> bytes:
    """Of dense ones with counts of this width, none empty.

    The buckets of even numbers and those of odd ones are summed apart, so each count has the room of two, and none has
    to be spread over a lane first: half the time.
    """
    bits, mask = 8 * width, _PAIRED[width]
    begin = min([each[1] | each[2] << 8 for each in every]) & ~1
    even = odd = 0
    for each in every:
        if (size := len(each) - _HEAD.size) <= 0 or size % width:
            raise ValueError(_NO_HISTOGRAM)
        counts = int.from_bytes(each[_HEAD.size :], "little") << ((each[1] | each[2] << 8) - begin) * bits
        even += counts & mask
        odd += counts >> bits & mask
    pair = 4 * width
    size = -(-max(even.bit_length(), odd.bit_length()) // (2 * bits)) * 2 * width
    sums = bytearray(2 * size)
    for offset, half in ((0, even.to_bytes(size, "little")), (2 * width, odd.to_bytes(size, "little"))):
        for place in range(2 * width):
            sums[offset + place :: pair] = half[place :: 2 * width]
    return _HEAD.pack(_DENSE + 2 * width, begin) + sums


def quantiles_of(packed: bytes, shares: Sequence[float]) -> list[int | None]:
    """`Histogram.quantiles` of a packed one. Raises ValueError for bytes that are not one."""
    if not packed:
        return [None] * len(shares)
    width = packed[0] - _DENSE
    size = len(packed) - _HEAD.size
    if width not in _WIDTHS or size <= 0 or size % width:
        return Histogram.unpack(packed).quantiles(shares)
    counts = _numbers(size // width, width).unpack_from(packed, _HEAD.size)
    return _quantiles(packed[1] | packed[2] << 8, counts, shares)


def _quantiles(first: int, counts: Iterable[int], shares: Sequence[float]) -> list[int | None]:
    """`counts`: of the buckets from the `first` on; not all of them 0."""
    ranks = list(accumulate(counts))
    total = ranks[-1]  # the nearest rank is the first that is not below q of all; ranks are whole
    return [_middle_of(first + bisect_left(ranks, q * total or 1)) for q in shares]


def middle_of(bucket: int) -> int:
    """The value that stands for a bucket."""
    if bucket < 2 * _PARTS:
        return bucket
    shift = (bucket >> _PARTS_BITS) - 1
    return ((bucket - (shift << _PARTS_BITS)) << shift) + (1 << shift >> 1)


_middle_of = cache(middle_of)  # buckets are few: at most 500


def _counts(lanes: int) -> tuple[int, tuple[int, ...]]:
    """The number of the first bucket that counts, and the counts from there on."""
    first = ((lanes & -lanes).bit_length() - 1) // _LANE_BITS if lanes else 0
    lanes >>= first * _LANE_BITS
    buckets = -(-lanes.bit_length() // _LANE_BITS)
    return first, _numbers(buckets, 8).unpack(lanes.to_bytes(buckets * _LANE_BYTES, "little"))


def pack_lanes(lanes: int) -> bytes:
    """`Histogram.pack` of what is in `lanes`."""
    if not lanes:
        return b""
    first = ((lanes & -lanes).bit_length() - 1) // _LANE_BITS
    lanes >>= first * _LANE_BITS
    buckets = -(-lanes.bit_length() // _LANE_BITS)
    width = next(width for width in _WIDTHS if not lanes & _above(buckets, width))
    wide = lanes.to_bytes(buckets * _LANE_BYTES, "little")
    if width == _LANE_BYTES:
        return _HEAD.pack(_DENSE + width, first) + wide
    counts = bytearray(buckets * width)
    for place in range(width):
        counts[place::width] = wide[place::_LANE_BYTES]
    return _HEAD.pack(_DENSE + width, first) + counts


def lanes_of(packed: bytes) -> int:
    """`Histogram.lanes` of a packed one. Raises ValueError for bytes that are not one."""
    if not packed:
        return 0
    width = packed[0] - _DENSE
    if width not in _WIDTHS:
        return _lanes_of_sparse(packed)
    size = len(packed) - _HEAD.size
    if size <= 0 or size % width:
        raise ValueError(_NO_HISTOGRAM)
    shift = (packed[1] | packed[2] << 8) * _LANE_BITS
    if width == _LANE_BYTES:
        return int.from_bytes(packed[_HEAD.size :], "little") << shift
    spread = bytearray(size // width * _LANE_BYTES)
    if width == 1:  # nearly all of them
        spread[::_LANE_BYTES] = packed[_HEAD.size :]
    else:
        for place in range(width):
            spread[place::_LANE_BYTES] = packed[_HEAD.size + place :: width]
    return int.from_bytes(spread, "little") << shift


def _lanes_of_sparse(packed: bytes) -> int:
    width = packed[0]
    buckets, rest = divmod(len(packed) - 1, _BUCKET_BYTES + width) if width in _WIDTHS else (0, 1)
    if rest:
        raise ValueError(_NO_HISTOGRAM)
    numbers = _numbers(buckets, _BUCKET_BYTES).unpack_from(packed, 1)
    counts = _numbers(buckets, width).unpack_from(packed, 1 + buckets * _BUCKET_BYTES)
    return Histogram(dict(zip(numbers, counts, strict=True))).lanes


@cache  # sizes are few: at most 500 buckets times 4 widths
def _numbers(count: int, width: int) -> struct.Struct:
    return struct.Struct(f"<{count}{_COUNT_FORMATS[width]}")


@cache
def _above(buckets: int, width: int) -> int:
    """The bits of so many lanes that a count of this width has none of."""
    return sum((_LANE ^ ((1 << 8 * width) - 1)) << lane * _LANE_BITS for lane in range(buckets))
