"""More rows of the request table: what known corpora of request smuggling send, and the neighbours of each.

Sources: RFC 9112 sections 2 to 7 and 11; the mutations of Kettle's "HTTP Desync Attacks" (CL.TE, TE.CL, TE.TE, CL.0);
advisories of llhttp, Go, waitress, gunicorn and Twisted on chunk sizes, signs, underscores and bare CR and LF. Fed and
checked as the rows of `test_requests` are: whole, byte by byte, behind another request and before one.
"""

from __future__ import annotations

import pytest

from tests.wire import test_requests as table
from tests.wire.harness import GET, Wire
from tests.wire.test_requests import POSTED, ROOT, STEPS, TE, TEN, Row, chunked, get, passed, post, refused, request

pytestmark = pytest.mark.anyio

SMUGGLED = b"GET /open/smuggled HTTP/1.1\r\nHost: api\r\n\r\n"
CHUNKS = b"a\r\n0123456789\r\n0\r\n\r\n"
LENGTH = b"Content-Length: 10"


def coded(coding: bytes) -> bytes:
    """A body in chunks that `coding` may or may not declare."""
    return post(b"Transfer-Encoding:" + coding, body=CHUNKS)


def long(length: bytes) -> bytes:
    return post(b"Content-Length:" + length, body=TEN)


def first_line(line: bytes) -> bytes:
    return line + b"\r\nHost: api\r\n\r\n"


def host(value: bytes) -> bytes:
    return request(b"GET /open/ HTTP/1.1", host=value)


DESYNCS = [
    refused("CL.TE", post(b"Content-Length: %d" % (5 + len(SMUGGLED)), TE, body=b"0\r\n\r\n" + SMUGGLED)),
    refused("TE.CL", post(TE, b"Content-Length: 4", body=b"2a\r\n" + SMUGGLED + b"\r\n0\r\n\r\n")),
    refused("TE.TE", post(TE, b"Transfer-encoding: cow", body=b"0\r\n\r\n" + SMUGGLED)),
    refused("TE.TE the other way round", post(b"Transfer-Encoding: cow", TE, body=b"0\r\n\r\n" + SMUGGLED)),
    refused("identity, then chunked", post(b"Transfer-Encoding: identity", TE, body=CHUNKS)),
    refused("CL.CL in another case", post(b"content-length: 0", LENGTH, body=TEN)),
    refused("three lengths", post(LENGTH, LENGTH, LENGTH, body=TEN)),
    passed("a length that is named by Connection", post(b"Connection: Content-Length", LENGTH, body=TEN), POSTED,
           LENGTH, body=TEN),
    passed("a coding that is named by Connection", post(b"Connection: transfer-encoding", TE, body=CHUNKS), POSTED,
           TE, body=TEN),
    passed("chunks that hold a request", chunked(b"2a\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"), POSTED, TE, body=SMUGGLED),
    passed("GET with chunks", get(b"/open/", TE) + CHUNKS, ROOT, TE, body=TEN),
    passed("DELETE with a body", request(b"DELETE /open/ HTTP/1.1", LENGTH, body=TEN), b"DELETE / HTTP/1.1", LENGTH,
           body=TEN),
    passed("OPTIONS with chunks", request(b"OPTIONS /open/ HTTP/1.1", TE, body=CHUNKS), b"OPTIONS / HTTP/1.1", TE,
           body=TEN),
    passed("HEAD with a body", request(b"HEAD /open/ HTTP/1.1", LENGTH, body=TEN), b"HEAD / HTTP/1.1", LENGTH,
           body=TEN),
    passed("GET with a length of 0", get(b"/open/", b"Content-Length: 0"), ROOT),
    passed("HTTP/1.0 with a length", request(b"POST /open/ HTTP/1.0", LENGTH, body=TEN), POSTED, LENGTH, body=TEN,
           closes=True),
    refused("HTTP/1.0 keep-alive with chunks", request(b"POST /open/ HTTP/1.0", b"Connection: keep-alive", TE,
            body=CHUNKS)),
]  # fmt: skip

