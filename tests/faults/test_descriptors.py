"""A worker whose descriptors run out: it goes on serving, says so in few words, and does not spin."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time

import pytest

from gatewayd.proxy.door import RESERVED_DESCRIPTORS
from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import wait_until
from tests.faults.process import Process

FEW = RESERVED_DESCRIPTORS + 40
SPARE = 6  # descriptors that the worker has left


def listed(connections: list[socket.socket]) -> tuple[list[socket.socket], int]:
    """Those that are open, and how many were ended."""
    held, ended = [], 0
    for connection in connections:
        connection.settimeout(0.1)
        try:
            connection.recv(1)
            ended += 1
        except TimeoutError:
            held.append(connection)
        except ConnectionResetError:
            ended += 1
    return held, ended


def status_over(connection: socket.socket) -> int:
    connection.settimeout(5)
    connection.sendall(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
    return int(connection.recv(4096).split(b" ")[1])


@pytest.mark.alone
def test_no_descriptor_is_left_for_a_connection(new_house: NewHouse) -> None:
    house = new_house(workers=1)
    house.service("api", "--auth", "none")
    assert house.call("/api/x").status == 200
    worker = Process(house.worker_pids()[0])
    wait_until(lambda: house.admin("GET", "/v1/status")["workers"][0]["connections"] == 0)
    said = len(house.gateway.daemon.output())
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (worker.descriptors() + SPARE, hard))
    connections = [socket.create_connection(house.address, timeout=5) for _ in range(60)]
    try:
        wait_until(lambda: listed(connections)[1] >= 60 - SPARE)  # the others are not left to wait
        held, ended = listed(connections)
        assert (len(held), ended) == (SPARE, 60 - SPARE)
        before_us = worker.cpu_us()
        time.sleep(1.0)
        assert worker.cpu_us() - before_us < 200_000, "it spins"
        assert [status_over(connection) for connection in held] == [200] * SPARE  # by the one idle upstream connection
        more = [socket.create_connection(house.address, timeout=5) for _ in range(60)]
        assert [status_over(connection) for connection in held] == [200] * SPARE
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        for connection in connections:
            connection.close()
    for connection in more:
        connection.close()
    wait_until(lambda: house.call("/api/x").status == 200)  # it listens still
    assert house.gateway.daemon.output()[said:] == ""


def test_a_low_limit_of_open_files_lowers_the_number_of_connections(new_house: NewHouse) -> None:
    """With what is left, upstreams are reached; beyond it a connection hears 503."""
    house = new_house(workers=1)
    house.service("api", "--auth", "none")
    before = house.worker_pids()
    resource.prlimit(house.supervisor, resource.RLIMIT_NOFILE, (200, FEW))  # the next worker inherits it
    os.kill(house.supervisor, signal.SIGHUP)
    wait_until(lambda: len(house.worker_pids()) == 1 and house.worker_pids() != before)
    (worker,) = house.worker_pids()
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (FEW, FEW)
    assert "connections_limit is lowered from 16384 to 20" in house.gateway.daemon.output()
    connections = [socket.create_connection(house.address, timeout=5) for _ in range(20)]
    wait_until(lambda: house.admin("GET", "/v1/status")["workers"][0]["connections"] == 20)
    assert house.call("/api/x").status == 503
    for connection in connections:
        connection.sendall(b"GET /api/slow?ms=500 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [connection.recv(4096)[9:12] for connection in connections] == [b"200"] * 20
    for connection in connections:
        connection.close()
    wait_until(lambda: house.call("/api/x").status == 200)
    wait_until(lambda: re.search(r"connections turned away: \d+ \(20 are open\)", house.gateway.daemon.output()))
