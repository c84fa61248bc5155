"""Leases never over-admit, whatever workers do, and strand nothing of a slow bucket."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.channel import LeaseId
from gatewayd.conf import RateConf
from gatewayd.policy.accounts import Account
from gatewayd.policy.buckets import NANOS, Quota, month_of
from gatewayd.policy.leases import Lessor
from tests.policy.worlds import NOW_S, World, admitted_at_most

KEY = LeaseId(7)


def rate(limit: int, window_s: int, burst: int) -> RateConf:
    return RateConf(f"{window_s}s", limit, window_s, burst)


def of_key(*rates: RateConf, quota: int | None = None) -> World:
    """A world with one key."""
    return World({Account("key", 7): rates}, {7: quota}, [KEY])


steps = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2), st.integers(0, 4), st.sampled_from((0, 1, 5, 70))),
    st.tuples(st.just("heavy"), st.integers(0, 2), st.integers(0, 4), st.sampled_from((2, 7))),
    st.tuples(st.just("lost"), st.integers(0, 2), st.integers(0, 4), st.sampled_from((1, 20))),
    st.tuples(st.just("spend"), st.integers(0, 2), st.integers(0, 4), st.sampled_from((1, 20))),
    st.tuples(st.just("hand_back"), st.integers(0, 2), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("die"), st.integers(0, 2), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.integers(0, 3), st.just(0), st.sampled_from((1, NANOS, 30 * NANOS))),
    st.tuples(
        st.just("wait"), st.just(0), st.just(0), st.sampled_from((1, NANOS // 100, NANOS // 10, NANOS, 3 * NANOS))
    ),
)
# Fast enough for surpluses, and slow ones beside them.
rates = st.builds(rate, st.sampled_from((1, 40, 400)), st.sampled_from((1, 5)), st.integers(1, 60))
windows = st.lists(rates, max_size=2, unique_by=lambda each: each.window_s).map(tuple)
COMBINATIONS = [LeaseId(7), LeaseId(7, 0, 3, 0), LeaseId(8, 0, 3, 2), LeaseId(7, 4, 0, 2), LeaseId(0, 0, 3, 2)]


def play(world: World, steps: Iterable[tuple[str, int, int, int]]) -> None:
    for step, index, lease, amount in steps:
        worker = world.workers[index % 3]
        id_ = world.leases[lease % len(world.leases)]
        match step:
            case "ask":
                world.ask(worker, id_, amount)
            case "heavy":
                world.ask(worker, id_, amount, least=amount)
            case "lost":
                world.ask(worker, id_, amount, arrives=False)
            case "spend":
                world.spend(worker, id_, amount)
            case "hand_back":
                world.hand_back(worker, id_)
            case "die":
                world.die(worker)
            case "restart":
                world.restart(amount, dead=index)
            case "wait":
                world.now_ns += amount


@given(st.tuples(windows, windows, windows, windows, windows), st.sampled_from((None, None, 20, 200)), st.data())
@settings(max_examples=1000, deadline=None)
def test_no_interleaving_admits_more_than_burst_and_refill(
    rates: tuple[tuple[RateConf, ...], ...], quota: int | None, data: st.DataObject
) -> None:
    """Of no account, however leases share them; and in the end everything has come back."""
    accounts = (
        Account("key", 7),
        Account("key", 8),
        Account("client", 7, 4),
        Account("route", 3),
        Account("tenant", 2),
    )
    world = World(dict(zip(accounts, rates, strict=True)), {7: quota, 8: None}, COMBINATIONS)
    play(world, data.draw(st.lists(steps, min_size=12, max_size=40)))
    world.check()
    world.come_to_rest()


@given(st.lists(st.integers(0, 2), min_size=150, max_size=150))
def test_a_slow_bucket_gives_every_token_to_whoever_asks(order: list[int]) -> None:
    world = of_key(rate(100, 60, 100))
    assert sum(world.ask(world.workers[index], KEY, 1) for index in order) == 100
    assert all(not worker.holds(KEY) for worker in world.workers)


def test_a_fast_bucket_leases_a_surplus_that_lasts_a_twentieth_of_a_second() -> None:
    world = of_key(rate(10_000, 1, 10_000))
    assert world.ask(world.workers[0], KEY, 1) == 1
    assert world.workers[0].holds(KEY) == 500


def test_a_nearly_empty_bucket_is_leased_one_by_one() -> None:
    world = of_key(rate(10_000, 1, 10_000))
    assert world.ask(world.workers[0], KEY, 9_996) == 9_996
    assert world.workers[0].holds(KEY) == 0
    assert [world.ask(world.workers[1], KEY, 1) for _ in range(6)] == [1, 1, 1, 1, 0, 0]


def test_a_surplus_that_is_spent_late_stands_in_the_way_of_a_refill() -> None:
    world = of_key(rate(400, 1, 60))
    holder = world.workers[0]
    world.ask(holder, KEY, 0)
    assert holder.holds(KEY) == 10
    world.now_ns += 60 * NANOS
    world.spend(holder, KEY, 10)
    assert world.ask(world.workers[1], KEY, 60) == 50
    world.check()


@pytest.mark.parametrize("dead", [0, 1])
def test_a_lessor_that_begins_anew_refills_no_room_for_what_was_away(dead: int) -> None:
    """It may have been spent a moment ago, by a worker that lives or by one that has died since."""
    world = of_key(rate(400, 1, 60))
    holder = world.workers[0]
    world.ask(holder, KEY, 0)
    assert holder.holds(KEY) == 10
    world.restart(60 * NANOS, dead)
    assert world.ask(world.workers[1], KEY, 60) == 50
    world.spend(holder, KEY, 10)
    world.check()
    # But once all is known, what is not held any more is refilled.
    world.hand_back(holder, KEY)
    world.now_ns += 60 * NANOS
    assert world.ask(world.workers[1], KEY, 60) == 60
    world.check()


def test_tokens_of_which_the_levels_know_nothing_are_charged() -> None:
    """As when there was no room on the disk to save them."""
    world = of_key(rate(400, 1, 60))
    holder = world.workers[0]
    world.ask(holder, KEY, 0)
    world.levels.kept.clear()
    held = holder.holds(KEY)
    world.restart(0, 0)
    assert world.ask(world.workers[1], KEY, 60) == 60 - holder.holds(KEY)
    assert 0 < holder.holds(KEY) < held


def test_a_worker_that_does_not_speak_is_waited_for() -> None:
    """Others are served meanwhile, but what it may have is not refilled."""
    world = of_key(rate(400, 1, 60))
    world.ask(world.workers[0], KEY, 0)
    lessor = world.lessor = world._lessor()
    world.load(KEY, world.rates)
    world.now_ns += 60 * NANOS
    assert world.ask(world.workers[1], KEY, 60) == 50
    world.now_ns += 60 * NANOS
    lessor.settle(world.now_ns)
    world.now_ns += 60 * NANOS
    assert world.ask(world.workers[1], KEY, 60) == 60


def test_what_is_handed_back_can_be_leased_again_at_once() -> None:
    world = of_key(rate(1000, 1, 1000))
    first, second = world.workers[:2]
    world.ask(first, KEY, 0)
    held = first.holds(KEY)
    assert held == 50
    assert world.ask(second, KEY, 1000) == 1000 - held
    world.hand_back(first, KEY)
    assert world.ask(second, KEY, 1000) == held


def test_many_idle_surpluses_hold_little_of_what_is_shared() -> None:
    """A tenth of a second's worth, whoever has it."""
    leases = [LeaseId(key_id, 0, 3) for key_id in range(1, 101)]
    world = World({Account("route", 3): (rate(1000, 1, 1000),)}, {}, leases)
    for id_ in leases:
        world.ask(world.workers[id_.key_id % 3], id_, 1)
    assert 0 < sum(worker.holds(id_) for worker in world.workers for id_ in leases) <= 100
    assert world.ask(world.workers[0], leases[0], 1000) >= 1000 - 100 - 100