CODINGS = [
    passed("no space before chunked", coded(b"chunked"), POSTED, TE, body=TEN),
    passed("white space before chunked", coded(b" \t chunked"), POSTED, TE, body=TEN),
    passed("a space after chunked", coded(b" chunked "), POSTED, TE, body=TEN),
    refused("a tab after chunked, which llhttp dislikes", coded(b" chunked\t")),
    passed("CHUNKED", coded(b" CHUNKED"), POSTED, TE, body=TEN),
    *(
        refused(f"coding {value!r}", coded(value))
        for value in (
            b"", b" ", b" x", b" chunk", b" chunkedx", b" xchunked", b" chunked;", b" chunked;q=1", b" chunked;a=b",
            b" chunked,", b" ,chunked", b" chunked, identity", b" identity, chunked", b" chunked, cow", b' "chunked"',
            b" 'chunked'", b" chunked chunked", b" chun ked", b" chunked\x0b", b" chunked\x0c", b" \x0cchunked",
            b" \x00chunked", b" chunked\x00", b" chunked\x1f", b" chunked\x7f", b" \xa0chunked", b" chunked\x85",
            b" \xefchunked", b" [chunked]", b" deflate", b" gzip, deflate", b" *", b" trailers", b"\r\n chunked",
            b"\r\n\tchunked", b" \r\n chunked", b"\rchunked", b"\nchunked", b" chunked\r", b" chunked\rx: y",
            b" chunked\nx: y", b": chunked", b" chu%6eked",
        )
    ),
    *(
        refused(f"{name!r} for the coding's name", post(name + b": chunked", body=CHUNKS))
        for name in (
            b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding", b"\tTransfer-Encoding",
            b"Transfer-Encoding\x0b", b"Transfer-Encoding\x00", b"\x00Transfer-Encoding", b"Transfer-Encoding\xa0",
            b"Transfer-Encoding\r", b"\rTransfer-Encoding", b"\nTransfer-Encoding", b"X: y\nTransfer-Encoding",
            b"X: y\rTransfer-Encoding", b"Transfer-Encoding\r\n ", b"Transfer Encoding", b"Transfer-Encoding:\r\n",
            b"Foo: bar\r\n Transfer-Encoding", b"\x7fTransfer-Encoding", b"Transfer\xadEncoding",
        )
    ),
    # To CGI and WSGI both spellings are one variable: it frames nothing here, and the upstream never sees it.
    passed("Transfer_Encoding", post(b"Transfer_Encoding: chunked", LENGTH, body=TEN), POSTED, LENGTH, body=TEN),
    passed("Content_Length", post(b"Content_Length: 3", LENGTH, body=TEN), POSTED, LENGTH, body=TEN),
    passed("a coding in another header", post(b"X-Transfer-Encoding: chunked", b"Content-Encoding: chunked", LENGTH,
           body=TEN), POSTED, b"X-Transfer-Encoding: chunked", b"Content-Encoding: chunked", LENGTH, body=TEN),
]  # fmt: skip

LENGTHS = [
    passed("no space before the length", long(b"10"), POSTED, LENGTH, body=TEN),
    passed("white space around the length", long(b" \t 10 \t"), POSTED, LENGTH, body=TEN),
    passed("leading zeros, written anew without", long(b" 0000000010"), POSTED, LENGTH, body=TEN),
    *(
        refused(f"length {value!r}", long(value))
        for value in (
            b"", b" ", b" +10", b" -10", b" -0", b" 0x0a", b" 0xA", b" 0b1010", b" 0o12", b" 1_0", b" 1e1", b" 10.0",
            b" 10,10", b" 10, 10", b" 10,11", b" 10, 11", b" ,10", b" 10,", b" 10;", b" 1 0", b" 10 10", b" 10a",
            b" a10", b" ten", b' "10"', b" \x0b10", b" 10\x0b", b" \x0c10", b" 10\x00", b" \x0010", b" 10\x7f",
            b" \xef\xbc\x91\xef\xbc\x90", b" \xd9\xa1\xd9\xa0", b" \xb210", b"\r\n 10", b" 10\r\n 10", b"\n10",
            b" 10\r",
            b" 10\rx: y", b" 10\nx: y", b" 9223372036854775808", b" 9223372036854775818", b" 18446744073709551616",
            b" 18446744073709551626", b" " + b"0" * 300 + b"10", b" " + b"1" * 300,
        )
    ),
    *(
        refused(f"{name!r} for the length's name", post(name + b": 10", body=TEN))
        for name in (
            b"Content-Length ", b"Content-Length\t", b" Content-Length", b"\tContent-Length", b"Content-Length\x0b",
            b"Content-Length\x00", b"\x00Content-Length", b"Content-Length\xa0", b"Content Length", b"Content-Length\r",
            b"X: y\nContent-Length", b"X: y\rContent-Length", b"Content-Length\r\n ",
        )
    ),
]  # fmt: skip

