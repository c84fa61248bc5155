"""Answers that go on, block by block as they come, until their end or until the client goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_log = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"


class BlockStream(Response):
    """Sends `blocks`. The next is asked for when the client has taken the one before (or its socket
    has); one who takes nothing for `patience_s` is cut off. `on_end` is called however it ends.
    """

    def __init__(
        self,
        blocks: AsyncGenerator[bytes, None],
        on_end: Callable[[], None],
        patience_s: float | None = None,
        media_type: str = NDJSON,
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._blocks = blocks
        self._on_end = on_end
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait((sending, leaving))
            await self._blocks.aclose()
            self._on_end()
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        # The head goes out with the first body: now, or a client would not know that it is heard.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for block in self._blocks:
            try:
                async with asyncio.timeout(self._patience_s):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            except TimeoutError:
                _log.warning("a client of the admin API took nothing for %g s and was cut off", self._patience_s)
                return  # without an end: the client must see that it is not whole
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def threaded(blocks: Iterator[bytes], close: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    """Each block is made in a thread, and never by two at once: also who gives up waits until its block is made.

    `close` ends `blocks`, in a thread too.
    """
    making: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            making = asyncio.ensure_future(asyncio.to_thread(next, blocks, None))
            if (block := await asyncio.shield(making)) is None:
                return
            yield block
    finally:
        if making is not None:
            await asyncio.wait((making,))
        await asyncio.to_thread(close)
