"""A table of requests as bytes: what each is answered with, and what the upstream then has received.

Every row is fed whole, byte by byte, and behind another request on the same connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from tests.wire.harness import BODY_LIMIT_BYTES, GET, Wire
from tests.wire.peer import Message, Peer

pytestmark = pytest.mark.anyio

# What the gateway writes of its own accord into every request.
OURS = (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id")
ROOT = b"GET / HTTP/1.1"
POSTED = b"POST / HTTP/1.1"
TE = b"Transfer-Encoding: chunked"
KEY = b"<key>"  # stands for a key that is good
BRISK_PATH = b"/brisk/"  # of a service that is given little time


@dataclass(frozen=True)
class Row:
    """`line`, `fields` and `body` are what the upstream must have got; no line: it must have seen nothing."""

    name: str
    sent: bytes
    status: int
    line: bytes = b""
    fields: tuple[bytes, ...] = ()
    body: bytes = b""
    closes: bool = False
    host: bytes | None = None
    request_id: bytes | None = None

    def __str__(self) -> str:
        return self.name


def request(line: bytes, *fields: bytes, body: bytes = b"", host: bytes | None = b"api") -> bytes:
    """A head with a Host in front, unless told otherwise."""
    named = () if host is None else (b"Host: " + host,)
    return b"\r\n".join((line, *named, *fields)) + b"\r\n\r\n" + body


def get(path: bytes, *fields: bytes) -> bytes:
    return request(b"GET %b HTTP/1.1" % path, *fields)


def post(*fields: bytes, body: bytes = b"", path: bytes = b"/open/") -> bytes:
    return request(b"POST %b HTTP/1.1" % path, *fields, body=body)


def chunked(body: bytes, path: bytes = b"/open/") -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body, path=path)


def passed(name: str, sent: bytes, line: bytes, *fields: bytes, body: bytes = b"", **other: object) -> Row:
    return Row(name, sent, 200, line, fields, body, **other)  # type: ignore[arg-type]


def refused(name: str, sent: bytes, status: int = 400, closes: bool = True) -> Row:
    return Row(name, sent, status, closes=closes)


TARGETS = [
    passed("service", get(b"/open/a/b"), b"GET /a/b HTTP/1.1"),
    passed("service without a slash", get(b"/open"), ROOT),
    passed("service, query only", get(b"/open?a=1"), b"GET /?a=1 HTTP/1.1"),
    passed("tenant and service", get(b"/default/open/a"), b"GET /a HTTP/1.1"),
    passed("other tenant", get(b"/acme/theirs/a"), b"GET /a HTTP/1.1"),
    refused("other tenant's service alone", get(b"/theirs/a"), 404, closes=False),
    passed("by id", get(b"/proxy/svc1/a"), b"GET /a HTTP/1.1"),
    passed("prefix of its own", get(b"/v1/things/7"), b"GET /7 HTTP/1.1"),
    passed("prefix itself", get(b"/v1/things"), ROOT),
    refused("prefix and more letters", get(b"/v1/thingses"), 404, closes=False),
    passed("target with a base", get(b"/based/a?b"), b"GET /base/a?b HTTP/1.1"),
    passed("target with a base, itself", get(b"/based"), b"GET /base HTTP/1.1"),
    passed(
        "bytes as they came", get(b"/open/%2F%2f//a;b=1/+%20/%C3%BC/~"), b"GET /%2F%2f//a;b=1/+%20/%C3%BC/~ HTTP/1.1"
    ),
    passed("query as it came", get(b"/open/?a=%2F&b=//..//;&c=+&d?"), b"GET /?a=%2F&b=//..//;&c=+&d? HTTP/1.1"),
    passed("empty query", get(b"/open/a?"), b"GET /a? HTTP/1.1"),
    passed("non-ASCII bytes", get(b"/open/\xc3\xbc?q=\xff"), b"GET /\xc3\xbc?q=\xff HTTP/1.1"),
    passed("dots in names", get(b"/open/.well-known/a..b/...x"), b"GET /.well-known/a..b/...x HTTP/1.1"),
    passed("absolute form", get(b"http://api/open/a?b"), b"GET /a?b HTTP/1.1"),
    passed("absolute form, other case", get(b"HTTP://API/open/a"), b"GET /a HTTP/1.1"),
    refused("absolute form that disagrees", get(b"http://other/open/a")),
    refused("absolute form with a user", get(b"http://me@api/open/a")),
    refused("prefix encoded", get(b"/%6fpen/a"), 404, closes=False),
    refused("prefix with %2F", get(b"/open%2Fa"), 404, closes=False),
    refused("empty segment first", get(b"//open/a"), 404, closes=False),
    refused("dot dot", get(b"/open/../keyed/a")),
    refused("dot dot at the end", get(b"/open/..")),
    refused("dot", get(b"/open/./a")),
    refused("dot dot encoded", get(b"/open/%2e%2E/a")),
    refused("dot dot half encoded", get(b"/open/.%2e/a")),
    refused("dot dot behind %2F", get(b"/open/a%2f..%2fb")),
    refused("dot dot with a parameter", get(b"/open/..;/a")),
    refused("dot dot and backslashes", get(b"/open/a\\..\\b")),
    refused("dot dot, backslash encoded", get(b"/open/..%5ca")),
    refused("fragment", get(b"/open/a#b")),
    refused("asterisk", request(b"OPTIONS * HTTP/1.1")),
    refused("authority form", get(b"api:80")),
    refused("CONNECT", request(b"CONNECT api:80 HTTP/1.1"), 501),
    refused("CONNECT with a path", request(b"CONNECT /open/ HTTP/1.1"), 501),
    refused("CONNECT in absolute form", request(b"CONNECT http://api/open/ HTTP/1.1"), 501),
    refused("control byte", get(b"/open/\x01")),
    refused("no target", request(b"GET HTTP/1.1")),
    refused("empty target", request(b"GET  HTTP/1.1")),
    refused("space at the end", request(b"GET /open/ HTTP/1.1 ")),
    refused("two spaces", request(b"GET  /open/ HTTP/1.1")),
    refused("space in the target", request(b"GET /open/a b HTTP/1.1")),
    refused("tab", request(b"GET\t/open/ HTTP/1.1")),
    refused("long target", get(b"/open/" + b"a" * 9000), 414),
    refused("target longer than a head may be", get(b"/open/" + b"a" * 40000), 414),
]

VERSIONS = [
    passed("HTTP/1.0", request(b"GET /open/ HTTP/1.0"), ROOT, closes=True),
    passed("HTTP/1.0 without Host", request(b"GET /open/ HTTP/1.0", host=None), ROOT, closes=True),
    passed("HTTP/1.0 keep-alive", request(b"GET /open/ HTTP/1.0", b"Connection: keep-alive"), ROOT),
    passed("close", get(b"/open/", b"Connection: close"), ROOT, closes=True),
    passed("close, then keep-alive", get(b"/open/", b"Connection: close", b"Connection: keep-alive"), ROOT,
           closes=True),
    passed("Proxy-Connection: close", get(b"/open/", b"Proxy-Connection: x, Close"), ROOT, closes=True),
    passed("Proxy-Connection: keep-alive in HTTP/1.0", request(b"GET /open/ HTTP/1.0", b"Proxy-Connection: keep-alive"),
           ROOT, closes=True),
    refused("HTTP/0.9", b"GET /open/\r\n\r\n"),
    refused("HTTP/1.2", request(b"GET /open/ HTTP/1.2")),
    refused("HTTP/2.0", request(b"GET /open/ HTTP/2.0"), 505),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    refused("HTTP/1.10", request(b"GET /open/ HTTP/1.10")),
    refused("lower case", request(b"GET /open/ http/1.1")),
    refused("RTSP", request(b"GET /open/ RTSP/1.0"), 505),
    refused("unknown method", request(b"FROB /open/ HTTP/1.1"), 501),
    refused("lower case method", request(b"get /open/ HTTP/1.1"), 501),
    refused("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)),
    refused("garbage", b"\xff\xfe\x00garbage\r\n\r\n"),
    passed("empty line before it", b"\r\n" + get(b"/open/"), ROOT),
]  # fmt: skip

METHODS = [
    passed(f"{method.decode()} without a body", request(b"%b /open/a HTTP/1.1" % method), b"%b /a HTTP/1.1" % method)
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND", b"QUERY")
] + [
    passed(f"{method.decode()} without a body", request(b"%b /open/a HTTP/1.1" % method), b"%b /a HTTP/1.1" % method,
           b"Content-Length: 0")
    for method in (b"POST", b"PUT", b"PATCH")
]  # fmt: skip

FIELDS = [
    passed("duplicates, order and case",
           get(b"/open/", b"B: 2", b"a: 1", b"B:3", b"X-cAsE:  \t v  ", b"Cookie: a", b"E:"), ROOT,
           b"B: 2", b"a: 1", b"B: 3", b"X-cAsE: v", b"Cookie: a", b"E: "),
    passed("obs-text", get(b"/open/", b"A: \xc3\xbc\xff"), ROOT, b"A: \xc3\xbc\xff"),
    passed("hop by hop", get(
        b"/open/", b"Keep-Alive: 5", b"A: 1", b"TE: trailers", b"Trailer: X", b"Upgrade: h2c", b"HTTP2-Settings: AAM",
        b"Connection: Upgrade, HTTP2-Settings, TE", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic a",
        b"Proxy-Authenticate: Basic"), ROOT, b"TE: trailers", b"Connection: TE", b"A: 1"),
    passed("TE beside trailers", get(b"/open/", b"TE: gzip;q=0.5 ,\tTrailers", b"TE: deflate"), ROOT, b"TE: trailers",
           b"Connection: TE"),
    passed("TE without trailers", get(b"/open/", b"TE: gzip, xtrailers, trailers;q=0"), ROOT),
    passed("TE in HTTP/1.0", request(b"GET /open/ HTTP/1.0", b"TE: trailers"), ROOT, closes=True),
    passed("named by Connection", get(b"/open/", b"A: 1", b"Foo-2: x", b"Connection: close, foo, FOO-2", b"foo: y",
           b"Foobar: z"), ROOT, b"A: 1", b"Foobar: z", closes=True),
    passed("named by a second Connection",
           get(b"/open/", b"Connection: foo", b"Foo: 1", b"Bar: 2", b"connection: ,bar,"), ROOT),
    passed("named by Connection though it may pass", get(b"/open/", b"Connection: authorization",
           b"Authorization: Basic a"), ROOT),
    passed("named by Connection, ours", get(b"/open/", b"Connection: host, x-forwarded-for, x-request-id, forwarded"),
           ROOT),
    passed("upgrade", get(b"/open/", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"A: 1"), ROOT,
           b"Connection: upgrade", b"Upgrade: WebSocket", b"A: 1"),
    passed("upgrades, some of which never pass", get(b"/open/", b"Connection: upgrade,TE", b"Upgrade: h2c, foo/2",
           b"upgrade: TLS/1.2,HTTP/2.0 ,H2C , h2c-14, h2x,tls, a b, Bar", b"TE: trailers"), ROOT,
           b"Connection: upgrade", b"Upgrade: foo/2, h2x, Bar"),
    passed("upgrades that never pass", get(b"/open/", b"Connection: upgrade", b"Upgrade: h2c,HTTP/3,TLS/1.0",
           b"HTTP2-Settings: AAM"), ROOT),
    passed("upgrade that Connection does not name", get(b"/open/", b"Upgrade: websocket"), ROOT),
    passed("upgrade of nothing", get(b"/open/", b"Connection: upgrade"), ROOT),
    passed("upgrade in HTTP/1.0", request(b"GET /open/ HTTP/1.0", b"Connection: upgrade", b"Upgrade: websocket"), ROOT,
           closes=True),
    passed("upgrade and close", get(b"/open/", b"Connection: close, upgrade", b"Upgrade: websocket"), ROOT,
           b"Connection: upgrade", b"Upgrade: websocket", closes=True),
    passed("forwarded", get(b"/open/", b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-proto: https", b"A: 1",
           b"X-Forwarded-Host: evil", b"Forwarded: for=1.2.3.4", b"X-Forwarded-Port: 1", b"X_Forwarded_For: 1"),
           ROOT, b"A: 1"),
    passed("identity", get(b"/open/", b"X-User-Id: root", b"A: 1", b"x-gateway-x: 1", b"X-TENANT-NAME: t",
           b"X-Key-Id: k", b"X_User_Id: root", b"X-User_Id: root", b"X-Users: fine", b"X-Keyboard: fine"), ROOT,
           b"A: 1", b"X-Users: fine", b"X-Keyboard: fine"),
    passed("first field is cut out", get(b"/open/", b"X-User-Id: 1"), ROOT),
    passed("host preserved", get(b"/hosted/"), ROOT, host=b"api"),
    passed("request id kept", get(b"/open/", b"X-Request-Id: abc-123_X"), ROOT, request_id=b"abc-123_X"),
    passed("request id with a space", get(b"/open/", b"X-Request-Id: a b"), ROOT),
    passed("request id too long", get(b"/open/", b"X-Request-Id: " + b"a" * 129), ROOT),
    passed("request id empty", get(b"/open/", b"X-Request-Id:"), ROOT),
    refused("no Host", request(b"GET /open/ HTTP/1.1", host=None)),
    refused("two Hosts", get(b"/open/", b"Host: api")),
    refused("Host with a path", request(b"GET /open/ HTTP/1.1", host=b"api/x")),
    refused("Host with a quote", request(b"GET /open/ HTTP/1.1", host=b'a"b')),
    refused("Host with a space", request(b"GET /open/ HTTP/1.1", host=b"a b")),
    passed("Host empty", request(b"GET /open/ HTTP/1.1", host=b""), ROOT),
    passed("Host IPv6", request(b"GET /open/ HTTP/1.1", host=b"[::1]:8080"), ROOT),
    refused("obs-fold", get(b"/open/", b"A: 1\r\n 2")),
    refused("obs-fold of the first field", request(b"GET /open/ HTTP/1.1", b" A: 1")),
    refused("space before the colon", get(b"/open/", b"A : 1")),
    refused("tab before the colon", get(b"/open/", b"A\t: 1")),
    refused("no colon", get(b"/open/", b"A")),
    refused("no name", get(b"/open/", b": 1")),
    refused("bare LF", get(b"/open/", b"A: 1\nX-User-Id: 1")),
    refused("bare LF after the request line", b"GET /open/ HTTP/1.1\nHost: api\r\n\r\n"),
    refused("bare LF throughout", b"GET /open/ HTTP/1.1\nHost: api\n\n"),
    refused("bare CR", get(b"/open/", b"A: 1\rX-User-Id: 1")),
    refused("NUL", get(b"/open/", b"A: 1\0")),
    refused("control byte in a value", get(b"/open/", b"A: 1\x0b2")),
    refused("quote in a name", get(b"/open/", b'A"b: 1')),
    refused("long head", get(b"/open/", *(b"A%d: %b" % (index, b"x" * 1000) for index in range(40))), 431),
]  # fmt: skip

CREDENTIALS = [
    refused("no key", get(b"/keyed/"), 401, closes=False),
    refused("key of nobody", get(b"/keyed/", b"X-API-Key: gw_nope"), 401, closes=False),
    passed("X-API-Key", get(b"/keyed/", b"x-api-key: " + KEY, b"A: 1"), ROOT, b"A: 1"),
    passed("Bearer", get(b"/keyed/", b"Authorization: Bearer " + KEY), ROOT),
    passed("bearer", get(b"/keyed/", b"authorization: bearer  " + KEY), ROOT),
    passed("key, and the upstream's own credentials", get(b"/keyed/", b"X-API-Key: " + KEY,
           b"Authorization: Basic YTpi"), ROOT, b"Authorization: Basic YTpi"),
    passed("key twice", get(b"/keyed/", b"X-API-Key: " + KEY, b"x-api-key: " + KEY), ROOT),
    passed("key in both places", get(b"/keyed/", b"X-API-Key: " + KEY, b"Authorization: Bearer " + KEY),
           ROOT),
    passed("key with an underscore header beside", get(b"/keyed/", b"X-API-Key: " + KEY, b"X_API_Key: " + KEY),
           ROOT),
    passed("key where none is needed", get(b"/open/", b"X-API-Key: " + KEY, b"Authorization: Bearer " + KEY),
           ROOT),
    passed("a key of the upstream's own", get(b"/open/", b"X-API-Key: theirs", b"Authorization: Basic YTpi"),
           ROOT, b"X-API-Key: theirs", b"Authorization: Basic YTpi"),
    passed("header of its own", get(b"/own/", b"X-Own-Key: " + KEY, b"X-API-Key: theirs"), ROOT,
           b"X-API-Key: theirs"),
    passed("header of its own, key elsewhere too", get(b"/own/", b"X-Own-Key: " + KEY, b"X-API-Key: " + KEY),
           ROOT),
    passed("another service's header", get(b"/open/", b"X-Own-Key: " + KEY), ROOT),
]  # fmt: skip

TEN = b"0123456789"
BODIES = [
    passed("length", post(b"A: 1", b"Content-Length: 10", body=TEN), POSTED, b"A: 1", b"Content-Length: 10",
           body=TEN),
    passed("length 0", post(b"Content-Length: 0"), POSTED, b"Content-Length: 0"),
    passed("body that looks like a request", post(b"Content-Length: %d" % len(GET), body=GET), POSTED,
           b"Content-Length: %d" % len(GET), body=GET),
    passed("GET with a body", get(b"/open/", b"Content-Length: 10") + TEN, ROOT, b"Content-Length: 10",
           body=TEN),
    passed("chunks", chunked(b"3\r\n012\r\n7\r\n3456789\r\n0\r\n\r\n"), POSTED, b"Transfer-Encoding: chunked",
           body=TEN),
    passed("chunks, none", chunked(b"0\r\n\r\n"), POSTED, b"Transfer-Encoding: chunked"),
    passed("chunks, extension and trailers", chunked(b'A;x="y"\r\n0123456789\r\n00\r\nX-User-Id: 1\r\nB: 2\r\n\r\n'),
           POSTED, TE, body=TEN),
    passed("coding in another case", post(b"transfer-encoding: Chunked", body=b"a\r\n0123456789\r\n0\r\n\r\n"),
           POSTED, TE, body=TEN),
    passed("Expect", post(b"Expect: 100-continue", b"Content-Length: 10", body=TEN), POSTED,
           b"Content-Length: 10", b"Expect: 100-continue", body=TEN),
    passed("Expect with nothing to wait for", post(b"Expect: 100-continue", b"Content-Length: 0"), POSTED,
           b"Content-Length: 0"),
    passed("Expect what nobody knows", post(b"Expect: miracles", b"Content-Length: 10", body=TEN), POSTED,
           b"Content-Length: 10", body=TEN),
    passed("upgrade with a body", post(b"Connection: upgrade", b"Upgrade: foo", b"Content-Length: 10", body=TEN),
           POSTED, b"Content-Length: 10", body=TEN),
    passed("upgrade with chunks", post(b"Connection: upgrade", b"Upgrade: foo", TE, body=b"0\r\n\r\n"), POSTED, TE),
    passed("upgrade of a POST without a body", post(b"Connection: upgrade", b"Upgrade: foo"), POSTED,
           b"Content-Length: 0", b"Connection: upgrade", b"Upgrade: foo"),
    passed("body at the limit",
           post(b"Content-Length: %d" % BODY_LIMIT_BYTES, body=b"a" * BODY_LIMIT_BYTES, path=b"/small/"), POSTED,
           b"Content-Length: %d" % BODY_LIMIT_BYTES, body=b"a" * BODY_LIMIT_BYTES),
    refused("length over the limit", post(b"Content-Length: 101", body=b"a" * 101, path=b"/small/"), 413, closes=False),
    refused("length far over the limit", post(b"Content-Length: 99999999", body=b"a" * 101, path=b"/small/"), 413),
    refused("Expect, and no", post(b"Content-Length: 101", b"Expect: 100-continue", path=b"/small/"), 413),
    refused("length and chunks", post(b"Content-Length: 5", TE, body=b"0\r\n\r\n")),
    refused("chunks and length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
    refused("two lengths", post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd")),
    refused("the same length twice", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
    refused("lengths in a list", post(b"Content-Length: 3, 3", body=b"abc")),
    refused("length +3", post(b"Content-Length: +3", body=b"abc")),
    refused("length -3", post(b"Content-Length: -3", body=b"abc")),
    refused("length 0x3", post(b"Content-Length: 0x3", body=b"abc")),
    refused("length 3 3", post(b"Content-Length: 3 3", body=b"abc")),
    refused("length empty", post(b"Content-Length:", body=b"abc")),
    refused("length huge", post(b"Content-Length: " + b"9" * 30, body=b"abc")),
    refused("gzip", post(b"Transfer-Encoding: gzip", body=b"abc")),
    refused("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    refused("chunked, gzip", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    refused("chunked twice", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    refused("chunked in two fields", post(b"Transfer-Encoding: chunked", TE, body=b"0\r\n\r\n")),
    refused("identity", post(b"Transfer-Encoding: identity", body=b"abc")),
    refused("xchunked", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    refused("chunked after a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    refused("space before the colon of a coding", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    refused("chunks in HTTP/1.0", request(b"POST /open/ HTTP/1.0", TE, body=b"0\r\n\r\n")),
]  # fmt: skip

ROWS = TARGETS + VERSIONS + METHODS + FIELDS + CREDENTIALS + BODIES


def step_of(data: bytes) -> int:
    """Byte by byte where that is quick, in some hundreds of pieces where not."""
    return max(1, len(data) // 500)


def is_ours(field: bytes) -> bool:
    """Written by the gateway at a place of its own: framing, and credentials that were looked at and may pass."""
    return field.lower().startswith((b"content-length", b"transfer-encoding", b"authorization", b"x-api-key"))


def check_upstream(row: Row, got: Message) -> None:
    assert got.line == row.line
    fields = [b"%b: %b" % pair for pair in got.without(*OURS)]
    assert [field for field in fields if is_ours(field)] == [field for field in row.fields if is_ours(field)]
    assert [field for field in fields if not is_ours(field)] == [field for field in row.fields if not is_ours(field)]
    assert got.body == row.body
    host = got.one(b"X-Forwarded-Host")
    assert got.all(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert got.all(b"X-Forwarded-Proto") == [b"http"]
    assert got.all(b"Forwarded") == [b'for=127.0.0.1;host="%b";proto=http' % host]
    assert got.one(b"Host") == row.host or (row.host is None and got.one(b"Host").startswith(b"127.0.0.1:"))


def check_ids(row: Row, answers: Iterable[Message], got: Iterable[Message]) -> None:
    ids = [message.one(b"X-Request-Id") for message in answers]
    assert ids[-len(list(got)) :] == [message.one(b"X-Request-Id") for message in got] or not got
    if row.request_id is not None:
        assert ids[-1] == row.request_id
    else:
        assert 16 <= len(ids[-1]) <= 64


async def check(wire: Wire, row: Row, client: Peer, before: int = 0) -> None:
    """Read the answer and look at both ends. `before`: requests of another kind that went ahead on this connection."""
    head_only = row.sent.startswith(b"HEAD ")
    answer = await client.message(bodiless=head_only)
    assert answer.status == row.status, answer
    got = wire.upstream.requests[before:]
    if row.line:
        assert len(got) == 1
        check_upstream(row, got[0])
        assert answer.body == (b"" if head_only else b"ok")
    else:
        assert got == []
        assert answer.one(b"Content-Type") == b"application/problem+json"
        if not before:
            assert wire.upstream.received == b"", "the upstream has seen something of a refused message"
    check_ids(row, [answer], got)
    if row.closes:
        assert answer.all(b"Connection") == [b"close"]
        assert await client.rest() == b""
    else:
        assert answer.all(b"Connection") == ([b"keep-alive"] if b" HTTP/1.0" in row.sent else [])


def bytes_of(row: Row, wire: Wire) -> bytes:
    return row.sent.replace(KEY, wire.key)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_whole(wire: Wire, row: Row) -> None:
    client = await wire.client()
    await client.send(bytes_of(row, wire))
    await check(wire, row, client)
    assert wire.key not in wire.upstream.received


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_byte_by_byte(wire: Wire, row: Row) -> None:
    client = await wire.client()
    await client.send(bytes_of(row, wire), step_of(row.sent))
    await check(wire, row, client)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_behind_another(wire: Wire, row: Row) -> None:
    """Two requests in one packet; the second is this row."""
    client = await wire.client()
    await client.send(GET + bytes_of(row, wire))
    assert (await client.message()).status == 200
    await check(wire, row, client, before=1)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.closes], ids=str)
async def test_before_another(wire: Wire, row: Row) -> None:
    """Two requests in one packet; the first is this row, and the connection is still good afterwards."""
    client = await wire.client()
    await client.send(bytes_of(row, wire) + get(b"/open/next"))
    answer = await client.message(bodiless=row.sent.startswith(b"HEAD "))
    assert answer.status == row.status
    assert (await client.message()).status == 200
    assert wire.upstream.requests[-1].line == b"GET /next HTTP/1.1"
    assert len(wire.upstream.requests) == (2 if row.line else 1)


@pytest.mark.parametrize("row", [row for row in ROWS if row.closes], ids=str)
async def test_nothing_is_read_after_a_close(wire: Wire, row: Row) -> None:
    client = await wire.client()
    await client.send(bytes_of(row, wire) + get(b"/open/next") * 3)
    assert (await client.message()).status == row.status
    assert await client.rest() == b""
    assert b"/next" not in b"".join(message.line for message in wire.upstream.requests)


# Bodies whose framing breaks: the upstream may have seen a part, but never the end of a message.
BROKEN_CHUNKS = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "size is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size with a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\nabc\r\n0\r\n\r\n",
    "space after the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "size huge": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "bare LF after the size": b"3\nabc\r\n0\r\n\r\n",
    "bare CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "bare LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "NUL in an extension": b"3;a\0b\r\nabc\r\n0\r\n\r\n",
    "long extension": b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    "longer than its size": b"2\r\nabc\r\n0\r\n\r\n",
    "bare LF after the data": b"3\r\nabc\n0\r\n\r\n",
    "no CRLF after the data": b"3\r\nabc0\r\n\r\n",
    "bare LF at the end": b"3\r\nabc\r\n0\r\n\n",
    "bare LF after the last size": b"3\r\nabc\r\n0\n\r\n",
    "trailer without a colon": b"3\r\nabc\r\n0\r\nA\r\n\r\n",
    "trailer without a name": b"3\r\nabc\r\n0\r\n: a\r\n\r\n",
    "space before a trailer's colon": b"3\r\nabc\r\n0\r\nA : a\r\n\r\n",
    "folded trailer": b"3\r\nabc\r\n0\r\nA: a\r\n b\r\n\r\n",
    "control byte in a trailer": b"3\r\nabc\r\n0\r\nA: \x01\r\n\r\n",
    "NUL in a trailer": b"3\r\nabc\r\n0\r\nA: \0\r\n\r\n",
    "bare CR in a trailer": b"3\r\nabc\r\n0\r\nA: b\rC: d\r\n\r\n",
    "quote in a trailer's name": b'3\r\nabc\r\n0\r\nA"b: a\r\n\r\n',
    "trailers too long": b"3\r\nabc\r\n0\r\n" + b"A: %b\r\n" % (b"b" * 1000) * 10 + b"\r\n",
    "endless trailer": b"3\r\nabc\r\n0\r\nA: " + b"b" * 9000,
}


async def check_broken(wire: Wire, sent: bytes, step: int, status: int) -> None:
    client = await wire.client()
    await client.send(sent, step and step_of(sent))
    answer = await client.message()
    assert answer.status == status
    assert answer.one(b"Connection") == b"close"
    assert await client.rest() == b""
    # An upstream that has seen the beginning sees the connection end in the middle of it.
    await wire.settled(lambda: all(peer.ended for peer in wire.upstream.peers if peer.received))
    assert wire.upstream.requests == []
    (record,) = wire.records()
    assert record.status == status


STEPS = pytest.mark.parametrize("step", [0, 1], ids=["whole", "byte by byte"])


@STEPS
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
async def test_broken_chunks(wire: Wire, name: str, step: int) -> None:
    await check_broken(wire, chunked(BROKEN_CHUNKS[name]), step, 400)


@STEPS
async def test_chunks_over_the_limit(wire: Wire, step: int) -> None:
    """Nobody declared the length: it is noticed on the way, and the upstream's half is cut off."""
    body = b"a\r\n0123456789\r\n" * 11 + b"0\r\n\r\n"
    await check_broken(wire, chunked(body, path=b"/small/") + get(b"/open/next"), step, 413)


async def test_expect_of_http_1_0_is_ignored(wire: Wire) -> None:
    client = await wire.client()
    await client.send(request(b"POST /open/ HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"))
    assert (await client.message(interim=True)).status == 200


async def test_a_body_withheld_after_a_refusal_is_not_waited_for(wire: Wire) -> None:
    """Whoever asked and was told no sends no body (RFC 9110 10.1.1): the next request must not be taken for it."""
    client = await wire.client()
    await client.send(post(b"Expect: 100-continue", b"Content-Length: 10", path=b"/keyed/"))
    answer = await client.message()
    assert (answer.status, answer.all(b"Connection")) == (401, [b"close"])
    assert await client.rest() == b""


async def test_head_of_a_thousand_names_in_connection(wire: Wire) -> None:
    """The names are many, the work must not be: each is looked up, none is compiled."""
    names = [b"n%d" % index for index in range(4000)]
    answer = await wire.ask(get(b"/open/", b"Connection: " + b",".join(names), b"A: 1", b"n77: 2"))
    assert answer.status == 200
    assert [name for name, _ in wire.upstream.requests[0].without(*OURS)] == [b"A"]
