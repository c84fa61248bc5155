"""How one target of a service stands, as one worker sees it: what control's probes say, and what its callers met.

Active checks are control's, and their news is believed until there is other news. Passive ejection is each worker's
own: a target that fails `eject_after` times in a row, or answers 5xx, is passed over for `eject_s`. A target that comes
back takes its full share only after `slow_start_s`.

The state belongs to a service and not to a URL: two tenants may have the same API behind them, and one of them, with a
timeout of a millisecond, must not be able to open the circuit for the other.
"""

from __future__ import annotations

import math
from enum import Enum

from gatewayd.conf import BreakerConf, HealthConf
from gatewayd.policy.breaker import Breaker, Circuit, Trial

_LEAST_SHARE = 0.01  # of its weight, with which a slow start begins; of nothing, no share could grow
_STEPS = 100  # in which a share grows


class State(Enum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # says control
    EJECTED = "ejected"
    OPEN = "open"
    HALF_OPEN = "half-open"
    DRAINED = "drained"


_OF_CIRCUIT = {Circuit.OPEN: State.OPEN, Circuit.HALF_OPEN: State.HALF_OPEN}


class Standing:
    """One target's. Times are monotonic seconds."""

    __slots__ = ("back_at", "breaker", "drained", "ejected_until", "error", "error_at", "failures", "health", "healthy")

    def __init__(self, health: HealthConf, breaker: BreakerConf) -> None:
        self.health = health
        self.breaker = Breaker(breaker)
        self.healthy = True
        self.drained = False
        self.failures = 0  # in a row
        self.ejected_until = 0.0  # 0: it is not
        self.back_at = -math.inf  # when it last came back
        self.error = ""  # the last one
        self.error_at = 0.0

    def __repr__(self) -> str:
        return f"<Standing {'' if self.healthy else 'un'}healthy, {self.failures} failures, {self.breaker}>"

    def configure(self, health: HealthConf, breaker: BreakerConf, drained: bool) -> None:
        """What has gone from the configuration leaves nothing behind."""
        if health.path is None:
            self.healthy = True
        if health.eject_after is None:
            self.failures, self.ejected_until = 0, 0.0
        if not breaker.failures:
            self.breaker.close()
        if self.drained and not drained:
            self.back_at = math.inf  # as of the next look
        self.health, self.breaker.conf, self.drained = health, breaker, drained

    def state(self, now: float) -> State:
        """The one that says most, where there are several."""
        if self.drained:
            return State.DRAINED
        if not self.healthy:
            return State.UNHEALTHY
        circuit = self.breaker.circuit(now)
        if circuit is not Circuit.CLOSED:
            return _OF_CIRCUIT[circuit]
        return State.EJECTED if now < self.ejected_until else State.HEALTHY

    def share(self, weight: int, now: float) -> float:
        """Its weight, or the part of it that a slow start has reached."""
        if not self.health.slow_start_s:
            return float(weight)
        return weight * min(1.0, max(_LEAST_SHARE, (now - self.back_at) / self.health.slow_start_s))

    def changes_at(self, now: float) -> float:
        """When time alone will next change its state or share."""
        times = [until for until in (self.ejected_until, self.breaker.open_until) if until > now]
        if now < self.back_at + self.health.slow_start_s:
            times.append(now + self.health.slow_start_s / _STEPS)
        return min(times, default=math.inf)

    # What happens to it. Each says whether its state has changed.

    def told(self, healthy: bool, now: float) -> bool:
        """By control."""
        if healthy is self.healthy:
            return False
        self.healthy = healthy
        if healthy:
            self.back_at = now
        return True

    def answered(self, asker: Trial, status: int, now: float) -> bool:
        changed = self.breaker.answered(asker)
        if changed:
            self.back_at = now
        if status >= 500:
            return self._failed_in_a_row(now, f"it answered {status}") or changed
        self.failures = 0
        return changed

    def failed(self, asker: Trial, why: str, now: float, requests: int) -> bool:
        """Without an answer. `requests`: those of the breaker's window."""
        self.error, self.error_at = why, now
        opened = self.breaker.failed(asker, now, requests)
        return self._failed_in_a_row(now, why) or opened

    def come_back(self, now: float) -> None:
        """Called before the others of a look: its time as an ejected or drained one may be over."""
        if self.ejected_until and now >= self.ejected_until:
            self.back_at, self.ejected_until = self.ejected_until, 0.0
        if self.back_at == math.inf:
            self.back_at = now

    def _failed_in_a_row(self, now: float, why: str) -> bool:
        limit = self.health.eject_after
        if limit is None:
            return False
        self.error, self.error_at = why, now
        self.failures += 1
        if self.failures < limit or self.ejected_until:
            return False
        self.failures = 0
        self.ejected_until = now + self.health.eject_s
        return True