HOSTS = [
    *(
        refused(f"Host {value!r}", host(value))
        for value in (
            b"me@api", b"me:secret@api", b"api@evil", b"api,evil", b"api, evil", b"api evil", b"api\tevil", b"api/",
            b"api?a", b"api#a", b"api\\evil", b"http://api", b"api:80:80", b"api:8x", b"api:-80", b"api:+80",
            b"api: 80", b"api :80", b"api:80, evil", b"api:123456", b"[::1", b"::1", b"[::1]x", b"[::1]:8x",
            b"[::1]:80:80", b"[]",
            b"[", b"]", b"<api>", b"a|b", b"{api}", b"`api`", b"a^b", b"api\x00", b"api\x7f", b"api\x01", b"\xffapi",
            b"api\r\n evil", b"api\revil", b"api\nHost: evil", b"%", b"a%2", b"a%zz",
        )
    ),
    *(
        passed(f"Host {value!r}", host(value), ROOT)
        for value in (b"api:", b"api:80", b"API.example", b"127.0.0.1:8080", b"[2001:db8::1]", b"a_b.c-d", b" api\t ")
    ),
    refused("Host in another case, twice", get(b"/open/", b"hOST: api")),
    refused("Host twice and alike", request(b"GET /open/ HTTP/1.1", b"Host: api", b"Host: api", host=None)),
    refused("Host twice in HTTP/1.0", request(b"GET /open/ HTTP/1.0", b"Host: evil")),
    refused("Host malformed in HTTP/1.0", request(b"GET /open/ HTTP/1.0", host=b"a b")),
    refused("Host folded", request(b"GET /open/ HTTP/1.1", b"Host:\r\n api", host=None)),
    refused("space before Host's colon", request(b"GET /open/ HTTP/1.1", b"Host : api", host=None)),
    refused("a second Host in a bare line", host(b"api\nX: y")),
    passed("a name like Host", get(b"/open/", b"X-Host: evil", b"Hosts: evil"), ROOT, b"X-Host: evil", b"Hosts: evil"),
]  # fmt: skip

ABSOLUTE = [
    *(
        refused(f"target {target!r}", get(target))
        for target in (
            b"http://evil/open/", b"http://api:80/open/", b"http://api.evil/open/", b"http://me@api/open/",
            b"http://api@evil/open/", b"http://api,evil/open/", b"http://api\\@evil/open/", b"http:///open/",
            b"http:/open/", b"http:open/", b"http://", b"http:", b"ftp://api/open/", b"file:///open/", b"ws://api/open/",
            b"gopher://api/open/", b"http://api/open/#a", b"http://api#/open/", b"http://api/../open/", b"://api/open/",
            b"http//api/open/", b"httpx://api/open/", b"api/open/", b"?", b"?a=1", b"*", b"api", b"api:80", b"[::1]:80",
            b".", b"..", b"\\open\\", b"%2fopen/", b";/open/", b"@api/open/", b"http://%61pi/open/",
        )
    ),
    refused("absolute form, empty Host", request(b"GET http:///open/ HTTP/1.1", host=b"")),
    refused("absolute form without Host", request(b"GET http://api/open/ HTTP/1.1", host=None)),
    refused("absolute form without Host in HTTP/1.0", request(b"GET http://api/open/ HTTP/1.0", host=None)),
    passed("absolute form with a port", request(b"GET http://api:80/open/a HTTP/1.1", host=b"api:80"),
           b"GET /a HTTP/1.1"),
    passed("absolute form over https", get(b"https://api/open/a"), b"GET /a HTTP/1.1"),
    passed("absolute form of an address", request(b"GET http://[::1]/open/a HTTP/1.1", host=b"[::1]"),
           b"GET /a HTTP/1.1"),
]  # fmt: skip

