"""One gateway for all clients, with an upstream behind it and a key that every service but the open one asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.upstream import Site, site
from tests.daemons import Gateway, gateway


@dataclass(frozen=True)
class Door:
    """`url` asks for `key`; `open_url` does not."""

    gateway: Gateway
    site: Site
    key: str

    @property
    def url(self) -> str:
        return f"{self.gateway.url}/api"

    @property
    def open_url(self) -> str:
        return f"{self.gateway.url}/open"

    def counted(self, service: str) -> dict[str, Any]:
        """What `usage show` counts for a service."""
        rows = self.gateway.gatectl.json("usage", "show", "--by", "service")["items"]
        return next((row for row in rows if row["service"] == service), {"requests": 0, "errors": 0})


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("clients")
    with site(folder) as upstream, gateway(folder) as running:
        gatectl = running.gatectl
        gatectl.do("service", "add", "api", upstream.url)
        gatectl.do("service", "add", "open", upstream.url, "--auth", "none")
        gatectl.do("plan", "add", "ample", "--rate", "10000/s")
        key = gatectl.do("key", "create", "--service", "api", "--plan", "ample").strip()
        yield Door(running, upstream, key)
        assert "Traceback" not in running.daemon.output()


def program(name: str) -> str:
    """The path of a program that pip cannot install; without it its tests are skipped, and say so."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH: install it (apt-get install {name}) to run this test")
    return path


@pytest.fixture(scope="session")
def curl() -> str:
    return program("curl")


@pytest.fixture(scope="session")
def git() -> str:
    return program("git")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for clients that look for settings there; and no proxy of the machine's between us."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path
