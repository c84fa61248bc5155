"""Who is asking: the process at the other end of the Unix socket, as the kernel saw it when it connected.

Admitted are root, the user that gatewayd runs as, and members of the socket's group. The mode of the socket (0660) says
the same, but a mode can be changed by accident and the folder's may be wider.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gatewayd.control.admin.problems import problem_response
from gatewayd.errors import NOT_PERMITTED

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end's process, user and group at the time of connect(2)."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or `uid:N` where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid:{self.uid}"

    def groups(self) -> set[int]:
        try:
            return {self.gid, *os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)}
        except KeyError:
            return {self.gid}


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also notes who connected, as `scope["state"]["peer"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = peer_of(transport.get_extra_info("socket"))
        if peer is not None:
            self.app_state = {**self.app_state, "peer": peer}


def peer_of(connection: socket.socket | None) -> Peer | None:
    """SO_PEERCRED (unix(7)); None for anything but a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def actor_of(request: Request) -> str:
    """Who the audit says made a change."""
    peer: Peer = request.state.peer
    return peer.name


class PeersOnly:
    """Refuses whoever is not admitted, before anything of the request is read."""

    def __init__(self, app: ASGIApp, admin_socket: Path) -> None:
        self.app = app
        self.admin_socket = admin_socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        peer: Peer | None = scope.get("state", {}).get("peer")
        if peer is not None and is_admitted(peer, self.admin_socket):
            await self.app(scope, receive, send)
            return
        who = "this connection" if peer is None else f"user {peer.name}"
        detail = f"{who} is neither root nor the user of gatewayd, nor in the group of its socket"
        await problem_response(NOT_PERMITTED, detail)(scope, receive, send)


def is_admitted(peer: Peer, admin_socket: Path) -> bool:
    if peer.uid in (0, os.geteuid()):
        return True
    try:
        return admin_socket.stat().st_gid in peer.groups()
    except FileNotFoundError:  # somebody removed it under us; its group can no longer be asked
        return False
