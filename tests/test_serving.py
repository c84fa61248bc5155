"""What a server does when a part that it needs fails."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gatewayd.serving import DrainingServer, server_config


async def _fail() -> None:
    raise RuntimeError("the sweeper has tripped")


async def _end() -> None:
    return None


@pytest.mark.parametrize(("part", "drains"), [(_fail, True), (_end, False)])
def test_a_part_that_fails_drains_the_process(part: object, drains: bool, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []

    async def run() -> DrainingServer:
        server = DrainingServer(server_config(None, 1))
        server.on_drain = lambda: told.append(True)
        task = asyncio.create_task(part())  # type: ignore[operator]
        server.needs(task)
        await asyncio.wait([task])
        await asyncio.sleep(0)
        return server

    with caplog.at_level(logging.CRITICAL):
        server = asyncio.run(run())
    assert server.should_exit is drains
    assert bool(told) is drains
    assert ("the sweeper has tripped" in caplog.text) is drains
