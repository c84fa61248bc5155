"""A command at a terminal of its own: keys are typed, what is written is read, and the terminal is looked at after."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyte

from tests.gatectl.conftest import Gatectl

WITHIN_S = 20


class OnTerminal:
    """gatectl at a terminal of its own, as its only job."""

    def __init__(self, gatectl: Gatectl, *arguments: str, **environment: str) -> None:
        self.ours, self.its = pty.openpty()
        termios.tcsetwinsize(self.its, (24, 80))
        self.before = termios.tcgetattr(self.its)
        self.written = ""
        self.process = subprocess.Popen(
            gatectl.argv(*arguments), env=gatectl.environment | environment, stdin=self.its, stdout=self.its,
            stderr=self.its, cwd=gatectl.cwd, start_new_session=True, preexec_fn=self._own,
        )  # fmt: skip

    def _own(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def until(self, text: str, since: int = 0) -> int:
        """Wait until this has been written; where it ends."""
        deadline = time.monotonic() + WITHIN_S
        while text not in self.written[since:]:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come; there was {self.written[since:][-3000:]!r}"
            self.written += os.read(self.ours, 65536).decode("utf-8", "replace")
        return self.written.index(text, since) + len(text)

    def ended(self) -> int:
        """The exit code; all that was written has been read, and the terminal is as it was."""
        code = self.process.wait(WITHIN_S)
        while select.select([self.ours], [], [], 0.05)[0]:
            self.written += os.read(self.ours, 65536).decode("utf-8", "replace")
        self.is_given_back()
        return code

    def is_given_back(self) -> None:
        assert termios.tcgetattr(self.its) == self.before
        for taken, back in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h")):
            assert self.written.count(taken) == self.written.count(back)
            assert self.written.rfind(taken) <= self.written.rfind(back)

    @property
    def last_words(self) -> str:
        """What is on the screen that was there before."""
        return self.written.rpartition("\x1b[?1049l")[2].replace("\r\n", "\n")

    @property
    def after_ctrl_c(self) -> list[str]:
        """Lines that are left on the screen below the one with the terminal's own ^C; all, where that was wiped."""
        screen = pyte.Screen(200, 100)
        pyte.Stream(screen).feed(self.written.rpartition("\x1b[?1049l")[2])
        lines = [line.rstrip() for line in screen.display if line.strip()]
        at = next((number for number, line in enumerate(lines) if line.endswith("^C")), -1)
        return lines[at + 1 :]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.its)


@contextmanager
def on_terminal(gatectl: Gatectl, *arguments: str, **environment: str) -> Iterator[OnTerminal]:
    terminal = OnTerminal(gatectl, *arguments, **environment)
    try:
        yield terminal
    finally:
        terminal.close()
