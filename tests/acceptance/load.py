"""Load over raw keep-alive connections, which counts what it has received whole.

Each caller sends a request, waits for the whole answer, sends the next. A connection that ends is opened again; what
its end meant is counted:

    answers   whole responses, by status
    broken    the connection ended while an answer was due
    unheard   it ended before the first answer on it began: the kernel had taken it, a server perhaps never
    stale     it was kept alive, was closed before a byte of the answer came, and said so (FIN, not reset): every client
              sends such a request again, and so do we, on a new connection
    refused   nobody listened
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\r\nx-request-id: *([^\r]+)", re.IGNORECASE)
RETRY_S = 0.02
LAST_ANSWERS_S = 40.0  # beyond any timeout of the gateway: a hang is a failure, not a wait


@dataclass(frozen=True)
class Answer:
    """One whole response. Times are monotonic seconds; `worker` tells workers' lives apart."""

    status: int
    began: float
    ended: float
    worker: bytes
    caller: int


@dataclass
class Load:
    """What a load has seen so far. Read it while it runs, or after."""

    address: tuple[str, int]
    on_answer: Callable[[Answer], None] | None = None
    answers: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    unheard: int = 0
    stale: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    workers: set[bytes] = field(default_factory=set)
    stopping: bool = False

    @property
    def ok(self) -> int:
        return self.answers[200]

    def stop(self) -> None:
        """Every caller ends after the answer that is due to it."""
        self.stopping = True


def get(path: str, key: str | None = None, *more: str) -> bytes:
    """The bytes of a GET request."""
    lines = [f"GET {path} HTTP/1.1", "Host: gateway.test", *([f"X-API-Key: {key}"] if key else []), *more]
    return "\r\n".join([*lines, "", ""]).encode()


class _Connection(asyncio.Protocol):
    """One connection of one caller."""

    def __init__(self, load: Load, request: bytes, caller: int) -> None:
        self._load = load
        self._request = request
        self._caller = caller
        self._buffer = b""
        self._answered = 0
        self._due_since = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._due_since = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        assert length is not None, self._buffer
        size = end + int(length[1])
        if len(self._buffer) < size:
            return
        assert len(self._buffer) == size, self._buffer
        head, self._buffer = self._buffer[:end], b""
        began, self._due_since = self._due_since, 0.0
        self._answered += 1
        self._count(head, began)
        if self._load.stopping:
            self._transport.close()
        elif b"\r\nConnection: close" not in head:
            self._send()

    def _count(self, head: bytes, began: float) -> None:
        load, now = self._load, time.monotonic()
        status = int(head[9:12])
        load.answers[status] += 1
        load.slowest_s = max(load.slowest_s, now - began)
        request_id = _REQUEST_ID.search(head)
        assert request_id is not None, head
        load.workers.add(request_id[1][:8])
        if load.on_answer is not None:
            load.on_answer(Answer(status, began, now, request_id[1][:8], self._caller))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due_since:
            if self._answered and not self._buffer and exc is None:
                self._load.stale += 1
            elif self._answered or self._buffer:
                self._load.broken += 1
            else:
                self._load.unheard += 1
        if not self.ended.done():
            self.ended.set_result(None)


async def _call(load: Load, request: bytes, caller: int) -> None:
    loop = asyncio.get_running_loop()
    while not load.stopping:
        try:
            _, connection = await loop.create_connection(lambda: _Connection(load, request, caller), *load.address)
        except OSError:
            load.refused += 1
            await asyncio.sleep(RETRY_S)
            continue
        await connection.ended


async def run(load: Load, requests: Sequence[bytes], callers: int) -> None:
    """Send `requests` in turn from as many callers until the load is stopped."""
    async with asyncio.timeout(None) as limit:
        tasks = [asyncio.create_task(_call(load, requests[n % len(requests)], n)) for n in range(callers)]
        while not load.stopping:
            await asyncio.sleep(0.005)
        limit.reschedule(asyncio.get_running_loop().time() + LAST_ANSWERS_S)
        await asyncio.gather(*tasks)


def run_for(seconds: float, load: Load, requests: Sequence[bytes], callers: int) -> float:
    """The same for some seconds. Returns how long it took in all, from before the first request to the last answer."""

    async def timed() -> None:
        asyncio.get_running_loop().call_later(seconds, load.stop)
        await run(load, requests, callers)

    began = time.monotonic()
    uvloop.run(timed())
    return time.monotonic() - began


def run_during(happen: Callable[[], None], load: Load, requests: Sequence[bytes], callers: int) -> None:
    """The same for as long as `happen` takes, which is called in a thread. Raises what it raises, all callers ended."""

    async def act() -> None:
        try:
            await asyncio.to_thread(happen)
        finally:
            load.stop()

    async def together() -> None:
        outcomes = await asyncio.gather(act(), run(load, requests, callers), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    uvloop.run(together())
