"""A change waits while another connection has the database's write lock: it comes later, and is not refused."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gatewayd.control.database import Database

_READS = ("GET", "HEAD", "OPTIONS")


class ChangesWait:
    """Before a handler begins. One whose body is slow to come may still meet an import, and hears `unavailable`."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READS:
            await self._database.given_back()
        await self.app(scope, receive, send)
