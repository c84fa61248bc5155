"""What holds for the whole suite: which tests can run on a compiled copy (see `make test-compiled`)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gatewayd.proxy import head

COMPILED = not head.__file__.endswith(".py")


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
