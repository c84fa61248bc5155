"""What the demo prints is what a person would have seen."""

from __future__ import annotations

import os
import sys

import pytest

from tests.daemons import DaemonError
from tests.terminal import Terminal

_SCRIPT = r"import os, sys; print('\033[1mtty', sys.stdout.isatty(), os.get_terminal_size().columns, '\033[0m')"


def test_a_command_believes_to_be_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Terminal().run(["gatectl", "status", "a b"], [sys.executable, "-c", _SCRIPT], dict(os.environ))
    assert shown == "tty True 120 \n"
    assert capsys.readouterr().out == "\n$ gatectl status 'a b'\ntty True 120 \n"


def test_a_command_that_fails_is_one_line() -> None:
    with pytest.raises(DaemonError, match="gatectl x ended with exit code 7"):
        Terminal().run(["gatectl", "x"], [sys.executable, "-c", "import sys; sys.exit(7)"], dict(os.environ))


def test_long_output_comes_whole() -> None:
    script = "print(*range(100_000), sep='\\n')"
    shown = Terminal().run(["seq"], [sys.executable, "-c", script], dict(os.environ))
    assert shown.split() == [str(number) for number in range(100_000)]
