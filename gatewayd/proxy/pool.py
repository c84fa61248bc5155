"""The connections to one target: those that wait to be used again, those in use, those being made.

Every exchange that waits has a connect under way of its own, and the first connection that is free serves it: the one
being made for it, or one that another exchange gives back, which goes to whoever has waited longest. So a connect that
is no longer needed by whom it was begun for serves another, or is kept; and one that fails concerns nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from gatewayd.policy.breaker import LONGEST_WINDOW_S
from gatewayd.policy.facts import Target
from gatewayd.proxy.dial import Dialer, DialError
from gatewayd.proxy.failover import connect_failed, upstream_died
from gatewayd.proxy.faring import Faring
from gatewayd.proxy.upstream import UpstreamConnection
from gatewayd.settings import Settings

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange


class Pool:
    """Idle connections are taken newest first, so that surplus ones grow old and are closed."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop, dialer: Dialer, settings: Settings) -> None:
        self.target = target
        self.faring = Faring()
        self._loop = loop
        self._dialer = dialer
        self._idle_s = settings.upstream_idle_s
        self._idle_limit = settings.upstream_idle_limit
        self._age_s = float(settings.upstream_age_s)
        self._connecting_limit = settings.connecting_limit
        self._idle: dict[UpstreamConnection, None] = {}
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._waiting: dict[Exchange, bool] = {}  # longest first; whether it must have a connection that is new
        self._addresses: tuple[str, ...] = ()  # where the target's name led when last looked
        # Requests, counted by what connections know of themselves, so that no request pays for it; and each second.
        self._of_closed = 0
        self._unconnected = 0
        self._counts: deque[tuple[float, int]] = deque(maxlen=round(LONGEST_WINDOW_S) + 1)

    def __repr__(self) -> str:
        idle = len(self._idle)
        return f"<Pool {self.target.url} {len(self._open) - idle} active, {idle} idle, {len(self._connecting)} waiting>"

    def take(self) -> UpstreamConnection | None:
        """An idle connection, or None: then `connect`."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.transport.is_closing():
                return connection
        return None

    def connect(self, exchange: Exchange, *, fresh: bool = False) -> bool:
        """Get a connection for this exchange; a `fresh` one has served nobody. False: too many are being made."""
        if len(self._connecting) >= self._connecting_limit:
            return False
        self._waiting[exchange] = fresh
        task = self._loop.create_task(self._connect(exchange, len(exchange.tried)))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, exchange: Exchange, attempt: int) -> None:
        connection: UpstreamConnection | None = None
        failure: DialError | None = None
        try:
            connection = await self._dialer.dial(self._connection_to, exchange.route.service.connect_timeout_s)
        except TimeoutError:
            self._unconnected += 1  # the sweeper answers, by the exchange's deadline
        except DialError as error:
            self._unconnected += 1
            failure = error.with_traceback(None)  # which holds this frame: see `Dialer.dial`
        finally:
            # False: it was served by another connection, timed out, or left. Or it was served, to no avail, and waits
            # anew: then a connection is welcome, but this connect's failure is not its own.
            concerned = connection is not None or len(exchange.tried) == attempt
            waits = concerned and self._waiting.pop(exchange, None) is not None and not exchange.done
        if failure is not None and waits:
            connect_failed(exchange, failure)
        elif connection is not None and connection not in self._open:  # closed again before this task had its turn
            if waits:
                upstream_died(exchange, stale=False)
        elif connection is not None and waits:
            exchange.connected(connection)
        elif connection is not None:
            self.give_back(connection)

    def _connection_to(self, address: str) -> UpstreamConnection:
        connection = UpstreamConnection(self)
        connection.address = address
        return connection

    def opened(self, connection: UpstreamConnection) -> None:
        connection.expires_at = self._loop.time() + self._age_s
        self._open.add(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        now = self._loop.time()
        if now >= connection.expires_at:
            connection.transport.close()
            return
        if self._waiting and self._hand_on(connection):
            return
        if len(self._idle) >= self._idle_limit:
            connection.transport.close()
            return
        connection.idle_since = now
        self._idle[connection] = None

    def _hand_on(self, connection: UpstreamConnection) -> bool:
        for exchange, fresh in self._waiting.items():
            if not exchange.done and not (fresh and connection.served):
                break
        else:
            return False
        del self._waiting[exchange]
        exchange.connected(connection)
        return True

    def forget(self, exchange: Exchange) -> None:
        """It waits no longer; what was begun for it is kept for others."""
        self._waiting.pop(exchange, None)

    def lost(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)
        if connection in self._open:
            self._open.discard(connection)
            self._of_closed += connection.served

    @property
    def busy(self) -> int:
        """Requests that are with the target or wait for a connection to it."""
        return len(self._open) - len(self._idle) + len(self._waiting)

    def requests_within(self, window_s: float, now: float) -> int:
        """How many it has got in the last seconds, those without a connection among them."""
        since = 0
        for at, count in self._counts:
            if at > now - window_s:
                break
            since = count
        return self._requests() - since

    def _requests(self) -> int:
        return self._of_closed + self._unconnected + sum([connection.served for connection in self._open])

    def sweep(self) -> None:
        """Close connections that have been idle for too long, and leave addresses that the name has left."""
        self._counts.append((time.monotonic(), self._requests()))
        self.faring.sweep()
        if not self._open:
            return
        self.close_idle(self._loop.time() - self._idle_s)
        addresses = self._dialer.current_addresses()
        if addresses is not self._addresses:
            self._addresses = addresses
            self._leave([connection for connection in self._open if connection.address not in addresses])

    def close_idle(self, before: float) -> None:
        """Those idle since before this loop time. The oldest stand first."""
        for connection in list(self._idle):
            if connection.idle_since >= before:
                break
            self._idle.pop(connection, None)
            connection.transport.close()

    def _leave(self, connections: list[UpstreamConnection]) -> None:
        """Idle ones close now, busy ones after their exchange."""
        for connection in connections:
            connection.expires_at = 0.0
            if connection in self._idle:
                del self._idle[connection]
                connection.transport.close()

    def retire(self) -> None:
        """No service uses this target any more."""
        self._age_s = 0.0  # of those still being made
        self._leave(list(self._open))

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.transport.close()
