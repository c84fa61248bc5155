"""The file of levels: what it keeps through a crash, and what it makes of damage and of clocks."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.conf import RateConf
from gatewayd.control import levels
from gatewayd.control.levels import FIRST_SLOTS, HEADER_BYTES, SLOT_BYTES, LevelFile
from gatewayd.policy.accounts import Account
from gatewayd.policy.buckets import NANOS, Bucket
from tests.policy.worlds import assert_within

BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16
KEY = Account("key", 7)
MINUTE = RateConf("minute", 60, 60, 60)
MONTH = RateConf("31d", 10**12, 31 * 86400, 10**12)
START_NS = 500 * NANOS
WALL_NS = 1_795_262_400 * NANOS


def opened(folder: Path, now_ns: int = START_NS, boot: bytes = BOOT, wall_ns: int = WALL_NS) -> LevelFile:
    """As a control that begins then; the one before it was killed, so nothing was closed."""
    return LevelFile(folder, now_ns, boot, lambda: wall_ns)


def bucket_of(rate: RateConf, level: int = 0, now_ns: int = START_NS, away: int = 0) -> Bucket:
    return Bucket(rate.limit, rate.window_s * NANOS, rate.burst, level, now_ns, away)


def found(file: LevelFile, rate: RateConf = MINUTE, account: Account = KEY, now_ns: int = START_NS) -> Bucket:
    bucket = file.find(account, rate, now_ns)
    assert bucket is not None
    return bucket


@pytest.mark.parametrize("rate", [MINUTE, MONTH])
@pytest.mark.parametrize("part", [0, 1, 12_345_678_901])
def test_a_level_is_kept_to_the_last_part_of_a_token(tmp_path: Path, rate: RateConf, part: int) -> None:
    level = (rate.burst - 20) * rate.window_s * NANOS + part
    opened(tmp_path).save(KEY, bucket_of(rate, level, away=7))
    again = found(opened(tmp_path, START_NS + NANOS), rate)
    assert (again.level, again.stamp_ns, again.away, again.unclaimed) == (level, START_NS, 0, 7)
    assert (again.limit, again.burst, again.window_ns) == (rate.limit, rate.burst, rate.window_s * NANOS)
    negative = bucket_of(rate, -3)
    negative.place = again.place
    opened(tmp_path).save(KEY, negative)
    assert found(opened(tmp_path), rate).level == -3


def test_accounts_and_windows_are_told_apart(tmp_path: Path) -> None:
    file = opened(tmp_path)
    places = [
        (Account("key", 7), MINUTE), (Account("client", 7, 2), MINUTE), (Account("route", 7), MINUTE),
        (Account("tenant", 7), MINUTE), (Account("key", 7), MONTH), (Account("client", 7, 3), MINUTE),
    ]  # fmt: skip
    for number, (account, rate) in enumerate(places):
        file.save(account, bucket_of(rate, number))
    again = opened(tmp_path)
    for number, (account, rate) in enumerate(places):
        assert found(again, rate, account).level == number
        assert again.find(account, rate, START_NS) is None  # it is the lessor's now
    assert again.find(Account("key", 8), MINUTE, START_NS) is None


def test_it_grows_and_uses_slots_again(tmp_path: Path) -> None:
    file = opened(tmp_path)
    buckets = [bucket_of(MINUTE, number) for number in range(FIRST_SLOTS + 1)]
    for number, bucket in enumerate(buckets):
        file.save(Account("key", number + 1), bucket)
    size = (tmp_path / levels.FILE_NAME).stat().st_size
    assert size == HEADER_BYTES + 2 * FIRST_SLOTS * SLOT_BYTES
    for bucket in buckets[1:]:
        file.release(bucket)
    again = opened(tmp_path)
    assert found(again, account=Account("key", 1)).level == 0
    assert again.find(Account("key", 2), MINUTE, START_NS) is None
    for number in range(2 * FIRST_SLOTS - 1):
        again.save(Account("route", number + 1), bucket_of(MINUTE))
    assert (tmp_path / levels.FILE_NAME).stat().st_size == size


def test_slots_of_buckets_that_have_filled_up_are_free(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.save(KEY, bucket_of(MINUTE))
    file.save(Account("key", 8), bucket_of(MONTH))
    again = opened(tmp_path, START_NS + 59 * NANOS)
    again.forget_full(START_NS + 59 * NANOS)
    assert found(again).level == 0
    later = opened(tmp_path, START_NS + 60 * NANOS)
    later.forget_full(START_NS + 60 * NANOS)
    assert later.find(KEY, MINUTE, START_NS) is None
    assert found(later, MONTH, Account("key", 8)).level == 0


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT])
def test_what_was_away_may_have_been_spent_a_moment_ago(tmp_path: Path, boot: bytes) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE, away=20))
    settled_ns = START_NS + 70 * NANOS
    again = opened(tmp_path, settled_ns - NANOS, boot)
    again.forget_full(settled_ns)
    bucket = found(again)
    bucket.refill(settled_ns)
    assert (bucket.available(), bucket.unclaimed, bucket.stamp_ns) == (40, 0, settled_ns)
    later_ns = settled_ns + 20 * NANOS
    later = opened(tmp_path, later_ns, boot)
    later.forget_full(later_ns)
    assert later.find(KEY, MINUTE, later_ns) is None


def damaged(folder: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(folder / levels.FILE_NAME, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


@pytest.mark.parametrize("offset", [20, 24, 40, 48, 79])
def test_a_slot_whose_store_was_cut_short_counts_as_empty(tmp_path: Path, offset: int) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE, 50 * 60 * NANOS))
    damaged(tmp_path, HEADER_BYTES + offset, b"\xa5")
    bucket = found(opened(tmp_path, START_NS + 900 * NANOS))
    assert (bucket.level, bucket.stamp_ns) == (0, START_NS + 900 * NANOS)


def test_a_slot_that_was_being_given_out_is_free(tmp_path: Path) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE))
    damaged(tmp_path, HEADER_BYTES + 8, b"\xa5")
    assert opened(tmp_path).find(KEY, MINUTE, START_NS) is None


@pytest.mark.parametrize("data", [b"", b"XXXX", b"GWL1" + struct.pack("<H", 99), b"G" * 40])
def test_of_a_damaged_file_every_bucket_begins_empty(tmp_path: Path, data: bytes) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE, 50 * 60 * NANOS))
    if len(data) == 40:
        (tmp_path / levels.FILE_NAME).write_bytes(data)
    else:
        damaged(tmp_path, 0, data or bytes(4))
    again = opened(tmp_path)
    for account in (KEY, Account("key", 99)):
        bucket = found(again, account=account, now_ns=START_NS + 10 * NANOS)
        assert (bucket.level, bucket.stamp_ns, bucket.burst) == (0, START_NS, 60)
    again.save(KEY, bucket)
    assert found(opened(tmp_path)).level == 0


def elapsed_s(bucket: Bucket, now_ns: int) -> float:
    return (now_ns - bucket.stamp_ns) / NANOS


def test_time_within_a_boot_is_monotonic_whatever_the_wall_clock_does(tmp_path: Path) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE))
    now_ns = START_NS + 5 * NANOS
    for jump_s in (-86400, 86400):
        bucket = opened(tmp_path, now_ns, wall_ns=WALL_NS + jump_s * NANOS).find(KEY, MINUTE, now_ns)
        assert bucket is not None
        assert elapsed_s(bucket, now_ns) == 5


@pytest.mark.parametrize(
    ("uptime_s", "wall_s", "passed_s"),
    [(30, 90, 90), (30, 10, 30), (30, -86400, 30), (30, 86400, 86400)],
    ids=["as the wall clock says", "at least the uptime", "a clock that went back", "a clock that jumped ahead"],
)
def test_after_a_boot(tmp_path: Path, uptime_s: int, wall_s: int, passed_s: int) -> None:
    opened(tmp_path).save(KEY, bucket_of(MINUTE))
    now_ns = uptime_s * NANOS
    bucket = found(opened(tmp_path, now_ns, OTHER_BOOT, WALL_NS + wall_s * NANOS))
    assert elapsed_s(bucket, now_ns) == passed_s
    bucket.refill(now_ns)
    assert bucket.available() <= 60  # never more than the burst


def test_a_full_disk_is_told_and_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = opened(tmp_path)
    for number in range(FIRST_SLOTS):
        file.save(Account("key", number + 1), bucket_of(MINUTE, number))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    bucket = bucket_of(MINUTE)
    file.save(Account("route", 1), bucket)
    file.save(Account("route", 1), bucket)
    assert bucket.place == -1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    monkeypatch.undo()
    file.save(Account("route", 1), bucket)
    assert found(opened(tmp_path), account=Account("route", 1)).level == 0


@given(
    st.builds(RateConf, st.just("w"), st.sampled_from((1, 40)), st.sampled_from((1, 60)), st.integers(1, 30)),
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(-(10**12), 10**12), st.integers(0, 40), st.booleans())),
)
def test_a_bucket_never_gives_more_than_burst_and_refill_through_restarts_and_jumping_clocks(
    tmp_path_factory: pytest.TempPathFactory, rate: RateConf, steps: list[tuple[int, int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("levels")
    now_ns, wall_ns = START_NS, WALL_NS
    bucket = Bucket.full(rate.limit, rate.window_s, rate.burst, now_ns)
    file = opened(folder)
    taken: list[tuple[int, int]] = []
    for wait_ns, jump_ns, wanted, restarts in steps:
        now_ns += wait_ns
        wall_ns = max(0, wall_ns + wait_ns + jump_ns)
        if restarts:
            file = opened(folder, now_ns, wall_ns=wall_ns)
            bucket = file.find(KEY, rate, now_ns) or Bucket.full(rate.limit, rate.window_s, rate.burst, now_ns)
        bucket.refill(now_ns)
        bucket.refill(now_ns - 10**9)  # a clock that steps back brings nothing and takes nothing
        units = min(wanted, bucket.available())
        bucket.charge(units)
        file.save(KEY, bucket)
        taken.append((now_ns, units))
    assert_within(rate, [(when - START_NS, units) for when, units in taken])
