"""A configuration on its way to the gateway, while a thread asks how far the gateway is with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from gatectl.errors import GatectlError, UnreachableError
from gatectl.grammar import Call
from gatectl.progress import Progress, progress, tell_interrupted

PROGRESS = "/v1/config/progress"
# Ten thousand objects take some seconds, and the gateway's machine may be busy.
TIMEOUT_S = 600.0
POLL_S = 0.5
_CHUNK_BYTES = 1 << 18
_UNSURE = "the change may or may not have been made"


def send(call: Call, path: str, body: Any, query: Mapping[str, Any], *, changes: bool) -> Any:
    """POST it. `changes`: whether somebody who gives up waiting must know that it may have been done."""
    asked = {name: value for name, value in query.items() if value not in (None, False)}
    asked = {name: "true" if value is True else value for name, value in asked.items()}
    try:
        with _Watch(call):
            return call.gateway.upload(path, _chunks(body), "application/json", asked, TIMEOUT_S)
    except KeyboardInterrupt:
        if changes:
            tell_interrupted(_unsure(call))
        raise
    except UnreachableError as error:
        # It says so of every POST; this one knows whether there was anything to change.
        said, doubt, _ = error.hint.partition("a change may or may not have been made")
        if doubt:
            error.hint = said + _unsure(call) if changes else said.removesuffix("; ").removesuffix(" ")
        raise


def _unsure(call: Call) -> str:
    return f"{_UNSURE}: '{call.example('config history')}' tells"


def _chunks(body: Any) -> Iterator[bytes]:
    content = json.dumps(body).encode()
    for begin in range(0, len(content), _CHUNK_BYTES):
        yield content[begin : begin + _CHUNK_BYTES]


class _Watch:
    """Shows how far the gateway is, once there is something to wait for."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._shown: ExitStack = ExitStack()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        # Not for long: it may wait for a gateway that is stuck, and a person has pressed Ctrl-C.
        self._thread.join(POLL_S)
        self._shown.close()

    def _ask(self) -> None:
        bar: Progress | None = None
        while not self._over.wait(POLL_S):
            try:
                state = self._call.gateway.get(PROGRESS)
            except GatectlError:
                continue  # the request itself says what is wrong
            if state["state"] == "idle" or self._over.is_set():
                continue
            bar = bar or self._shown.enter_context(progress(self._call.printer.quiet))
            done = state["done"]
            bar.show(state["state"], done, state["of"] or None, done, "object" if done == 1 else "objects")
