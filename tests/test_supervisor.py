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

from gatewayd.binding import address_of, bind_remote
from gatewayd.boot import Boot
from gatewayd.errors import StartupError
from gatewayd.settings import Settings, load
from gatewayd.supervisor import Child, Supervisor, check_files


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


@pytest.mark.parametrize("module", ["gatewayd.proxy", "gatewayd.control.main"])
def test_a_child_runs_nothing_that_lies_in_the_current_directory(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may start it where anybody can write."""
    (tmp_path / "asyncio.py").write_text("open('was-run', 'w')\n")
    monkeypatch.chdir(tmp_path)

    async def spawned() -> int:
        child = Child("child", module, Boot({}, (), "127.0.0.1:8080"))
        await Supervisor._spawn(child)
        assert child.process is not None
        assert child.connection is not None
        child.connection.close()  # as if the supervisor had died: it ends quietly
        return await child.process.wait()

    assert asyncio.run(spawned()) == 0
    assert not (tmp_path / "was-run").exists()


TLS = {"admin_tls_cert": "/nowhere.pem", "admin_tls_key": "/nowhere.pem"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"admin_listen": "0.0.0.0:0"}, "set admin_tls_cert and admin_tls_key, or listen on 127.0.0.1"),
        ({"admin_listen": "[::]:0"}, "set admin_tls_cert and admin_tls_key, or listen on 127.0.0.1"),
        ({"admin_listen": "192.0.2.1:9443"}, "set admin_tls_cert and admin_tls_key, or listen on 127.0.0.1"),
        ({"admin_listen": "nowhere.invalid:1"}, "choose another with --admin-listen"),
        ({"admin_listen": "9443"}, "setting admin_listen: must be HOST:PORT"),
        ({"admin_tls_cert": "x.pem"}, "admin_tls_cert is set and admin_tls_key is not"),
        ({"admin_tls_key": "x.pem"}, "admin_tls_key is set and admin_tls_cert is not"),
        (TLS, "admin_tls_cert is set and admin_listen is not"),
        ({"admin_listen": "0.0.0.0:0", **TLS}, "admin_tls_cert /nowhere.pem cannot be read"),
        ({"admin_tls_key": "-----BEGIN PRIVATE KEY-----"}, "must be the path of a file"),
    ],
)
def test_an_admin_api_that_would_not_do_is_refused_in_one_line(
    flags: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(StartupError) as refused:
        check_files(load({"state_dir": tmp_path, "admin_socket": tmp_path / "s", **flags}))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "BEGIN" not in str(refused.value)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "127.9.9.9:0"])
def test_on_loopback_the_admin_api_may_be_plain(listen: str, tmp_path: Path) -> None:
    settings = load({"state_dir": tmp_path, "admin_socket": tmp_path / "s", "admin_listen": listen})
    check_files(settings)
    with bind_remote(settings) as bound:
        assert bound is not None
        assert address_of(bound).startswith("127.")
        again = settings.model_copy(update={"admin_listen": address_of(bound)})
        with pytest.raises(StartupError, match="address already in use; choose another with --admin-listen"):
            bind_remote(again).__enter__()
