"""schemathesis asks the admin API whatever its document admits, and much that it does not, with all its checks.

What a schema cannot say (`Beyond the schema` in the document) may be refused with 422, and a condition that does not
hold with 412; of all else that a schema admits it is a failure. `GET /v1/usage/tail` and `/v1/top` have no end and are
left out: see tests/control/test_tailing.py and test_watching.py.

Some of it is about objects that are there (`make_some`), else nearly all would be answered 404.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from gatewayd.policy import strangers
from gatewayd.told import RequestTold, Told
from tests import daemons
from tests.control.conformance import published
from tests.control.conftest import Admin
from tests.control.loopback_only import NOBODY, PRESENT

AT = "2026-11-21T02:00:00Z"
ENDLESS = ("/v1/usage/tail", "/v1/top")
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "5xx"]


def settings(folder: Path) -> Path:
    """The configuration file: what each operation may answer to what its schema admits."""
    lines = ['hooks = "tests.control.loopback_only"']
    for path, methods in published()["paths"].items():
        for method, operation in methods.items():
            told = operation["responses"]
            also = ["412"] if "412" in told else []
            also += ["422"] if "Beyond the schema" in told.get("422", {}).get("description", "") else []
            if path in ENDLESS or not (also or method == "delete"):
                continue
            lines += [
                "[[operations]]",
                f'include-operation-id = "{operation["operationId"]}"',
                f"checks.positive_data_acceptance.expected-statuses = {json.dumps(ACCEPTED + also)}",
            ]
            if method == "delete":  # or it is there after it was removed
                lines.append("parameters = { dry_run = false }")
    file = folder / "schemathesis.toml"
    file.write_text("\n".join(lines))
    return file


# Each with members that lead to others.
MADE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("services", {"slug": "orders", "targets": [f"{NOBODY}orders"]}),
    ("routes", {"name": "reads", "service": "orders", "path": "/v9"}),
    ("plans", {"name": "starter", "rates": ["60/min"], "quota": "10k", "price": "0.001"}),
    ("keys", {"name": "ci", "services": ["orders"], "plan": "starter"}),
    ("clients", {"name": "kiosk-7", "key": "ci", "rates": ["5/s"]}),
    ("alerts", {"quota": 80, "url": f"{NOBODY}hooks"}),
    ("tokens", {"name": "laptop", "role": "viewer"}),
)


def make_some(post: Callable[[str, dict[str, Any]], Any]) -> dict[str, str]:
    """An object of each noun. Gives their ids, which no change takes from them."""
    made = {noun: str(post(f"/v1/{noun}", new)["id"]) for noun, new in MADE}
    post("/v1/config/apply", {"version": 1, "tenants": [{"slug": "acme"}]})
    return {"tenants": "default", "targets": f"{NOBODY}orders", "config": "1", **made}


async def examine(port: int, folder: Path, present: dict[str, str], *options: str) -> dict[str, Any]:
    """Run it, and give its report; fails with what it printed."""
    report = folder / "report.json"
    argv = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings(folder)), "run",
        f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "--seed", "1",
        *(word for path in ENDLESS for word in ("--exclude-path", path)),
        "--continue-on-failure", "--no-color", "--report", "json", "--report-json-path", str(report),
        "--generation-database", "none", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(daemons.ROOT), PRESENT: json.dumps(present)}
    running = await asyncio.create_subprocess_exec(
        *argv, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        printed = (await running.communicate())[0].decode()
    finally:
        if running.returncode is None:
            running.kill()
    assert running.returncode == 0, printed
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def called_by(database: Path) -> set[str]:
    """Where targets are and alerts go, gone ones too."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        return {url for (url,) in opened.execute("SELECT url FROM target UNION SELECT url FROM alert")}


def test_it_finds_nothing_in_a_short_run(admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token, as on TCP: each operation is also tried without one and with a wrong one, and must not answer."""
    monkeypatch.setattr(strangers, "FAILURES", 1 << 30)  # else the wrong ones are soon answered 429
    present = make_some(lambda path, new: admin.post(path, **new))

    async def drive() -> dict[str, Any]:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(admin.app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            return await examine(listener.getsockname()[1], tmp_path, present, "-H", authorization, *SHORT)
        finally:
            server.should_exit = True
            await serving

    authorization = f"Authorization: Bearer {admin.post('/v1/tokens', name='examiner', role='admin')['token']}"
    admin.app.peer = None
    admin.plane.tells = Told(RequestTold(None, AT, "GET", "/", "h", "a", None), "refused", 401, "missing_key", (), None)
    assert admin.run(drive())
    assert {url for url in called_by(admin.control.database.path) if not url.startswith(NOBODY)} == set()


SHORT = ("--phases", "fuzzing", "-n", "2")
# Beside each other, since schemathesis uses one core; each has a gateway of its own. 23,139 cases (2026-11-21).
LONG = (("--phases", "examples,coverage,stateful", "-n", "180"), ("--phases", "fuzzing", "-n", "180"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_finds_nothing_in_20_000_cases(tmp_path: Path) -> None:
    async def all_of_it() -> list[int]:
        folders = [tmp_path / f"{number}" for number in range(len(LONG))]
        return await asyncio.gather(*(examine_gateway(*each) for each in zip(folders, LONG, strict=True)))

    cases = asyncio.run(all_of_it())
    print(f"{sum(cases)} cases")
    assert sum(cases) >= 20_000


async def examine_gateway(folder: Path, options: tuple[str, ...]) -> int:
    """One of its own. Gives how many cases that were."""
    folder.mkdir()
    with daemons.gateway(folder) as gateway, relayed(folder / "admin.sock") as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            present = make_some(lambda path, new: client.post(path, json=new).json())
        report = await examine(port, folder, present, *options)
        assert "Traceback" not in gateway.daemon.output()
    assert {url for url in called_by(folder / "state" / "gatewayd.db") if not url.startswith(NOBODY)} == set()
    cases: int = report["test_cases"]["generated"]
    return cases


@contextmanager
def relayed(path: Path) -> Iterator[int]:
    """A port of this machine that leads to a Unix socket, which schemathesis does not speak to."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def begin(work: Callable[..., None], *of: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=of)
        thread.start()
        return thread

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def relay(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(path))
            answers = begin(pump, server, client)
            pump(client, server)
            answers.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(begin(relay, listener.accept()[0]))

    threads.append(begin(accept))
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()