def test_all_accounts_are_charged_or_none() -> None:
    shared = Account("route", 3)
    world = World(
        {Account("key", 7): (rate(5, 60, 5),), shared: (rate(8, 60, 8),)}, {}, [LeaseId(7, 0, 3), LeaseId(8, 0, 3)]
    )
    worker = world.workers[0]
    assert world.ask(worker, LeaseId(7, 0, 3), 7) == 5
    assert world.ask(worker, LeaseId(7, 0, 3), 1) == 0  # the key's are used up: the route keeps its own
    assert world.ask(worker, LeaseId(8, 0, 3), 7) == 3
    assert world.lessor.accounts[shared].buckets[0].available() == 0


def test_a_request_that_weighs_more_gets_all_its_units_or_none() -> None:
    world = of_key(rate(10, 60, 10))
    worker = world.workers[0]
    assert world.ask(worker, KEY, 14, least=7) == 10
    world.give_unused(worker, KEY, 3)
    grant = world.lessor.ask(b"a", KEY, 7, 0, world.now_ns, NOW_S, 7)
    assert (grant.granted, grant.blocked_by, grant.left[0].remaining) == (0, 0, 3)
    assert world.ask(worker, KEY, 3, least=3) == 3


def test_a_refusal_names_the_limit_that_is_empty_and_when_it_has_more() -> None:
    world = of_key(rate(60, 60, 10), rate(1000, 3600, 1000))
    world.ask(world.workers[0], KEY, 10)
    grant = world.lessor.ask(b"a", KEY, 1, 0, world.now_ns, NOW_S)
    assert (grant.granted, grant.blocked_by) == (0, 0)
    assert grant.left[0].remaining == 0
    assert grant.left[0].more_in_s == pytest.approx(1.0)
    assert grant.left[1].remaining == 990


