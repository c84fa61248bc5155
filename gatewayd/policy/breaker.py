"""The circuit breaker: a target that fails most of what it gets is left alone for a while, then tried with one request.

    closed      requests go through; failures are counted by the second
    open        no request goes through until `open_s` have passed
    half-open   one request at a time goes through: if it is answered the circuit closes, if it fails it opens again

A failure is no answer: no connection, none in time, a broken or an invalid one. An answer of 5xx is none. nginx counts
it only where it is told to (`max_fails` counts what `proxy_next_upstream` names, by default errors and timeouts); Envoy
does, but only to pass over one host of many. An open circuit closes an API to all its callers, and one address with a
bug in it must not do that.

Requests that go well are not counted here, which would cost each of them: whoever reports a failure says how many there
were in the window, from counts that exist.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from gatewayd.conf import BreakerConf

LONGEST_WINDOW_S = 60.0


class Circuit(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Trial(Protocol):
    """A request that tries a target whose circuit is half-open."""

    done: bool


class Breaker:
    """One target's circuit. Times are monotonic seconds."""

    __slots__ = ("_failures", "_trial", "conf", "open_until")

    def __init__(self, conf: BreakerConf) -> None:
        self.conf = conf
        self.open_until = 0.0  # 0: closed
        self._failures: list[tuple[int, int]] = []  # second, how many; of the window
        self._trial: Trial | None = None

    def __repr__(self) -> str:
        return f"<Breaker open until {self.open_until}>" if self.open_until else "<Breaker closed>"

    def circuit(self, now: float) -> Circuit:
        if not self.open_until:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self.open_until else Circuit.HALF_OPEN

    @property
    def is_tried(self) -> bool:
        """A trial is under way. One that has ended without telling (its client left) is none any more."""
        return self._trial is not None and not self._trial.done

    def try_with(self, trial: Trial) -> None:
        self._trial = trial

    def answered(self, asker: Trial) -> bool:
        """True if that has closed the circuit: answers to requests from before it opened say nothing."""
        if not self.open_until or asker is not self._trial:
            return False
        self.close()
        return True

    def failed(self, asker: Trial, now: float, requests: int) -> bool:
        """True if that has opened the circuit. `requests`: how many the target got in the last `window_s`."""
        if not self.conf.failures:
            return False
        if self.open_until:
            if asker is not self._trial:  # it was on its way before the circuit opened
                return False
            self._open(now)
            return True
        failures = self._count(now)
        if failures < self.conf.failures or failures < self.conf.ratio * requests:
            return False
        self._open(now)
        return True

    def close(self) -> None:
        self.open_until = 0.0
        self._trial = None
        self._failures.clear()

    def _open(self, now: float) -> None:
        self.open_until = now + self.conf.open_s
        self._trial = None
        self._failures.clear()

    def _count(self, now: float) -> int:
        """Failures in the window, with this one."""
        second, oldest = int(now), now - self.conf.window_s
        self._failures = [each for each in self._failures if each[0] >= oldest]
        if self._failures and self._failures[-1][0] == second:
            self._failures[-1] = (second, self._failures[-1][1] + 1)
        else:
            self._failures.append((second, 1))
        return sum(count for _, count in self._failures)