LINES = [
    *(
        refused(f"line {line!r}", first_line(line), status)
        for line, status in (
            (b" GET /open/ HTTP/1.1", 400), (b"\tGET /open/ HTTP/1.1", 400), (b"\x00GET /open/ HTTP/1.1", 400),
            (b"\x0bGET /open/ HTTP/1.1", 400), (b"\xefGET /open/ HTTP/1.1", 400), (b"GET\x0b/open/\x0bHTTP/1.1", 400),
            (b"GET\x0c/open/ HTTP/1.1", 400), (b"GET\xa0/open/ HTTP/1.1", 400), (b"GET /open/\tHTTP/1.1", 400),
            (b"GET /open/  HTTP/1.1", 400), (b"GET /open/ HTTP/1.1\t", 400), (b"GET /open/ HTTP/1.1\x00", 400),
            (b"GET /open/ HTTP/1.1 x", 400), (b"GET /open/ x HTTP/1.1", 400), (b"GET /open/ HTTP/1.1HTTP/1.1", 400),
            (b"GET /open/ HTTP/1.", 400), (b"GET /open/ HTTP/1", 400), (b"GET /open/ HTTP/", 400),
            (b"GET /open/ HTTP", 400), (b"GET /open/ HTTP/01.1", 400), (b"GET /open/ HTTP/1.01", 400),
            (b"GET /open/ HTTP/1.1.1", 400), (b"GET /open/ HTTP/1,1", 400), (b"GET /open/ HTTP /1.1", 400),
            (b"GET /open/ HTTP/ 1.1", 400), (b"GET /open/ HTTP/+1.1", 400), (b"GET /open/ HTTP/1.\xb9", 400),
            (b"GET /open/ HTTPS/1.1", 400), (b"GET /open/ Http/1.1", 400), (b"GET /open/ XTTP/1.1", 400),
            (b"GET /open/", 400), (b"GET /open/ ", 400), (b"GET", 400), (b"/open/ HTTP/1.1", 400), (b":", 400),
            (b"GET /open/ HTTP/1.3", 400), (b"GET /open/ HTTP/9.9", 400), (b"GET /open/ HTTP/0.9", 505),
            (b"GET /open/ HTTP/3.0", 400), (b"GET /open/ HTTP/2", 400), (b"GET: /open/ HTTP/1.1", 400),
            (b"GE\x00T /open/ HTTP/1.1", 400), (b"GET/open/ HTTP/1.1", 400), (b"G\xc3\x8bT /open/ HTTP/1.1", 400),
            (b"GET, POST /open/ HTTP/1.1", 400), (b"(GET) /open/ HTTP/1.1", 400), (b"GETT /open/ HTTP/1.1", 501),
            (b"GET /open/ ICE/1.0", 400), (b"SOURCE /open/ ICE/1.0", 505), (b"OPTIONS /open/ RTSP/1.0", 505),
            (b"DESCRIBE /open/ RTSP/1.0", 505), (b"HTTP/1.1 200 OK", 400),
            (b"GET /open/\x7f HTTP/1.1", 400), (b"GET /open/\x00 HTTP/1.1", 400), (b"GET /open/\x1f HTTP/1.1", 400),
            (b"GET /open/\r HTTP/1.1", 400), (b"GET /open/ HTTP/1.1\r", 400), (b"GET /open/\n HTTP/1.1", 400),
            (b"GET /open/ HTTP/1.1\rX: y", 400), (b"GET /open/ HTTP/1.1\nX: y", 400), (b"GET\n/open/ HTTP/1.1", 400),
            (b"GET /open/ HTTP/1.1\r\n\tX: y", 400), (b"GET /open/ HTTP/1.1\r\n X: y", 400),
            (b"GET /open/?a#b HTTP/1.1", 400), (b"GET /open/# HTTP/1.1", 400), (b"GET #/open/ HTTP/1.1", 400),
            (b"GET /open/?a b HTTP/1.1", 400), (b"GET /open/?\x00 HTTP/1.1", 400), (b"GET /open/?\x7f HTTP/1.1", 400),
        )
    ),
    passed("a fragment's mark, encoded", get(b"/open/a%23b"), b"GET /a%23b HTTP/1.1"),
    passed("CR and LF, encoded", get(b"/open/a%0d%0aX:%20y?b=%0a%00"), b"GET /a%0d%0aX:%20y?b=%0a%00 HTTP/1.1"),
    passed("many empty lines before it", b"\r\n" * 50 + GET, ROOT),
    refused("bare LF before it", b"\n" + GET),
    refused("bare CR before it", b"\r" + GET),
    refused("CR CR LF before it", b"\r\r\n" + GET),
    refused("an empty line that ends in LF before it", b"\r\n\n" + GET),
    refused("a space before it", b" " + GET),
    refused("a line of white space before it", b" \r\n" + GET),
    refused("NUL before it", b"\0" + GET),
    refused("a byte order mark before it", b"\xef\xbb\xbf" + GET),
]  # fmt: skip

