"""More answers that no caller may be given: framing that two readers could read in two ways.

The counterpart of `test_smuggling`: there a caller lies to the upstream, here an upstream lies to the caller. It is a
502 while nothing has gone out, a cut connection afterwards; and the next caller gets an answer of its own.
"""

from __future__ import annotations

import pytest

from gatewayd.records import ADMITTED, UPSTREAM_BROKE
from tests.wire import test_responses as table
from tests.wire.harness import GET, OK, Upstream, Wire
from tests.wire.peer import CutShortError
from tests.wire.test_responses import CHUNKED, FINE, LENGTH, STEPS, TEN, Row, answer, says
from tests.wire.test_smuggling import BROKEN_CHUNKS, CONTROLS

pytestmark = pytest.mark.anyio

CHUNKS = b"a\r\n0123456789\r\n0\r\n\r\n"


def status_line(line: bytes) -> bytes:
    return line + b"\r\nContent-Length: 10\r\n\r\n" + TEN


INVALID = {
    **{
        f"line {line!r}": status_line(line)
        for line in (
            b"HTTP/1.2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK", b"HTTP/1 200 OK", b"HTTP/2 200",
            b"HTTP/3.0 200",
            b"http/1.1 200 OK", b"HTTP/01.1 200 OK", b"HTTP /1.1 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK",
            b" HTTP/1.1 200 OK", b"\tHTTP/1.1 200 OK", b"\x00HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK",
            b"\nHTTP/1.1 200 OK", b"\rHTTP/1.1 200 OK", b"xHTTP/1.1 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 2OO OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 0200 OK", b"HTTP/1.1 000 OK",
            b"HTTP/1.1 2.0 OK", b"HTTP/1.1 \xb2\xb0\xb0 OK", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 OK", b"200 OK",
            b"HTTP/1.1 200OK", b"HTTP/1.1 200\tOK", b"ICY 200 OK", b"RTSP/1.0 200 OK", b"ICE/1.0 200 OK",
            b"HTTP/1.1 200 O\x0bK", b"HTTP/1.1 200 O\x1fK", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1 200 OK\r",
            b"HTTP/1.1 200 OK\nX: y", b"HTTP/1.1 200 OK\rX: y", b"GET / HTTP/1.1", b"", b"\xef\xbb\xbfHTTP/1.1 200 OK",
        )
    },
    **{
        f"length {value!r}": answer(FINE, b"Content-Length:" + value, body=TEN)
        for value in (
            b"", b" ", b" +10", b" -10", b" 0xa", b" 1_0", b" 1e1", b" 10.0", b" 10,10", b" 10, 10", b" 10, 11",
            b" ,10",
            b" 10,", b" 10;", b" 1 0", b" 10a", b' "10"', b" \x0b10", b" 10\x0b", b" 10\x00", b" \xd9\xa1\xd9\xa0",
            b"\r\n 10", b"\n10", b" 10\r", b" 10\nx: y", b" 9223372036854775808", b" 18446744073709551626",
            b" " + b"0" * 300 + b"10",
        )
    },
    **{
        f"coding {value!r}": answer(FINE, b"Transfer-Encoding:" + value, body=CHUNKS)
        for value in (
            b"", b" x", b" xchunked", b" chunkedx", b" chunked, chunked", b" chunked, identity", b" identity, chunked",
            b" chunked, gzip", b" identity", b" chunked;q=1", b" chunked,", b" ,chunked", b' "chunked"',
            b" \x0bchunked",
            b" chunked\x0c", b" \x00chunked", b" \xa0chunked", b"\r\n chunked", b"\nchunked", b" chunked\nx: y",
            b" chun ked", b" deflate", b": chunked",
        )
    },
    **{
        f"field {field!r}": answer(FINE, field, LENGTH, body=TEN)
        for field in (
            b"A", b"A 1", b": 1", b" : 1", b"A : 1", b"A\t: 1", b" A: 1", b"\tA: 1", b"A B: 1", b"A\x00: 1",
            b"A\x80: 1",
            b"(A): 1", b"A/B: 1", b'A"B: 1', b"A: 1\r\n\tB", b"A: 1\r\n ", b"A: 1\r\r\nB: 2", b"A: 1\n\rB: 2",
            b"A: \r1",
            b"A: 1\r", b"A: 1\n", b"\rA: 1", b"\nA: 1", b"A\n: 1", b"\r", b"\n", b"Content-Length : 3",
            b"Content-Length\t: 3", b" Content-Length: 3", b"Content-Length\x00: 3", b"Transfer-Encoding : chunked",
            b"Transfer-Encoding\t: chunked", b"X: y\rTransfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked", b"content-length: 10", b"Content-Length: 0", b"A: 1\r\n\r",
        )
    },
    "a coding twice": answer(FINE, CHUNKED, CHUNKED, body=CHUNKS),
    "a coding and another": answer(FINE, CHUNKED, b"Transfer-Encoding: identity", body=CHUNKS),
    "another and a coding": answer(FINE, b"Transfer-Encoding: identity", CHUNKED, body=CHUNKS),
    "three lengths": answer(FINE, LENGTH, LENGTH, LENGTH, body=TEN),
    "LF LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok\r\n\r\n",
    "CR LF LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok\r\n\r\n",
    "CR CR LF at the end": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\r\n\r\n",
    "HTTP/1.0 keep-alive with chunks": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n%b\r\n\r\n%b" % (CHUNKED, CHUNKS),
    "304 with length and chunks": answer(b"304 Not Modified", LENGTH, CHUNKED),
    "204 with two lengths": answer(b"204 No Content", LENGTH, b"Content-Length: 0"),
    "a malformed interim answer": answer(b"103 Early Hints", b"A : 1") + OK,
    "an interim answer in HTTP/2": b"HTTP/2 100 Continue\r\n\r\n" + OK,
}  # fmt: skip


