"""httpx, aiohttp and requests: what they send of their own accord, bodies in chunks, connections used again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from tests.clients.conftest import Door
from tests.clients.upstream import EVENTS, FILE

PIECES = [b"x" * 70_000, b"y", b"z" * 300_000]
SHA256 = hashlib.sha256(b"".join(PIECES)).hexdigest()

pytestmark = pytest.mark.usefixtures("home")


def pieces() -> Iterator[bytes]:
    yield from PIECES


async def pieces_awaited() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


def headers_of(echo: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in echo["headers"]}


def check_upload(echo: Any, door: Door) -> None:
    assert (echo["method"], echo["sha256"]) == ("POST", SHA256)
    headers = headers_of(echo)
    assert headers["transfer-encoding"] == "chunked"
    assert door.key not in str(headers)


def test_httpx(door: Door) -> None:
    with httpx.Client(headers={"X-API-Key": door.key}, timeout=20) as client:
        for _ in range(3):
            assert client.get(f"{door.url}/gzip").content == FILE
        check_upload(client.post(f"{door.url}/echo", content=pieces()).json(), door)
        echo = client.post(f"{door.url}/echo?a=1", json={"b": 2}).json()
        assert (echo["target"], echo["bytes"]) == ("/echo?a=1", 7)
        assert client.head(f"{door.url}/file").headers["content-length"] == str(len(FILE))
        assert client.get(f"{door.url}/nothing").status_code == 404
        assert client.get(f"{door.url}/echo", headers={"X-API-Key": "nobody's"}).status_code == 401


async def many_at_once(door: Door) -> None:
    limits = httpx.Limits(max_connections=8)
    headers = {"Authorization": f"Bearer {door.key}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=20) as client:
        answers = await asyncio.gather(*(client.get(f"{door.url}/echo/{number}") for number in range(60)))
        assert [answer.json()["target"] for answer in answers] == [f"/echo/{number}" for number in range(60)]
        check_upload((await client.post(f"{door.url}/echo", content=pieces_awaited())).json(), door)


def test_httpx_many_at_once(door: Door) -> None:
    asyncio.run(many_at_once(door))


async def with_aiohttp(door: Door) -> None:
    async with aiohttp.ClientSession(headers={"X-API-Key": door.key}) as session:
        async with session.get(f"{door.url}/gzip") as answer:
            assert await answer.read() == FILE
        async with session.post(f"{door.url}/echo", data=pieces_awaited()) as answer:
            check_upload(await answer.json(), door)
        async with session.put(f"{door.url}/echo", data=b"".join(PIECES), expect100=True) as answer:
            assert (await answer.json())["sha256"] == SHA256
        async with session.get(f"{door.url}/file", headers={"Range": "bytes=0-9"}) as answer:
            assert (answer.status, await answer.read()) == (206, FILE[:10])
        async with session.get(f"{door.open_url}/echo") as answer:
            assert (await answer.json())["method"] == "GET"


def test_aiohttp(door: Door) -> None:
    asyncio.run(with_aiohttp(door))


def test_requests(door: Door) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {door.key}"
        for _ in range(3):
            assert session.get(f"{door.url}/gzip", timeout=20).content == FILE
        check_upload(session.post(f"{door.url}/echo", data=pieces(), timeout=20).json(), door)
        files = {"file": ("name", FILE)}
        echo = session.post(f"{door.url}/echo", files=files, timeout=20).json()
        assert headers_of(echo)["content-type"].startswith("multipart/form-data")
        assert session.options(f"{door.url}/echo", timeout=20).json()["method"] == "OPTIONS"


def test_each_event_arrives_before_the_next_is_sent(door: Door) -> None:
    """Server-Sent Events: the upstream sends one, and the next only when the client has it."""
    door.site.events_in_time = 0
    got = []
    headers = {"X-API-Key": door.key, "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{door.url}/events", headers=headers, timeout=20) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line.startswith("data: "):
                got.append(line)
                door.site.event_seen.release()
    assert got == [f"data: event {number}" for number in range(EVENTS)]
    assert door.site.events_in_time == EVENTS


def test_usage_knows_them(door: Door, tmp_path: Path) -> None:
    """The bill is exact for real clients too: what they were answered is counted once."""
    before = door.counted("open")["requests"]
    for _ in range(7):
        httpx.get(f"{door.open_url}/echo", timeout=20)
    assert door.counted("open")["requests"] == before + 7
