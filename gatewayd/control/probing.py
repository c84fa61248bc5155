"""Active health checks: targets of services with a health path are asked for it, and workers hear what has changed.

Control asks, once for all workers: as many probers would be load, and each would have an opinion of its own. A target
is unhealthy after `unhealthy_after` bad answers in a row and healthy again after `healthy_after` good ones; before
either, nothing is said of it, so that a control which begins anew takes nothing back of what workers know.

Probes are spread by a tenth of their interval, lest all go out at once, and at most `AT_ONCE` are under way.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from gatewayd.channel import TargetChecked, TargetsChecked
from gatewayd.conf import HealthConf, ServiceConf, TlsConf

AT_ONCE = 64
BEGIN_WITHIN_S = 1.0

log = logging.getLogger(__name__)

# URL of a target, how it is checked, how TLS is spoken, whether it is bound; why it is not well, None if it is.
Ask = Callable[[str, HealthConf, TlsConf, bool], Awaitable[str | None]]

_random = secrets.SystemRandom()


async def ask_over_http(url: str, health: HealthConf, tls: TlsConf, bound: bool) -> str | None:
    from gatewayd.control.probe import probe  # with httpx: 0.15 s of start-up, which only those who have checks pay

    return await probe(url, health, tls, bound)


class Check:
    """What is known of one target."""

    def __init__(self, service_id: int, url: str, health: HealthConf, tls: TlsConf, bound: bool = False) -> None:
        self.service_id = service_id
        self.url = url
        self.health = health
        self.tls = tls
        self.bound = bound  # it is asked only where it is not on the gateway's own machine
        self.healthy: bool | None = None  # None: not known yet
        self.since_s = 0
        self.error = ""  # the last one
        self.error_at_s = 0
        self.in_a_row = 0  # good answers are counted up from 0, bad ones down

    def __repr__(self) -> str:
        return f"<Check of {self.url}, healthy {self.healthy}, {self.in_a_row} in a row>"

    def heard(self, error: str | None, now_s: int) -> bool:
        """One answer, good if there is no error. True if that has changed what is known."""
        if error is None:
            self.in_a_row = max(self.in_a_row, 0) + 1
            healthy, enough = True, self.in_a_row >= self.health.healthy_after
        else:
            self.error, self.error_at_s = error, now_s
            self.in_a_row = min(self.in_a_row, 0) - 1
            healthy, enough = False, -self.in_a_row >= self.health.unhealthy_after
        if not enough or healthy is self.healthy:
            return False
        self.healthy, self.since_s = healthy, now_s
        return True


class Prober:
    """The checks under way, one task each. `tell` gets the news for workers."""

    def __init__(self, tell: Callable[[TargetsChecked], None], ask: Ask = ask_over_http) -> None:
        self._tell = tell
        self._ask = ask
        self._places = asyncio.Semaphore(AT_ONCE)
        self._checks: dict[tuple[int, str], Check] = {}
        self._tasks: dict[tuple[int, str], asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Prober of {len(self._checks)} targets>"

    def configure(self, services: Iterable[ServiceConf]) -> None:
        """Check the targets of these services, where they have a path, and no others."""
        wanted = {
            (service.id, target.url): (service.health, service.tls, target.bound)
            for service in services
            if service.health.path is not None
            for target in service.targets
        }
        for place in self._checks.keys() - wanted.keys():
            del self._checks[place]
            self._tasks.pop(place).cancel()
        for place, (health, tls, bound) in wanted.items():
            check = self._checks.get(place)
            if check is None:
                check = self._checks[place] = Check(*place, health, tls, bound)
            elif (check.health, check.tls, check.bound) == (health, tls, bound):
                continue
            else:  # what is known stands until there is other news
                check.health, check.tls, check.bound, check.in_a_row = health, tls, bound, 0
                self._tasks.pop(place).cancel()
            self._tasks[place] = asyncio.get_running_loop().create_task(self._watch(check))

    def known(self) -> TargetsChecked:
        """For a worker that has just come."""
        return TargetsChecked(
            tuple(
                TargetChecked(check.service_id, check.url, check.healthy)
                for check in self._checks.values()
                if check.healthy is not None
            )
        )

    def checks(self, service_id: int) -> list[Check]:
        return [check for check in self._checks.values() if check.service_id == service_id]

    def all_checks(self) -> list[Check]:
        return list(self._checks.values())

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._checks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, check: Check) -> None:
        await asyncio.sleep(_random.uniform(0, min(BEGIN_WITHIN_S, check.health.interval_s)))
        while True:
            async with self._places:
                error = await self._asked(check)
            if check.heard(error, time.time_ns() // 1_000_000_000):
                assert check.healthy is not None
                log.info("target %s is %s", check.url, "healthy" if check.healthy else f"unhealthy: {error}")
                self._tell(TargetsChecked((TargetChecked(check.service_id, check.url, check.healthy),)))
            await asyncio.sleep(check.health.interval_s * _random.uniform(0.9, 1.1))

    async def _asked(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(check.health.timeout_s):
                return await self._ask(check.url, check.health, check.tls, check.bound)
        except TimeoutError:
            return "it did not answer in time"
        except Exception as error:  # whatever it is: a check that has died would leave its target as it was for good
            log.exception("a probe of %s failed", check.url)
            return f"the probe failed ({type(error).__name__})"
