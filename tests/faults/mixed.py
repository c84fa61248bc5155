"""Every kind of request that a gateway meets, by the million: the callers, and the upstream that goes with them.

A caller has one connection at a time and sends one item after the other, taken by chance from ITEMS in their shares. It
checks the status of each answer. `python -m tests.faults.mixed` is the upstream; it prints its port.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

import uvloop

from tests.acceptance.load import get

CALLERS = 64
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)
_LAST_CHUNK = b"0\r\n\r\n"


class Then(Enum):
    """What happens to the connection when the answers have come."""

    STAYS = auto()
    CLOSES = auto()  # the gateway closes it
    LEFT = auto()  # the caller does not wait for any answer
    CUT = auto()  # it breaks in the middle of the answer


@dataclass(frozen=True)
class Item:
    """Requests that are sent in one write, and the status of each answer (of a 429, 200 may come first)."""

    name: str
    share: int
    data: bytes
    statuses: tuple[int, ...]
    then: Then = Then.STAYS
    bodiless: bool = False


def items(key: str, limited_key: str) -> list[Item]:
    ok = get("/mixed/ok", key)
    post = ok.replace(b"GET", b"POST")[:-2]
    with_length = post + b"Content-Length: 1000\r\n\r\n" + bytes(1000)
    in_chunks = post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"c" * 500 + b"\r\n" + _LAST_CHUNK
    chunked = get("/mixed/chunked", key)
    return [
        Item("get", 400, ok, (200,)),
        Item("post", 80, with_length, (200,)),
        Item("post in chunks", 60, in_chunks, (200,)),
        Item("answer in chunks", 80, chunked, (200,)),
        Item("head", 40, ok.replace(b"GET", b"HEAD"), (200,), bodiless=True),
        Item("not modified", 40, get("/mixed/304", key), (304,), bodiless=True),
        Item("pipelined", 40, ok + chunked + with_length + ok, (200,) * 4),
        Item("no key", 40, get("/mixed/ok"), (401,)),
        Item("mistyped key", 40, get("/mixed/ok", key[:-1] + "!"), (401,)),
        Item("no such key", 10, get("/mixed/ok", "gw_" + key[3:11][::-1] + key[11:]), (401,)),
        Item("no route", 40, get("/nobody/here", key), (404,)),
        Item("limited", 40, get("/mixed/ok", limited_key), (429,)),
        Item("malformed", 10, b"GET /mixed/ok HTTP/1.1\r\nHost : a\r\n\r\n", (400,), Then.CLOSES),
        Item("says close", 10, ok[:-2] + b"Connection: close\r\n\r\n", (200,), Then.CLOSES),
        Item("left", 10, ok, (), Then.LEFT),
        Item("left in the head", 5, ok[:40], (), Then.LEFT),
        Item("left in the body", 5, with_length[:-300], (), Then.LEFT),
        Item("left in the answer", 5, get("/mixed/large", key), (), Then.LEFT),
        Item("reset before the answer", 5, get("/mixed/reset", key), (502,)),
        Item("reset in the answer", 5, get("/mixed/cut", key), (), Then.CUT),
    ]


@dataclass
class Mixed:
    """`left`: requests still to be sent. `wrong`: what was answered otherwise than it should have been."""

    address: tuple[str, int]
    items: list[Item]
    left: int
    done: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        uvloop.run(self._run())

    async def _run(self) -> None:
        shares = [item.share for item in self.items]
        # pytest's own alarm would go off inside the event loop, which logs it and goes on.
        async with asyncio.timeout(60 + self.left / 2000), asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                order = random.Random(number).choices(self.items, shares, k=4999)
                group.create_task(self._call(order))

    async def _call(self, order: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        at = 0
        while self.left > 0:
            _, caller = await loop.create_connection(lambda at=at: _Caller(self, order, at), *self.address)  # type: ignore[misc]
            at = await caller.ended


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Mixed, order: list[Item], at: int) -> None:
        self._load = load
        self._order = order
        self._at = at
        self._item: Item | None = None  # until one is sent: the last may have gone while we were connecting
        self._answers = 0
        self._buffer = b""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        if self._load.left <= 0:
            self._reset()
            return
        item = self._item = self._order[self._at % len(self._order)]
        self._at += 1
        self._answers = 0
        self._load.left -= len(item.statuses) or 1
        self._transport.write(item.data)
        if item.then is Then.LEFT:
            # Some at once, some while the upstream has the request, some when the answer has begun.
            asyncio.get_running_loop().call_later((self._at % 4) / 1000, self._reset)

    def _reset(self) -> None:
        """End it so that no port has to wait for a minute."""
        if not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        item = self._item
        if item is None or item.then in (Then.LEFT, Then.CUT):
            return
        data = self._buffer + data
        while data:
            size = _size(data, item.bodiless)
            if not size or len(data) < size:
                break
            status = int(data[9:12])
            if self._answers == len(item.statuses):
                self._load.wrong[f"{item.name}: one answer too many"] += 1
                break
            if status != item.statuses[self._answers]:
                self._load.wrong[f"{item.name}: {status}"] += 1
            self._answers += 1
            data = data[size:]
        self._buffer = data
        if self._answers == len(item.statuses) and not data:
            self._load.done[item.name] += 1
            if item.then is Then.CLOSES:
                self._reset()
            else:
                self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        item = self._item
        if item is None:
            pass
        elif item.then in (Then.LEFT, Then.CUT):
            self._load.done[item.name] += 1
        elif self._answers < len(item.statuses):
            self._load.wrong[f"{item.name}: closed"] += 1
        self.ended.set_result(self._at)


def _size(data: bytes, bodiless: bool) -> int:
    """Of the answer at the start of these bytes; 0 while that cannot be said."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or bodiless:
        return end if end >= 4 else 0
    length = _LENGTH.search(data, 0, end)
    if length is not None:
        return end + int(length[1])
    last = data.find(b"\r\n" + _LAST_CHUNK, end)
    return last + 2 + len(_LAST_CHUNK) if last > 0 else 0


class Upstream(asyncio.Protocol):
    """Answers by path."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        end = data.find(b"\r\n\r\n") + 4
        if end >= 4:
            length = _LENGTH.search(data, 0, end)
            chunked = b"Transfer-Encoding: chunked" in data[:end]
            if len(data) >= end + (int(length[1]) if length else 0) and (not chunked or data.endswith(_LAST_CHUNK)):
                self._buffer = b""
                self._answer(data[: data.find(b" HTTP/")], data[:4] == b"HEAD")
                return
        self._buffer = data

    def _answer(self, line: bytes, head: bool) -> None:
        path = line.rpartition(b"/")[2]
        write = self._transport.write
        if path == b"chunked":
            write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n" + b"a" * 256 + b"\r\n")
            write(b"100\r\n" + b"b" * 256 + b"\r\n" + _LAST_CHUNK)
        elif path == b"304":
            write(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
        elif path == b"large":
            write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300000))
        elif path in (b"reset", b"cut"):
            if path == b"cut":
                write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            asyncio.get_running_loop().call_later(0.005, self._transport.abort)
        else:
            write(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + (b"" if head else b"x" * 1024))


async def upstream() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(upstream())
