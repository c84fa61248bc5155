"""Latency histograms: exact below 16 µs, within 1/16 above, and merging loses nothing."""

from __future__ import annotations

import struct
from array import array
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.policy.histogram import (
    Histogram,
    bucket_of,
    merge_packed,
    middle_of,
    pack_seconds,
    pack_values,
    quantiles_of,
    sum_packed,
)

values = st.integers(min_value=0, max_value=1 << 62) | st.integers(min_value=0, max_value=100_000)
histograms = st.builds(
    Histogram,
    st.dictionaries(st.integers(min_value=0, max_value=400), st.integers(min_value=1, max_value=1 << 62), max_size=30),
)


def filled(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    return histogram


@given(values)
def test_a_bucket_stands_for_its_values_within_a_sixteenth(value: int) -> None:
    assert abs(middle_of(bucket_of(value)) - value) * 16 <= value


@given(values, values)
def test_buckets_keep_the_order_of_values(a: int, b: int) -> None:
    assert (a <= b) <= (bucket_of(a) <= bucket_of(b))


@given(st.lists(values, min_size=1), st.floats(min_value=0, max_value=1))
def test_a_quantile_is_the_value_of_its_rank(numbers: list[int], q: float) -> None:
    exact = sorted(numbers)[max(1, ceil(q * len(numbers))) - 1]
    found = filled(numbers).quantile(q)
    assert found is not None
    assert abs(found - exact) * 16 <= exact


@given(st.lists(values), st.lists(values))
def test_merging_is_adding_everything(ours: list[int], theirs: list[int]) -> None:
    merged = filled(ours)
    merged.merge(filled(theirs))
    assert merged == filled(ours + theirs)
    assert merged.total == len(ours) + len(theirs)


@given(histograms)
def test_packing_is_reversible_and_canonical(histogram: Histogram) -> None:
    packed = histogram.pack()
    assert Histogram.unpack(packed) == histogram
    assert Histogram(dict(reversed(list(histogram.counts.items())))).pack() == packed


@given(histograms, histograms)
def test_merging_packed_is_merging(ours: Histogram, theirs: Histogram) -> None:
    expected = Histogram(dict(ours.counts))
    expected.merge(theirs)
    ours.merge_packed(theirs.pack())
    assert ours == expected


narrow = st.builds(
    Histogram,
    st.dictionaries(st.integers(min_value=0, max_value=487), st.integers(min_value=1, max_value=255), max_size=30),
)


@given(st.lists(histograms | narrow, max_size=4) | st.lists(narrow, max_size=6))
def test_a_sum_of_packed_ones_is_their_sum(every: list[Histogram]) -> None:
    expected = Histogram()
    for each in every:
        expected.merge(each)
    if any(n >= 1 << 64 for n in expected.counts.values()):
        return
    packed = sum_packed(each.pack() for each in every)
    assert Histogram.unpack(packed) == expected
    assert quantiles_of(packed, (0, 0.5, 1)) == expected.quantiles((0, 0.5, 1))


@pytest.mark.parametrize(("number", "count"), [(256, 255), (257, 255), (300, 65535)])
def test_a_sum_of_many_full_ones_overflows_nowhere(number: int, count: int) -> None:
    one = Histogram({70: count, 71: count, 487: 1})
    assert Histogram.unpack(sum_packed([one.pack()] * number)).counts == {
        70: number * count, 71: number * count, 487: number,
    }  # fmt: skip


def test_an_hour_of_latencies_packs_into_a_few_dozen_bytes() -> None:
    histogram = filled([800 + 7 * n for n in range(200)])
    assert len(histogram.pack()) < 50


def test_an_empty_one_has_no_quantile_and_no_bytes() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().pack() == b""
    assert repr(Histogram()) == "<Histogram 0 values, p50 None µs>"


def test_a_clock_that_ran_backwards_counts_as_zero() -> None:
    assert bucket_of(-5) == 0


@pytest.mark.parametrize("packed", [b"\x03abc", b"\x01abcd", b"\x00", b"\x08" + bytes(9), b"\x11\0\0", b"\x12\0\0a"])
def test_bytes_that_are_no_histogram_are_refused(packed: bytes) -> None:
    for read in (Histogram.unpack, lambda packed: sum_packed([packed]), lambda packed: quantiles_of(packed, (0.5,))):
        with pytest.raises(ValueError, match="not a packed histogram"):
            read(packed)


@given(st.lists(values, max_size=300))
def test_values_are_packed_as_if_they_were_added(numbers: list[int]) -> None:
    assert pack_values(numbers) == filled(numbers).pack()


@given(histograms, histograms)
def test_packed_ones_merge_to_a_packed_one(ours: Histogram, theirs: Histogram) -> None:
    merged = merge_packed(ours.pack(), theirs.pack())
    ours.merge(theirs)
    assert merged == ours.pack()


def test_what_was_packed_sparsely_is_still_read() -> None:
    packed = bytes([2]) + struct.pack("<3H", 5, 90, 400) + struct.pack("<3H", 1, 500, 7)
    assert Histogram.unpack(packed).counts == {5: 1, 90: 500, 400: 7}
    assert Histogram.unpack(merge_packed(packed, packed)).counts == {5: 2, 90: 1000, 400: 14}


@given(histograms, st.integers(min_value=0, max_value=400), st.integers(min_value=1, max_value=255))
def test_one_bucket_more(ours: Histogram, bucket: int, n: int) -> None:
    merged = merge_packed(ours.pack(), Histogram({bucket: n}).pack())
    ours.merge(Histogram({bucket: n}))
    assert merged == ours.pack()


seconds = st.lists(st.floats(min_value=0, max_value=100_000, width=32), min_size=1, max_size=300)
repeated = st.builds(lambda some, times: some * times, seconds, st.integers(min_value=1, max_value=300))


@given(seconds | repeated, st.floats(min_value=0, max_value=1))
def test_a_quantile_of_seconds_is_the_value_of_its_rank(times: list[float], q: float) -> None:
    exact = 1e6 * sorted(times)[max(1, ceil(q * len(times))) - 1]
    (found,) = quantiles_of(pack_seconds(array("f", times)), [q])
    assert found is not None
    assert abs(found - exact) <= exact * (1 / 16 + 1 / 128) + 1
    assert Histogram.unpack(pack_seconds(array("f", times))).total == len(times)


@given(st.lists(seconds | st.just([]), max_size=6))
def test_seconds_of_several_workers_are_those_of_one(parts: list[list[float]]) -> None:
    together = pack_seconds(array("f", [time for part in parts for time in part]))
    apart = sum_packed([pack_seconds(array("f", part)) for part in parts])
    assert Histogram.unpack(apart) == Histogram.unpack(together)
