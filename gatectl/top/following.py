"""Pictures of the gateway as they come, from a thread of their own; who waits for keys too is woken up by a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from gatectl.errors import GatectlError, NotFoundError, UnreachableError

if TYPE_CHECKING:
    from gatectl.client import Gateway

PATH = "/v1/top"
_PATIENCE_S = 10.0  # beyond what the lines are apart
_RETRY_S = 0.5
_STOPPED = UnreachableError("the gateway went away", "'gatectl status' tells whether it is back")


class Feed:
    """Reads on, and connects anew when the gateway has been away. `news` is readable when there is something."""

    def __init__(self, gateway: Gateway, query: Mapping[str, Any]) -> None:
        self._gateway = gateway
        self._query = query
        self._came: SimpleQueue[Mapping[str, Any] | GatectlError] = SimpleQueue()
        self.news, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ended = threading.Event()
        self._gone_since: float | None = None
        self.error: GatectlError = _STOPPED
        blocks = self._connect()  # what is wrong from the start is said at once
        threading.Thread(target=self._follow, args=(blocks,), daemon=True).start()

    def __repr__(self) -> str:
        return f"<Feed of {self._gateway}>"

    def take(self) -> list[Mapping[str, Any]]:
        """What has come since. Raises GatectlError where waiting is of no use."""
        try:
            os.read(self.news, 4096)
        except BlockingIOError:
            return []
        pictures: list[Mapping[str, Any]] = []
        while True:
            try:
                found = self._came.get_nowait()
            except Empty:
                return pictures
            if isinstance(found, NotFoundError):  # the tenant has been removed
                raise found
            if isinstance(found, GatectlError):
                self.error = found
                self._gone_since = self._gone_since or monotonic()
            else:
                self._gone_since = None
                pictures.append(found)

    @property
    def gone_s(self) -> float | None:
        """For how long there has been no gateway."""
        return None if self._gone_since is None else monotonic() - self._gone_since

    def close(self) -> None:
        """The thread ends with the process; what it says is no longer heard."""
        self._ended.set()

    def _connect(self) -> Iterator[bytes]:
        return self._gateway.blocks(PATH, self._query, float(self._query["every_s"]) + _PATIENCE_S)

    def _follow(self, blocks: Iterator[bytes]) -> None:
        while not self._ended.is_set():
            try:
                for block in blocks:
                    for line in block.splitlines():
                        self._say(json.loads(line))
                self._say(_STOPPED)
            except GatectlError as error:
                self._say(error)
            blocks = iter(())
            while not self._ended.wait(_RETRY_S):
                try:
                    blocks = self._connect()
                    break
                except GatectlError as error:
                    self._say(error)

    def _say(self, what: Mapping[str, Any] | GatectlError) -> None:
        self._came.put(what)
        with contextlib.suppress(BlockingIOError):  # it is readable
            os.write(self._tell, b"!")
