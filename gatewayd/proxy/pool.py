"""The connections to one target: those that wait to be used again, those in use, those being made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gatewayd.policy.facts import Target
from gatewayd.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange


class Pool:
    """Idle connections are taken newest first, so that surplus ones grow old and are closed."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self._loop = loop
        self._idle: dict[UpstreamConnection, None] = {}
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._retired = False

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

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for this exchange. A task: a connect must wait."""
        task = self._loop.create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange) -> None:
        target = self.target
        try:
            async with asyncio.timeout(exchange.route.service.connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self), target.host, target.port
                )
        except TimeoutError:
            return  # the sweeper answers, by the exchange's deadline
        except OSError as error:
            exchange.connect_failed(error)
            return
        if connection not in self._open:  # closed again before this task had its turn
            exchange.upstream_died(stale=False)
        elif exchange.done:  # timed out or left meanwhile: the next request can use it
            self.give_back(connection)
        else:
            exchange.connected(connection)

    def opened(self, connection: UpstreamConnection) -> None:
        self._open.add(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        if self._retired:
            connection.transport.close()
            return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None

    def lost(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)
        self._open.discard(connection)

    def close_idle(self, before: float) -> None:
        """Close connections that have been idle since before this loop time. The oldest stand first."""
        for connection in list(self._idle):
            if connection.idle_since >= before:
                break
            self._idle.pop(connection, None)
            connection.transport.close()

    def retire(self) -> None:
        """No service uses this target any more: idle connections close now, busy ones after their exchange."""
        self._retired = True
        for connection in list(self._idle):
            connection.transport.close()

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.transport.close()