def test_limits_have_names_of_their_own() -> None:
    minute = RateConf("minute", 60, 60, 60)
    accounts = (Account("client", 7, 4), Account("route", 3), Account("tenant", 2))
    id_ = LeaseId(7, 4, 3, 2)
    world = World(dict.fromkeys(accounts, (minute,)), {7: 10}, [id_])
    lease = world.lessor.leases[id_]
    assert [limit.name for limit in lease.limits] == ["client-minute", "route-minute", "tenant-minute", "month"]
    world.load(KEY, {Account("key", 7): (minute,)})
    assert [limit.name for limit in world.lessor.leases[KEY].limits] == ["minute", "month"]
    assert world.lessor.leases[KEY].terms not in (0, lease.terms)


def test_a_quota_counts_what_is_recorded_and_what_may_still_come() -> None:
    world = of_key(quota=100)
    a = world.workers[0]
    assert world.ask(a, KEY, 10) == 10
    held = a.holds(KEY)
    assert held == (100 - 10) // 6
    state = world.lessor.quotas[7]
    assert state.available() == 100 - 10 - held
    world.lessor.recorded(b"a", 7, 10, NOW_S)
    assert (state.recorded, state.available()) == (10, 100 - 10 - held)
    # The worker dies with its surplus: once its journal is ingested, what was not recorded was never admitted.
    world.lessor.channel_lost(b"a", world.now_ns)
    world.lessor.worker_gone(b"a")
    assert state.available() == 90


def test_the_last_of_a_quota_is_leased_one_by_one() -> None:
    world = of_key(quota=60)
    a, b, _ = world.workers
    assert world.ask(a, KEY, 10) == 10
    assert a.holds(KEY) == 8
    assert world.ask(b, KEY, 1) == 1
    assert b.holds(KEY) == 0
    world.hand_back(a, KEY)
    assert world.ask(b, KEY, 100) == 49


def test_a_soft_quota_is_counted_and_passed_beyond() -> None:
    world = of_key()
    world.lessor.load_quota(7, Quota(5, 0, 1 << 40, 0, soft=True))
    world.load(KEY, {Account("key", 7): ()})
    assert world.ask(world.workers[0], KEY, 20) == 20
    assert world.workers[0].holds(KEY) == 0  # it would be told as left
    grant = world.lessor.ask(b"a", KEY, 1, 0, world.now_ns, NOW_S)
    assert (grant.blocked_by, grant.left[0].remaining) == (None, 0)


