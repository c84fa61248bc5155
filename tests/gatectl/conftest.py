"""A fake daemon for each test, and gatectl run as a process, in a pipe or at a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.gatectl.fake_daemon import FakeDaemon

_WITHIN_S = 30
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Ended(NamedTuple):
    """How a command ended and what it wrote; at a terminal both outputs are one."""

    code: int
    out: str
    err: str = ""

    @property
    def plain(self) -> str:
        """What was written, without colours."""
        return _ESCAPES.sub("", self.out)


class Gatectl:
    """Runs `python -m gatectl` against a socket."""

    def __init__(self, socket: Path) -> None:
        self.environment = dict(os.environ)
        self.cwd: Path | None = None
        self.environment |= {"GATECTL_SOCKET": str(socket), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        self.environment |= {"GATECTL_PAGER": ""}  # nobody is there to leave one

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gatectl", *arguments]

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        """With pipes for stdout and stderr, and nothing to read."""
        done = subprocess.run(
            self.argv(*arguments),
            env=self.environment | environment,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def at_terminal(self, *arguments: str, typed: str = "", columns: int = 80, lines: int = 24) -> Ended:
        """At a terminal of that size; `typed` is what its user types."""
        ours, its = pty.openpty()
        termios.tcsetwinsize(its, (lines, columns))
        process = subprocess.Popen(
            self.argv(*arguments),
            env=self.environment,
            cwd=self.cwd,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        late = threading.Timer(_WITHIN_S, process.kill)
        late.start()
        try:
            os.write(ours, typed.encode())
            written = _read_all(ours)
            code = process.wait()
        finally:
            late.cancel()
            os.close(ours)
        return Ended(code, written.replace("\r\n", "\n"))


def _read_all(terminal: int) -> str:
    """All that is written to a terminal until its last writer has gone, which Linux reports as an error (EIO)."""
    chunks = []
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks).decode()


def press_until_it_ends(process: subprocess.Popen[Any]) -> None:
    """Python drops an exception that a signal raises within a callback of its own, of the import system for one.

    That is rare, and then a person presses Ctrl-C again.
    """
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
            return


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket's (107 bytes), which pytest's own may exceed."""
    with tempfile.TemporaryDirectory(prefix="gatectl-") as name:
        yield Path(name)


@pytest.fixture
def daemon(folder: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(folder / "admin.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def gatectl(folder: Path) -> Gatectl:
    """gatectl for a socket at which nothing listens, unless the test asks for `daemon` too."""
    return Gatectl(folder / "admin.sock")
