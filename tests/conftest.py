"""What holds for the whole suite: which tests have the machine to themselves, and which run on a compiled copy."""

from __future__ import annotations

import fcntl
import os
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
