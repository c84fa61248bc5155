"""More connections and requests than a worker takes: the first ones are served, the others hear 503 at once."""

from __future__ import annotations

import socket
import time
from collections import Counter

import pytest

from gatewayd.keys import new_key
from gatewayd.proxy.lookups import MISSES_BURST, MISSES_PER_S
from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House, wait_until
from tests.acceptance.load import Answer, get, run_during

LIMIT = 50


def view(house: House) -> dict[str, int]:
    return dict(house.admin("GET", "/v1/status")["workers"][0])


def heard(connection: socket.socket) -> bytes:
    """All that comes until the gateway closes; nothing where it goes on waiting."""
    connection.settimeout(0.05)
    received = b""
    try:
        while data := connection.recv(4096):
            received += data
    except TimeoutError:
        pass
    return received


def test_a_rush_of_connections(new_house: NewHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYD_CONNECTIONS_LIMIT", str(LIMIT))
    house = new_house(workers=1)
    house.service("api", "--auth", "none")
    connections = [socket.socket() for _ in range(LIMIT + 200)]
    for connection in connections:
        connection.setblocking(False)
        connection.connect_ex(house.address)
    answers = [b""] * len(connections)

    def turned_away() -> int:
        """Who has not heard anything may yet."""
        answers[:] = [answer or heard(connection) for answer, connection in zip(answers, connections, strict=True)]
        return sum(map(bool, answers))

    wait_until(lambda: turned_away() >= 200)
    assert turned_away() == 200
    assert Counter(answer[9:12] for answer in answers) == {b"": LIMIT, b"503": 200}
    assert all(b'"code":"overloaded"' in answer for answer in answers if answer)
    assert view(house)["connections"] == LIMIT
    inside = connections[answers.index(b"")]
    inside.settimeout(5)
    inside.sendall(get("/api/x"))
    assert inside.recv(4096).startswith(b"HTTP/1.1 200 ")
    for connection in connections:
        connection.close()
    wait_until(lambda: house.call("/api/x").status == 200)


def test_a_rush_of_requests(new_house: NewHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is on the record, and costs neither a token nor money."""
    monkeypatch.setenv("GATEWAYD_IN_FLIGHT_LIMIT", "8")
    house = new_house(workers=1)
    house.service("api")
    house.gatectl.do("plan", "add", "plenty", "--rate", "1000000/s", "--quota", "1000000/month")
    key = house.key("--plan", "plenty")
    load = house.load()
    run_during(lambda: wait_until(lambda: load.ok > 100), load, [get("/api/slow?ms=50", key)], 32)
    assert load.answers.keys() == {200, 503}
    assert (load.broken, load.unheard, load.stale, load.refused) == (0, 0, 0, 0)
    assert house.counting.served("/api/slow") == load.ok
    used = wait_until(lambda: house.usage("--service", "api"))
    assert (used["requests"], used["billable"]) == (load.ok, load.ok)
    assert used["refused"] == load.answers[503]
    wait_until(lambda: (view(house)["in_flight"], view(house)["connections"]) == (0, 0))


@pytest.mark.alone
def test_a_flood_of_made_up_keys(new_house: NewHouse) -> None:
    """Each has the right checksum. Who has a key is served, and control is asked no more than it can bear."""
    house = new_house(workers=1)
    house.service("api")
    house.gatectl.do("plan", "add", "plenty", "--rate", "1000000/s", "--quota", "1000000/month")
    key = house.key("--plan", "plenty")
    assert house.call("/api/x", key).status == 200
    callers = 32
    made_up = [new_key()[1] for _ in range(callers * 400)]
    known: Counter[int] = Counter()
    known_s: list[float] = []

    def on_answer(answer: Answer) -> None:
        if answer.caller == 0:
            known[answer.status] += 1
            known_s.append(answer.ended - answer.began)

    def flood() -> None:
        """Each key once: a caller of `load` repeats itself."""
        waiting = [socket.create_connection(house.address, timeout=10) for _ in range(callers)]
        for at in range(0, len(made_up), callers):
            for connection, forged in zip(waiting, made_up[at : at + callers], strict=True):
                connection.sendall(get("/api/x", forged))
            for connection in waiting:
                flooded[int(connection.recv(4096)[9:12])] += 1
        for connection in waiting:
            connection.close()

    flooded: Counter[int] = Counter()
    load = house.load()
    load.on_answer = on_answer
    began = time.monotonic()
    run_during(flood, load, [get("/api/x", key)], 1)
    took_s = time.monotonic() - began
    print(f"{dict(flooded)} in {took_s:.1f} s, meanwhile {dict(known)}, slowest {load.slowest_s * 1000:.0f} ms")
    assert flooded.keys() == {401, 503}
    assert flooded[401] <= MISSES_BURST + MISSES_PER_S * took_s
    assert known.keys() == {200}
    assert sum(took_s > 0.5 for took_s in known_s) <= 2  # of hundreds: the machine itself may stand still
    assert view(house)["cached_keys"] == 1
