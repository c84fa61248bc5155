"""The circuit of one target: what opens it, what it lets through then, what closes it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.conf import BreakerConf
from gatewayd.policy.breaker import Breaker, Circuit

CONF = BreakerConf(failures=4, ratio=0.5, window_s=10.0, open_s=5.0)
START = 1000.0


@dataclass(eq=False)
class Asking:
    done: bool = False


def failing(breaker: Breaker, times: int, now: float, requests: int) -> bool:
    return sum(breaker.failed(Asking(), now, requests) for _ in range(times)) > 0


def test_so_many_failures_that_are_half_of_the_requests_open_it() -> None:
    breaker = Breaker(CONF)
    assert not failing(breaker, 3, START, requests=3)
    assert breaker.circuit(START) is Circuit.CLOSED
    assert breaker.failed(Asking(), START, requests=8)
    assert breaker.circuit(START) is Circuit.OPEN
    assert breaker.circuit(START + 4.9) is Circuit.OPEN
    assert breaker.circuit(START + 5) is Circuit.HALF_OPEN


def test_a_few_among_many_requests_do_not() -> None:
    breaker = Breaker(CONF)
    assert not failing(breaker, 100, START, requests=201)
    assert failing(breaker, 1, START, requests=202)


def test_failures_are_forgotten_with_the_window() -> None:
    breaker = Breaker(CONF)
    assert not failing(breaker, 3, START, requests=3)
    assert not failing(breaker, 3, START + 11, requests=3)
    assert failing(breaker, 1, START + 20, requests=4)


def test_no_breaker() -> None:
    breaker = Breaker(BreakerConf(failures=0))
    assert not failing(breaker, 1000, START, requests=1000)
    assert breaker.circuit(START) is Circuit.CLOSED


def test_only_the_trial_decides() -> None:
    breaker = Breaker(CONF)
    failing(breaker, 4, START, requests=4)
    assert not breaker.answered(Asking())  # it was asked before the circuit opened
    assert not breaker.failed(Asking(), START + 6, requests=1)
    first, second = Asking(), Asking()
    breaker.try_with(first)
    assert breaker.is_tried
    assert breaker.failed(first, START + 6, requests=1)
    assert breaker.circuit(START + 10.9) is Circuit.OPEN
    assert not breaker.is_tried
    breaker.try_with(second)
    second.done = True  # its client left: another may try
    assert not breaker.is_tried
    third = Asking()
    breaker.try_with(third)
    assert not breaker.answered(second)
    assert breaker.answered(third)
    assert breaker.circuit(START + 12) is Circuit.CLOSED
    assert not failing(breaker, 3, START + 12, requests=3)  # it begins with nothing


class Circuits(RuleBasedStateMachine):
    """Whatever happens: it opens only after enough failures, lets one at a time through, and closes by an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(CONF)
        self.now = START
        self.failures: list[float] = []  # since it was last closed
        self.under_way: list[Asking] = []

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        circuit = self.breaker.circuit(self.now)
        if circuit is Circuit.OPEN or (circuit is Circuit.HALF_OPEN and self.breaker.is_tried):
            return
        asking = Asking()
        if circuit is Circuit.HALF_OPEN:
            self.breaker.try_with(asking)
        self.under_way.append(asking)

    @rule(data=st.data(), requests=st.integers(0, 20))
    def fail(self, data: st.DataObject, requests: int) -> None:
        if not self.under_way:
            return
        asking = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.breaker.circuit(self.now)
        if before is Circuit.CLOSED:
            self.failures.append(self.now)
        opened = self.breaker.failed(asking, self.now, requests)
        asking.done = True
        if opened:
            if before is Circuit.CLOSED:
                # Counted by the second: at most one more than the window is in it.
                recent = sum(at > self.now - CONF.window_s - 1 for at in self.failures)
                assert recent >= CONF.failures
                assert recent >= CONF.ratio * requests
            assert self.breaker.circuit(self.now) is Circuit.OPEN
            self.failures.clear()
        else:
            assert self.breaker.circuit(self.now) is before

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if not self.under_way:
            return
        asking = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.breaker.circuit(self.now)
        if self.breaker.answered(asking):
            assert before is not Circuit.CLOSED
            assert self.breaker.circuit(self.now) is Circuit.CLOSED
            self.failures.clear()
        asking.done = True

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.under_way:
            self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1))).done = True

    @invariant()
    def an_open_circuit_ends_in_time(self) -> None:
        assert self.breaker.open_until <= self.now + CONF.open_s


TestCircuits = Circuits.TestCase
