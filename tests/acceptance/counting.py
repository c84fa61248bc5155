"""An upstream that counts what reaches it: `python -m tests.acceptance.counting`.

Prints two ports: one to put the gateway in front of, one that answers with the counts and that no gateway knows. So
what it says is what was really served. Paths:

    /echo        the request as it came, head and body
    /slow?ms=N   an answer after N milliseconds
    /held        an answer once the second port has been asked for /release
    /fail        500
    /missing     404
    /limited     an answer with rate-limit fields of its own
    /health      500 after the second port was asked for /ill, until it is asked for /well
    anything     200 and a few bytes
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections import Counter
from typing import ClassVar

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MILLISECONDS = re.compile(rb"ms=(\d+)")
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_FAIL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nfail"
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nmissing"
_LIMITED = b"HTTP/1.1 200 OK\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Limit: 1\r\nContent-Length: 2\r\n\r\nok"


class Upstream(asyncio.Protocol):
    """One connection: requests with a length or without a body, one after the other."""

    ill = False  # all of them
    released = False
    held: ClassVar[list[Upstream]] = []

    def __init__(self, served: Counter[str]) -> None:
        self._served = served
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            size = end + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            self._answer(head.split(b" ", 2)[1], request)

    def _answer(self, target: bytes, request: bytes) -> None:
        path = target.split(b"?")[0]
        self._served[path.decode()] += 1
        if path.endswith(b"/slow"):
            delay = _MILLISECONDS.search(target)
            asyncio.get_running_loop().call_later(int(delay[1]) / 1000 if delay else 1, self._write, _OK)
        elif path.endswith(b"/held") and not self.released:
            self.held.append(self)
        elif path.endswith(b"/echo"):
            self._write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request), request))
        elif path.endswith(b"/missing"):
            self._write(_MISSING)
        else:
            ill = Upstream.ill and path.endswith(b"/health")
            self._write(_FAIL if ill or path.endswith(b"/fail") else _LIMITED if path.endswith(b"/limited") else _OK)

    @classmethod
    def release(cls) -> None:
        cls.released = True
        while cls.held:
            cls.held.pop()._write(_OK)

    def _write(self, data: bytes) -> None:
        assert isinstance(self._transport, asyncio.Transport) or hasattr(self._transport, "write")
        self._transport.write(data)


async def main() -> None:
    served: Counter[str] = Counter()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            asked = await reader.readuntil(b"\r\n\r\n")
            if asked.startswith(b"GET /release "):
                Upstream.release()
            elif not asked.startswith(b"GET / "):
                Upstream.ill = asked.startswith(b"GET /ill ")
        body = json.dumps({"requests": served.total(), "paths": served}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    upstream = await loop.create_server(lambda: Upstream(served), "127.0.0.1", 0, backlog=1024)
    counts = await asyncio.start_server(tell, "127.0.0.1", 0)
    print("ports", *(server.sockets[0].getsockname()[1] for server in (upstream, counts)), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(main())
