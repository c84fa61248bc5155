"""A real shell at a terminal of its own: keys are pressed, and the screen is read."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from time import monotonic

import pexpect
import pyte

_WITHIN_S = 20.0
_QUIET_S = 0.3  # nothing more comes: a shell that says nothing has nothing to say
PROMPT = "ready> "


class Shell:
    """A shell whose prompt is `ready> `, on a screen of 100 columns."""

    def __init__(self, argv: list[str], environment: Mapping[str, str]) -> None:
        self._screen = pyte.Screen(100, 40)
        self._stream = pyte.ByteStream(self._screen)
        self._child: pexpect.spawn[bytes] = pexpect.spawn(
            argv[0], argv[1:], env=environment, dimensions=(40, 100), timeout=_WITHIN_S
        )

    def __repr__(self) -> str:
        return "\n".join(self.screen)

    @property
    def screen(self) -> list[str]:
        """Lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def line(self) -> str:
        """What is typed, up to the cursor."""
        cursor = self._screen.cursor
        return self._screen.display[cursor.y][: cursor.x].removeprefix(PROMPT)

    def press(self, keys: str) -> None:
        self._child.send(keys)

    def shows(self, *texts: str) -> bool:
        """Waits until all of them are on the screen."""
        return self._comes(lambda: all(any(text in line for line in self.screen) for text in texts))

    def typed(self, line: str) -> bool:
        """Waits until that is what is typed."""
        return self._comes(lambda: self.line == line)

    def settle(self) -> None:
        """Waits until nothing more comes."""
        while self._read(_QUIET_S):
            pass

    def clear(self) -> None:
        """An empty line on an empty screen."""
        self.press("\x15")
        assert self.typed(""), self
        self.press("\x0c")
        assert self._comes(lambda: len(self.screen) == 1 and self.line == ""), self

    def close(self) -> None:
        self._child.close(force=True)

    def _comes(self, condition: Callable[[], bool]) -> bool:
        until = monotonic() + _WITHIN_S
        while not condition():
            if monotonic() > until:
                return False
            self._read(0.05)
        return True

    def _read(self, wait_s: float) -> bool:
        try:
            self._stream.feed(self._child.read_nonblocking(65536, timeout=wait_s))
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            return False
        return True


@contextmanager
def bash(home: Path, environment: Mapping[str, str], *lines: str) -> Iterator[Shell]:
    rc = home / "rc"
    rc.write_text("\n".join([f"PS1='{PROMPT}'", "bind 'set enable-bracketed-paste off'", *lines]) + "\n")
    yield from _shell(["bash", "--noprofile", "--rcfile", str(rc), "-i"], home, environment)


@contextmanager
def zsh(home: Path, environment: Mapping[str, str], *lines: str) -> Iterator[Shell]:
    settings = [f"PS1='{PROMPT}'", "unsetopt PROMPT_SP BEEP", *lines]
    (home / ".zshrc").write_text("\n".join(settings) + "\n")
    yield from _shell(["zsh", "-d", "-i"], home, {**environment, "ZDOTDIR": str(home)})


@contextmanager
def fish(home: Path, environment: Mapping[str, str], *lines: str) -> Iterator[Shell]:
    config = home / ".config" / "fish"
    config.mkdir(parents=True, exist_ok=True)
    # Where this is missing, fish reads all man pages first.
    (home / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True, exist_ok=True)
    settings = [
        f"function fish_prompt; echo -n '{PROMPT}'; end",
        "set -g fish_greeting",
        "set -g fish_autosuggestion_enabled 0",
        *lines,
    ]
    (config / "config.fish").write_text("\n".join(settings) + "\n")
    yield from _shell(["fish", "-i"], home, environment)


def _patient(home: Path) -> Path:
    """A folder with a gatectl that waits for a daemon for longer than a person who has pressed Tab would."""
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    waiting = "from gatectl.__main__ import main; from gatectl.completion import names; names.DEADLINE_S = 20.0; main()"
    (folder / "gatectl").write_text(f'#!/bin/sh\nexec {quote(sys.executable)} -c {quote(waiting)} "$@"\n')
    (folder / "gatectl").chmod(0o755)
    return folder


def _shell(argv: list[str], home: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    program = shutil.which(argv[0])
    assert program is not None, f"this test drives {argv[0]}: apt install {argv[0]}"
    path = os.pathsep.join([str(_patient(home)), os.environ["PATH"]])
    shell = Shell(
        [program, *argv[1:]], {**environment, "HOME": str(home), "PATH": path, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    )
    try:
        assert shell.shows(PROMPT.strip()), shell
        shell.settle()
        yield shell
    finally:
        shell.close()
