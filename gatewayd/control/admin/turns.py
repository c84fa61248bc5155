"""Whose turn it is.

A change waits while another connection has the database's write lock: it comes later, and is not refused. And while a
thread computes, control's loop waits for its turn, which is not to be long.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from gatewayd.control.database import Database

_READS = ("GET", "HEAD", "OPTIONS")
# While a thread of ours computes, the loop waits this long for its turn, not Python's 5 ms: look-ups go on meanwhile.
_TURN_S = 0.0005
_turns: list[float] = []  # what it was before, for each that wants quick ones


@contextmanager
def quick_turns() -> Iterator[None]:
    """Of all threads, until the last of those that want them has ended. For the loop's thread alone.

    The collector of garbage waits until then: it would go through the hundreds of thousands of objects that a thread
    makes, with everybody waiting (0.3 s, measured), and find nothing. So let them go before the end.
    """
    _turns.append(sys.getswitchinterval() if not _turns else _turns[0])
    sys.setswitchinterval(_TURN_S)
    gc.disable()
    try:
        yield
    finally:
        turn_s = _turns.pop()
        if not _turns:
            sys.setswitchinterval(turn_s)
            gc.enable()


class ChangesWait:
    """Before a handler begins. One whose body is slow to come may still meet an import, and hears `unavailable`."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READS:
            await self._database.given_back()
        await self.app(scope, receive, send)
