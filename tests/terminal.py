"""Runs commands as at a terminal and shows them: what the demo prints is what a person would have seen."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Container, Sequence

from tests.daemons import ROOT, DaemonError

_WITHIN_S = 60
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_NARROWEST, _WIDTH_OF_A_PIPE, _LINES = 100, 120, 40


class Terminal:
    """Our stdout. Commands run under a pseudo-terminal as wide as it; without one they lose their colours."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = (
            shutil.get_terminal_size((_WIDTH_OF_A_PIPE, _LINES)).columns if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
        )
        self._size = (_LINES, max(width, _NARROWEST))

    def heading(self, text: str) -> None:
        self.line(f"\n{self._styled('1;36', text)}")

    def note(self, text: str) -> None:
        self.line(self._styled("2", text))

    def done(self, text: str) -> None:
        self.line(f"{self._styled('32', 'ok')}  {text}")

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def run(
        self, shown: Sequence[str], argv: Sequence[str], environment: dict[str, str], codes: Container[int] = (0,)
    ) -> str:
        """Show `$ shown` and what `argv` prints; return that, plain. DaemonError if it ends with none of `codes`."""
        self.line(f"\n{self._styled('1', '$ ' + shlex.join(shown))}")
        code, output = self._run(argv, environment)
        plain = _ESCAPES.sub("", output).replace("\r", "")
        sys.stdout.write(output.replace("\r\n", "\n") if self._colours else plain)
        sys.stdout.flush()
        if code not in codes:
            raise DaemonError(f"{shlex.join(shown)} ended with exit code {code}")
        return plain

    def _run(self, argv: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
        ours, its = pty.openpty()
        try:
            termios.tcsetwinsize(its, self._size)
            environment = {**environment, "GATECTL_PAGER": "", "TERM": "xterm-256color", "COLUMNS": str(self._size[1])}
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=its,
                stderr=its,
                start_new_session=True,
            )
            os.close(its)
            try:
                output = _read(ours, time.monotonic() + _WITHIN_S)
                return process.wait(_WITHIN_S), output
            finally:
                process.kill()  # does nothing to one that has ended
                process.wait()
        finally:
            os.close(ours)

    def _styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text


def _read(terminal: int, deadline: float) -> str:
    """All that is written to the other end until it is closed, which Linux reports as an error (EIO)."""
    chunks: list[bytes] = []
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            return b"".join(chunks).decode("utf-8", "replace")
        chunks.append(chunk)
    raise DaemonError(f"a command did not end within {_WITHIN_S} s")
