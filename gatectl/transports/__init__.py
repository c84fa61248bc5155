"""Ways to a gateway, a file each, imported when it is taken: a Unix socket (`unix`), TCP (`tcp`), ssh (`ssh`).

A transport gives connections; what is said on them is `wire`'s, and who says it `client`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Connection(Protocol):
    """Bytes to and from a gateway; a socket is one."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, limit_bytes: int, /) -> bytes: ...

    def settimeout(self, timeout_s: float | None, /) -> None: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Transport(Protocol):
    """One way to one gateway."""

    place: str  # as a person would name it
    host: str  # for the request's Host
    base: str  # of the path, before the admin API's own
    kept: bool  # whether a connection is dear enough to keep for the next request
    mend: str  # what to type where something else than a gateway is found there
    refused: Mapping[str, str]  # what to do, by the code of a problem, where that depends on the way one came

    def connect(self, timeout_s: float) -> Connection:
        """A new connection. What keeps it from being made is raised as a GatectlError."""
        ...
