"""An answer of the admin API that goes on: what came so far, and a client that may stop reading or go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message

WITHIN_S = 20


class Stream:
    """`reads` is set while the client takes what is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.over = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.left = asyncio.Event()
        self._lines: asyncio.Queue[Any] = asyncio.Queue()
        self._started = asyncio.Event()

    async def line(self) -> Any:
        """The next one, decoded."""
        return await asyncio.wait_for(self._lines.get(), WITHIN_S)

    def rest(self) -> list[Any]:
        """All that has come."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]

    async def begun(self) -> None:
        await asyncio.wait_for(self._started.wait(), WITHIN_S)

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        for line in message["body"].splitlines():
            self._lines.put_nowait(json.loads(line))
        self.over = not message.get("more_body", False)
        self._started.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}


@asynccontextmanager
async def streaming(app: ASGIApp, path: str, query: str = "") -> AsyncIterator[Stream]:
    """A GET whose head has come; at the end of the block the client goes, if the answer has not ended."""
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "headers": [],
        "server": ("admin", 80), "client": None, "state": {},
    }  # fmt: skip
    stream = Stream()
    answering = asyncio.ensure_future(app(scope, stream.receive, stream.send))
    await stream.begun()
    try:
        yield stream
    finally:
        stream.left.set()
        await asyncio.wait_for(answering, WITHIN_S)
