"""What is longer than the terminal is high goes through a pager, and nothing else does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon, key

# Keeps what it is given in the file that is its first argument, and says so on the terminal.
KEEPS = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read()); print('paged')"
QUITS = "import sys; sys.stdin.readline(); sys.stdin.close(); print('seen enough')"
INTERRUPTS = (
    "import os, signal, sys; sys.stdin.read(1); os.kill(os.getppid(), signal.SIGINT); "
    "print(len(sys.stdin.read().splitlines()))"
)
# As one that is killed: the terminal stays raw, and nobody mends it but us.
LEAVES_IT_RAW = "import sys, tty; tty.setraw(1); sys.stdin.read()"
LONG, SHORT = ("key", "list", "--all"), ("service", "list")


@pytest.fixture
def screen(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> Path:
    """More keys than a screen has lines, and a pager; the file that it keeps what it shows in."""
    daemon.state["keys"] = [key(f"{n:08}", "ci", [], None) for n in range(3000)]
    del gatectl.environment["GATECTL_PAGER"]
    gatectl.environment.pop("LESS", None)
    kept = tmp_path / "kept"
    gatectl.environment["PAGER"] = pager(tmp_path, KEEPS, str(kept))
    return kept


def pager(folder: Path, script: str, *arguments: str) -> str:
    (folder / "pager.py").write_text(script)
    return " ".join([sys.executable, str(folder / "pager.py"), *arguments])


def test_a_long_table_goes_through_it_whole(gatectl: Gatectl, screen: Path) -> None:
    ended = gatectl.at_terminal(*LONG)
    assert (ended.code, ended.plain) == (0, "paged\n")
    assert len(screen.read_text().splitlines()) == 3001
    assert "\x1b[1mPREFIX" in screen.read_text()


def test_help_goes_through_it_as_well(gatectl: Gatectl, screen: Path) -> None:
    assert gatectl.at_terminal("service", "add", "--help").plain == "paged\n"
    assert screen.read_text().startswith("Usage: gatectl service add")


@pytest.mark.parametrize("lines", [2, 3, 4, 5])
def test_a_screen_is_what_fits_above_the_prompt(gatectl: Gatectl, screen: Path, lines: int) -> None:
    """Two services, one of which takes two lines, and a heading; and the line on which the prompt will be."""
    assert ("paged" in gatectl.at_terminal(*SHORT, lines=lines).plain) is (lines <= 4)


def test_what_is_said_beside_the_data_is_in_its_place(gatectl: Gatectl, screen: Path) -> None:
    assert gatectl.at_terminal("usage", "show", lines=3).plain == "paged\n"
    assert screen.read_text().startswith("Usage from 2026-11-20 02:00Z")
    assert gatectl.at_terminal("key", "list", "--limit", "50").plain == "paged\n"
    assert screen.read_text().endswith("gatectl: there are more; go on with --after 50, or take --all\n")


@pytest.mark.parametrize(
    ("more", "environment"),
    [
        ("--no-pager", {}),
        ("", {"GATECTL_PAGER": ""}),
        ("", {"GATECTL_PAGER": "cat"}),
        ("", {"TERM": "dumb"}),
        ("", {"GATECTL_PAGER": "/no/such/pager"}),
        ("", {"GATECTL_PAGER": "'unclosed"}),
    ],
)
def test_without_one_it_is_shown_at_once(
    gatectl: Gatectl, screen: Path, more: str, environment: dict[str, str]
) -> None:
    gatectl.environment |= environment
    ended = gatectl.at_terminal(*LONG, *more.split())
    assert (ended.code, len(ended.plain.splitlines())) == (0, 3001)
    assert gatectl.at_terminal(*more.split(), "service", "add", "--help").plain.startswith("Usage:")
    assert not screen.exists()


def test_a_pipe_and_a_tail_have_none(gatectl: Gatectl, screen: Path) -> None:
    assert len(gatectl(*LONG).out.splitlines()) == 3001
    assert gatectl.at_terminal("usage", "tail", lines=4).plain.count("\n") > 4
    assert not screen.exists()


def test_a_secret_stays_on_the_screen(gatectl: Gatectl, screen: Path) -> None:
    assert "gw_nw22pq33" in gatectl.at_terminal("key", "create", lines=2).plain
    assert not screen.exists()


def test_gatectls_own_comes_first(gatectl: Gatectl, screen: Path, tmp_path: Path) -> None:
    gatectl.environment["GATECTL_PAGER"] = gatectl.environment["PAGER"]
    gatectl.environment["PAGER"] = "/no/such/pager"
    assert gatectl.at_terminal(*LONG).plain == "paged\n"


@pytest.mark.parametrize(("given", "options"), [(None, "FRX"), ("-i", "-i")])
def test_less_is_told_to_show_colours(
    gatectl: Gatectl, screen: Path, tmp_path: Path, given: str | None, options: str
) -> None:
    if given:
        gatectl.environment["LESS"] = given
    gatectl.environment["PAGER"] = pager(tmp_path, "import os; print(os.environ['LESS'])")
    assert gatectl.at_terminal(*LONG).plain == f"{options}\n"


def test_quitting_early_is_no_error_and_ends_the_reading(
    gatectl: Gatectl, screen: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    gatectl.environment["PAGER"] = pager(tmp_path, QUITS)
    ended = gatectl.at_terminal(*LONG)
    assert (ended.code, ended.plain) == (0, "seen enough\n")
    assert len(daemon.requests) < 4  # of the pages; the last one is empty


def test_ctrl_c_is_the_pagers(gatectl: Gatectl, screen: Path, tmp_path: Path) -> None:
    gatectl.environment["PAGER"] = pager(tmp_path, INTERRUPTS)
    ended = gatectl.at_terminal(*LONG)
    assert (ended.code, ended.plain) == (0, "3001\n")


def test_the_exit_code_is_the_commands(gatectl: Gatectl, screen: Path) -> None:
    ended = gatectl.at_terminal("doctor", lines=3)
    assert (ended.code, ended.plain) == (9, "paged\n")


def test_an_error_comes_when_the_pager_has_gone(gatectl: Gatectl, screen: Path, daemon: FakeDaemon) -> None:
    daemon.state["keys"][1500] = {}  # has no id
    ended = gatectl.at_terminal("key", "list", "--all", "-o", "id")
    assert ended.plain == "paged\ngatectl: these have no ids; leave out -o id and -q\n"
    assert ended.code == 2


def test_the_terminal_is_left_as_it_was(gatectl: Gatectl, screen: Path, tmp_path: Path) -> None:
    gatectl.environment["PAGER"] = pager(tmp_path, LEAVES_IT_RAW)
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    done = subprocess.run(gatectl.argv(*LONG), env=gatectl.environment, stdin=its, stdout=its, stderr=its, timeout=60)
    assert done.returncode == 0
    assert termios.tcgetattr(its) == before
    os.close(ours)
    os.close(its)
