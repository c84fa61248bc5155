"""`websockets` on both ends: an upgrade through the gateway is a tunnel, and counts as one request."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from tests.clients.conftest import Door

pytestmark = pytest.mark.usefixtures("home")


async def echo(connection: ServerConnection) -> None:
    """Every message comes back; `close` closes with a code, `headers` is answered with what the upgrade carried."""
    assert connection.request is not None
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as you wish")
            return
        if message == "headers":
            await connection.send(f"{connection.request.path} {sorted(connection.request.headers.raw_items())}")
        else:
            await connection.send(message)


async def with_server(door: Door, slug: str) -> None:
    address = door.gateway.url.replace("http://", "ws://")
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gatectl = door.gateway.gatectl
        await asyncio.to_thread(gatectl.do, "service", "add", slug, f"http://127.0.0.1:{port}")
        key = (await asyncio.to_thread(gatectl.do, "key", "create", "--service", slug, "--plan", "ample")).strip()
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{address}/{slug}/", proxy=None)
        assert refused.value.response.status_code == 401
        url = f"{address}/{slug}/room?a=%20b"
        async with connect(url, additional_headers={"X-API-Key": key}, proxy=None, max_size=None) as client:
            await talk(client, key)
        async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None) as client:
            await client.send("close")
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (4001, "as you wish")
    counted = await asyncio.to_thread(door.counted, slug)
    assert (counted["requests"], counted["billable"], counted["refused"]) == (2, 2, 1), "each tunnel is one request"


async def talk(client: ClientConnection, key: str) -> None:
    for message in ("text", "\N{SNOWMAN}" * 1000, b"", b"\0" * (1 << 20)):
        await client.send(message)
        assert await client.recv() == message
    await (await client.ping())
    await client.send("headers")
    headers = await client.recv()
    assert isinstance(headers, str)
    assert headers.startswith("/room?a=%20b ")
    assert key not in headers
    for number in range(200):  # many on their way at once
        await client.send(str(number))
    assert [await client.recv() for _ in range(200)] == [str(number) for number in range(200)]


def test_a_conversation(door: Door) -> None:
    asyncio.run(asyncio.wait_for(with_server(door, "chat"), 60))
