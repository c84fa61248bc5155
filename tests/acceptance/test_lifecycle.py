"""Starting, draining, rolling, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import uvloop

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, alive, wait_until
from tests.acceptance.load import get, run_during
from tests.daemons import ROOT


def test_sigterm_lets_what_is_in_flight_end_and_leaves_nothing_behind(new_house: NewHouse) -> None:
    house = new_house()
    house.service("api", "--auth", "none")
    pids = house.pids()
    assert len(pids) == 4  # supervisor, control, two workers
    answers: list[int] = []
    callers = [threading.Thread(target=lambda: answers.append(house.call("/api/held").status)) for _ in range(6)]
    for caller in callers:
        caller.start()
    wait_until(lambda: house.counting.served("/api/held") == 6)
    idle = socket.create_connection(house.address, timeout=10)
    wait_until(lambda: sum(worker["connections"] for worker in house.admin("GET", "/v1/status")["workers"]) == 7)
    os.kill(house.supervisor, signal.SIGTERM)
    with idle:
        assert idle.recv(1) == b""  # a connection without a request is not kept until the others have ended
    assert answers == []
    house.counting.release()
    assert house.gateway.daemon.process.wait(20) == 0
    for caller in callers:
        caller.join(5)
    assert answers == [200] * 6
    assert not [pid for pid in pids if alive(pid)]
    with socket.socket() as probe:
        assert probe.connect_ex(house.address) != 0
    assert not house.socket.exists()
    assert sorted(path.name for path in house.state_dir.glob("*.sock")) == []
    house.start()
    assert house.usage("--service", "api")["requests"] == 6
    assert house.stop() == 0


def test_what_outlasts_the_drain_is_answered_and_recorded(new_house: NewHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request waits for its answer, one has half of it. Both end with the worker, on the journal."""
    monkeypatch.setenv("GATEWAYD_DRAIN_TIMEOUT_S", "1")
    house = new_house(workers=1)
    house.service("api", "--auth", "none")
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        house.gatectl.do("service", "add", "half", f"http://127.0.0.1:{upstream.getsockname()[1]}", "--auth", "none")
        with socket.create_connection(house.address) as begun, socket.create_connection(house.address) as waiting:
            begun.sendall(get("/half/"))
            waiting.sendall(get("/api/slow?ms=20000"))
            answering, _ = upstream.accept()
            with answering:
                assert answering.recv(1000)
                answering.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                heard = begun.recv(1000)
                wait_until(lambda: house.counting.served("/api/slow") == 1)
                os.kill(house.supervisor, signal.SIGTERM)
                assert house.gateway.daemon.process.wait(20) == 0
            with suppress(ConnectionResetError):
                heard += begun.recv(1000)
            assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
            assert heard.endswith(b"\r\n\r\nhalf")
            assert waiting.recv(1000).startswith(b"HTTP/1.1 503 ")
    log = house.gateway.daemon.output()
    assert "Traceback" not in log, log
    house.start()
    for name in ("api", "half"):
        usage = house.usage("--service", name)
        assert (usage["requests"], usage["errors"], usage["billable"]) == (1, 1, 0)


def test_new_connections_are_refused_while_it_drains(new_house: NewHouse) -> None:
    house = new_house()
    house.service("api", "--auth", "none")
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(house.call("/api/held").status))
    caller.start()
    wait_until(lambda: house.counting.served("/api/held") == 1)
    os.kill(house.supervisor, signal.SIGTERM)

    def refused() -> bool:
        with socket.socket() as late:
            late.settimeout(5)
            return late.connect_ex(house.address) == errno.ECONNREFUSED

    wait_until(refused)
    assert answers == []  # they are not left to wait until the drain is over
    house.counting.release()
    caller.join(10)
    assert answers == [200]
    assert house.gateway.daemon.process.wait(20) == 0


@pytest.mark.alone
def test_sighup_rolls_the_workers_without_a_failed_request(new_house: NewHouse) -> None:
    house = new_house()
    house.service("api")
    house.gatectl.do("plan", "add", "unlimited")
    key = house.key("--plan", "unlimited")
    load = house.load()
    slowest_s: list[float] = []

    def serve_on() -> None:
        served = load.ok
        wait_until(lambda: load.ok > served + 200)

    def roll_twice() -> None:
        for _ in range(2):
            serve_on()
            before, load.slowest_s = house.worker_pids(), 0.0
            assert len(before) == 2
            os.kill(house.supervisor, signal.SIGHUP)
            wait_until(partial(rolled, house, before))
            slowest_s.append(load.slowest_s)
        serve_on()

    run_during(roll_twice, load, [get("/api/x", key)], 16)
    assert (load.broken, load.unheard, load.refused) == (0, 0, 0)
    assert load.answers.keys() == {200}
    assert len(load.workers) == 6
    # The old one serves until the new one does, so nobody waits for a start, which takes longer than this. In one of
    # two rolls: in the other, it was perhaps the machine that stood still.
    assert min(slowest_s) < 0.5, slowest_s
    assert house.counting.served("/api/x") == load.ok == house.usage("--service", "api")["requests"]
    assert house.stop() == 0


