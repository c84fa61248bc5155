"""What holds for the whole suite: which tests have the machine to themselves, and which run on a compiled copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from gatewayd.proxy import head

COMPILED = not head.__file__.endswith(".py")
# An example that takes longer than usual says that the machine is busy, and nothing of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Things that every process of the suite can lock, and that nobody has to clean up.
_TURNSTILE, _MACHINE = Path(__file__).parent, Path(__file__)

# What a person sets for themselves and our programs read: no test may depend on it, and none may write in their home.
_OF_A_PERSON = (
    "BROWSER", "COLUMNS", "EDITOR", "FORCE_COLOR", "LESS", "LINES", "LS_COLORS", "NO_COLOR", "PAGER",
    "PYTHONUNBUFFERED", "STATE_DIRECTORY", "VISUAL", "ZDOTDIR",
)  # fmt: skip
_OF_A_PERSON_BEGIN = ("GATECTL_", "GATEWAYD_", "XDG_")
_HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Every process of the suite runs as somebody who has just been given a machine: no settings, an empty home."""
    for name in [*os.environ]:
        if name in _OF_A_PERSON or (name.startswith(_OF_A_PERSON_BEGIN) and name != "GATEWAYD_SEED"):
            del os.environ[name]
    config.stash[_HOME] = tempfile.mkdtemp(prefix="gatewayd-home-")
    os.environ |= {"HOME": config.stash[_HOME], "SHELL": "/bin/sh", "TERM": "dumb"}


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside what pytest-timeout counts
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Most tests wait more than they compute, so xdist runs some at a time; those that are marked have the machine."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with _machine(fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH):
        return (yield)


@contextmanager
def _machine(how: int) -> Iterator[None]:
    """Whoever waits to be alone holds the turnstile, which lets nobody else begin: else two who share take turns."""
    with _opened(_MACHINE) as machine:
        with _opened(_TURNSTILE) as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(machine, how)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor to take a lock with, given back at the end at the latest."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compiled classes cannot be changed from outside: tests that do so, to look inside, run on the source alone."""
    if COMPILED:
        inside = [item for item in items if "monkeypatch" in _fixtures(item)]
        config.hook.pytest_deselected(items=inside)
        items[:] = [item for item in items if item not in set(inside)]


def pytest_report_header() -> str:
    return "gatewayd: compiled" if COMPILED else "gatewayd: from source"


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())
