"""Long work in a thread, beside which the loop goes on: it waits half a millisecond for its turn, not Python's 5 ms.

The collector of garbage waits until the end of it (`collector`): it would go through the hundreds of thousands of
objects that a thread makes, with everybody waiting, and find nothing. So let them go before the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from gatewayd.control.collector import without_collections

_TURN_S = 0.0005
_lock = Lock()
_users = 0
_before_s = 0.005


@contextmanager
def short_turns() -> Iterator[None]:
    """Of this process, as long as anybody is in here."""
    global _users, _before_s
    with _lock:
        if not _users:
            _before_s = sys.getswitchinterval()
            sys.setswitchinterval(_TURN_S)
        _users += 1
    try:
        with without_collections():
            yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setswitchinterval(_before_s)
