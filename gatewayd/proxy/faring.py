"""How a target fares: how long it takes to answer, and how many of its answers are errors or never come.

What counts is when an answer begins: a stream or a tunnel may last for hours and say nothing of its target. The time
runs from when the whole request had gone out, so that a caller who uploads slowly is not held against the target, to
the answer's head, or to when the waiting ended without one: the target died, sent what is no answer, or had no more
time, or the caller had no more patience. A time that was cut short so is the least it would have been.

An error is an answer of 5xx, or none: the connection was refused, reset or not made in time, the answer was invalid or
did not come in time, or one that had begun broke off. A caller who leaves is no error of the target's.

A request pays 0.07 µs for this (its time is put down, in 4 bytes), and another 0.05 once a second (`pack_seconds`).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import NamedTuple

from gatewayd.channel import LOAD_S
from gatewayd.policy.histogram import lanes_of, pack_lanes, pack_seconds

FIRST_ERROR = 500


class _Second(NamedTuple):
    ended: int
    errors: int
    packed: bytes


class Faring:
    """Of one pool. `ended` and `errors` are of the last ten seconds, up to the last sweep."""

    __slots__ = ("_lanes", "_seconds", "_unreached", "ended", "errors", "new_errors", "new_times")

    def __init__(self) -> None:
        # Since the last sweep. `Exchange.response_whole` adds to these itself: a call would cost as much again.
        self.new_times = array("f")  # s; of a second's requests
        self.new_errors = 0
        self._unreached = 0  # errors that have no time
        self.ended = 0  # answers, and requests that will never have one
        self.errors = 0
        self._lanes = 0
        self._seconds: deque[_Second] = deque()

    def __repr__(self) -> str:
        return f"<Faring {self.ended} ended, {self.errors} errors>"

    def answered(self, took_s: float, status: int) -> None:
        """An answer has begun."""
        self.new_times.append(took_s)
        if status >= FIRST_ERROR:
            self.new_errors += 1

    def failed(self, took_s: float) -> None:
        """It was sent a request that no answer will come to."""
        self.new_times.append(took_s)
        self.new_errors += 1

    def given_up(self, took_s: float) -> None:
        """The caller left, who had waited for an answer."""
        self.new_times.append(took_s)

    def unreached(self) -> None:
        """There was no connection to send a request on."""
        self._unreached += 1
        self.new_errors += 1

    def broke_off(self, status: int) -> None:
        """An answer that has counted with this status has no end."""
        if status < FIRST_ERROR:
            self.new_errors += 1

    def packed(self) -> bytes:
        """The times of the last ten seconds, as `policy.histogram` packs them."""
        return pack_lanes(self._lanes)

    def sweep(self) -> None:
        """Called once a second."""
        times, seconds = self.new_times, self._seconds
        if not (times or self.new_errors or seconds):
            return
        second = _Second(len(times) + self._unreached, self.new_errors, pack_seconds(times))
        del times[:]
        self.new_errors = self._unreached = 0
        seconds.append(second)
        self._count(second, 1)
        if len(seconds) > LOAD_S:
            self._count(seconds.popleft(), -1)
        if not (self.ended or self.errors):
            seconds.clear()

    def _count(self, second: _Second, sign: int) -> None:
        self.ended += sign * second.ended
        self.errors += sign * second.errors
        self._lanes += sign * lanes_of(second.packed)