def rolled(house: House, before: list[int]) -> bool:
    now = house.worker_pids()
    return len(now) == 2 and not set(now) & set(before) and house.all_workers_serve()


def test_two_gateways_on_one_state_folder(new_house: NewHouse) -> None:
    house = new_house()
    house.service("api", "--auth", "none")
    argv = [sys.executable, "-m", "gatewayd", "--listen", "127.0.0.1:0", "--state-dir", str(house.state_dir)]
    argv += ["--admin-socket", str(house.folder / "second.sock"), "--workers", "1"]
    second = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1
    [line] = second.stderr.splitlines()
    assert "another gatewayd" in line
    assert str(house.state_dir) in line
    assert not (house.folder / "second.sock").exists()
    # The first is none the worse for it: a control that is started anew finds its workers.
    killed = house.control()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: house.control() != killed and house.all_workers_serve())
    house.service("more", "--auth", "none")
    assert house.call("/more/x").status == 200


def test_ready_is_told_to_systemd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        argv = [sys.executable, "-m", "gatewayd", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state")]
        argv += ["--admin-socket", str(tmp_path / "admin.sock"), "--workers", "1"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        daemon = subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        try:
            assert systemd.recv(100) == b"READY=1"
            daemon.terminate()
            assert systemd.recv(100) == b"STOPPING=1"
            assert daemon.wait(20) == 0
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait(10)


def test_many_short_connections_leave_no_descriptor_behind(house: House) -> None:
    house.service("short")
    house.gatectl.do("plan", "add", "unlimited")
    key = house.key("--plan", "unlimited")
    workers = house.worker_pids()

    def open_files() -> list[int]:
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers]

    def memory_kib() -> list[int]:
        lines = [Path(f"/proc/{pid}/status").read_text() for pid in workers]
        return [int(text.split("VmRSS:")[1].split()[0]) for text in lines]

    async def short(amount: int) -> int:
        """`amount` requests, ten on each connection, 20 connections at a time."""
        ok = 0
        request = get("/short/x", key)

        async def caller(connections: int) -> None:
            nonlocal ok
            for _ in range(connections):
                reader, writer = await asyncio.open_connection(*house.address)
                for _ in range(10):
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                    ok += head.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(2) == b"ok"
                writer.close()
                await writer.wait_closed()

        await asyncio.gather(*(caller(amount // 200) for _ in range(20)))
        return ok

    assert uvloop.run(short(2_000)) == 2_000  # pools, arenas and the first segment are there
    files, memory = open_files(), memory_kib()
    assert uvloop.run(short(20_000)) == 20_000
    # Of idle connections to the upstream there may be as many as callers; what would leak are 1,000 of each worker.
    wait_until(lambda: all(now <= before + 20 for now, before in zip(open_files(), files, strict=True)), 5)
    # A segment's pages count as memory once written: 20,000 records are 2.5 MiB of them.
    assert all(now <= before + 6_000 for now, before in zip(memory_kib(), memory, strict=True))
    assert house.counting.served("/short/x") == 22_000 == house.usage("--key", key[:11])["requests"]


def test_connections_that_are_cut_off_leave_no_descriptor_behind(house: House) -> None:
    house.service("cut", "--auth", "none")
    assert house.call("/cut/x").status == 200
    workers = house.worker_pids()
    before = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers)
    sent = [b"", b"GET /cut", get("/cut/slow?ms=1500"), b"POST /cut/x HTTP/1.1\r\nHost: a\r\n"]
    sent.append(b"POST /cut/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    for number in range(200):
        with socket.create_connection(house.address) as connection:
            connection.sendall(sent[number % len(sent)])
            if number % 2:  # reset instead of closed; after a FIN, a request that is whole still gets its answer
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def settled() -> bool:
        # 20 requests were whole when their connection was closed: their upstream connections are good, and kept.
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in workers) <= before + 24

    wait_until(settled, 10)