@STEPS
@pytest.mark.parametrize("name", INVALID)
async def test_invalid_answer(wire: Wire, name: str, step: int) -> None:
    wire.upstream.script = says(INVALID[name], step and max(1, len(INVALID[name]) // 50))  # type: ignore[assignment]
    client = await wire.client()
    await client.send(GET)
    got = await client.message()
    assert (got.status, b'"upstream_invalid"' in got.body) == (502, True), got
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    wire.upstream.script = Upstream.answer_all
    await client.send(GET)
    assert (await client.message()).body == b"ok"
    assert [record.status for record in wire.records()] == [502, 200]


async def test_control_bytes_anywhere(wire: Wire) -> None:
    for code in CONTROLS:
        byte = bytes((code,))
        for data in (
            answer(b"200 O" + byte, LENGTH, body=TEN), answer(FINE, b"A" + byte + b": 1", LENGTH, body=TEN),
            answer(FINE, b"A:" + byte, LENGTH, body=TEN), answer(FINE, b"A: 1" + byte + b"2", LENGTH, body=TEN),
            answer(FINE, b"Connection: " + byte, LENGTH, body=TEN), byte + OK,
        ):  # fmt: skip
            wire.upstream.script = says(data)  # type: ignore[assignment]
            assert (await wire.ask(GET)).status == 502, data


@STEPS
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
async def test_broken_chunks(wire: Wire, name: str, step: int) -> None:
    """The head has gone out: the client sees the message break, whatever of it was well."""
    data = answer(FINE, CHUNKED, body=BROKEN_CHUNKS[name] + OK)
    wire.upstream.script = says(data, step and max(1, len(data) // 50))  # type: ignore[assignment]
    with pytest.raises(CutShortError):
        await wire.ask(GET)
    (record,) = wire.records()
    assert (record.status, record.flags) == (200, ADMITTED | UPSTREAM_BROKE)
    await wire.settled(lambda: wire.upstream.peers[0].ended)
    wire.upstream.script = Upstream.answer_all
    assert (await wire.ask(GET)).body == b"ok"


WHOLE = [
    Row("leading zeros, written anew without", answer(FINE, b"Content-Length: 0010", body=TEN), FINE, (LENGTH,), TEN),
    Row("no space before the length", answer(FINE, b"Content-Length:10", body=TEN), FINE, (LENGTH,), TEN),
    Row("CHUNKED", answer(FINE, b"transfer-encoding:CHUNKED", body=CHUNKS), FINE, (CHUNKED,), TEN),
    Row("a length that is named by Connection", answer(FINE, b"Connection: content-length", LENGTH, body=TEN), FINE,
        (LENGTH,), TEN),
    Row("a status line that is named by Connection", answer(FINE, b"Connection: HTTP/1.1 200 OK, A", b"A: 1", LENGTH,
        body=TEN), FINE, (LENGTH,), TEN),
    Row("304 with chunks", answer(b"304 Not Modified", CHUNKED), b"304 Not Modified", reused=False),
    Row("204 with chunks and a body", answer(b"204 No Content", CHUNKED, body=CHUNKS), b"204 No Content", reused=False),
    Row("204 and another answer", answer(b"204 No Content") + OK, b"204 No Content", reused=False),
    Row("304 and another answer", answer(b"304 Not Modified", LENGTH) + OK, b"304 Not Modified", (LENGTH,),
        reused=False),
    Row("HEAD with chunks and a body", answer(FINE, CHUNKED, body=CHUNKS), FINE, (), b"", table.HEAD, reused=False),
    Row("HEAD and another answer", answer(FINE, LENGTH) + OK, FINE, (LENGTH,), b"", table.HEAD, reused=False),
    Row("one byte too many", answer(FINE, LENGTH, body=TEN + b"\n"), FINE, (LENGTH,), TEN, reused=False),
    Row("an empty line too many", answer(FINE, LENGTH, body=TEN + b"\r\n"), FINE, (LENGTH,), TEN, reused=False),
    Row("a body though the length is 0", answer(FINE, b"Content-Length: 0", body=TEN), FINE, (b"Content-Length: 0",),
        reused=False),
    Row("an interim answer after the answer", OK + answer(b"100 Continue"), FINE, (b"Content-Length: 2",), b"ok",
        reused=False),
]  # fmt: skip


@STEPS
@pytest.mark.parametrize("row", WHOLE, ids=str)
async def test_answer(wire: Wire, row: Row, step: int) -> None:
    await table.test_answer(wire, row, step)
