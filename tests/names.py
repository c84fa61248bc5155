"""Names below `.example`, which lead where a test says; everything else is looked up as ever. No network is asked."""

from __future__ import annotations

import socket
from typing import Any

import pytest


class Names:
    """Stands at socket.getaddrinfo, which loops of asyncio ask. `lead_to` are the addresses of every such name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lead_to: list[str] = ["127.0.0.1"]
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, port: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not isinstance(name, str) or not name.endswith(".example"):
            return self._real(host, port, *more, **options)
        self.asked.append(name)
        if not self.lead_to:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in self.lead_to]
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for family, address in zip(families, self.lead_to, strict=True)
        ]
