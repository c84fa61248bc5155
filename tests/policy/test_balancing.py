"""Which target a request goes to: shares, hashes, and how targets leave the rotation and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.conf import BreakerConf, HealthConf, ServiceConf, TargetConf, TlsConf
from gatewayd.errors import CIRCUIT_OPEN, NO_HEALTHY_TARGET, Refusal
from gatewayd.policy.balancing import Rotation
from gatewayd.policy.facts import Target
from gatewayd.policy.snapshot import compile_target

START = 1000.0
WEIGHTS = st.lists(st.integers(1, 30), min_size=2, max_size=6)


@dataclass(eq=False)
class Asking:
    value: bytes = b""
    loads: Counter[str] = field(default_factory=Counter)
    done: bool = False

    def hash_value(self, on: str) -> bytes:
        return self.value

    def load_of(self, target: Target) -> int:
        return self.loads[target.url]


def url(number: int) -> str:
    return f"http://10.0.0.{number}"


def conf_of(weights: Sequence[int], drained: Sequence[int] = (), **more: Any) -> ServiceConf:
    targets = tuple(TargetConf(url(n), weight, n in drained) for n, weight in enumerate(weights))
    return ServiceConf(
        1, "svc1", 1, "default", "a", "none", targets, (), False, 30.0, 10.0, None, "X-API-Key", **more
    )  # fmt: skip


def configure(rotation: Rotation, conf: ServiceConf) -> Rotation:
    rotation.configure(conf, [(target, compile_target(target.url, TlsConf())) for target in conf.targets])
    return rotation


def rotation_of(weights: Sequence[int], drained: Sequence[int] = (), **more: Any) -> Rotation:
    return configure(Rotation(), conf_of(weights, drained, **more))


def chosen(rotation: Rotation, now: float = START, asking: Asking | None = None) -> str:
    target = rotation.choose(now, asking or Asking())
    assert isinstance(target, Target), target
    return target.url


def run(rotation: Rotation, times: int, now: float = START) -> Counter[str]:
    return Counter(chosen(rotation, now) for _ in range(times))


def test_what_probes_have_said_outlives_another_way_of_speaking_tls() -> None:
    """They tell only of changes, and to them it is the same target."""
    rotation = Rotation()
    conf = conf_of([1, 1], health=HealthConf(path="/up"))
    for tls in (TlsConf(), TlsConf(verify=False)):
        targets = [(target, compile_target(target.url.replace("http:", "https:"), tls)) for target in conf.targets]
        rotation.configure(conf, targets)
        if tls.verify:
            rotation.told("https://10.0.0.0", False, START)
        assert run(rotation, 4) == {"https://10.0.0.1": 4}
    rotation.configure(conf_of([1, 1]), targets)
    assert len(run(rotation, 4)) == 2  # without probes nobody would tell that it is well again


@settings(deadline=None)
@given(WEIGHTS)
def test_over_a_cycle_each_target_has_exactly_its_share(weights: list[int]) -> None:
    rotation = rotation_of(weights)
    run(rotation, sum(weights))  # wherever it begins
    assert run(rotation, sum(weights)) == {url(n): weight for n, weight in enumerate(weights)}


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 200), st.integers(1, 200))
def test_over_any_run_each_target_is_near_its_share(weights: list[int], skipped: int, times: int) -> None:
    rotation = rotation_of(weights)
    run(rotation, skipped)
    counts = run(rotation, times)
    for n, weight in enumerate(weights):
        assert abs(counts[url(n)] - times * weight / sum(weights)) <= len(weights)


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 40), st.integers(0, 40))
def test_a_target_that_comes_back_has_its_share_and_no_more(weights: list[int], before: int, without: int) -> None:
    rotation = rotation_of(weights, health=HealthConf(path="/health"))
    run(rotation, before)
    rotation.told(url(0), False, START)
    run(rotation, without)
    rotation.told(url(0), True, START)
    counts = run(rotation, sum(weights))
    assert without == 0 or counts == {url(n): weight for n, weight in enumerate(weights)}


def test_targets_alternate_rather_than_come_in_runs() -> None:
    rotation = rotation_of([5, 1, 1])
    run(rotation, 7)
    assert "".join(chosen(rotation)[-1] for _ in range(7)) == "0010200"


@settings(deadline=None)
@given(WEIGHTS, st.integers(1, 300))
def test_the_least_loaded_for_its_weight_is_taken(weights: list[int], times: int) -> None:
    rotation = rotation_of(weights, balance="least-outstanding")
    loads: Counter[str] = Counter()
    for _ in range(times):
        loads[chosen(rotation, asking=Asking(loads=loads))] += 1
    levels = [loads[url(n)] / weight for n, weight in enumerate(weights)]
    for n, weight in enumerate(weights):  # none has got one more while another would have stayed below it
        assert (loads[url(n)] - 1) / weight <= min(levels) + 1 / min(weights)


def test_among_equals_the_first_changes() -> None:
    assert run(rotation_of([1, 1], balance="least-outstanding"), 10) == {url(0): 5, url(1): 5}


VALUES = [b"caller-%d" % n for n in range(1000)]


def hashed(rotation: Rotation) -> dict[bytes, str]:
    return {value: chosen(rotation, asking=Asking(value)) for value in VALUES}


@settings(max_examples=25, deadline=None)  # each draws some thousand times
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.data())
def test_a_target_that_goes_moves_only_its_own_share(weights: list[int], data: st.DataObject) -> None:
    rotation = rotation_of(weights, balance="hash")
    before = hashed(rotation)
    assert hashed(rotation_of(weights, balance="hash")) == before  # in every worker
    gone = data.draw(st.integers(0, len(weights) - 1))
    rotation.told(url(gone), False, START)
    after = hashed(rotation)
    assert all(after[value] == was for value, was in before.items() if was != url(gone))
    assert url(gone) not in after.values()
    rotation.told(url(gone), True, START)
    assert hashed(rotation) == before


def test_a_hash_spreads_by_weight() -> None:
    counts = Counter(hashed(rotation_of([1, 2, 5], balance="hash")).values())
    for n, weight in enumerate([1, 2, 5]):
        assert counts[url(n)] == pytest.approx(len(VALUES) * weight / 8, rel=0.2)


def test_one_target_that_is_well_needs_no_choice() -> None:
    rotation = rotation_of([1])
    assert rotation.only is None  # not yet looked at
    assert chosen(rotation) == url(0)
    assert rotation.only is not None
    assert not rotation.watched


def test_drained_and_unhealthy_targets_get_nothing() -> None:
    rotation = rotation_of([1, 1, 1], drained=[0])
    rotation.told(url(1), False, START)
    assert run(rotation, 10) == {url(2): 10}
    rotation.told(url(2), False, START)
    refusal = rotation.choose(START, Asking())
    assert isinstance(refusal, Refusal)
    assert refusal.problem is NO_HEALTHY_TARGET
    assert rotation.refusal(START) == refusal
    configure(rotation, conf_of([1, 1, 1]))  # without health checks there is no news to believe
    assert run(rotation, 9) == {url(n): 3 for n in range(3)}


CHECKED = HealthConf(path="/health", eject_after=2, eject_s=10.0)


def fail(rotation: Rotation, number: int, times: int = 1, now: float = START, requests: int = 0) -> None:
    for _ in range(times):
        rotation.failed(url(number), Asking(), "it refused", now, requests)


def test_what_is_known_of_targets_outlives_a_reload() -> None:
    rotation = rotation_of([1, 1, 1], health=CHECKED)
    rotation.told(url(0), False, START)
    fail(rotation, 1, 2)
    configure(rotation, conf_of([3, 2, 1], health=CHECKED))
    assert run(rotation, 10) == {url(2): 10}


def test_failures_in_a_row_eject_for_a_while() -> None:
    rotation = rotation_of([1, 1], health=CHECKED)
    run(rotation, 2)
    fail(rotation, 0)
    rotation.answered(url(0), Asking(), 200, START)
    fail(rotation, 0)
    assert run(rotation, 10) == {url(0): 5, url(1): 5}  # not in a row
    rotation.answered(url(0), Asking(), 500, START)  # 5xx is a failure here
    assert run(rotation, 10) == {url(1): 10}
    assert run(rotation, 10, START + 9.9) == {url(1): 10}
    assert run(rotation, 10, START + 10.1) == {url(0): 5, url(1): 5}


def test_where_all_are_ejected_ejection_does_not_count() -> None:
    rotation = rotation_of([1, 1, 1], health=CHECKED)
    rotation.told(url(2), False, START)
    fail(rotation, 0, 2)
    fail(rotation, 1, 2)
    assert run(rotation, 10) == {url(0): 5, url(1): 5}


def test_failover_takes_those_in_rotation_first_and_then_the_ejected() -> None:
    rotation = rotation_of([1, 1, 1, 1], health=CHECKED)
    fail(rotation, 0, 2)
    rotation.told(url(1), False, START)
    tried: tuple[Target, ...] = ()
    order = []
    while isinstance(target := rotation.choose(START, Asking(), tried), Target):
        order.append(target.url)
        tried += (target,)
    assert sorted(order[:2]) == [url(2), url(3)]
    assert order[2:] == [url(0)]


@settings(deadline=None)
@given(st.integers(1, 20), st.lists(st.floats(0, 70), min_size=2, max_size=20))
def test_a_slow_start_never_takes_back_what_it_gave(weight: int, moments: list[float]) -> None:
    rotation = rotation_of([weight, weight], health=HealthConf(path="/health", slow_start_s=60.0))
    rotation.told(url(0), False, START)
    run(rotation, 1)
    rotation.told(url(0), True, START)
    shares = []
    for moment in sorted(moments):
        run(rotation, 1, START + moment)
        share = rotation.members[0].share
        assert share == pytest.approx(weight * min(max(moment / 60, 0.01), 1), abs=weight * 0.011)
        shares.append(share)
    assert shares == sorted(shares)


@pytest.mark.parametrize("balance", ["round-robin", "least-outstanding", "hash"])
def test_a_slow_start_is_felt(balance: str) -> None:
    rotation = rotation_of([1, 1], health=HealthConf(path="/health", slow_start_s=60.0), balance=balance)
    rotation.told(url(0), False, START)
    run(rotation, 1)
    rotation.told(url(0), True, START)
    for moment, part in ((6.0, 0.1 / 1.1), (30.0, 0.5 / 1.5), (60.0, 0.5)):
        loads: Counter[str] = Counter()
        for value in VALUES:
            loads[chosen(rotation, START + moment, Asking(value, loads))] += 1
        assert loads[url(0)] / len(VALUES) == pytest.approx(part, abs=0.04)


def test_slow_start_after_drain() -> None:
    health = HealthConf(slow_start_s=60.0)
    rotation = rotation_of([1, 1], drained=[0], health=health)
    assert run(rotation, 10) == {url(1): 10}
    configure(rotation, conf_of([1, 1], health=health))
    assert run(rotation, 100)[url(0)] < 5
    assert run(rotation, 100, START + 61)[url(0)] == 50


BREAKING = BreakerConf(failures=3, ratio=0.5, window_s=10.0, open_s=5.0)


def test_an_open_circuit_is_passed_over_and_tried_with_one_request() -> None:
    rotation = rotation_of([1, 1], breaker=BREAKING)
    run(rotation, 2)
    fail(rotation, 0, 3, requests=3)
    assert rotation.watched
    assert run(rotation, 10) == {url(1): 10}
    trials = run(rotation, 10, START + 5)
    assert trials == {url(0): 1, url(1): 9}


def test_where_every_circuit_is_open_the_refusal_says_when_to_come_back() -> None:
    rotation = rotation_of([1], breaker=BREAKING)
    run(rotation, 1)
    fail(rotation, 0, 3, requests=3)
    refusal = rotation.refusal(START + 0.5)
    assert refusal is not None
    assert (refusal.problem, dict(refusal.headers)) == (CIRCUIT_OPEN, {b"Retry-After": b"5"})
    trial = Asking()
    assert rotation.refusal(START + 5) is None
    assert chosen(rotation, START + 5, trial) == url(0)
    assert isinstance(rotation.choose(START + 5, Asking()), Refusal)
    rotation.answered(url(0), trial, 500, START + 5.1)  # an answer is an answer
    assert run(rotation, 5, START + 5.1) == {url(0): 5}
    assert (rotation.only is not None, rotation.watched) == (True, False)


def test_a_trial_whose_client_left_is_followed_by_another() -> None:
    rotation = rotation_of([1], breaker=BREAKING)
    fail(rotation, 0, 3, requests=3)
    trial = Asking()
    chosen(rotation, START + 5, trial)
    trial.done = True
    assert chosen(rotation, START + 5.2) == url(0)
    assert isinstance(rotation.choose(START + 5.3, Asking()), Refusal)
