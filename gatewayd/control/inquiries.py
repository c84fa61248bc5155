"""What control asks of workers on behalf of an operator, and is told: `explain`.

A question has a number, and the workers that have not answered it. The first who knows ends it; so does the last who
does not. A worker whose channel is lost knows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gatewayd.channel import Explained, FromControl
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.frames import FrameProtocol
from gatewayd.told import Told

# A worker answers within milliseconds, unless it is stopped.
ANSWER_TIMEOUT_S = 2.0


@dataclass(slots=True, eq=False)
class _Asked:
    missing: set[FrameProtocol]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    told: Told | None = None


class Inquiries:
    """The questions that are open."""

    def __init__(self) -> None:
        self._open: dict[int, _Asked] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Inquiries {len(self._open)} open>"

    async def ask(self, channels: Sequence[FrameProtocol], question: Callable[[int], FromControl]) -> Told | None:
        """Send the question that `question` makes of a number; what the first says who knows. None: nobody does."""
        if not channels:
            raise GatewayError(UNAVAILABLE, "no worker is serving")
        self._count += 1
        number = self._count
        asked = self._open[number] = _Asked(set(channels))
        message = question(number)
        for channel in channels:
            channel.send(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await asked.answered.wait()
        except TimeoutError:
            raise GatewayError(UNAVAILABLE, "a worker did not answer in time") from None
        finally:
            del self._open[number]
        return asked.told

    def answered(self, channel: FrameProtocol, message: Explained) -> None:
        asked = self._open.get(message.ask)
        if asked is not None:
            asked.told = asked.told or message.told
            self._settle(asked, channel)

    def lost(self, channel: FrameProtocol) -> None:
        """It will not answer any more."""
        for asked in list(self._open.values()):
            self._settle(asked, channel)

    def _settle(self, asked: _Asked, channel: FrameProtocol) -> None:
        asked.missing.discard(channel)
        if asked.told is not None or not asked.missing:
            asked.answered.set()
