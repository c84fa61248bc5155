"""What the checks of `doctor` look at, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import Connection

from gatewayd.control.admin.accidents import Noted
from gatewayd.control.admin.state import ControlState, JournalView, TargetView, WorkerView

State = Literal["ok", "warning", "failed"]

_NAMES = 3  # of those that something is wrong with; beyond it there is a count


class Finding(msgspec.Struct):
    """What a check has found. `mend` is what to do about it, empty if there is nothing to do."""

    check: str
    state: State
    detail: str
    mend: str = ""


class Patient(NamedTuple):
    """What checks look at. Workers, journal and `views`, of targets by service, are the loop's, and were read there."""

    control: ControlState
    connection: Connection
    workers: list[WorkerView]
    journal: JournalView
    views: Mapping[int, Sequence[TargetView]]
    now_s: int
    noted: Noted


class Verdict(NamedTuple):
    """Of a check, whose name is in the list."""

    state: State
    detail: str
    mend: str = ""


def some(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _NAMES} more" if len(listed) > _NAMES else ""
    return ", ".join(listed[:_NAMES]) + more
