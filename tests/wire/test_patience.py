"""How long an exchange may take: overall, to the first byte, and between two bytes; on a real clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatewayd.conf import ServiceConf
from gatewayd.proxy.worker import SWEEP_S
from gatewayd.records import ADMITTED, CLIENT_LEFT, UPSTREAM_BROKE
from tests.wire.harness import BRISK_TIMEOUT_S, FIRST_BYTE_S, IDLE_S, OK, Upstream, Wire, service
from tests.wire.pace import taking
from tests.wire.peer import CutShortError, Peer
from tests.wire.test_requests import get, post
from tests.wire.test_responses import CHUNKED, answer, says

pytestmark = pytest.mark.anyio

ENDLESS = get(b"/endless/")
UPLOAD = post(b"Content-Length: 10", path=b"/endless/")
OFTEN_S = 0.05  # a sender that goes on; the machine may hold it up for half a second beside


async def drip(peer: Peer, pieces: list[bytes], every_s: float) -> None:
    for piece in pieces:
        await peer.send(piece)
        await asyncio.sleep(every_s)


def endless(wire: Wire, **patience: Any) -> ServiceConf:
    """The service of ENDLESS with a patience of its own."""
    return service(10, "endless", f"http://127.0.0.1:{wire.upstream.port}", timeout_s=None, **patience)


async def test_no_first_byte(wire: Wire) -> None:
    wire.upstream.script = says(b"")  # type: ignore[assignment]
    async with taking(FIRST_BYTE_S):
        assert (await wire.ask(ENDLESS)).status == 504
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    assert [record.status for record in wire.records()] == [504]


async def test_head_that_drips(wire: Wire) -> None:
    """A byte is not a head: the time to it is not longer for those who give it slowly."""

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await drip(peer, [bytes([byte]) for byte in OK], 0.02)

    wire.upstream.script = script
    async with taking(FIRST_BYTE_S):
        assert (await wire.ask(ENDLESS)).status == 504


async def test_hints_do_not_win_time(wire: Wire) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await drip(peer, [answer(b"103 Early Hints")] * 20, 0.1)

    wire.upstream.script = script
    async with taking(FIRST_BYTE_S):
        assert (await wire.ask(ENDLESS)).status == 504


async def test_an_upload_that_goes_on_has_time(wire: Wire) -> None:
    client = await wire.client()
    await client.send(post(b"Content-Length: 30", path=b"/endless/"))
    await drip(client, [b"a"] * 30, OFTEN_S)
    assert (await client.message()).status == 200


async def test_first_byte_is_counted_from_the_end_of_the_upload(wire: Wire) -> None:
    wire.upstream.script = says(b"")  # type: ignore[assignment]
    client = await wire.client()
    await client.send(UPLOAD)
    await drip(client, [b"a"] * 9, FIRST_BYTE_S / 8)
    async with taking(FIRST_BYTE_S, FIRST_BYTE_S / 4):
        await client.send(b"a")
        assert (await client.message()).status == 504


async def test_a_whole_upload_in_one_packet(wire: Wire) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        if (await peer.message()).line.startswith(b"GET"):
            await peer.send(OK)
        await peer.rest()

    wire.upstream.script = script
    for pooled in (False, True):  # before there is a connection, and on one that waits
        if pooled:
            await wire.ask(ENDLESS)
        async with taking(FIRST_BYTE_S, SWEEP_S):
            assert (await wire.ask(UPLOAD + b"0123456789")).status == 504
    assert len(wire.upstream.peers) == 2


async def test_an_upload_that_stalls(wire: Wire) -> None:
    client = await wire.client()
    async with taking(FIRST_BYTE_S, FIRST_BYTE_S / 4):
        await client.send(UPLOAD + b"01234")
        got = await client.message()
    assert (got.status, got.one(b"Connection")) == (408, b"close")


async def test_an_upload_that_is_not_taken(wire: Wire) -> None:
    """The client would send more: it is the upstream that does not read."""

    async def script(_: Upstream, peer: Peer) -> None:
        await asyncio.sleep(3600)

    wire.upstream.narrow(4096)
    wire.upstream.script = script
    client = await wire.client()
    sending = asyncio.ensure_future(client.send(post(b"Content-Length: 99999999", path=b"/endless/") + bytes(1 << 24)))
    assert (await client.message()).status == 504
    sending.cancel()


@pytest.mark.parametrize("head", [answer(b"200 OK", CHUNKED), answer(b"200 OK", b"Content-Length: 999")])
async def test_a_response_that_stalls(wire: Wire, head: bytes) -> None:
    """From its last byte on, of the head or of the body."""
    body = b"5\r\n01234\r\n" if CHUNKED in head else b"01234"
    for said, after_s in ((head, 0.0), (head + body, IDLE_S / 6)):
        gone = asyncio.Event()

        async def script(_: Upstream, peer: Peer, said: bytes = said, gone: asyncio.Event = gone) -> None:
            await peer.message()
            await peer.send(head)
            await asyncio.sleep(after_s)  # noqa: B023
            gone.set()
            await peer.send(said[len(head) :])
            await asyncio.sleep(3600)

        wire.upstream.script = script
        client = await wire.client()
        await client.send(ENDLESS)
        await gone.wait()
        async with taking(IDLE_S, IDLE_S / 4):
            with pytest.raises(CutShortError):
                await client.message()
    assert [record.flags for record in wire.records()] == [ADMITTED | UPSTREAM_BROKE] * 2


async def test_idleness_begins_with_the_head(wire: Wire) -> None:
    """However long that took."""
    gone = asyncio.Event()

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await asyncio.sleep(IDLE_S * 0.8)
        gone.set()
        await peer.send(answer(b"200 OK", CHUNKED))
        await asyncio.sleep(3600)

    wire.upstream.script = script
    wire.serve(endless(wire, first_byte_timeout_s=5.0, idle_timeout_s=IDLE_S))
    client = await wire.client()
    await client.send(ENDLESS)
    await gone.wait()
    async with taking(IDLE_S, IDLE_S / 4):
        with pytest.raises(CutShortError):
            await client.message()


async def test_a_response_that_goes_on_has_time(wire: Wire) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(answer(b"200 OK", CHUNKED))
        await drip(peer, [b"1\r\na\r\n"] * 32, OFTEN_S)
        await peer.send(b"0\r\n\r\n")

    wire.upstream.script = script
    began = asyncio.get_running_loop().time()
    assert (await wire.ask(ENDLESS)).body == b"a" * 32
    assert asyncio.get_running_loop().time() - began > 2 * IDLE_S


async def test_a_response_that_the_client_does_not_take(wire: Wire) -> None:
    """It was not the upstream that broke it off: what was delivered is billed."""

    async def script(_: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(answer(b"200 OK", b"Content-Length: 99999999") + bytes(1 << 24))

    wire.upstream.script = script
    client = await wire.client(limit=4096, receives=4096)
    await client.send(ENDLESS)
    await wire.settled(lambda: not wire.worker.exchanges and bool(wire.records()))
    assert [record.flags for record in wire.records()] == [ADMITTED | CLIENT_LEFT]


@pytest.mark.parametrize("kind", ["response", "upload"])
async def test_progress_wins_nothing_over_the_whole(wire: Wire, kind: str) -> None:
    async def script(_: Upstream, peer: Peer) -> None:
        await peer._take_until(b"\r\n\r\n")
        if kind == "response":
            await peer.send(answer(b"200 OK", CHUNKED))
        await drip(peer, [b"1\r\na\r\n"] * 20 if kind == "response" else [], 0.05)
        await asyncio.sleep(3600)

    wire.upstream.script = script
    client = await wire.client()
    if kind == "response":
        async with taking(BRISK_TIMEOUT_S):
            await client.send(get(b"/hasty/"))
            with pytest.raises(CutShortError):
                await client.message()
    else:
        async with taking(BRISK_TIMEOUT_S):
            await client.send(post(b"Content-Length: 99", path=b"/hasty/"))
            dripping = asyncio.ensure_future(drip(client, [b"a"] * 20, 0.05))
            assert (await client.message()).status == 408
        await dripping


async def test_each_request_of_a_connection_has_its_own_time(wire: Wire) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        while True:
            await peer.message()
            await asyncio.sleep(0.4)
            await peer.send(OK)

    wire.upstream.script = script
    wire.serve(endless(wire, first_byte_timeout_s=1.2, idle_timeout_s=IDLE_S))
    client = await wire.client()
    await client.send(ENDLESS * 4)
    for _ in range(4):
        assert (await client.message()).status == 200
