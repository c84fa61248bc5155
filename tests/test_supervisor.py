"""What the supervisor does when the machine gives no process; the rest of it is in `acceptance` and `faults`."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
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


def test_the_ready_line_is_one_write() -> None:
    """Several processes write to one log: what comes in two writes is torn apart by a line of another."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        said = "from gatewayd.supervisor import say; say('ready')"
        subprocess.run(
            [sys.executable, "-c", said],
            stderr=theirs.fileno(),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            check=True,
        )
        assert ours.recv(100) == b"ready\n"


@pytest.mark.parametrize("module", ["gatewayd.proxy", "gatewayd.control.main"])
def test_a_child_whose_supervisor_dies_before_it_says_anything_ends_quietly(module: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        argv = [sys.executable, "-m", module, str(theirs.fileno())]
        child = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    ours.close()
    assert child.communicate(timeout=30)[1] == b""
    assert child.returncode == 0
