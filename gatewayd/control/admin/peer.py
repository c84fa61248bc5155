"""Who is asking on the Unix socket: the process at its other end, as the kernel saw it when it connected.

Root and the user that gatewayd runs as are admins, members of the socket's group are operators. The mode of the socket
(0660) keeps others out too, but a mode can be changed by accident and the folder's may be wider.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gatewayd.control.admin.callers import Role
from gatewayd.control.admin.problems import problem_response
from gatewayd.errors import MALFORMED

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
        return _name_of(self.uid)

    def groups(self) -> set[int]:
        try:
            return {self.gid, *os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)}
        except KeyError:
            return {self.gid}


@lru_cache(maxsize=100)  # to read /etc/passwd takes 20 us of each request
def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also notes who connected, as `scope["state"]["peer"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = peer_of(transport.get_extra_info("socket"))
        if peer is not None:
            self.app_state = {**self.app_state, "peer": peer}

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the form of every other problem, and not in uvicorn's plain text."""
        response = problem_response(MALFORMED, "this is no HTTP/1.1 request", headers={"connection": "close"})
        head = b"".join(b"%b: %b\r\n" % field for field in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(response.body))
        self.transport.close()


def peer_of(connection: socket.socket | None) -> Peer | None:
    """SO_PEERCRED (unix(7)); None for anything but a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def role_of(peer: Peer, admin_socket: Path) -> Role | None:
    """None: not admitted."""
    if peer.uid in (0, os.geteuid()):
        return None if is_worker(peer.pid) else "admin"
    try:
        return "operator" if admin_socket.stat().st_gid in peer.groups() else None
    except FileNotFoundError:  # somebody removed it under us; its group can no longer be asked
        return None


def is_worker(pid: int) -> bool:
    """A process that our supervisor started, and not this one: a worker, which has no business here of its own.

    It runs as the daemon's user and connects to whatever a target names. An operator could name a link and have it lead
    here afterwards; then every caller of that service would be an admin.
    """
    if pid == os.getpid():
        return False
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # gone, or of another namespace: no worker of ours
        return False
    # proc_pid_stat(5): the name stands in parentheses and may hold some; state and parent follow the last one.
    return int(text.rpartition(b")")[2].split()[1]) == os.getppid() != 0
