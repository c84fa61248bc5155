"""What control does with workers that answer, or do not."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.channel import Explained, FromControl, FromWorker, Recall
from gatewayd.control import inquiries
from gatewayd.control.inquiries import Inquiries
from gatewayd.errors import GatewayError
from gatewayd.frames import FrameProtocol
from gatewayd.told import Told
from tests.control.test_explain import TOLD

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Heard:
    """A worker's channel that notes what it is sent."""

    def __init__(self) -> None:
        self.sent: list[FromControl | FromWorker] = []
        self.channel = FrameProtocol(FromWorker, lambda *_: None, lambda _: None)
        self.channel.send = self.sent.append  # type: ignore[method-assign, assignment]


async def asked(open_: Inquiries, *workers: Heard) -> asyncio.Task[Told | None]:
    task = asyncio.create_task(open_.ask([worker.channel for worker in workers], lambda ask: Recall(ask, "x")))
    await asyncio.sleep(0)
    return task


async def test_the_first_who_knows_is_believed() -> None:
    open_, one, two = Inquiries(), Heard(), Heard()
    task = await asked(open_, one, two)
    assert one.sent == two.sent == [Recall(1, "x")]
    open_.answered(one.channel, Explained(1, None))
    await asyncio.sleep(0)
    assert not task.done()
    open_.answered(two.channel, Explained(1, TOLD))
    assert await task is TOLD
    open_.answered(two.channel, Explained(1, TOLD))  # too late for anybody
    assert repr(open_) == "<Inquiries 0 open>"


async def test_nobody_knows_once_all_have_said_so_or_are_gone() -> None:
    open_, one, two = Inquiries(), Heard(), Heard()
    task = await asked(open_, one, two)
    open_.answered(one.channel, Explained(1, None))
    open_.lost(two.channel)
    assert await task is None


async def test_a_worker_that_is_stuck_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "ANSWER_TIMEOUT_S", 0.01)
    with pytest.raises(GatewayError, match="did not answer in time"):
        await (await asked(Inquiries(), Heard()))


async def test_without_a_worker_there_is_nobody_to_ask() -> None:
    with pytest.raises(GatewayError, match="no worker is serving"):
        await Inquiries().ask([], lambda ask: Recall(ask, "x"))