def test_more_of_a_quota_is_there_for_every_lease_of_its_key() -> None:
    """As after a grant: one lease is loaded anew, another has tokens out."""
    world = World({Account("route", 3): (rate(9, 1, 9),)}, {7: 5}, [KEY, LeaseId(7, 0, 3)])
    assert world.ask(world.workers[0], LeaseId(7, 0, 3), 5) == 5
    world.quotas[7] = 8
    world.load(KEY, {})
    assert world.ask(world.workers[0], KEY, 9) == 3
    assert world.lessor.leases[LeaseId(7, 0, 3)].limits[-1].limit == 8


def test_a_changed_plan_keeps_what_was_used() -> None:
    world = of_key(rate(100, 60, 100))
    assert world.ask(world.workers[0], KEY, 70) == 70
    world.change(Account("key", 7), rate(200, 60, 200))
    assert world.ask(world.workers[0], KEY, 200) == 130
    world.change(Account("key", 7), rate(50, 60, 50))
    assert world.ask(world.workers[0], KEY, 50) == 0


def test_a_changed_plan_counts_what_is_away_once() -> None:
    world = of_key(rate(1000, 1, 100))
    world.ask(world.workers[0], KEY, 30)
    held = world.workers[0].holds(KEY)
    assert held
    world.change(Account("key", 7), rate(1000, 1, 200), rate(6000, 60, 150))
    assert world.ask(world.workers[1], KEY, 300) == min(200 - 30 - held, 150 - held)


def test_months_are_half_open_and_in_utc() -> None:
    start, end = month_of(NOW_S)
    assert month_of(start) == (start, end)
    assert month_of(end - 1) == (start, end)
    assert month_of(end)[0] == end
    december, january = month_of(1_798_700_000)
    assert month_of(january)[0] == january > december


def test_a_key_is_forgotten_once_nothing_tells_it_from_a_fresh_one() -> None:
    world = of_key(rate(60, 60, 10), quota=100)
    a = world.workers[0]
    assert world.ask(a, KEY, 10) == 10
    assert world.lessor.forget_full(world.now_ns) == []
    world.lessor.recorded(a.name, 7, 10, NOW_S)
    world.now_ns += 9 * NANOS
    assert world.lessor.forget_full(world.now_ns) == []
    world.now_ns += 1 * NANOS
    assert world.lessor.forget_full(world.now_ns) == [KEY]
    assert (world.lessor.leases, world.lessor.accounts, world.lessor.quotas) == ({}, {}, {})


def test_a_key_with_tokens_out_is_not_forgotten() -> None:
    world = of_key(rate(1000, 1, 1000))
    world.ask(world.workers[0], KEY, 0)
    world.now_ns += 3600 * NANOS
    assert world.workers[0].holds(KEY) > 0
    assert world.lessor.forget_full(world.now_ns) == []
    world.hand_back(world.workers[0], KEY)
    assert world.lessor.forget_full(world.now_ns) == [KEY]


def test_a_full_key_is_forgotten_though_its_route_never_rests() -> None:
    world = World(
        {Account("key", 7): (rate(60, 1, 2),), Account("route", 3): (rate(1, 60, 5),)}, {}, [LeaseId(7, 0, 3)]
    )
    assert world.ask(world.workers[0], LeaseId(7, 0, 3), 1) == 1
    world.now_ns += NANOS
    assert world.lessor.forget_full(world.now_ns) == [LeaseId(7, 0, 3)]
    assert list(world.lessor.accounts) == [Account("route", 3)]
    world.load(LeaseId(7, 0, 3), world.rates)
    assert world.ask(world.workers[0], LeaseId(7, 0, 3), 9) == 2


# Slots.


