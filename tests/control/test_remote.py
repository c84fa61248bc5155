"""The door for other machines: what a stranger may cost, in bytes on sockets; TLS is tried in `acceptance`."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gatewayd.control import remote
from gatewayd.control.admin.app import build_app
from gatewayd.control.remote import RemoteDoor
from tests.control.conftest import Admin

WITHIN_S = 10
WHOAMI = b"GET /v1/whoami HTTP/1.1\r\nHost: g\r\n"


class Visitor:
    """One connection to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next one."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WITHIN_S)
        lines = head.lower().split(b"\r\n")
        (length,) = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def is_cut(self) -> bool:
        """Whether the door ends it, without another word."""
        try:
            return await asyncio.wait_for(self.reader.read(), WITHIN_S) == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        self.writer.close()


Enter = Callable[[], Awaitable[Visitor]]


@asynccontextmanager
async def open_door(admin: Admin) -> AsyncIterator[tuple[RemoteDoor, Enter]]:
    listener = socket.create_server(("127.0.0.1", 0))
    door = RemoteDoor(build_app(admin.control), listener, None, ServerState())
    running = asyncio.create_task(door.run())

    visitors: list[Visitor] = []

    async def enter() -> Visitor:
        visitors.append(Visitor(*await asyncio.open_connection(*listener.getsockname())))
        return visitors[-1]

    try:
        yield door, enter
    finally:
        for visitor in visitors:
            visitor.leave()
        running.cancel()
        await asyncio.wait([running])
    while door.server_state.connections:
        await asyncio.sleep(0.01)


@pytest.fixture
def token(admin: Admin) -> bytes:
    return b"Authorization: Bearer %b\r\n\r\n" % admin.holder("operator").token.encode()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a stranger waits shortly."""
    for name, wait_s in (("HEAD_TIMEOUT_S", 1), ("BODY_TIMEOUT_S", 1.5), ("IDLE_S", 1)):
        monkeypatch.setattr(remote, name, wait_s)


def test_it_answers_like_the_socket(admin: Admin, token: bytes) -> None:
    async def visit() -> None:
        async with open_door(admin) as (door, enter):
            visitor = await enter()
            for _ in range(2):  # on one connection
                visitor.say(WHOAMI + token)
                status, body = await visitor.answer()
                assert (status, b'"via":"token"' in body) == (200, True)
            assert repr(door) == "<RemoteDoor 1 of 100>"
            visitor.leave()
            while repr(door) != "<RemoteDoor 0 of 100>":
                await asyncio.sleep(0.01)

    uvloop.run(visit())


@pytest.mark.usefixtures("hasty")
def test_who_says_no_whole_head_in_time_is_cut_off(admin: Admin) -> None:
    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitors = []
            for said in (b"", b"\r\n", b"GET /v1/wh", WHOAMI, WHOAMI + b"X: " + b"y" * 1000):
                visitors.append(await enter())
                visitors[-1].say(said)
            assert all(await asyncio.gather(*(visitor.is_cut() for visitor in visitors)))

    uvloop.run(visit())


@pytest.mark.usefixtures("hasty")
def test_drops_of_a_head_do_not_keep_a_connection(admin: Admin, token: bytes) -> None:
    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(WHOAMI + token)
            await visitor.answer()

            async def drip() -> None:
                for byte in b"\r\n" * 3 + WHOAMI * 1000:
                    visitor.say(bytes((byte,)))
                    await asyncio.sleep(0.05)

            dripping = asyncio.create_task(drip())
            assert await visitor.is_cut()
            dripping.cancel()

    uvloop.run(visit())


def test_a_head_that_does_not_end_is_cut_off(admin: Admin) -> None:
    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            for endless in (b"GET /" + b"a" * 1_000_000, WHOAMI + b"X: y\r\n" * 200_000):
                visitor = await enter()
                visitor.say(endless)
                assert await visitor.is_cut()

    uvloop.run(visit())


def test_a_head_that_comes_at_once_has_a_length_too(admin: Admin, token: bytes) -> None:
    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(WHOAMI + b"X: y\r\n" * 20_000 + token)
            assert await visitor.is_cut()

    uvloop.run(visit())


def test_one_request_at_a_time(admin: Admin, token: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make room for thousands that come in one read would take control half a second."""
    begun = 0
    begin = HttpToolsProtocol.on_message_begin

    def count(protocol: HttpToolsProtocol) -> None:
        nonlocal begun
        begun += 1
        begin(protocol)

    monkeypatch.setattr(HttpToolsProtocol, "on_message_begin", count)

    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            for many in (2, 5000):
                visitor = await enter()
                visitor.say((WHOAMI + token) * many)
                status, body = await visitor.answer()
                assert (status, b'"via":"token"' in body) == (200, True)
                assert await visitor.is_cut()

    uvloop.run(visit())
    assert begun == 2


