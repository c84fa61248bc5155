"""uvicorn's server as both doors use it: told of SIGTERM by the loop, and returning from a drain like any coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """uvicorn raises the signal again after a drain, which would end the process before it has closed its journal."""

    on_drain: Callable[[], None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_drain)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def needs(self, task: asyncio.Task[None]) -> None:
        """Without this task the process is no good: when it fails, drain, so that the supervisor starts another."""
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of this process has failed; it drains and is replaced", exc_info=error)
            self._begin_drain()

    def _begin_drain(self) -> None:
        self.should_exit = True
        if self.on_drain is not None:
            self.on_drain()


def server_config(app: Any, drain_timeout_s: int, **options: Any) -> uvicorn.Config:
    """What both doors have in common; a loop is running already, and we log ourselves."""
    return uvicorn.Config(
        app=app,
        loop="none",
        lifespan="off",
        ws="none",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain_timeout_s,
        **options,
    )
