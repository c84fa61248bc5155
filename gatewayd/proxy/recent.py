"""The requests that a worker remembers for `explain`: the refused, the broken off, and a sample of the rest.

To remember one must cost next to nothing: a tuple of what is there anyway, in a ring. What to make of it is worked out
when somebody asks (see `explain`). Each kind of refusal has a ring of its own, so that a flood of made-up keys does not
push out the one customer's 429 that the operator is asked about.

Of what a request has said only its method, path, host and the public part of its key are kept: no query, no header.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from gatewayd.conf import KeyConf
from gatewayd.errors import Refusal
from gatewayd.keys import visible_id
from gatewayd.policy.facts import Guard, Route, Target
from gatewayd.policy.spending import Known
from gatewayd.told import OTHERS_KEPT, REFUSED_KEPT, SAMPLED

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange

SAMPLE_MASK: Final = SAMPLED - 1  # `SAMPLED` is a power of two
LONGEST_KEPT = 256  # bytes of a path or a host: a caller's choice


class Kept(NamedTuple):
    """One request that has been. Without a method, its head was no request; without a route, it met none."""

    request_id: bytes
    started_ns: int
    started_at: float
    method: bytes
    path: bytes
    host: bytes
    address: bytes
    body_length: int
    route: Route | None
    public_id: str  # of a key that is not known
    key: KeyConf | None
    known: Known | None  # of its limits
    admitted: bool
    refused_by: Guard | None
    refusal: Refusal | None
    status: int
    flags: int  # as its record has them, where it was broken off
    tried: tuple[Target, ...]


class Recent:
    """The rings."""

    def __init__(self) -> None:
        self._others: deque[tuple[object, ...]] = deque(maxlen=OTHERS_KEPT)
        self._refused: dict[int, deque[tuple[object, ...]]] = {0: self._others}  # by the problem's number

    def __repr__(self) -> str:
        return f"<Recent {sum(len(ring) for ring in self._refused.values())} requests>"

    def keep(self, exchange: Exchange, status: int, refusal: Refusal | None, flags: int = 0) -> None:
        """Called before the exchange is recorded. Fields rather than a Kept: building that costs 0.3 µs more."""
        facts = exchange.facts
        fields = facts.fields
        path, host = facts.path, fields.host
        if len(path) + len(host) > LONGEST_KEPT:
            path, host = path[:LONGEST_KEPT], host[:LONGEST_KEPT]
        entry, key, known, public_id = exchange.entry, None, None, ""
        route = getattr(exchange, "route", None)  # it is not set before it is found
        if entry is not None:
            key = entry.conf
        elif route is not None and fields.read_for is route and (credential := fields.credential):
            public_id = visible_id(credential)  # one may be looked for by its digest
        if facts.lease is not None:
            known = facts.lease.known()
        if refusal is None:
            ring = self._others
        else:
            ring = self._refused.get(refusal.problem.number) or self._ring(refusal.problem.number)
        ring.append(
            (
                exchange.request_id, exchange.started_ns, exchange.started_at, facts.method, path, host,
                exchange.client.origin.address, fields.body_length, route, public_id, key, known, exchange.admitted,
                exchange.refused_by, refusal, status, flags, exchange.tried,
            )
        )  # fmt: skip

    def keep_rejected(self, request_id: bytes, refusal: Refusal) -> None:
        """A head that was no request, or a connection too many: there is nothing to tell of it but that."""
        problem = refusal.problem
        ring = self._refused.get(problem.number) or self._ring(problem.number)
        ring.append(
            (
                request_id, time.time_ns(), 0.0, b"", b"", b"", b"", 0, None, "", None, None, False, None, refusal,
                problem.status, 0, (),
            )
        )  # fmt: skip

    def find(self, request_id: bytes) -> Kept | None:
        """The latest request with this id, which a caller may have chosen itself."""
        found = [kept for ring in self._refused.values() for kept in ring if kept[0] == request_id]
        return max((Kept._make(kept) for kept in found), key=lambda kept: kept.started_ns, default=None)

    def _ring(self, number: int) -> deque[tuple[object, ...]]:
        return self._refused.setdefault(number, deque(maxlen=REFUSED_KEPT))
