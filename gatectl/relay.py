"""`gatectl relay [SOCKET]`: what ssh runs on the far side of `ssh://`. Standard input and output are a connection.

It says first whether it reached the admin socket, a line with an exit code and a sentence, so that the near side can
tell a machine that cannot be logged in to from a gateway that is down. Then it copies until either side ends. No help
shows it: nobody types it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence

from gatectl.errors import EXIT_CODES, FAILED, GatectlError
from gatectl.places import default_socket
from gatectl.transports.unix import UnixSocket

GREETING = b"gatectl relay 1 "  # 1: of this protocol
_READ_BYTES = 65536
_CONNECT_TIMEOUT_S = 10.0


def run(arguments: Sequence[str]) -> int:
    """Copy between this process and the socket; the exit code."""
    path = arguments[0] if arguments else os.environ.get("GATECTL_SOCKET") or default_socket()
    try:
        connection = UnixSocket(path).connect(_CONNECT_TIMEOUT_S)
    except GatectlError as error:
        code = EXIT_CODES.get(type(error), FAILED)
        _say(f"{code} {error}")
        return code
    connection.settimeout(None)
    _say("0 ")
    # Two threads that block, as neither may keep the other waiting: an answer can begin before its request ends.
    threading.Thread(target=_send_on, args=(connection,), daemon=True).start()
    try:
        while received := connection.recv(_READ_BYTES):
            _write(received)
    except (OSError, KeyboardInterrupt):
        pass  # either side has gone, and there is nobody to tell
    return 0


def _send_on(connection: socket.socket) -> None:
    try:
        while given := os.read(sys.stdin.fileno(), _READ_BYTES):
            connection.sendall(given)
        connection.shutdown(socket.SHUT_RDWR)  # nobody waits for an answer: the other thread's read ends
    except OSError:
        pass


def _say(line: str) -> None:
    text = "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in line)
    _write(GREETING + text.encode("utf-8", "replace") + b"\n")


def _write(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