HEADS = [
    *(
        refused(f"field {field!r}", get(b"/open/", field))
        for field in (
            b"A", b"A 1", b":", b": ", b" : 1", b"=A: 1\x00", b"A\x00: 1", b"A\x7f: 1", b"A\x80: 1", b"\xc3\xbc: 1",
            b"(A): 1", b"A[0]: 1", b"A{}: 1", b"A/B: 1", b"A,B: 1", b"A;B: 1", b"A=B: 1", b"A@B: 1", b"A?B: 1",
            b"A\\B: 1", b"<A>: 1", b"A B: 1", b"A\x0b: 1", b"A\x0c: 1", b"A\t: 1", b" A: 1", b"\tA: 1", b"A: 1\r\n\tB",
            b"A: 1\r\n ", b"A: 1\r\n\t", b"A: 1\r\n  \r\n", b"A: 1\r\r\nB: 2", b"A: 1\n\rB: 2", b"A: \r1", b"A:\n1",
            b"A: 1\r", b"A: 1\n", b"\rA: 1", b"\nA: 1", b"A\r: 1", b"A\n: 1", b"\r", b"\n", b"A: 1\r\n\rB: 2",
            b"A: 1\n\nGET /open/smuggled HTTP/1.1", b"A: 1\r\rGET /open/smuggled HTTP/1.1",
        )
    ),
    refused("LF LF at the end", b"GET /open/ HTTP/1.1\r\nHost: api\n\n"),
    refused("CR LF LF at the end", b"GET /open/ HTTP/1.1\r\nHost: api\r\n\n"),
    refused("LF CR LF at the end", b"GET /open/ HTTP/1.1\r\nHost: api\n\r\n"),
    refused("CR CR LF at the end", b"GET /open/ HTTP/1.1\r\nHost: api\r\n\r\r\n\r\n"),
    passed("every letter of a token", get(b"/open/", b"!#$%&'*+-.^_`|~09aZ: 1"), ROOT, b"!#$%&'*+-.^_`|~09aZ: 1"),
    passed("colons in a value", get(b"/open/", b"A:: 1:", b"B: : "), ROOT, b"A: : 1:", b"B: :"),
    passed("tabs in a value", get(b"/open/", b"A:\t1\t2\t"), ROOT, b"A: 1\t2"),
]  # fmt: skip

