"""The worker's end of the channel: connects to control, reconnects for as long as it takes, and deals out its messages.

The link is up once control has sent its Greeting. Until then, what the worker would say is dropped: when greeted it
says Hello with what it holds and repeats every question that is still open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatewayd.channel import FromControl, FromWorker, Greeting
from gatewayd.frames import FrameProtocol

RETRY_S = 0.05
CHANNEL_NAME = "workers.sock"

log = logging.getLogger(__name__)


def channel_socket(folder: Path) -> tuple[int, str]:
    """A name for the channel's socket that is short however deep the folder lies.

    sun_path holds 107 bytes; through the open folder's entry in /proc any path fits. Returns the folder's descriptor,
    which must stay open while the name is used, and the name.
    """
    descriptor = os.open(folder, os.O_DIRECTORY | os.O_CLOEXEC)
    return descriptor, f"/proc/self/fd/{descriptor}/{CHANNEL_NAME}"


class Link:
    """`on_message` gets each message; `on_connected` is called first, whenever control has sent its Greeting."""

    def __init__(
        self, folder: Path, on_connected: Callable[[], None], on_message: Callable[[FromControl], None]
    ) -> None:
        self._folder = folder
        self._on_connected = on_connected
        self._on_message = on_message
        self._protocol: FrameProtocol | None = None
        self._lost = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Link to control, {'up' if self._protocol else 'down'}>"

    def send(self, message: FromWorker) -> None:
        if self._protocol is not None:
            self._protocol.send(message)

    async def run(self) -> None:
        """Keep a connection up until cancelled."""
        while True:
            self._lost.clear()
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            await self._lost.wait()
            await asyncio.sleep(RETRY_S)

    async def _connect(self) -> None:
        descriptor, name = channel_socket(self._folder)
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, name)
        finally:
            os.close(descriptor)

        def dealt(protocol: FrameProtocol, message: Any) -> None:
            if isinstance(message, Greeting):
                self._protocol = protocol
                self._on_connected()
            else:
                self._on_message(message)

        await loop.create_unix_connection(lambda: FrameProtocol(FromControl, dealt, self._on_lost), sock=sock)

    def _on_lost(self, _: FrameProtocol) -> None:
        if self._protocol is not None:
            log.warning("control is gone; serving on and trying to reconnect")
        self._protocol = None
        self._lost.set()
