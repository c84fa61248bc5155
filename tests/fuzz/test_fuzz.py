"""A little damage in every run of the suite, half a minute of it in `make test-all`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import judge
from tests.fuzz.__main__ import example
from tests.fuzz.memory import Gateway, gateway

SEEDS = st.integers(0, (1 << 48) - 1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS)
def test_damage(running: Gateway, seed: int) -> None:
    example(running, seed)


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes(running: Gateway, pieces: list[bytes]) -> None:
    """Bytes that were never a message, from either side."""
    judge.fuzz_requests(running, pieces)
    judge.fuzz_answer(running, pieces, b"GET", closes=True)


@pytest.mark.slow
def test_damage_for_half_a_minute(running: Gateway) -> None:
    until = time.monotonic() + 30
    first = time.time_ns() & 0xFFFFFFFFFFFF  # other examples every time
    for seed in itertools.takewhile(lambda _: time.monotonic() < until, itertools.count(first)):
        try:
            example(running, seed)
        except Exception as error:
            error.add_note(f"see it again: python -m tests.fuzz --seed {seed}")
            raise