BEFORE = {row.sent for row in table.ROWS}
ROWS = [
    row for row in DESYNCS + CODINGS + LENGTHS + HOSTS + ABSOLUTE + LINES + HEADS if row.sent not in BEFORE
]  # fmt: skip
WAYS = {
    "whole": table.test_whole,
    "byte by byte": table.test_byte_by_byte,
    "behind another": table.test_behind_another,
    "before another": table.test_nothing_is_read_after_a_close,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_row(wire: Wire, row: Row, way: str) -> None:
    if way == "before another" and not row.closes:
        await table.test_before_another(wire, row)
    else:
        await WAYS[way](wire, row)


CONTROLS = [*range(0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F]  # all but HTAB, LF and CR


async def test_control_bytes_anywhere(wire: Wire) -> None:
    """At every place of a head, each answered with 400, and nothing of any reaches the upstream."""
    for code in CONTROLS:
        byte = bytes((code,))
        for sent in (
            get(b"/open/" + byte), get(b"/open/?" + byte), get(b"/open/", b"A" + byte + b": 1"),
            get(b"/open/", b"A:" + byte), get(b"/open/", b"A: 1" + byte + b"2"), get(b"/open/", b"A: 1" + byte),
            get(b"/open/", b"Connection: " + byte + b"close"), get(b"/open/", b"X-Request-Id: a" + byte),
            request(b"GET" + byte + b" /open/ HTTP/1.1"), request(b"GET /open/ HTTP/1.1" + byte), byte + GET,
        ):  # fmt: skip
            answer = await wire.ask(sent)
            assert answer.status == 400, (sent, answer)
    assert wire.upstream.peers == []


# Chunks whose framing breaks, beside those of `test_requests`.
BROKEN_CHUNKS = {
    **{
        f"size {size!r}": size + b"\r\n0123456789\r\n0\r\n\r\n"
        for size in (
            b"", b" ", b"0xa", b"0XA", b"xa", b"+a", b"-a", b"a_", b"_a", b"0_a", b" a", b"a ", b"a\t", b"\ta", b"a.0",
            b"a,a", b"a a", b"g", b"ten", b"a ;b", b"a\x0b", b"\x0ca", b"\x00a", b"a\x00", b"a\r", b"\ra", b"\na",
            b"\xef\xbd\x81", b"\xd9\xa1", b"\xb2", b"a;\x00", b"a;b\x7f", b"a;b\x0b", b"1000000000000000a",
            b"ffffffffffffffff", b"8000000000000000", b"000000000000000a", b"-0", b"a:", b"a=b", b'"a"', b"a\\",
            b"a;b\r", b"a;b=\rc", b"a;b\n", b"a;" + b"b" * 257,
        )
    },
    **{
        f"{end!r} after the data": b"a\r\n0123456789" + end + b"0\r\n\r\n"
        for end in (b"", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\n\n", b"xx", b" \r\n", b"\r\n\r\n", b"8\r\n", b"\0\r\n")
    },
    **{
        f"{end!r} for the last chunk": b"a\r\n0123456789\r\n" + end
        for end in (b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\r\n", b"0\r\n\r\r\n", b"-0\r\n\r\n", b"0x0\r\n\r\n",
                    b"\r\n\r\n")
    },
    **{
        f"trailer {trailer!r}": b"a\r\n0123456789\r\n0\r\n" + trailer + b"\r\n\r\n"
        for trailer in (
            b"X", b"X y", b"X : y", b" X: y", b"\tX: y", b"X: y\r\n z", b": y", b"X: y\n", b"X: \ry", b"X\x00: y",
            b"X: \x0b", b"X: y\x7f", b"X\x80: y", b"(X): y", b"1", b"GET /open/smuggled HTTP/1.1",
        )
    },
}  # fmt: skip


@STEPS
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
async def test_broken_chunks(wire: Wire, name: str, step: int) -> None:
    await table.check_broken(wire, chunked(BROKEN_CHUNKS[name] + SMUGGLED), step, 400)


@pytest.mark.parametrize("size", [b"a", b"A", b"0A", b"00000000000000a", b"a;", b'a;b="c;d"', b"a;b=\xff", b"a;\tb"])
async def test_sizes_that_hold(wire: Wire, size: bytes) -> None:
    answer = await wire.ask(chunked(size + b"\r\n0123456789\r\n000;x\r\n\r\n"))
    assert (answer.status, wire.upstream.requests[0].body) == (200, TEN)
