"""How the channel is framed: in both directions a stream of length u32, then one message in MessagePack."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from gatewayd.channel import FromControl, FromWorker

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 256 << 20  # a snapshot of a hundred thousand services is far below; beyond it is garbage

_encoder = msgspec.msgpack.Encoder()


def frame(message: FromWorker | FromControl) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameProtocol(asyncio.Protocol):
    """One end of the channel: bytes in, messages out. `on_message` is called for each, `on_lost` once at the end."""

    def __init__(
        self,
        expected: Any,
        on_message: Callable[[FrameProtocol, Any], None],
        on_lost: Callable[[FrameProtocol], None],
        on_made: Callable[[FrameProtocol], None] | None = None,
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(expected)
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_made = on_made
        self._pending = bytearray()
        self.transport: asyncio.Transport | None = None

    def send(self, message: FromWorker | FromControl) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(frame(message))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        pending = self._pending
        pending += data
        offset = 0
        while len(pending) - offset >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, offset)
            if length > MAX_FRAME_BYTES:
                self.close()
                return
            end = offset + _LENGTH.size + length
            if len(pending) < end:
                break
            message = self._decoder.decode(memoryview(pending)[offset + _LENGTH.size : end].tobytes())
            offset = end
            self._on_message(self, message)
        del pending[:offset]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)
