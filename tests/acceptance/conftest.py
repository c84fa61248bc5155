"""Gateways for tests: one for a whole module, or one of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.house import House

NewHouse = Callable[..., House]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two workers and the counting upstream, shared by the tests of a module, which use services of their own."""
    house = House(tmp_path_factory.mktemp("house"))
    try:
        yield house
    finally:
        house.end()


@pytest.fixture
def new_house(tmp_path: Path) -> Iterator[NewHouse]:
    """Starts gateways that this test alone uses, and may kill."""
    with ExitStack() as stack:
        count = 0

        def start(workers: int = 2, options: Sequence[str] = (), prefix: Sequence[str] = ()) -> House:
            nonlocal count
            count += 1
            folder = tmp_path / f"house-{count}"
            folder.mkdir()
            house = House(folder, workers, options, prefix)
            stack.callback(house.end)
            return house

        yield start
