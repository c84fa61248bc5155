"""How the supervisor tells a child process what to be, and how the child says that it is ready.

A child is started with the number of one end of a socket pair as its only argument. It reads a Boot from it: settings
may hold secrets, and neither arguments nor the environment of a process are private. It answers with one byte when it
is ready. The pair stays open; when the supervisor dies, the child reads the end of it and drains.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import sys
from typing import Any

import msgspec

from gatewayd.settings import Settings

_LENGTH = struct.Struct("<I")
READY = b"+"
CANNOT_START = 78  # exit status of a child that has said why on standard error: EX_CONFIG of sysexits.h


class Boot(msgspec.Struct, frozen=True):
    """`sockets`: inherited descriptors of listening sockets. `slot`: which worker this is."""

    settings: dict[str, Any]
    sockets: tuple[int, ...]
    listen: str  # the address in use, where settings may say port 0
    slot: int = 0
    admin_listen: str = ""  # the same of the admin API for other machines, if there is one


def send_boot(connection: socket.socket, boot: Boot) -> None:
    body = msgspec.json.encode(boot)
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive_boot() -> tuple[Boot, socket.socket]:
    """In the child: what to be, and the connection to the supervisor. Exits when that is gone before it has said it."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    with connection.makefile("rb") as stream:
        prefix = stream.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            sys.exit(0)
        (length,) = _LENGTH.unpack(prefix)
        boot = msgspec.json.decode(stream.read(length), type=Boot)
    return boot, connection


def settings_of(boot: Boot) -> Settings:
    """The settings as the supervisor had resolved them: validated there, not read from file or environment again."""
    return Settings.model_construct(None, **Settings.__pydantic_validator__.validate_python(boot.settings).__dict__)


def log_to_stderr(name: str) -> None:
    """One line an event, with the process that speaks. The supervisor's standard error is inherited."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    for chatty in ("uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def announce_ready(connection: socket.socket) -> None:
    connection.send(READY)  # one byte always fits


def drain_with_supervisor(connection: socket.socket) -> None:
    """When the supervisor is gone, so are we: a SIGTERM to ourselves takes the way of every other drain."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()

    def on_readable() -> None:
        try:
            data = connection.recv(1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(connection)
            os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(connection, on_readable)
