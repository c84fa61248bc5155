"""Leases never over-admit, whatever workers do, and strand nothing of a slow bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.policy.buckets import NANOS, Bucket, month_of
from gatewayd.policy.leases import Lessor, LimitLeft, Rate

KEY = 7
NOW_S = 1_795_000_000.0  # in November 2026


@dataclass
class Worker:
    """A worker as the lessor sees it: it spends what it holds whenever it likes, and reports it later."""

    name: bytes
    surplus: int = 0
    spent: int = 0


@dataclass
class World:
    """A lessor, workers, a clock, and every moment at which a request was admitted."""

    rates: tuple[Rate, ...]
    quota: int | None = None
    now_ns: int = 0
    admitted_at: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lessor = Lessor()
        self.workers = [Worker(b"a"), Worker(b"b"), Worker(b"c")]
        self.lessor.workers = len(self.workers)
        self.lessor.load(KEY, self.rates, self.quota, 0, self.now_ns, NOW_S)

    def ask(self, worker: Worker, waiting: int) -> int:
        spent, worker.spent = worker.spent, 0
        grant = self.lessor.ask(worker.name, KEY, waiting, spent, self.now_ns, NOW_S)
        assert grant.granted - grant.surplus <= waiting
        worker.surplus += grant.surplus
        self.admitted_at += [self.now_ns] * (grant.granted - grant.surplus)
        return grant.granted - grant.surplus

    def spend(self, worker: Worker, tokens: int) -> None:
        tokens = min(tokens, worker.surplus)
        worker.surplus -= tokens
        worker.spent += tokens
        self.admitted_at += [self.now_ns] * tokens

    def hand_back(self, worker: Worker) -> None:
        self.lessor.give_back(worker.name, KEY, worker.surplus, 0, worker.spent, self.now_ns)
        worker.surplus = worker.spent = 0

    def die(self, worker: Worker) -> None:
        """Its channel closes and nobody knows what it had spent; another takes its place under a new name."""
        self.lessor.channel_lost(worker.name, self.now_ns)
        worker.surplus = worker.spent = 0
        worker.name += b"'"

    def check(self) -> None:
        """Over every interval between two admissions: at most burst + rate * t."""
        moments = sorted(self.admitted_at)
        for rate in self.rates:
            for first in range(len(moments)):
                for last in range(first, len(moments)):
                    allowed = rate.burst + Fraction(
                        rate.limit * (moments[last] - moments[first]), rate.window_s * NANOS
                    )
                    assert last - first + 1 <= allowed
        if self.quota is not None:
            assert len(moments) <= self.quota


steps = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2), st.sampled_from((0, 1, 5, 70))),
    st.tuples(st.just("spend"), st.integers(0, 2), st.sampled_from((1, 20))),
    st.tuples(st.just("hand_back"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("die"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 2), st.sampled_from((1, NANOS // 100, NANOS // 10, NANOS, 3 * NANOS))),
)
# Fast enough for surpluses, and slow ones beside them.
rates = st.builds(Rate, st.sampled_from((1, 40, 400)), st.sampled_from((1, 5)), st.integers(1, 60))


@given(
    st.lists(rates, min_size=1, max_size=2).map(tuple),
    st.sampled_from((None, None, 20, 200)),
    st.lists(steps, min_size=12, max_size=30),
)
@settings(max_examples=1000, deadline=None)
def test_no_interleaving_admits_more_than_burst_and_refill(
    rates: tuple[Rate, ...], quota: int | None, steps: list[tuple[str, int, int]]
) -> None:
    world = World(rates, quota)
    for step, index, amount in steps:
        worker = world.workers[index]
        match step:
            case "ask":
                world.ask(worker, amount)
            case "spend":
                world.spend(worker, amount)
            case "hand_back":
                world.hand_back(worker)
            case "die":
                world.die(worker)
            case "wait":
                world.now_ns += amount
    world.check()


@given(st.lists(st.integers(0, 2), min_size=150, max_size=150))
def test_a_slow_bucket_gives_every_token_to_whoever_asks(order: list[int]) -> None:
    world = World((Rate(100, 60, 100),))
    assert sum(world.ask(world.workers[index], 1) for index in order) == 100
    assert all(worker.surplus == 0 for worker in world.workers)


def test_a_fast_bucket_leases_a_surplus_that_lasts_a_twentieth_of_a_second() -> None:
    world = World((Rate(10_000, 1, 10_000),))
    assert world.ask(world.workers[0], 1) == 1
    assert world.workers[0].surplus == 500


def test_a_nearly_empty_bucket_is_leased_one_by_one() -> None:
    world = World((Rate(10_000, 1, 10_000),))
    assert world.ask(world.workers[0], 9_996) == 9_996
    assert world.workers[0].surplus == 0
    assert [world.ask(world.workers[1], 1) for _ in range(6)] == [1, 1, 1, 1, 0, 0]


def test_a_surplus_that_is_spent_late_stands_in_the_way_of_a_refill() -> None:
    world = World((Rate(400, 1, 60),))
    holder = world.workers[0]
    world.ask(holder, 0)
    assert holder.surplus == 10
    world.now_ns += 60 * NANOS
    world.spend(holder, 10)
    assert world.ask(world.workers[1], 60) == 50
    world.check()


def test_what_is_handed_back_can_be_leased_again_at_once() -> None:
    world = World((Rate(1000, 1, 1000),))
    first, second = world.workers[:2]
    world.ask(first, 0)
    held = first.surplus
    assert held == 50
    assert world.ask(second, 1000) == 1000 - held
    world.hand_back(first)
    assert world.ask(second, 1000) == held


def test_a_refusal_names_the_limit_that_is_empty_and_when_it_has_more() -> None:
    world = World((Rate(60, 60, 10), Rate(1000, 3600, 1000)))
    world.ask(world.workers[0], 10)
    grant = world.lessor.ask(b"a", KEY, 1, 0, world.now_ns, NOW_S)
    assert (grant.granted, grant.blocked_by) == (0, 0)
    assert grant.left[0].remaining == 0
    assert grant.left[0].more_in_s == pytest.approx(1.0)
    assert grant.left[1].remaining == 990


def test_an_unlimited_wait_never_grows_a_bucket_beyond_its_burst() -> None:
    bucket = Bucket.full(60, 60, 10, 0)
    bucket.refill(10**18)
    assert bucket.available() == 10


def test_a_clock_that_steps_back_brings_nothing_and_takes_nothing() -> None:
    bucket = Bucket.full(60, 60, 10, 1000 * NANOS)
    bucket.charge(10)
    bucket.refill(500 * NANOS)
    assert bucket.available() == 0
    bucket.refill(1001 * NANOS)
    assert bucket.available() == 1


def test_a_quota_counts_what_is_recorded_and_what_may_still_come() -> None:
    world = World((), quota=100)
    a = world.workers[0]
    assert world.ask(a, 10) == 10
    held = a.surplus
    assert held == (100 - 10) // 6
    state = world.lessor.keys[KEY].quota
    assert state is not None
    assert state.available() == 100 - 10 - held
    world.lessor.recorded(b"a", KEY, 10, NOW_S)
    assert (state.recorded, state.available()) == (10, 100 - 10 - held)
    # The worker dies with its surplus: once its journal is ingested, what was not recorded was never admitted.
    world.lessor.channel_lost(b"a", world.now_ns)
    world.lessor.worker_gone(b"a")
    assert state.available() == 90


def test_a_changed_plan_keeps_what_was_used() -> None:
    world = World((Rate(100, 60, 100),))
    assert world.ask(world.workers[0], 70) == 70
    world.lessor.load(KEY, (Rate(200, 60, 200),), None, 0, world.now_ns, NOW_S)
    assert world.ask(world.workers[0], 200) == 130
    world.lessor.load(KEY, (Rate(50, 60, 50),), None, 0, world.now_ns, NOW_S)
    assert world.ask(world.workers[0], 50) == 0


def test_a_worker_that_outlived_control_is_charged_for_what_it_holds() -> None:
    world = World((Rate(100, 60, 100),))
    world.lessor.resume(b"a", KEY, 30, 2)
    world.workers[0].surplus = 30
    assert world.ask(world.workers[1], 100) == 70


def test_a_lessor_that_has_forgotten_learns_the_level_from_who_heard_of_it_last() -> None:
    news = {b"a": LimitLeft(30, 1.0), b"b": LimitLeft(10, 1.0)}  # 20 of 50 were granted to each in turn
    after = World((Rate(60, 60, 50),))
    for name, left in news.items():
        after.lessor.resume(name, KEY, 0, 0, (left,))
    assert after.ask(after.workers[0], 50) == 10
    # What has come in since is not lost: a token was due half a second ago, so one and a half more are there.
    later = World((Rate(60, 60, 50),))
    later.lessor.resume(b"a", KEY, 0, 0, (LimitLeft(10, -0.5),))
    assert later.ask(later.workers[0], 50) == 11
    # News of long ago says that the bucket must be full again.
    full = World((Rate(60, 60, 50),))
    full.lessor.resume(b"a", KEY, 0, 0, (LimitLeft(0, -500.0),))
    assert full.ask(full.workers[0], 60) == 50


def test_months_are_half_open_and_in_utc() -> None:
    start, end = month_of(NOW_S)
    assert month_of(start) == (start, end)
    assert month_of(end - 1) == (start, end)
    assert month_of(end)[0] == end
    december, january = month_of(1_798_700_000)
    assert month_of(january)[0] == january > december


def test_a_key_is_forgotten_once_nothing_tells_it_from_a_fresh_one() -> None:
    world = World((Rate(60, 60, 10),), quota=100)
    a = world.workers[0]
    assert world.ask(a, 10) == 10
    assert world.lessor.forget_full(world.now_ns) == []
    world.lessor.recorded(a.name, KEY, 10, NOW_S)
    world.now_ns += 9 * NANOS
    assert world.lessor.forget_full(world.now_ns) == []
    world.now_ns += 1 * NANOS
    assert world.lessor.forget_full(world.now_ns) == [KEY]
    world.lessor.load(KEY, world.rates, 100, 10, world.now_ns, NOW_S)
    assert world.ask(a, 20) == 10


def test_a_key_with_tokens_out_is_not_forgotten() -> None:
    world = World((Rate(1000, 1, 1000),))
    world.ask(world.workers[0], 0)
    world.now_ns += 3600 * NANOS
    assert world.workers[0].surplus > 0
    assert world.lessor.forget_full(world.now_ns) == []
    world.hand_back(world.workers[0])
    assert world.lessor.forget_full(world.now_ns) == [KEY]


@given(st.integers(0, 5), st.integers(1, 3))
def test_to_peek_tells_what_would_be_granted_and_charges_nothing(taken: int, waiting: int) -> None:
    lessor = Lessor()
    lessor.load(1, (Rate(2, 60, 2), Rate(100, 1, 100)), 4, 0, 0, NOW_S)
    for _ in range(taken):
        lessor.ask(b"a", 1, 1, 0, 0, NOW_S)
    before = str(lessor.keys[1])
    for _ in range(100):
        peeked = lessor.peek(1, waiting, 0, NOW_S)
    assert str(lessor.keys[1]) == before
    granted = lessor.ask(b"a", 1, waiting, 0, 0, NOW_S)
    assert (granted.granted, granted.blocked_by) == (peeked.granted, peeked.blocked_by)
    after = [limit.remaining - granted.granted for limit in peeked.left]
    assert after == [limit.remaining for limit in granted.left]
