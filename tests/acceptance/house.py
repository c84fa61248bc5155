"""A gateway of a test's own, with its state in a folder of the test's, and an upstream that counts."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.acceptance.load import Load
from tests.daemons import Gateway, Started, gateway, started

_PORTS = re.compile(r"^ports (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counting:
    """The counting upstream (see `counting`)."""

    url: str
    port_of_counts: int
    pid: int

    def counts(self) -> dict[str, int]:
        """By path; the gateway has no part in this."""
        return dict(self._ask("/")["paths"])

    def fall_ill(self) -> None:
        """Answer /health with 500 from now on."""
        self._ask("/ill")

    def get_well(self) -> None:
        self._ask("/well")

    def release(self) -> None:
        """Answer all of /held, from now on at once."""
        self._ask("/release")

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port_of_counts, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def served(self, path: str | None = None) -> int:
        counts = self.counts()
        return sum(counts.values()) if path is None else counts.get(path, 0)


@contextmanager
def counting(folder: Path, name: str = "counting") -> Iterator[Counting]:
    with _starting(folder, name) as upstream:
        yield _ready(upstream)


def _starting(folder: Path, name: str) -> AbstractContextManager[Started]:
    return started(name, [sys.executable, "-m", "tests.acceptance.counting"], folder)


def _ready(upstream: Started) -> Counting:
    ports = upstream.wait_for(_PORTS)
    return Counting(f"http://127.0.0.1:{ports[1]}", int(ports[2]), upstream.process.pid)


@dataclass(frozen=True)
class Response:
    """What a caller got. Header names are in lower case; `lines` has them as they came, in order and duplicate."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.lines}

    def json(self) -> Any:
        return json.loads(self.body)


_MOST_BESIDE = 16  # processes of the suite


def port_to_come_back_to() -> int:
    """A port that is free, and below those that the system hands out to connections of the tests beside this one.

    It is bound later, so each process of the suite draws from ports of its own.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_BESIDE
    while True:
        port = random.randrange(max(1024, lowest - 12_000) + process, lowest, _MOST_BESIDE)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


class House:
    """A gateway that can be stopped, killed and started again on the same state, port and socket."""

    def __init__(self, folder: Path, workers: int = 2, options: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.workers = workers
        self._options = options
        self._prefix = prefix
        self.upstreams = ExitStack()
        upstream = self.upstreams.enter_context(_starting(folder, "counting"))
        self._running = ExitStack()
        self._port = port_to_come_back_to()
        try:
            self.start()
            self.counting = _ready(upstream)
        except BaseException:
            self.end()
            raise

    def __repr__(self) -> str:
        return f"<House {self.folder} on port {self._port}>"

    def start(self) -> None:
        entered = gateway(
            self.folder,
            listen=f"127.0.0.1:{self._port}",
            workers=self.workers,
            options=self._options,
            prefix=self._prefix,
        )
        self.gateway: Gateway = self._running.enter_context(entered)
        self._port = urlsplit(self.gateway.url).port or 0

    def stop(self) -> int:
        """SIGTERM. Returns the exit code."""
        code = self.gateway.daemon.end()
        self._running.close()
        return code

    def end(self) -> None:
        self._running.close()
        self.upstreams.close()

    # What is where.

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def socket(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def supervisor(self) -> int:
        return self.gateway.daemon.process.pid

    def control(self) -> int:
        """Its process id; waits until there is one."""
        return int(wait_until(lambda: next(iter(children_of(self.supervisor, "gatewayd.control.main")), 0)))

    def worker_pids(self) -> list[int]:
        return children_of(self.supervisor, "gatewayd.proxy")

    def pids(self) -> list[int]:
        """All of them."""
        return [self.supervisor, *children_of(self.supervisor, "gatewayd.")]

    # What one does with it.

    @property
    def gatectl(self) -> Any:
        return self.gateway.gatectl

    def service(self, name: str, *options: str) -> str:
        """A service in front of the counting upstream."""
        self.gatectl.do("service", "add", name, f"{self.counting.url}/{name}", *options)
        return name

    def key(self, *options: str) -> str:
        """A new key, as a script gets it."""
        return str(self.gatectl.do("key", "create", *options)).strip()

    def keys(self, count: int, **terms: Any) -> list[str]:
        """So many, without a process for each."""
        return [str(self.admin("POST", "/v1/keys", terms)["key"]) for _ in range(count)]

    def call(
        self, path: str, key: str | None = None, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Response:
        """One request on a connection of its own; `X_Name="value"` is a header."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, {**({"X-API-Key": key} if key else {}), **sent})
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def load(self) -> Load:
        return Load(self.address)

    def usage(self, *options: str) -> dict[str, Any]:
        """The total of `usage show`."""
        return dict(self.gatectl.json("usage", "show", *options)["total"])

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the admin API over its socket. The caller's thread waits for it."""
        connection = http.client.HTTPConnection("admin", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.socket))
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status in (200, 201), answer
            return answer
        finally:
            connection.close()

    def all_workers_serve(self) -> bool:
        states = [worker["state"] for worker in self.admin("GET", "/v1/status")["workers"]]
        return states == ["serving"] * self.workers


def children_of(pid: int, module: str) -> list[int]:
    """Process ids of the children that run this module."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            try:
                argv = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(part.startswith(module.encode()) for part in argv):
                found.append(int(child))
    return sorted(found)


def alive(pid: int) -> bool:
    """Runs still; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_until(true: Callable[[], Any], within_s: float = 15.0) -> Any:
    """What `true` returns once that is true. An OSError is "not yet": sockets come and go here."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if value := true():
                return value
        except OSError:
            pass
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