@given(st.lists(st.tuples(st.sampled_from(("take", "end", "die", "hello")), st.integers(0, 2)), max_size=60))
def test_slots_are_never_more_than_the_limit_and_always_come_back(steps: list[tuple[str, int]]) -> None:
    lessor, limit = Lessor(), 4
    names = [b"a", b"b", b"c"]
    used = dict.fromkeys(names, 0)
    for step, index in steps:
        name = names[index]
        if step == "take":
            granted = lessor.take_slots(name, 7, 2, limit)
            assert granted == min(2, limit - sum(used.values()))  # exact: none is refused while there is one
            used[name] += granted
        elif step == "end" and used[name]:
            used[name] -= 1
            lessor.give_slots_back(name, 7, 1)
        elif step == "die":
            lessor.channel_lost(name, 0)
            assert lessor.take_slots(b"d", 7, 9, limit) == limit - sum(used.values())  # not before it is known
            lessor.worker_gone(b"d")
            used[name] = 0
            lessor.worker_gone(name)
        elif step == "hello":
            lessor.resume_slots(name, {7: used[name]})
        assert sum(used.values()) <= limit
    for name in names:
        lessor.give_slots_back(name, 7, used[name])
    assert not any(lessor.slots.values())


def test_slots_without_a_limit_are_counted_all_the_same() -> None:
    lessor = Lessor()
    assert lessor.take_slots(b"a", 7, 50, None) == 50
    assert lessor.take_slots(b"a", 7, 5, 52) == 2


# Steady demand.


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_nearly_all_of_a_shared_limit_is_admitted_under_steady_demand(workers: int) -> None:
    """20 keys on all workers, none of which knows of the others; a tenth more demand than there is."""
    leases = [LeaseId(key_id, 0, 3) for key_id in range(1, 21)]
    per_s, burst, seconds = 400, 60, 10
    world = World({Account("route", 3): (rate(per_s, 1, burst),)}, {}, leases, workers=workers)
    wanted = int(per_s * 1.1)
    for number in range(wanted * seconds):
        world.now_ns = number * NANOS // wanted
        worker = world.workers[number * 7 % workers]
        world.request(worker, leases[number % 20])
    world.check()
    most = admitted_at_most(rate(per_s, 1, burst), world.now_ns)
    print(f"{len(world.admitted)} of {most}")
    assert len(world.admitted) >= 0.98 * most


# What would be granted.


@given(st.integers(0, 5), st.integers(1, 3))
def test_to_peek_tells_what_would_be_granted_and_charges_nothing(taken: int, waiting: int) -> None:
    id_ = LeaseId(1)
    world = World({Account("key", 1): (rate(2, 60, 2), rate(100, 1, 100))}, {1: 4}, [id_])
    for _ in range(taken):
        world.lessor.ask(b"a", id_, 1, 0, 0, NOW_S)
    before = str(world.lessor.leases[id_].books)
    for _ in range(100):
        peeked = world.lessor.peek(id_, waiting, 0, NOW_S)
    assert str(world.lessor.leases[id_].books) == before
    granted = world.lessor.ask(b"a", id_, waiting, 0, 0, NOW_S)
    assert (granted.granted, granted.blocked_by) == (peeked.granted, peeked.blocked_by)
    after = [limit.remaining - granted.granted for limit in peeked.left]
    assert after == [limit.remaining for limit in granted.left]


def test_no_surplus_outlives_a_grant_of_quota_that_ends() -> None:
    lessor = Lessor()
    lessor.load_quota(7, Quota(1000, 0, 1 << 40, 0, changes_at=NOW_S + 60))
    lessor.load(LeaseId(7), [], 0)
    assert lessor.ask(b"a", LeaseId(7), 1, 0, 0, NOW_S).surplus > 0
    assert lessor.ask(b"a", LeaseId(7), 1, 0, 0, NOW_S + 54).surplus > 0
    late = lessor.ask(b"a", LeaseId(7), 1, 0, 0, NOW_S + 56)
    assert (late.granted, late.surplus, late.blocked_by) == (1, 0, None)
    # What is in hand at the end of a month counts for the next one and stays.
    lessor.load_quota(7, Quota(1000, 0, int(NOW_S) + 60, 0, changes_at=int(NOW_S) + 60))
    assert lessor.ask(b"a", LeaseId(7), 1, 0, 0, NOW_S + 56).surplus > 0
