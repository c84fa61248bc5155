"""The load: wrk with one thread, or for WebSocket a process of our own, on a core of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import Case
from tests.daemons import ROOT, DaemonError

_REPORT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What wrk saw of one run."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    refused: int  # status 400 and above
    broken: int  # connect, read, write errors and time-outs

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def run(case: Case, url: str, key: str | None, seconds: int, core: int, folder: Path) -> Load:
    """Load `url` with `case`. Raises DaemonError when the load fails or any answer is not the expected one."""
    load = _websocket(case, url, key, seconds, core) if case.websocket else _wrk(case, url, key, seconds, core, folder)
    expected = load.requests if case.status >= 400 else 0
    if load.broken or abs(load.refused - expected) > case.exceptions or not load.requests:
        raise DaemonError(
            f"{case.name} at {url}: of {load.requests} answers {load.refused} had a status above 399 "
            f"({expected} expected), {load.broken} were broken"
        )
    return load


def _websocket(case: Case, url: str, key: str | None, seconds: int, core: int) -> Load:
    argv = [sys.executable, "-m", "tests.bench.websocket", "load", url + case.path, "--key", key or ""]
    argv += ["--connections", str(case.connections), "--seconds", str(seconds), "--bytes", str(case.sends_bytes)]
    return _loaded("the WebSocket load", argv, core)


def _loaded(name: str, argv: list[str], core: int) -> Load:
    done = subprocess.run(
        ["taskset", "--cpu-list", str(core), *argv], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise DaemonError(f"{name} ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return parse(done.stdout)


def _wrk(case: Case, url: str, key: str | None, seconds: int, core: int, folder: Path) -> Load:
    script = folder / "request.lua"
    script.write_text(_script(case, key))
    argv = ["wrk", "--threads", "1", "--connections", str(case.connections), "--duration", f"{seconds}s"]
    argv += ["--timeout", "5s", "--script", str(script), url + case.path]
    return _loaded("wrk", argv, core)


def parse(output: str) -> Load:
    """The line that `wrk.lua` and `websocket` print. Raises DaemonError when there is none."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise DaemonError(f"wrk reported nothing: {output.strip()[-200:]}")


def _script(case: Case, key: str | None) -> str:
    headers = [*case.headers, *([("X-API-Key", key)] if key else [])]
    lines = [f"wrk.method = {_lua(case.method)}"]
    lines += [f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers]
    if case.sends_bytes:
        lines.append(f'wrk.body = string.rep("x", {case.sends_bytes})')
    if case.varied:
        lines += ["local n = 0", "function request()", "  n = n + 1", '  wrk.headers["X-Trace"] = n']
        lines += ["  return wrk.format()", "end"]
    return "\n".join([*lines, f"dofile({_lua(os.fspath(_REPORT))})", ""])


def _lua(text: str) -> str:
    return '"' + "".join(f"\\{ord(c):03}" if not c.isprintable() or c in '"\\' else c for c in text) + '"'
