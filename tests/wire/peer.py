"""One end of a TCP connection that a test holds in its hand: it sends bytes as it is told and keeps all that it got."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 5.0
PROBLEM: Final = b"application/problem+json"


class CutShortError(Exception):
    """The connection ended in the middle of a message, or with a reset."""


@dataclass(frozen=True)
class Message:
    """A request or a response as it stood on the wire; the body without its framing."""

    line: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def status(self) -> int:
        return int(self.line.split(b" ")[1])

    @property
    def problem(self) -> str | None:
        """The code of what the gateway has refused."""
        return str(json.loads(self.body)["code"]) if self.all(b"Content-Type") == [PROBLEM] else None

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def one(self, name: bytes) -> bytes:
        (value,) = self.all(name)
        return value

    def without(self, *names: bytes) -> list[tuple[bytes, bytes]]:
        return [(name, value) for name, value in self.fields if name.lower() not in names]


class Peer:
    """Waits at most PATIENCE_S for anything, so that a gateway that is silent fails a test rather than hanging it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = bytearray()
        self.ended = False  # the other side has closed or reset the connection
        self._taken = 0  # how much of it has been handed out as messages
        sock = writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, data: bytes, step: int = 0) -> None:
        """At once, or `step` bytes at a time, each in a packet of its own. Nothing is said of a peer that is gone."""
        try:
            for start in range(0, len(data), step or len(data) or 1):
                self._writer.write(data[start : start + step] if step else data)
                await asyncio.sleep(0)
            await self._writer.drain()
        except (ConnectionError, RuntimeError):  # uvloop's word for a write after a reset
            pass

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def cut(self) -> None:
        """End the connection at once, in TLS without saying so."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """End the connection with RST, whatever is unsent."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Close, and wait until it is."""
        self._writer.transport.abort() if self._unsent() else self._writer.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._writer.wait_closed()
        except ConnectionError:
            pass

    def _unsent(self) -> bool:
        return bool(self._writer.transport.get_write_buffer_size())

    # Reading.

    async def message(self, *, bodiless: bool = False, interim: bool = False) -> Message:
        """The next message, whole. `bodiless`: the answer to a HEAD. Interim answers are skipped unless asked for."""
        while True:
            head = await self._take_until(b"\r\n\r\n")
            line, *lines = head[:-4].split(b"\r\n")
            message = Message(line, _fields(lines), b"")
            answer = line.startswith(b"HTTP/")
            if answer and message.status < 200:
                if interim:
                    return message
                continue
            if bodiless or (answer and message.status in (204, 304)):
                return message
            if encoding := message.all(b"transfer-encoding"):
                assert encoding == [b"chunked"]
                assert not message.all(b"content-length")
                return Message(line, message.fields, await self._chunks(), await self._trailers())
            return Message(line, message.fields, await self._body(message, until_close=answer))

    async def _body(self, head: Message, until_close: bool) -> bytes:
        if lengths := head.all(b"content-length"):
            (length,) = lengths
            return await self._take(int(length))
        return await self.rest() if until_close else b""

    async def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(await self._take_until(b"\r\n"), 16):
            body += await self._take(size)
            assert await self._take(2) == b"\r\n"
        return bytes(body)

    async def _trailers(self) -> tuple[tuple[bytes, bytes], ...]:
        lines = []
        while (line := await self._take_until(b"\r\n")) != b"\r\n":
            lines.append(line[:-2])
        return _fields(lines)

    async def rest(self) -> bytes:
        """All that is still to come, until the other side closes. A reset is a CutShortError."""
        while await self.more():
            pass
        data, self._taken = bytes(self.received[self._taken :]), len(self.received)
        return data

    async def more(self) -> bool:
        """Wait for some bytes; False at the end."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                data = await self._reader.read(1 << 16)
        except ConnectionError as error:
            self.ended = True
            raise CutShortError("reset") from error
        self.received += data
        self.ended = not data
        return bool(data)

    async def _take(self, count: int) -> bytes:
        while len(self.received) - self._taken < count:
            if not await self.more():
                raise CutShortError(bytes(self.received[self._taken :]))
        self._taken += count
        return bytes(self.received[self._taken - count : self._taken])

    async def _take_until(self, mark: bytes) -> bytes:
        while (end := self.received.find(mark, self._taken)) < 0:
            if not await self.more():
                raise CutShortError(bytes(self.received[self._taken :]))
        return await self._take(end + len(mark) - self._taken)


def _fields(lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    pairs = [each.split(b":", 1) for each in lines]
    return tuple((name, value.strip(b" \t")) for name, value in pairs)
