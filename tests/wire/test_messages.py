"""Random messages, cut at random places: what arrives on either side equals what was sent, after the rewriting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire.harness import Upstream, Wire
from tests.wire.peer import Message, Peer
from tests.wire.test_chunked import pieces_of

METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"REPORT"])
PATHS = st.from_regex(rb"(/([A-Za-z0-9;,=:@!~+_\xa0-\xff-]|%2F|%20)*){1,3}(\?[a-z=&/.%:]*)?", fullmatch=True)
NAMES = st.from_regex(rb"[ABC][a-z]{0,3}(-[A-Za-z]{1,3})?", fullmatch=True).filter(lambda name: name != b"Age")
VALUES = st.from_regex(rb"([!-~\xa0-\xff]([ -~]{0,8}[!-~])?)?", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
BODIES = st.lists(st.binary(min_size=1, max_size=30), max_size=4)
CUTS = st.lists(st.integers(0, 600), max_size=6)


@dataclass(frozen=True)
class Sent:
    line: bytes
    fields: list[tuple[bytes, bytes]]
    chunks: list[bytes]
    chunked: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def framed(self, *fields: bytes) -> bytes:
        lines = [self.line, *fields, *(b"%b: %b" % field for field in self.fields)]
        if self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in self.chunks) + b"0\r\n\r\n"
        else:
            lines.append(b"Content-Length: %d" % len(self.body))
            body = self.body
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


REQUESTS = st.builds(
    lambda method, path, *rest: Sent(b"%b /open%b HTTP/1.1" % (method, path), *rest),
    METHODS, PATHS, FIELDS, BODIES, st.booleans(),
)  # fmt: skip
RESPONSES = st.builds(
    lambda status, *rest: Sent(b"HTTP/1.1 %d Word" % status, *rest),
    st.sampled_from([200, 201, 299, 302, 404, 500]), FIELDS, BODIES, st.booleans(),
)  # fmt: skip
FRAMING = (b"content-length", b"transfer-encoding", b"x-request-id", b"date", b"host", b"forwarded",
           b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")  # fmt: skip


def same(got: Message, sent: Sent, line: bytes) -> None:
    assert got.line == line
    assert got.without(*FRAMING) == [field for field in sent.fields if field[0].lower() not in FRAMING]
    assert got.body == sent.body


async def send_cut(peer: Peer, data: bytes, cuts: list[int]) -> None:
    for piece in pieces_of(data, cuts):
        await peer.send(piece)
        await asyncio.sleep(0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exchanges=st.lists(st.tuples(REQUESTS, RESPONSES, CUTS, CUTS), min_size=1, max_size=4), pipelined=st.booleans())
def test_random_messages(
    tmp_path_factory: object, exchanges: list[tuple[Sent, Sent, list[int], list[int]]], pipelined: bool
) -> None:
    folder: Path = tmp_path_factory.mktemp("wire")  # type: ignore[attr-defined]
    uvloop.run(check(folder, exchanges, pipelined))


async def check(folder: Path, exchanges: list[tuple[Sent, Sent, list[int], list[int]]], pipelined: bool) -> None:
    async def script(upstream: Upstream, peer: Peer) -> None:
        while True:
            upstream.requests.append(await peer.message())
            _, response, _, cuts = exchanges[len(upstream.requests) - 1]
            await send_cut(peer, response.framed(), cuts)

    async with Wire(folder) as wire:
        wire.upstream.script = script
        client = await wire.client()
        if pipelined:
            data = b"".join(request.framed(b"Host: api") for request, *_ in exchanges)
            await send_cut(client, data, [cut for _, _, cuts, _ in exchanges for cut in cuts])
        for index, (request, response, cuts, _) in enumerate(exchanges):
            if not pipelined:
                await send_cut(client, request.framed(b"Host: api"), cuts)
            same(await client.message(), response, response.line)
            same(wire.upstream.requests[index], request, request.line.replace(b"/open", b"", 1))
        assert len(wire.upstream.requests) == len(wire.records()) == len(exchanges)
        for record, (request, response, *_) in zip(wire.records(), exchanges, strict=True):
            assert (record.bytes_in, record.bytes_out) == (len(request.body), len(response.body))


PIPELINE = (
    b"POST /open/a HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    b"PUT /open/b HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nGET /"
    b"GET /open/c HTTP/1.1\r\nHost: api\r\nX-User-Id: 1\r\n\r\n"
)
SPLICES = st.sampled_from([
    b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\t", b"\xff", b"0", b"5", b";", b"\r\n ", b"\r\n\r\n",
    b"0\r\n\r\n", b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: x",
    b"\r\nHost: b", b"\r\nX-User-Id: 2", b"\r\nConnection: close", b"\r\nConnection: host", b"\r\nExpect: 100-continue",
    b"GET /open/z HTTP/1.1\r\nHost: api\r\n\r\n",
])  # fmt: skip
DAMAGE = st.tuples(st.integers(0, len(PIPELINE)), st.integers(0, 4), SPLICES)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damages=st.lists(DAMAGE, min_size=1, max_size=3), cuts=CUTS)
def test_damaged_messages(tmp_path_factory: object, damages: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    """Bytes are cut out and put in: the upstream sees well-formed requests, as many as were answered, and no others."""
    data = PIPELINE
    for at, count, splice in damages:
        data = data[:at] + splice + data[at + count :]
    folder: Path = tmp_path_factory.mktemp("wire")  # type: ignore[attr-defined]
    uvloop.run(check_damaged(folder, data, cuts))


async def check_damaged(folder: Path, data: bytes, cuts: list[int]) -> None:
    async with Wire(folder) as wire:
        client = await wire.client()
        await send_cut(client, data, cuts)
        client.half_close()
        received = await client.rest()
        await wire.settled(lambda: not wire.worker.exchanges)
        answered = [record for record in wire.records() if record.status == 200]
        assert len(wire.upstream.requests) == len(answered) == received.count(b"HTTP/1.1 200 OK")
        for message in wire.upstream.requests:
            assert message.line.endswith(b" HTTP/1.1")
            assert len(message.all(b"Host")) == len(message.all(b"X-Request-Id")) == 1
            assert message.all(b"X-User-Id") == message.all(b"Connection") == []
