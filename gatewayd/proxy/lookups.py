"""Look-ups of keys that a worker does not know, within bounds.

A key's checksum is no secret, so whoever reads this can make up well-formed keys by the million, and each costs control
a look-up (29 µs, measured). Under such a flood the keys that are known must not notice. So

- what control says is no key is remembered apart from the keys, in a small memory of its own, and not for long;
- few look-ups are under way at once: control takes a question of a known key after at most ASKED_LIMIT others;
- look-ups that find nothing are rationed: MISSES_PER_S, after a burst that a restart with stale keys may need;
- so are the requests that wait. Beyond a bound the answer is 503: we do not know whether the key is good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gatewayd.channel import FindKey, FromWorker
from gatewayd.errors import OVERLOADED, RETRY_SOON, Refusal
from gatewayd.policy.guards import NO_SUCH_KEY

Wake = Callable[[], None]
ASKED_LIMIT = 64  # 2 ms of control's time
# Requests, the dead ones among them. Half of what may be in flight: the rest is left to known keys while control is
# away. Not less, since a control that is back is asked for every key anew, while callers go on sending.
WAITING_LIMIT = 4096
MISSES_PER_S = 1000.0  # 3 % of a core of control's for each worker
MISSES_BURST = 2000.0
UNKNOWN_LIMIT = 4096
UNKNOWN_S = 10.0  # then asked again: control tells of keys that change, not of those that come to be

_BUSY = Refusal(OVERLOADED, "too many unknown API keys are being looked up", RETRY_SOON)


class LookUps:
    """Who waits for which key, and what is known to be no key."""

    def __init__(self, send: Callable[[FromWorker], None]) -> None:
        self._send = send
        self._awaiting: dict[str, list[Wake]] = {}
        self._queued: deque[str] = deque()  # of these, the ones that control has not been asked about yet
        self._waiting = 0
        self._unknown: dict[str, float] = {}  # until when; the oldest stand first
        self._misses_left = MISSES_BURST
        self._refilled_at = 0.0

    def __repr__(self) -> str:
        return f"<LookUps {self._waiting} waiting, {len(self._queued)} queued, {len(self._unknown)} unknown>"

    def wait(self, public_id: str, wake: Wake, now: float) -> Refusal | None:
        """Call `wake` once when control has said what this key is; or a refusal, when that is known or cannot be."""
        until = self._unknown.get(public_id)
        if until is not None:
            if now < until:
                return NO_SUCH_KEY
            del self._unknown[public_id]
        if self._waiting >= WAITING_LIMIT:
            return _BUSY
        waiting = self._awaiting.get(public_id)
        if waiting is not None:
            waiting.append(wake)
        elif self._may_miss(now):
            self._awaiting[public_id] = [wake]
            self._queued.append(public_id)
            self._ask()
        else:
            return _BUSY
        self._waiting += 1
        return None

    def wait_for_known(self, public_id: str, wake: Wake) -> None:
        """The same for a key that a tunnel stands on: known once, so it is not rationed and comes before the others."""
        waiting = self._awaiting.get(public_id)
        if waiting is not None:
            waiting.append(wake)
        else:
            self._awaiting[public_id] = [wake]
            self._queued.appendleft(public_id)
            self._ask()
        self._waiting += 1

    def found(self, public_id: str) -> list[Wake]:
        """It is a key. Returns whom to wake."""
        self._misses_left = min(MISSES_BURST, self._misses_left + 1)  # it was no miss
        return self._answered(public_id)

    def missed(self, public_id: str, now: float) -> list[Wake]:
        """There is no such key. Returns whom to wake: they will ask again, and be refused."""
        if len(self._unknown) >= UNKNOWN_LIMIT:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[public_id] = now + UNKNOWN_S
        return self._answered(public_id)

    def forget(self, public_ids: tuple[str, ...] | None) -> None:
        """These may be keys by now (None: any may)."""
        if public_ids is None:
            self._unknown.clear()
        else:
            for public_id in public_ids:
                self._unknown.pop(public_id, None)

    def ask_again(self) -> None:
        """Control is new and has heard of nothing."""
        self._queued = deque(self._awaiting)
        self._ask()

    def _answered(self, public_id: str) -> list[Wake]:
        waiting = self._awaiting.pop(public_id, [])
        self._waiting -= len(waiting)
        self._ask()
        return waiting

    def _ask(self) -> None:
        while self._queued and len(self._awaiting) - len(self._queued) < ASKED_LIMIT:
            self._send(FindKey(self._queued.popleft()))

    def _may_miss(self, now: float) -> bool:
        """Take one of the look-ups that may find nothing."""
        left = min(MISSES_BURST, self._misses_left + (now - self._refilled_at) * MISSES_PER_S)
        self._refilled_at = now
        self._misses_left = left - 1 if left >= 1 else left
        return left >= 1
