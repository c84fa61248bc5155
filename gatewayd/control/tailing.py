"""Records as they are taken from the journals, for whoever wants to see them come: `logs -f` and `usage tail`.

While nobody listens a batch costs one call, and none of its records becomes an object. What has been before somebody
listens is in the journals (`looking_back`). A listener that reads more slowly than its records come keeps the
oldest `PENDING` that it has not read, and loses what comes after them until it has read these; then it is told how many
it lost. So neither ingest nor the memory of control depends on it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from gatewayd.control.naming import KINDS, NameBook
from gatewayd.errors import BY_NUMBER, UNAVAILABLE, GatewayError
from gatewayd.policy.amounts import format_time
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record, unpack_records

PENDING = 2000
LISTENERS = 8
_NAMES_S = 10.0  # a service may be renamed


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records one hears of. None: all; `statuses` are classes (4) and statuses (404), none of them is all.

    `refused` and `errors` widen each other: with both a record may be either.
    """

    tenant_id: int | None = None
    service_id: int | None = None
    route_id: int | None = None
    key_id: int | None = None
    client_ids: frozenset[int] | None = None
    statuses: frozenset[int] = frozenset()
    refused: bool = False
    errors: bool = False

    def takes(self, record: Record) -> bool:
        if (
            (self.tenant_id is not None and record.tenant != self.tenant_id)
            or (self.service_id is not None and record.service != self.service_id)
            or (self.route_id is not None and record.route != self.route_id)
            or (self.key_id is not None and record.key != self.key_id)
            or (self.client_ids is not None and record.client not in self.client_ids)
            or (self.statuses and self.statuses.isdisjoint((record.status, record.status // 100)))
        ):
            return False
        return self.takes_kind(record.flags, record.status)

    def takes_kind(self, flags: int, status: int) -> bool:
        """Whatever else it is."""
        if flags & MORE_BYTES:  # its request has a record of its own
            return False
        if not (self.refused or self.errors):
            return True
        if not flags & ADMITTED:
            return self.refused
        return self.errors and (status >= 500 or bool(flags & UPSTREAM_BROKE))


class Listener:
    """One who listens. `<Listener 3 pending, 0 lost>`"""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._pending: deque[Record] = deque()
        self._lost = 0
        self._news = asyncio.Event()
        self._ended = False

    def __repr__(self) -> str:
        return f"<Listener {len(self._pending)} pending, {self._lost} lost>"

    def offer(self, records: Iterable[Record]) -> None:
        takes = self._wanted.takes
        matching = [record for record in records if takes(record)]
        # Once some are lost, so is what follows, until the rest is read: the gap is in one place and can be told there.
        room = 0 if self._lost else PENDING - len(self._pending)
        self._pending.extend(matching[:room])
        self._lost += len(matching[room:])
        if matching:
            self._news.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    async def next(self, most: int) -> tuple[list[Record], int] | None:
        """Up to `most` records by their time, and how many were lost after them. Waits for them; None at the end."""
        await self._news.wait()
        if self._ended:
            return None
        taken = [self._pending.popleft() for _ in range(min(most, len(self._pending)))]
        taken.sort(key=_time_of)
        if self._pending:
            return taken, 0
        self._news.clear()
        lost, self._lost = self._lost, 0
        return taken, lost


class Tails:
    """Hears from ingest, tells listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._ended = False

    def __repr__(self) -> str:
        return f"<Tails {len(self._listeners)} listeners>"

    def take(self, data: bytes) -> None:
        """Records that have been stored, as they stand in their segment."""
        if not self._listeners:
            return
        records, _ = unpack_records(data)
        for listener in self._listeners:
            listener.offer(records)

    def listen(self, wanted: Wanted) -> Listener:
        """A listener from now on. Raises GatewayError."""
        if self._ended:
            raise GatewayError(UNAVAILABLE, "the gateway is stopping")
        if len(self._listeners) >= LISTENERS:
            raise GatewayError(UNAVAILABLE, f"usage is being tailed {LISTENERS} times, which is the most; end one")
        listener = Listener(wanted)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def end(self) -> None:
        """Control drains: it does not wait for those who only watch."""
        self._ended = True
        for listener in self._listeners:
            listener.end()


def _time_of(record: Record) -> int:
    return record.time_ns


class Describer:
    """Records with names in place of numbers. Remembers names for some seconds: a busy gateway has few in use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._book = NameBook(connection)
        self._until = 0.0

    def describe(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        self._learn(records)
        return [self._line(record) for record in records]

    def _learn(self, records: Sequence[Record]) -> None:
        now = time.monotonic()
        if now >= self._until:
            self._book = NameBook(self._connection)
            self._until = now + _NAMES_S
        for kind in KINDS:
            self._book.learn(kind, {getattr(record, kind) for record in records})

    def _line(self, record: Record) -> dict[str, Any]:
        problem = BY_NUMBER.get(record.problem)
        return {
            "time": _with_millis(record.time_ns),
            **{kind: self._book.of(kind, getattr(record, kind)) for kind in KINDS},
            "status": record.status,
            "code": None if problem is None else problem.code,
            "admitted": bool(record.flags & ADMITTED),
            "units": record.units,
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "gateway_ms": record.gateway_us / 1000,
            "upstream_ms": record.upstream_us / 1000,
            "total_ms": (record.gateway_us + record.upstream_us) / 1000,
            "request_id": record.request_id.rstrip(b"\0 ").decode("ascii", "replace"),
        }


def _with_millis(time_ns: int) -> str:
    """2026-11-21T02:00:00.123Z"""
    seconds, millis = divmod(time_ns // 1_000_000, 1000)
    return f"{format_time(seconds)[:-1]}.{millis:03}Z"
