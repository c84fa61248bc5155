"""What becomes of a request, step by step: what `explain` answers, as it stands in the admin API too."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

# What a worker remembers of the requests that have been, for `explain`.
REFUSED_KEPT = 512  # of each code, of which few are ever in use: 0.4 MB for each that is
OTHERS_KEPT = 1024
SAMPLED: Final = 128  # one of so many of the rest is kept
KEPT = (
    f"each worker keeps the last {REFUSED_KEPT} refusals of each code, and of the others 1 in {SAMPLED}, "
    f"the last {OTHERS_KEPT}"
)


class LimitTold(msgspec.Struct, frozen=True):
    """One limit as it was when the request was judged. `detail` is its arithmetic in words."""

    of: str  # whose it is: "key", "client", "route", "tenant"
    name: str  # "minute", "month"
    limit: int
    window_s: int | None  # None: a calendar month, UTC
    burst: int | None
    remaining: int
    more_in_s: float  # until one more is left, or until the month ends
    detail: str


class StepTold(msgspec.Struct, frozen=True):
    """One step. `fail`: the request was admitted, and could not be answered."""

    step: str
    outcome: Literal["pass", "refuse", "fail", "skip"]
    detail: str
    limits: tuple[LimitTold, ...] = ()


class RequestTold(msgspec.Struct, frozen=True):
    """`path` is without its query; `key` is what is public of it."""

    id: str | None  # None: it has not been sent
    at: str
    method: str
    path: str
    host: str
    address: str
    key: str | None


class ForwardTold(msgspec.Struct, frozen=True):
    """What a target would get. Of headers only names: a value may be the upstream's secret."""

    target: str
    url: str
    headers_set: tuple[str, ...]
    headers_removed: tuple[str, ...]
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    timeout_s: float | None


class Told(msgspec.Struct, frozen=True):
    """`status` and `code`: of the gateway's own answer, or the status that an upstream has answered with."""

    request: RequestTold
    outcome: Literal["admitted", "refused"]
    status: int | None
    code: str | None
    steps: tuple[StepTold, ...]
    would_pass: str | None  # what would have let it pass
    forward: ForwardTold | None = None
    worker: int = 0  # who tells; places in flight are counted in each worker
