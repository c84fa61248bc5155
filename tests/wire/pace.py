"""How long something takes on a real clock, on a machine that now and then runs nobody for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gatewayd.proxy.worker import SWEEP_S

LATE_S: Final = 2 * SWEEP_S + 0.15  # at the next sweep but one, on a machine that has other things to do
_TICK_S = 0.01


@asynccontextmanager
async def taking(least_s: float, seen_every_s: float = 0.0) -> AsyncIterator[None]:
    """What happens in this block takes so long, and not much longer, without the time in which nobody could run."""
    loop = asyncio.get_running_loop()
    lost_s = 0.0

    async def count_lost() -> None:
        nonlocal lost_s
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK_S)
            lost_s += max(0.0, loop.time() - before - 2 * _TICK_S)

    counting = loop.create_task(count_lost())
    began = loop.time()
    try:
        yield
        took_s = loop.time() - began
        await asyncio.sleep(2 * _TICK_S)  # what was lost last is counted by then
    finally:
        counting.cancel()
    assert least_s - 0.02 <= took_s < least_s + seen_every_s + lost_s + LATE_S
