"""Behind somebody's proxy: what is believed, and PROXY headers on the wire."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.listener.conftest import Door, NewDoor, Pki, answer_of, doors, wait_until

GET = b"GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.9 56324 443\r\n"
V2_V4 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13" + bytes([192, 0, 2, 7, 10, 0, 0, 9]) + b"\x01\x02\x03\x04" + b"\x04\0\4abcd"
)
V2_V6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + b"\0\1\0\2"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[tuple[Door, Door]]:
    """One that speaks plainly, one that speaks TLS."""
    plain, encrypted = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("encrypted")
    pki = Pki(encrypted)
    with doors(plain, pki, upstream) as start, doors(encrypted, pki, upstream) as start_encrypted:
        yield start("--proxy-protocol"), start_encrypted("--proxy-protocol", *pki.options)


def told_to(connection: socket.socket, request: bytes = GET) -> dict[str, str]:
    connection.sendall(request)
    status, body = answer_of(connection)
    assert status == 200
    return {name.lower(): value for name, value in json.loads(body)}


def test_a_stranger_is_not_believed(new_door: NewDoor) -> None:
    door = new_door("--trusted-proxies", "10.0.0.0/8")
    told = door.told("-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=6.6.6.6", "-H", "X-Forwarded-Proto: https")
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "http"
    assert told["forwarded"] == f'for=127.0.0.1;host="127.0.0.1:{door.port}";proto=http'


def test_a_trusted_proxy_is_appended_to(new_door: NewDoor) -> None:
    door = new_door("--trusted-proxies", "10.0.0.0/8,127.0.0.0/8")
    told = door.told(
        "-H", "X-Forwarded-For: 192.0.2.1", "-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Host: shop"
    )
    assert told["x-forwarded-for"] == "192.0.2.1, 127.0.0.1"
    assert (told["x-forwarded-proto"], told["x-forwarded-host"]) == ("https", "shop")
    assert told["forwarded"] == f'for=192.0.2.1, for=127.0.0.1;host="127.0.0.1:{door.port}";proto=http'
    with door.connect() as connection:  # each request of a connection speaks for itself
        for client in (b"192.0.2.1", b"192.0.2.1", b"192.0.2.2", b""):
            field = b"X-Forwarded-For: %b\r\n" % client if client else b""
            told = told_to(connection, GET[:-2] + field + b"\r\n")
            assert told["x-forwarded-for"] == ", ".join([*([client.decode()] if client else []), "127.0.0.1"])


@pytest.mark.parametrize(
    ("header", "address"), [(V1, "192.0.2.7"), (V2_V4, "192.0.2.7"), (V2_V6, "2001:db8::7"), (LOCAL, "127.0.0.1")]
)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_proxy_header_says_whose_the_connection_is(
    header: bytes, address: str, encrypted: bool, behind_a_proxy: tuple[Door, Door]
) -> None:
    door = behind_a_proxy[encrypted]
    with door.encrypted(header) if encrypted else door.connect(header) as connection:
        for _ in range(2):
            told = told_to(connection, GET[:-2] + b"X-Forwarded-For: 6.6.6.6\r\n\r\n")
            assert told["x-forwarded-for"] == address
            assert told["x-forwarded-proto"] == ("https" if encrypted else "http")
    with door.connect(header[:3]) as connection:  # piece by piece, and the request in the header's last packet
        for index in range(3, len(header) - 1):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(header[index : index + 1])
        if encrypted:
            connection.sendall(header[-1:])
            with door.pki.context().wrap_socket(connection, server_hostname="localhost") as wrapped:
                assert told_to(wrapped)["x-forwarded-for"] == address
        else:
            assert told_to(connection, header[-1:] + GET)["x-forwarded-for"] == address


def test_what_begins_otherwise_is_closed_and_told_once(new_door: NewDoor) -> None:
    door = new_door("--proxy-protocol", settings="head_timeout_s = 1")
    for sent in (GET, b"\x16\x03\x01" + b"\0" * 50, V1.replace(b"TCP4", b"TCP9"), b"PROXY TCP6 " + b"1" * 300):
        with door.connect(sent) as connection, contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
    with door.connect(V1[:9]) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
        assert 0.5 < time.monotonic() - began < 4
    with door.connect(V1[:20]) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    for _ in range(10):
        with door.connect(V1) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert door.log.count("was closed: there is no PROXY header") == 1
    assert door.log.count("was closed") == 1
    wait_until(lambda: connections(door) == 0)


def connections(door: Door) -> int:
    workers = door.gateway.gatectl.json("status")["workers"]
    return sum(worker["connections"] for worker in workers)


def test_only_trusted_proxies_may_say_it(new_door: NewDoor) -> None:
    door = new_door("--proxy-protocol", "--trusted-proxies", "10.0.0.0/8")
    with door.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(V1 + GET)
        assert connection.recv(100) == b""
    assert "none of the trusted proxies" in door.log


def test_a_proxy_behind_a_balancer(new_door: NewDoor) -> None:
    """The balancer tells the proxy's address, and the proxy the client's."""
    door = new_door("--proxy-protocol", "--trusted-proxies", "127.0.0.1, 192.0.2.7")
    with door.connect(V1) as connection:
        told = told_to(connection, GET[:-2] + b"X-Forwarded-For: 198.51.100.1\r\n\r\n")
        assert told["x-forwarded-for"] == "198.51.100.1, 192.0.2.7"


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_drain_waits_for_those_that_have_begun(encrypted: bool, new_door: NewDoor, pki: Pki) -> None:
    door = new_door("--proxy-protocol", *(pki.options if encrypted else []))
    silent, begun = door.connect(), door.connect(V1[:10])
    wait_until(lambda: connections(door) == 2)
    door.terminate()
    time.sleep(0.2)
    begun.sendall(V1[10:])
    with pki.context().wrap_socket(begun, server_hostname="localhost") if encrypted else begun as connection:
        assert told_to(connection)["x-forwarded-for"] == "192.0.2.7"
        assert connection.recv(1) == b""
    assert silent.recv(1) == b""
    silent.close()
    assert door.gateway.daemon.process.wait(10) == 0


def test_many_arrive_at_once(new_door: NewDoor, pki: Pki) -> None:
    door = new_door("--proxy-protocol", *pki.options, workers=2)
    failures: list[object] = []

    def call() -> None:
        try:
            for _ in range(10):
                with door.encrypted(V1) as connection:
                    assert told_to(connection)["x-forwarded-for"] == "192.0.2.7"
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(10)]
    for caller in callers:
        caller.start()
    for _ in range(2):  # with workers replaced meanwhile: no handshake is cut
        door.roll()
    for caller in callers:
        caller.join(60)
    assert failures == []
    wait_until(lambda: connections(door) == 0)
