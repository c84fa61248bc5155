"""A backup under traffic, put back after the gateway was killed: the bill of the moment it was made."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.acceptance.conftest import NewHouse


def test_a_backup_under_load_is_a_gateway_of_its_own(new_house: NewHouse, tmp_path: Path) -> None:
    house = new_house()
    house.service("orders")
    secret = house.key("--service", "orders")
    over, calls = threading.Event(), [0]

    def load() -> None:
        while not over.is_set():
            assert house.call("/orders/1", secret).status in (200, 429)
            calls[0] += 1

    loading = threading.Thread(target=load)
    loading.start()
    try:
        while calls[0] < 200:
            over.wait(0.01)
        before = calls[0]
        made = house.gatectl.json("backup", "--out", str(tmp_path / "a.tar"))
        after = calls[0] + 1
    finally:
        over.set()
        loading.join()
    assert made["files"] >= 3
    os.killpg(house.gateway.daemon.process.pid, signal.SIGKILL)
    house.gateway.daemon.process.wait()
    restored = tmp_path / "restored"
    house.gatectl.do("restore", str(tmp_path / "a.tar"), "--state-dir", str(restored))
    again = new_house(1, ["--state-dir", str(restored)])
    total = again.gatectl.json("usage", "show")["total"]
    assert before <= total["requests"] + total["refused"] <= after
    assert again.gatectl.json("usage", "verify")["ok"]
    assert again.call("/orders/1", secret).status in (200, 429)  # its key works
