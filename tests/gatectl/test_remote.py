"""A gateway somewhere else: how it is reached, what its clock says, and what goes wrong on the way."""

from __future__ import annotations

import pytest

from gatectl import wire
from gatectl.client import Gateway
from tests.gatectl.fake_daemon import FakeDaemon


def test_the_gateways_clock_is_that_of_its_last_answer(daemon: FakeDaemon) -> None:
    gateway = Gateway(str(daemon.path))
    assert gateway.clock is None
    gateway.get("/v1/services")
    assert gateway.clock == 1795230000  # 2026-11-21T03:00:00Z
    streamed = Gateway(str(daemon.path))
    list(streamed.blocks("/v1/usage/tail", {}, 5))
    assert streamed.clock == 1795230000


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 21 Nov 2026 03:00:00 CET", "Sat, 41 Nov 2026 03:00:00 GMT"])
def test_a_date_that_is_none_is_no_clock(date: str) -> None:
    assert wire.seconds_of(date.encode()) is None
