"""A journal without room: what is answered is billed or, where that is asked for, counted as lost; and it passes.

The disk is full in two ways: journals that control cannot take away reach `journal_limit_bytes`, and a small file
system has no block left.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.records import SEGMENT_BYTES, pack_header
from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, wait_until
from tests.acceptance.load import get, run_during

CALLERS = 8
FLOOD = 400  # refusals in one write
GIVE_UP_S = 60.0


def settings_file(folder: Path, **settings: str | int) -> list[str]:
    file = folder / "gatewayd.toml"
    file.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return ["--config", str(file)]


def furnished(house: House) -> str:
    house.service("api")
    house.gatectl.do("plan", "add", "unlimited")
    return house.key("--plan", "unlimited")


@contextmanager
def journals_of_others(house: House, count: int) -> Iterator[None]:
    """So many segments of workers that seem to live: control leaves them where they are."""
    held = []
    for number in range(count):
        path = house.state_dir / "journal" / f"{number:020d}-ffffffff-000000.gwj"
        descriptor = os.open(path.with_suffix(".new"), os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, pack_header(1, b"\xff" * 16))
        os.truncate(descriptor, SEGMENT_BYTES)
        path.with_suffix(".new").rename(path)
        held.append((path, descriptor))
    try:
        yield
    finally:
        for path, descriptor in held:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def fill_journal(house: House) -> None:
    """Refusals are records too, and cost no upstream: send them until there is no room for any."""
    give_up_at = time.monotonic() + GIVE_UP_S
    with socket.create_connection(house.address) as sock:
        while not house.admin("GET", "/v1/status")["journal"]["full"]:
            assert time.monotonic() < give_up_at
            for _ in range(10):
                sock.sendall(get("/api/refused") * FLOOD)
                heads = b""
                while heads.count(b"HTTP/1.1 ") < FLOOD or not heads.endswith(b"}"):
                    heads += sock.recv(1 << 20)


def journal_of(house: House) -> dict[str, object]:
    return dict(house.admin("GET", "/v1/status")["journal"])


@pytest.mark.parametrize("on_full", ["refuse", "serve"])
def test_journals_at_their_limit(new_house: NewHouse, tmp_path: Path, on_full: str) -> None:
    limit = 4 * SEGMENT_BYTES
    house = new_house(1, settings_file(tmp_path, on_full=on_full, journal_limit_bytes=limit))
    key = furnished(house)
    load = house.load()
    seen: Counter[int] = Counter()

    def happen() -> None:
        with journals_of_others(house, 3):
            fill_journal(house)
            answered = load.answers.copy()
            wait_until(lambda: sum(load.answers.values()) >= sum(answered.values()) + 50)
            seen.update(load.answers - answered)
            problems = house.admin("GET", "/v1/status")["problems"]
            assert (
                f"the journal cannot be written: journals have reached {limit} bytes (journal_limit_bytes)" in problems
            )
            assert load.answers.keys() == ({200, 503} if on_full == "refuse" else {200})
            if on_full == "refuse":
                refused = house.call("/api/x", key)
                assert (refused.status, refused.json()["code"]) == (503, "journal_full")
                assert refused.headers["retry-after"] == "5"
        before = load.ok
        wait_until(lambda: load.ok >= before + 50)

    run_during(happen, load, [get("/api/x", key)], CALLERS)
    print(f"{on_full}: {dict(load.answers)}, while full {seen}")
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)
    assert house.counting.served("/api/x") == load.ok
    wait_until(lambda: not journal_of(house)["full"])
    billed = house.usage("--key", key[:11])["billable"]
    wait_until(lambda: journal_of(house)["lost"] == load.ok - billed)  # workers tell once a second what they have lost
    lost = journal_of(house)["lost"]
    assert isinstance(lost, int)
    if on_full == "refuse":
        assert (billed, lost) == (load.ok, 0), "all that was answered 200 is billed"
    else:
        assert lost > 0
        assert billed + lost == load.ok
        problems = house.admin("GET", "/v1/status")["problems"]
        assert f"{lost} requests were served and not recorded, since the journal had no room" in problems
    assert house.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_full", ["refuse", "serve"])
def test_a_file_system_that_is_full(new_house: NewHouse, tmp_path: Path, on_full: str) -> None:
    """Room for two segments and a bit, in a mount that only the gateway sees; control is stopped meanwhile."""
    mounted = tmp_path / "house-1" / "state" / "journal"
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    script = f'mkdir -p "{mounted}" && mount -t tmpfs -o size=9m none "{mounted}" && exec "$@"'
    house = new_house(1, settings_file(tmp_path, on_full=on_full), [*alone, "sh", "-c", script, "sh"])
    key = furnished(house)
    assert house.call("/api/x", key).status == 200
    load = house.load()

    def happen() -> None:
        control = house.control()
        os.kill(control, signal.SIGSTOP)
        try:
            give_up_at = time.monotonic() + GIVE_UP_S
            with socket.create_connection(house.address) as sock:
                for _ in range(2 * 32767 // FLOOD + 20):
                    assert time.monotonic() < give_up_at
                    sock.sendall(get("/api/refused") * FLOOD)
                    heads = b""
                    while heads.count(b"HTTP/1.1 ") < FLOOD or not heads.endswith(b"}"):
                        heads += sock.recv(1 << 20)
            answered = sum(load.answers.values())
            wait_until(lambda: sum(load.answers.values()) >= answered + 50)
            if on_full == "refuse":
                assert house.call("/api/x", key).json()["code"] == "journal_full"
        finally:
            os.kill(control, signal.SIGCONT)
        before = load.ok
        wait_until(lambda: load.ok >= before + 50)

    run_during(happen, load, [get("/api/x", key)], CALLERS)
    print(f"{on_full}: {dict(load.answers)}")
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)
    assert house.counting.served("/api/x") == load.ok + 1
    billed = house.usage("--key", key[:11])["billable"]
    wait_until(lambda: journal_of(house)["lost"] == load.ok + 1 - billed)
    lost = journal_of(house)["lost"]
    assert isinstance(lost, int)
    assert billed + lost == load.ok + 1
    assert (lost > 0) == (on_full == "serve")
    assert (503 in load.answers) == (on_full == "refuse")
    assert house.stop() == 0


def test_records_that_are_synced_outlive_a_killed_worker(new_house: NewHouse) -> None:
    house = new_house(2, ["--journal-sync", "record"])
    key = furnished(house)
    load = house.load()

    def happen() -> None:
        wait_until(lambda: load.ok > 200)
        killed = house.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in house.worker_pids() and house.all_workers_serve())
        answered = load.ok
        wait_until(lambda: load.ok > answered + 100)

    run_during(happen, load, [get("/api/x", key)], CALLERS)
    billed, served = house.usage("--key", key[:11])["billable"], house.counting.served("/api/x")
    print(f"received {load.ok} <= billed {billed} <= served {served}")
    assert load.answers.keys() == {200}
    assert load.ok <= billed <= served <= load.ok + CALLERS
    assert house.stop() == 0
