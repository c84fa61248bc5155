"""What is longer than a terminal is high goes through a pager: GATECTL_PAGER, else PAGER, else `less -FRX`.

Standard output is a `Paged` while a command runs at a terminal. It holds back what is written until it is more than one
screen, and only then starts the pager: most answers are short, and cost nothing. A `flush` says that what was written
has to be seen now (before a question, between lines that come as they happen), which ends the holding back.

A pager that is quit early is no error, and one that there is not is no reason to show nothing. The terminal is left as
it was found, whatever the pager made of it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from gatectl.cells import width

if TYPE_CHECKING:
    import subprocess

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_DEFAULT = "less -FRX"  # quits where all is seen, shows colours, and leaves what was seen on the screen


class LeftError(Exception):
    """The pager was quit before all was written: nobody reads on."""


class Paged:
    """Takes the place of standard output at a terminal; what is not about writing text is the terminal's own."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._held: list[str] = []
        self._rows = 0
        self._holding = True
        self._pager: _Pager | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            self.flush()  # bytes go past us
        return getattr(self._terminal, name)

    def write(self, text: str) -> int:
        """Hold back, pass on to the pager, or write."""
        if not isinstance(text, str):
            raise TypeError("text is written here")  # typer asks so whether it may write bytes
        if self._pager is not None:
            self._pager.write(text)
        elif not self._holding:
            self._terminal.write(text)
        else:
            self._held.append(text)
            if self._overflows(text):
                self._page()
        return len(text)

    def flush(self) -> None:
        """Show what was written; from here on nothing is held back."""
        if self._pager is not None:
            pager, self._pager = self._pager, None
            self._holding = False
            pager.end()
            return
        self._release()
        self._terminal.flush()

    def close(self) -> None:
        """The command is over: a pager that still runs is waited for, what is still held back is dropped."""
        if self._pager is not None:
            self.flush()

    def _release(self) -> None:
        held, self._held, self._holding = self._held, [], False
        for text in held:
            self._terminal.write(text)

    def _overflows(self, text: str) -> bool:
        """Whether it is more than a screen, whose last line is the shell's prompt."""
        columns, lines = shutil.get_terminal_size()
        widths = (width(line) for line in _ESCAPES.sub("", text).split("\n"))
        self._rows += sum(max(-(-wide // max(columns, 1)), 1) for wide in widths) - 1
        return self._rows >= lines

    def _page(self) -> None:
        command = _command(os.environ)
        pager = _Pager.started(command, self._terminal) if command else None
        held = "".join(self._held)
        if pager is None:
            self._release()
            return
        self._held, self._pager = [], pager
        pager.write(held)


def _command(environment: os._Environ[str]) -> list[str]:
    """The pager's words; none where none is wanted, or where it could not draw."""
    asked = environment.get("GATECTL_PAGER", environment.get("PAGER", _DEFAULT)).strip()
    if asked in ("", "cat") or environment.get("TERM") == "dumb":
        return []
    import shlex

    try:
        return shlex.split(asked)
    except ValueError:  # a quotation mark too few
        return []


class _Pager:
    """A pager that runs. Ctrl-C is its own affair: it stops what it is doing, and we wait for it."""

    def __init__(self, process: subprocess.Popen[str], restore: Callable[[], None]) -> None:
        self._process = process
        self._restore = restore

    @classmethod
    def started(cls, command: list[str], terminal: TextIO) -> _Pager | None:
        """None: there is no such program."""
        import signal
        import subprocess
        import termios

        terminal.flush()
        descriptor = terminal.fileno()
        modes = termios.tcgetattr(descriptor)
        # less without -R shows colours as `ESC[1m`; as git and gh have it, for who has PAGER=less and no LESS.
        environment = {"LESS": _DEFAULT.partition("-")[2], "LV": "-c"} | os.environ
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=environment, text=True, encoding=terminal.encoding,
                errors=terminal.errors,
            )  # fmt: skip
        except OSError:
            return None

        def interrupted(number: int, frame: Any) -> None:
            if process.poll() is not None:
                raise KeyboardInterrupt  # it has gone, and we wait for the gateway

        before = signal.signal(signal.SIGINT, interrupted)

        def restore() -> None:
            signal.signal(signal.SIGINT, before)
            termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)

        return cls(process, restore)

    def write(self, text: str) -> None:
        """Raises `LeftError` when it was quit."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
        except BrokenPipeError:
            self.end()
            raise LeftError from None

    def end(self) -> None:
        """Tell it that this was all, and wait until it is quit."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        finally:
            self._process.wait()
            self._restore()
