"""A new configuration, compiled beside the requests: thousands of routes take a tenth of a second, and nobody waits.

What is small is in force at once. Whatever else is put here while one is compiled waits its turn,
so that news comes into force in the order in which control sent it.

The collector of garbage waits until the end: to go through the objects of 5,000 services that are being made, and those
of the ones before, took 50 to 85 ms three times a change, with every request waiting, and found nothing. What has been
made then stays out of its way for good (`gc.freeze`): a configuration is in no cycles, so counting references frees it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

# As long may a request wait: what some thirty take together.
SLICE_S = 0.002
# As many take as long: two dozen services. Counted, so that a small configuration is never in force later than at once.
STEPS_AT_ONCE = 500

log = logging.getLogger(__name__)

Work = Callable[[], Iterator[None]]  # a step at a time


class Installing:
    """`<Installing 1 under way, 2 waiting>`"""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Installing {int(self._task is not None)} under way, {len(self._waiting)} waiting>"

    def put(self, work: Work) -> None:
        """Begin, or wait until what was put before has ended."""
        if self._task is not None:
            self._waiting.append(work)
            return
        steps = work()
        if not _ended(_begin, steps):
            gc.disable()
            self._task = asyncio.get_running_loop().create_task(self._go_on(steps))

    def drop(self) -> None:
        """Whoever sent it is gone, and another will say how things are."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None
            gc.enable()

    async def _go_on(self, steps: Iterator[None]) -> None:
        try:
            while True:
                await asyncio.sleep(0)
                if not _ended(_slice, steps):
                    continue
                if not self._waiting:
                    break
                steps = self._waiting.popleft()()
        except asyncio.CancelledError:
            return
        self._task = None
        gc.freeze()
        gc.enable()


def _ended(run: Callable[[Iterator[None]], bool], steps: Iterator[None]) -> bool:
    """Whether that was all. What fails leaves things as they are, and is no reason to stop what follows."""
    try:
        return run(steps)
    except Exception:
        log.exception("a configuration could not be compiled, and the one before stays in force")
        return True


def _begin(steps: Iterator[None]) -> bool:
    return sum(1 for _ in islice(steps, STEPS_AT_ONCE)) < STEPS_AT_ONCE


def _slice(steps: Iterator[None]) -> bool:
    until = time.thread_time() + SLICE_S  # ours, not the clock's: where others keep us waiting, it is not the steps'
    return all(time.thread_time() < until for _ in steps)
