"""What the supervisor does when the machine gives no process; the rest of it is in `acceptance` and `faults`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gatewayd.boot import Boot
from gatewayd.settings import Settings
from gatewayd.supervisor import Child, Supervisor


class Dead:
    """A process that has ended."""

    pid, returncode = 4242, -9

    async def wait(self) -> int:
        return self.returncode


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[Child] = []
    restarted = asyncio.Event()

    async def start(self: Supervisor, child: Child) -> None:
        tried.append(child)
        if len(tried) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        restarted.set()
        await asyncio.sleep(60)

    async def keep() -> None:
        worker: Any = Child("worker-0", "nowhere", Boot({}, (), "127.0.0.1:8080"))
        worker.process = Dead()
        supervisor = Supervisor(Settings(state_dir=tmp_path, admin_socket=tmp_path / "admin.sock", workers=1))
        keeping = asyncio.create_task(supervisor._keep(worker))
        await asyncio.wait_for(restarted.wait(), 5)
        keeping.cancel()

    monkeypatch.setattr(Supervisor, "_start", start)
    asyncio.run(keep())
    assert len(tried) == 2
