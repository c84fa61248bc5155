"""WebSocket at its barest, for both ends of the bench: an echo, and a load of messages that go there and back.

    python -m tests.bench.websocket echo
    python -m tests.bench.websocket load URL --key KEY --connections 32 --seconds 8 --bytes 100

The messages are frames of a fixed size, masked with zeros, so that neither end has to look at them: what is measured
stands between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from tests.daemons import started

_PORT = re.compile(r"^(\d+)$", re.MULTILINE)
_UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_FRAME = 0x82  # a binary message in one frame
_MASKED = 0x80


@contextmanager
def upstream(folder: Path, core: int) -> Iterator[int]:
    """The echo on a free port."""
    with started("echo", [sys.executable, "-m", "tests.bench.websocket", "echo"], folder, cores={core}) as echo:
        yield int(echo.wait_for(_PORT)[1])


class Echo(asyncio.Protocol):
    """Answers any request with 101, and each masked frame of up to 125 bytes with one that is not."""

    def __init__(self) -> None:
        self._buffer = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._upgraded:
            head, mark, data = data.partition(b"\r\n\r\n")
            if not mark:
                self._buffer = head
                return
            self._upgraded = True
            self._transport.write(_UPGRADED)
        while len(data) >= 6 and len(data) >= (whole := 6 + (data[1] & 0x7F)):
            self._transport.write(bytes((data[0], whole - 6)) + data[6:whole])
            data = data[whole:]
        self._buffer = data


class Talk(asyncio.Protocol):
    """Sends a message, waits for it to come back, sends the next, and notes how long each took."""

    def __init__(self, request: bytes, size: int, took_us: list[float]) -> None:
        self._request = request
        self._message = bytes((_FRAME, _MASKED | size)) + bytes(4) + b"x" * size
        self._back = 2 + size
        self._took_us = took_us
        self._left = 0  # bytes of the message that is on its way
        self._head = b""
        self.refused = False
        self.broken = False
        self.ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            if not self._head.startswith(b"HTTP/1.1 101 "):
                self.refused = True
                self.transport.close()
                return
            self._say()
            return
        self._left -= len(data)
        if self._left == 0:
            self._took_us.append((time.perf_counter() - self._sent_at) * 1e6)
            if not self.ending:
                self._say()
        elif self._left < 0:
            self.broken = True
            self.transport.close()

    def _say(self) -> None:
        self._sent_at = time.perf_counter()
        self._left = self._back
        self.transport.write(self._message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken |= not self.ending and not self.refused


async def _echo() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _itself(talk: Talk) -> Talk:
    return talk


async def _load(url: str, key: str, connections: int, seconds: float, size: int) -> None:
    address = urlsplit(url)
    request = (
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n\r\n"
    ).encode()
    took_us: list[float] = []
    loop = asyncio.get_running_loop()
    talks = [Talk(request, size, took_us) for _ in range(connections)]
    began = time.perf_counter()
    for talk in talks:
        await loop.create_connection(partial(_itself, talk), address.hostname or "", address.port or 80)
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    for talk in talks:
        talk.ending = True
    await asyncio.sleep(0.1)
    for talk in talks:
        talk.transport.close()
    percentiles = statistics.quantiles(took_us, n=100) if len(took_us) > 1 else [0.0] * 99
    result = {
        "requests": len(took_us),
        "seconds": elapsed,
        "p50_us": round(percentiles[49]),
        "p99_us": round(percentiles[98]),
        "refused": sum(talk.refused for talk in talks),
        "broken": sum(talk.broken for talk in talks),
    }
    print(f"RESULT {json.dumps(result)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.websocket")
    parser.add_argument("role", choices=["echo", "load"])
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--bytes", type=int, default=100)
    options = parser.parse_args()
    if options.role == "load":
        uvloop.run(_load(options.url, options.key, options.connections, options.seconds, options.bytes))
        return
    try:
        uvloop.run(_echo())
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
