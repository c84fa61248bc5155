"""CPU time of processes, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
_IDLE_SHARE = 0.05  # of one core
_SETTLE_WITHIN_S = 15.0
_WATCHED_S = 0.4  # 40 ticks: less, and one tick is above the share


def cpu_us(pids: Iterable[int]) -> int:
    """Microseconds that all threads of `pids` have spent so far, user and kernel (proc(5), fields 14 and 15)."""
    return sum(_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids) * _TICK_US


def _ticks(stat: str) -> int:
    # The process's name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pin(pid: int, core: int) -> None:
    """Keep every thread of a running process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def settle(pids: Sequence[int]) -> None:
    """Wait until `pids` are idle: what they still owe the last load must not be charged to the next."""
    deadline = time.monotonic() + _SETTLE_WITHIN_S
    while pids and time.monotonic() < deadline:
        before = cpu_us(pids)
        time.sleep(_WATCHED_S)
        if cpu_us(pids) - before <= _IDLE_SHARE * _WATCHED_S * 1e6:
            return
