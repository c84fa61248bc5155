"""Clients that drip a head, drip a body or read slowly, by the hundred: what the worker holds for each of them, that
others are served meanwhile, and that each is ended by its deadline.

The slow ones take about a minute in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from tests.acceptance.house import House
from tests.faults.bodies import body_server
from tests.faults.process import MIB, Process

HEAD_TIMEOUT_S = 4
TIMEOUT_S = 5
LATE_S = 2.5  # connections between requests are looked at once a second, on a machine that is busy
TCP_CLOSE = b"\x07"  # include/net/tcp_states.h
KIB = 1 << 10
# What the worker holds of a connection beside its bytes (see test_idle).
BARE_BYTES = 20 * KIB
DRIPPED_BYTES = 24 * KIB  # of a head, before it drips
# Of an answer that streams: 64 KiB at which the loop says that the client is slow, and the one read from the upstream
# that went past it, at most 256 KiB. Most reads are shorter.
UNREAD_BYTES = 320 * KIB
UNSENT_BYTES = 64 * KIB  # of a body that waits for an upstream

Attack = Callable[[int, float], Awaitable[str]]


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch, body_server() as server:
        patch.setenv("GATEWAYD_HEAD_TIMEOUT_S", str(HEAD_TIMEOUT_S))
        house = House(tmp_path_factory.mktemp("besieged"), workers=1)
        try:
            house.service("api", "--auth", "none")
            house.gatectl.do("service", "add", "big", server.url, "--auth", "none", "--timeout", f"{TIMEOUT_S}s")
            house.service("slow", "--auth", "none", "--timeout", f"{TIMEOUT_S}s")
            yield house
        finally:
            house.end()


async def connected(port: int) -> socket.socket:
    sock = socket.socket()
    # What is unread is to stay with the worker: little room here, and segments as on a network, since those of a
    # loopback are so long that the first ten of them make the worker's kernel take the whole answer.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def until_ended(sock: socket.socket, drip: bytes, every_s: float) -> str:
    """Send `drip` again and again until the gateway ends it; the status of its answer, or `cut`."""
    loop = asyncio.get_running_loop()

    async def dripping() -> None:
        while True:
            await asyncio.sleep(every_s)
            await loop.sock_sendall(sock, drip)

    sending = loop.create_task(dripping())
    try:
        answer = await loop.sock_recv(sock, 4096)
        return answer[9:12].decode() if answer else "cut"
    except OSError:
        return "cut"
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled():
            sending.exception()
        sock.close()


async def drip_a_head(port: int, stop_at: float) -> str:
    sock = await connected(port)
    head = b"GET /api/x HTTP/1.1\r\nHost: a\r\nX-Long: "
    await asyncio.get_running_loop().sock_sendall(sock, head + b"x" * (DRIPPED_BYTES - len(head)))
    return await until_ended(sock, b"x", 0.5)


async def drip_a_body(port: int, stop_at: float) -> str:
    sock = await connected(port)
    head = b"POST /slow/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, head)
    return await until_ended(sock, b"0123456789", 0.5)


async def read_slowly(port: int, stop_at: float) -> str:
    loop = asyncio.get_running_loop()
    sock = await connected(port)
    await loop.sock_sendall(sock, b"GET /big/down/%d/length HTTP/1.1\r\nHost: a\r\n\r\n" % MIB)
    head = await loop.sock_recv(sock, 12)
    if head != b"HTTP/1.1 200":
        return head[9:].decode()
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != TCP_CLOSE:  # by a reset; bytes may wait still
            taken += len(await loop.sock_recv(sock, 512))
            await asyncio.sleep(0.5)
            assert time.monotonic() < stop_at, "it was never ended"
    sock.close()
    return "cut" if taken < MIB else "whole"


class Others:
    """Somebody else who is served all the while."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, daemon=True)
        self.most_bytes = 0
        self.answers: Counter[int] = Counter()
        self.slowest_s = 0.0

    def _call(self) -> None:
        (pid,) = self._house.worker_pids()
        while not self._stop.wait(0.1):
            began = time.monotonic()
            self.answers[self._house.call("/api/x").status] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.most_bytes = max(self.most_bytes, Process(pid).resident())

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def siege(attack: Attack, port: int, count: int, stop_at: float) -> tuple[Counter[str], float]:
    """All at once. What became of them, and how long the last was there."""
    ends = await asyncio.gather(*(attack(port, stop_at) for _ in range(count)))
    return Counter(ends), time.monotonic()


def few_and_many(few: int, many: int) -> list[object]:
    return [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]


ATTACKS = [
    pytest.param(drip_a_head, 2, HEAD_TIMEOUT_S, DRIPPED_BYTES, "408", id="heads"),
    pytest.param(drip_a_body, 1, TIMEOUT_S, UNSENT_BYTES, "408", id="bodies"),
    pytest.param(read_slowly, 1, TIMEOUT_S, UNREAD_BYTES, "cut", id="readers"),
]


@pytest.mark.parametrize("thousands", few_and_many(0, 1))
@pytest.mark.parametrize(("attack", "share", "limit_s", "each_bytes", "end"), ATTACKS)
def test_siege(
    besieged: House, attack: Attack, share: int, limit_s: int, each_bytes: int, end: str, thousands: int
) -> None:
    count = share * (1000 if thousands else 100)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    (pid,) = besieged.worker_pids()
    before = Process(pid).resident()
    began = time.monotonic()
    with Others(besieged) as others:
        ends, ended = uvloop.run(siege(attack, besieged.address[1], count, began + 60))
    grown = others.most_bytes - before
    print(
        f"{dict(ends)} in {ended - began:.1f} s, {grown / count / KIB:.1f} KiB each; "
        f"others {dict(others.answers)}, slowest {others.slowest_s * 1000:.0f} ms"
    )
    assert ends == {end: count}
    took_to_open_s = count / 1000
    assert ended - began < limit_s + LATE_S + took_to_open_s
    assert grown < count * (each_bytes + BARE_BYTES)
    assert others.answers.keys() == {200}
    assert others.slowest_s < 2.0  # they and the siege share a process and its lock
