"""Starts the processes that the demo, the playground and the bench need, and ends them by their process id."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 30
END_WITHIN_S = 40  # gatewayd drains for up to 30 s

_PORT = re.compile(r"^(\d+)\n", re.MULTILINE)
_GATEWAY_READY = re.compile(r"^gatewayd \S+ ready: (https?://\S+) \(\d+ workers?\), admin socket (.+)\n", re.MULTILINE)


class DaemonError(Exception):
    """A process did not do what it was started for. The message is one line."""


@dataclass(frozen=True)
class Started:
    """A running process and the file that its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def __str__(self) -> str:
        return f"<{self.name} pid {self.process.pid}>"

    def wait_for(self, line: re.Pattern[str]) -> re.Match[str]:
        """Wait until the output holds `line`. Raises DaemonError when the process ends first, or takes too long."""
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if match := line.search(self.output()):
                return match
            if ended:
                raise DaemonError(f"{self.name} ended with exit code {self.process.returncode}: {self.last_words()}")
            time.sleep(0.01)
        raise DaemonError(f"{self.name} was not ready within {READY_WITHIN_S} s: {self.last_words()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def last_words(self) -> str:
        """The last line that the process wrote: with a traceback, that is the error."""
        lines = self.output().strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def end(self) -> int:
        """SIGTERM, then after a long wait SIGKILL to it and what it started. Returns the exit code."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            return self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: it was started in a new session
            return self.process.wait()


@contextmanager
def started(
    name: str, argv: Sequence[str], folder: Path, cores: set[int] | None = None, tree: Path = ROOT
) -> Iterator[Started]:
    """Run `argv` for the time of a `with` block, on `cores` if given, with the modules of `tree`.

    In a session of its own, so that Ctrl-C reaches us alone and we end everything in order.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output, _running_on(cores):
        process = subprocess.Popen(
            argv, cwd=tree, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    running = Started(name, process, log)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def _running_on(cores: set[int] | None) -> Iterator[None]:
    """A child inherits the cores of its parent: take them on while it is started."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores or before)
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def example(name: str, folder: Path) -> Iterator[str]:
    """One of the example APIs on a free port, as its URL."""
    with started(name, [sys.executable, "-m", "tests.examples", name, "--port", "0"], folder) as api:
        yield f"http://127.0.0.1:{api.wait_for(_PORT)[1]}"


class Gatectl:
    """Runs `gatectl` against one admin socket."""

    def __init__(self, admin_socket: Path | str) -> None:
        self.argv = [sys.executable, "-m", "gatectl"]
        self.environment = {**os.environ, "GATECTL_SOCKET": str(admin_socket)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever its exit code."""
        return subprocess.run(
            [*self.argv, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def do(self, *arguments: str) -> str:
        """What a command prints. Raises DaemonError when it fails."""
        run = self.run(*arguments)
        if run.returncode:
            raise DaemonError(f"gatectl {' '.join(arguments)}: exit code {run.returncode}: {run.stderr.strip()}")
        return run.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with `-o json`. Raises DaemonError when it fails."""
        return json.loads(self.do(*arguments, "-o", "json"))


@dataclass(frozen=True)
class Gateway:
    """A running gatewayd."""

    daemon: Started
    url: str
    gatectl: Gatectl

    def pids(self) -> list[int]:
        """The supervisor and its workers."""
        workers = self.gatectl.json("status")["workers"]
        return [self.daemon.process.pid, *(worker["pid"] for worker in workers)]


@contextmanager
def gateway(
    folder: Path,
    *,
    listen: str = "127.0.0.1:0",
    workers: int = 2,
    cores: set[int] | None = None,
    options: Sequence[str] = (),
    tree: Path = ROOT,
    module: str = "gatewayd",
    prefix: Sequence[str] = (),
) -> Iterator[Gateway]:
    """gatewayd, or a `module` that starts one, with its state, socket and log in `folder`, ready to serve.

    `prefix`: a command that becomes what follows it.
    """
    argv = [*prefix, sys.executable, "-m", module, "--listen", listen, "--state-dir", str(folder / "state")]
    argv += ["--admin-socket", str(folder / "admin.sock"), "--workers", str(workers), *options]
    with started("gatewayd", argv, folder, cores, tree) as daemon:
        ready = daemon.wait_for(_GATEWAY_READY)
        yield Gateway(daemon, ready[1], Gatectl(ready[2]))


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: through every `finally`, so that no process is left behind.

    Whoever presses Ctrl-C twice must not interrupt the cleaning up, which takes `END_WITHIN_S` at the longest.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
