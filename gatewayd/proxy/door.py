"""Who may come in: the protocol of each new connection, and how many the process's descriptors carry.

Past the limit a connection is answered 503 at once, before it has said anything, and closed in two steps (write side
first): closing it with a request on its way would be a reset, which can destroy the answer (RFC 9112 section 9.6). It
costs no parser and no buffer. Those that are being closed so are bounded in number and time, and none of them counts.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from functools import partial
from typing import TYPE_CHECKING, Any

from gatewayd.errors import OVERLOADED, RETRY_SOON, Refusal
from gatewayd.proxy.client import ClientConnection
from gatewayd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatewayd.proxy.worker import Worker

LEAVING_LIMIT = 256  # connections at once that have been turned away and have yet to hear it
LEAVING_S = 2.0
# Descriptors of other things: the above, journal segments, the link to control, listeners, what the loop needs.
RESERVED_DESCRIPTORS = LEAVING_LIMIT + 64
_FULL = Refusal(OVERLOADED, "the gateway has as many connections as it may", RETRY_SOON)

log = logging.getLogger(__name__)


class Door:
    """Called by the server for each connection that it accepts; what it returns is the connection's protocol.

    `admit` makes the protocol of one that may come in. `speaks`: HTTP can be spoken to one that may not, at once; where
    a TLS handshake comes first it would be noise, and the connection is just closed.
    """

    def __init__(self, worker: Worker, limit: int) -> None:
        self.worker = worker
        self.limit = limit
        self.admit: Callable[..., asyncio.BaseProtocol] = partial(ClientConnection, worker)
        self.speaks = True
        self.turned_away = 0
        self._told = 0
        self._leaving: dict[TurnedAway, float] = {}  # since when; the oldest stand first

    def __repr__(self) -> str:
        return f"<Door {len(self.worker.connections)} of {self.limit} in, {self.turned_away} turned away>"

    def __call__(self, **given: Any) -> asyncio.BaseProtocol:
        if len(self.worker.connections) < self.limit:
            return self.admit(**given)
        self.turned_away += 1
        return TurnedAway(self)

    def leaves(self, connection: TurnedAway) -> None:
        """It has been answered. Where too many still linger, the one that has had the most time makes room."""
        if len(self._leaving) >= LEAVING_LIMIT:
            oldest = next(iter(self._leaving))
            del self._leaving[oldest]  # now: the loop tells of its end only after the others that come in this turn
            oldest.transport.abort()
        self._leaving[connection] = self.worker.now()

    def has_left(self, connection: TurnedAway) -> None:
        self._leaving.pop(connection, None)

    def check_time(self, now: float) -> None:
        """Called about once a second."""
        for connection, since in list(self._leaving.items()):
            if now - since < LEAVING_S:
                break
            connection.transport.abort()
        if self.turned_away > self._told:  # one line a second, however many come
            log.warning("connections turned away: %d (%d are open)", self.turned_away - self._told, self.limit)
            self._told = self.turned_away

    def close(self) -> None:
        for connection in list(self._leaving):
            connection.transport.abort()


class TurnedAway(asyncio.Protocol):
    """A connection too many: hears 503 and is closed. What it sends is dropped."""

    __slots__ = ("_door", "transport")

    def __init__(self, door: Door) -> None:
        self._door = door
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens

    def __repr__(self) -> str:
        return "<TurnedAway>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if not self._door.speaks:
            self.transport.abort()
            return
        self._door.leaves(self)
        self.transport.write(self._door.worker.render_rejection(_FULL))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.has_left(self)


def fit_to_descriptors(settings: Settings) -> Settings:
    """The settings with no more connections than this process may have descriptors for; a log line if that is fewer.

    Raises the soft limit to the hard one first: the soft one is 1024 on most systems, for the sake of select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return settings
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fits = connections_that_fit(settings.connections_limit, settings.in_flight_limit, hard)
    if fits == settings.connections_limit:
        return settings
    log.info(
        "connections_limit is lowered from %d to %d: the limit of open files is %d, and upstreams need some of them",
        settings.connections_limit, fits, hard,
    )  # fmt: skip
    return settings.model_copy(update={"connections_limit": fits})


def connections_that_fit(wanted: int, in_flight: int, descriptors: int) -> int:
    """Each request in flight may need a second descriptor, for its upstream connection."""
    room = max(2, descriptors - RESERVED_DESCRIPTORS)
    return min(wanted, max(room - in_flight, room // 2))