def test_a_body_that_is_none_is_refused_and_what_follows_an_answer_is_not_read(admin: Admin, token: bytes) -> None:
    chunked = b"POST /v1/keys HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n" + token

    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(chunked + b"zz\r\n")
            assert (await visitor.answer())[0] == 400
            assert await visitor.is_cut()
            visitor = await enter()
            visitor.say(WHOAMI + token + b"\x00 no request")
            assert (await visitor.answer())[0] == 200
            assert await visitor.is_cut()

    uvloop.run(visit())


@pytest.mark.usefixtures("hasty")
def test_a_body_that_stops_is_cut_off_and_one_that_is_slow_is_not(admin: Admin, token: bytes) -> None:
    head = b"POST /v1/keys HTTP/1.1\r\nHost: g\r\nContent-Length: 12\r\n" + token

    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(head + b'{"nam')
            assert await visitor.is_cut()
            visitor = await enter()
            visitor.say(head)
            for piece in (b'{"na', b'me":', b'"ab"}'[:4]):
                await asyncio.sleep(0.6)
                visitor.say(piece)
            assert (await visitor.answer())[0] == 400  # it was cut short by its own length, and read whole

    uvloop.run(visit())


def test_of_a_stranger_neither_body_nor_further_requests_are_heard(admin: Admin) -> None:
    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(WHOAMI + b"\r\n" + WHOAMI + b"\r\n")
            assert (await visitor.answer())[0] == 401
            assert await visitor.is_cut()
            visitor = await enter()
            visitor.say(b"POST /v1/keys HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n\r\n")
            assert (await visitor.answer())[0] == 401
            assert await visitor.is_cut()

    uvloop.run(visit())


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz"])
def test_a_stranger_asks_once_for_what_is_for_anyone(admin: Admin, path: bytes) -> None:
    """So many connections come in a second; requests on one would cost control whatever a stranger likes."""

    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            visitor = await enter()
            visitor.say(b"GET %b HTTP/1.1\r\nHost: g\r\n\r\n" % path)
            assert (await visitor.answer())[0] == 200
            assert await visitor.is_cut()

    uvloop.run(visit())


def test_one_address_cannot_take_all_connections(admin: Admin, token: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CONNECTIONS_OF_ADDRESS", 3)

    async def visit() -> None:
        async with open_door(admin) as (door, enter):
            inside = [await enter() for _ in range(3)]
            for visitor in inside:
                visitor.say(WHOAMI + token)
                await visitor.answer()
            assert await (await enter()).is_cut()
            inside.pop().leave()
            while repr(door) != "<RemoteDoor 2 of 100>":
                await asyncio.sleep(0.01)
            visitor = await enter()
            visitor.say(WHOAMI + token)
            assert (await visitor.answer())[0] == 200

    uvloop.run(visit())


def test_what_is_no_http_is_refused_and_does_not_fill_the_log(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def visit() -> None:
        async with open_door(admin) as (_, enter):
            for _ in range(5):
                visitor = await enter()
                visitor.say(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                assert (await visitor.answer())[0] == 400

    uvloop.run(visit())
    assert not [record for record in caplog.records if "nvalid" in record.message]
