"""Heads read as pure functions: what passes, what is read, and what is refused though llhttp lets it through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import BAD_REQUEST, NOT_IMPLEMENTED, TARGET_TOO_LONG, VERSION_NOT_SUPPORTED, Problem, Refusal
from gatewayd.policy.facts import CHUNKED, UNTIL_CLOSE, Facts, Fields
from gatewayd.proxy.head import ResponseHead, read_request, read_response, request_pattern, without

PATTERN = request_pattern(frozenset({"x-api-key", "x-own_key"}))
HOST = b"Host: api"


def read(line: bytes, *fields: bytes) -> Facts | Refusal:
    return read_request(b"\r\n".join((line, *fields)) + b"\r\n\r\n", PATTERN, 100)


def facts(line: bytes, *fields: bytes) -> Facts:
    found = read(line, *fields)
    assert isinstance(found, Facts), found
    return found


def fields_of(line: bytes, *fields: bytes) -> Fields:
    return facts(line, *fields).fields


def response(line: bytes, *fields: bytes, to_head: bool = False) -> ResponseHead:
    found = read_response(b"\r\n".join((line, *fields)), to_head)
    assert isinstance(found, ResponseHead), found
    return found


REFUSED: dict[str, tuple[bytes, tuple[bytes, ...], Problem]] = {
    "no version": (b"GET /", (HOST,), BAD_REQUEST),
    "four parts": (b"GET / x HTTP/1.1", (HOST,), BAD_REQUEST),
    "HTTP/2.0": (b"GET / HTTP/2.0", (HOST,), VERSION_NOT_SUPPORTED),
    "HTTP/0.9": (b"GET / HTTP/0.9", (HOST,), VERSION_NOT_SUPPORTED),
    "long target": (b"GET /" + b"a" * 100 + b" HTTP/1.1", (HOST,), TARGET_TOO_LONG),
    "CONNECT": (b"CONNECT api:80 HTTP/1.1", (HOST,), NOT_IMPLEMENTED),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1", (HOST,), NOT_IMPLEMENTED),
    "no Host": (b"GET / HTTP/1.1", (), BAD_REQUEST),
    "two Hosts": (b"GET / HTTP/1.1", (HOST, b"host: api"), BAD_REQUEST),
    "length and chunks": (b"GET / HTTP/1.1", (HOST, b"Content-Length: 0", b"Transfer-Encoding: chunked"), BAD_REQUEST),
    "chunks and length": (b"GET / HTTP/1.1", (HOST, b"Transfer-Encoding: chunked", b"Content-Length: 0"), BAD_REQUEST),
    "two lengths": (b"GET / HTTP/1.1", (HOST, b"Content-Length: 0", b"Content-Length: 0"), BAD_REQUEST),
    "two codings": (b"GET / HTTP/1.1", (HOST, *[b"Transfer-Encoding: chunked"] * 2), BAD_REQUEST),
    "gzip": (b"GET / HTTP/1.1", (HOST, b"Transfer-Encoding: gzip, chunked"), BAD_REQUEST),
    "length of 19 digits": (b"GET / HTTP/1.1", (HOST, b"Content-Length: " + b"1" * 19), BAD_REQUEST),
    "length with an underscore": (b"GET / HTTP/1.1", (HOST, b"Content-Length: 1_0"), BAD_REQUEST),
    "chunks in HTTP/1.0": (b"GET / HTTP/1.0", (HOST, b"Transfer-Encoding: chunked"), BAD_REQUEST),
    "fragment": (b"GET /#a HTTP/1.1", (HOST,), BAD_REQUEST),
    "fragment in the query": (b"GET /?a#a HTTP/1.1", (HOST,), BAD_REQUEST),
    "asterisk": (b"OPTIONS * HTTP/1.1", (HOST,), BAD_REQUEST),
    "other host": (b"GET http://other/ HTTP/1.1", (HOST,), BAD_REQUEST),
    "other scheme": (b"GET ftp://api/ HTTP/1.1", (HOST,), BAD_REQUEST),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    line, fields, problem = REFUSED[name]
    found = read(line, *fields)
    assert isinstance(found, Refusal)
    assert found.problem is problem


def test_what_passes_is_untouched() -> None:
    kept = (b"b: 2", b"A:1", b"a:  \t x ", b"X-User: fine", b"Hostess: x")
    found = fields_of(b"GET / HTTP/1.1", kept[0], HOST, *kept[1:3], b"X-User-Id: 1", b"x_gateway_y: 1", *kept[3:])
    assert found.kept == b"".join(b"\r\n" + field for field in kept) + b"\r\n\r\n"


def test_path_and_query() -> None:
    found = facts(b"GET /a%2Fb//c;d?x=%20&y=/../ HTTP/1.1", HOST)
    assert (found.method, found.path, found.query) == (b"GET", b"/a%2Fb//c;d", b"?x=%20&y=/../")
    assert facts(b"GET http://api?x HTTP/1.1", HOST).path == b"/"


@pytest.mark.parametrize(
    ("version", "fields", "stays", "named"),
    [
        (b"1.1", (), True, ()),
        (b"1.0", (), False, ()),
        (b"1.1", (b"keep-alive",), True, ()),
        (b"1.0", (b"Keep-Alive",), True, ()),
        (b"1.0", (b"keep-alive",), True, ()),
        (b"1.1", (b"close",), False, ()),
        (b"1.1", (b"close, keep-alive",), False, ()),
        (b"1.1", (b"close", b"keep-alive"), False, ()),
        (b"1.1", (b"keep-alive", b"CLOSE"), False, ()),
        (b"1.0", (b"keep-alive", b"close"), False, ()),
        (b"1.1", (b"Upgrade, Foo", b",, bar ,"), True, (b"foo", b"bar")),
    ],
)
def test_connection(version: bytes, fields: tuple[bytes, ...], stays: bool, named: tuple[bytes, ...]) -> None:
    found = fields_of(b"GET / HTTP/" + version, HOST, *(b"Connection: " + field for field in fields))
    assert (found.keep_alive, found.connection_named) == (stays, frozenset(named))  # a set: see `head.NONE_NAMED`


def test_lengths() -> None:
    assert fields_of(b"POST / HTTP/1.1", HOST).body_length == 0
    assert fields_of(b"POST / HTTP/1.1", HOST, b"content-length: \t7 ").body_length == 7
    assert fields_of(b"POST / HTTP/1.1", HOST, b"TRANSFER-ENCODING: Chunked ").body_length == CHUNKED
    length = b"Content-Length: 7"
    assert fields_of(b"POST / HTTP/1.1", HOST, b"Expect: 100-Continue", length).expects_continue
    assert not fields_of(b"POST / HTTP/1.1", HOST, b"Expect: 100-continue").expects_continue
    assert not fields_of(b"POST / HTTP/1.0", HOST, b"Expect: 100-continue", length).expects_continue


@pytest.mark.parametrize("slash", ["/", "\\", "%2f", "%2F", "%5c", "%5C"])
@pytest.mark.parametrize("dots", [".", "..", "%2e", "%2E%2e", ".%2e", "%2e."])
@pytest.mark.parametrize("end", ["", "/", ";x/", "%2f", "\\", "%3Bx"])
def test_dot_segments(slash: str, dots: str, end: str) -> None:
    assert isinstance(read(f"GET /a{slash}{dots}{end} HTTP/1.1".encode(), HOST), Refusal)


@given(st.text(alphabet="a.%2eE5cfF/;", max_size=12))
def test_dot_segments_as_an_upstream_resolves_them(path: str) -> None:
    """Whatever decodes once and then looks for `.` and `..` finds none in what has passed."""
    found = read(f"GET /{path} HTTP/1.1".encode(), HOST)
    decoded = re.sub("%(2e|2f|5c)", lambda match: chr(int(match[1], 16)), f"/{path}", flags=re.IGNORECASE)
    climbs = any(segment.split(";")[0] in (".", "..") for segment in re.split(r"[/\\]", decoded))
    assert isinstance(found, Refusal) or not climbs
    assert isinstance(found, Facts) or climbs or "#" in path


NAMES = st.from_regex(rb"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True)
VALUES = st.from_regex(rb"[!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?", fullmatch=True) | st.just(b"")
POSED = re.compile(rb"(host|te|trailer|expect|upgrade|connection|keep-alive|forwarded|authorization|transfer-encoding"
                   rb"|content-length|http2-settings|proxy-(connection|authenticate|authorization)|x-api-key|x-own.key"
                   rb"|x-request-id|x-(user|gateway|tenant|key|forwarded)-.*)")  # fmt: skip


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_any_headers_pass_in_order(fields: list[tuple[bytes, bytes]]) -> None:
    """Against a reader that looks at each header: what is not named stays as it was, what is named is gone."""
    lines = [b"%b: %b" % field for field in fields]
    found = read(b"GET / HTTP/1.1", HOST, *lines)
    if isinstance(found, Refusal):
        return
    passing = [line for (name, _), line in zip(fields, lines, strict=True)
               if POSED.fullmatch(name.lower().replace(b"_", b"-")) is None]  # fmt: skip
    assert found.fields.kept == b"".join(b"\r\n" + line for line in passing) + b"\r\n\r\n"


def test_named_headers_are_dropped() -> None:
    kept = b"\r\nA: 1\r\nFoo: 2\r\nfOO-b: 3\r\nB: foo: 4\r\n\r\n"
    assert without(kept, frozenset((b"foo",))) == b"\r\nA: 1\r\nfOO-b: 3\r\nB: foo: 4\r\n\r\n"
    assert without(b"\r\n\r\n", frozenset((b"foo",))) == b"\r\n\r\n"


def test_fields_that_repeat_are_read_once() -> None:
    first = facts(b"GET /a HTTP/1.1", HOST, b"X-Request-Id: 1")
    head = b"GET /b HTTP/1.%d\r\nHost: api\r\n%b: 1\r\n\r\n"
    same = read_request(head % (1, b"X-Request-Id"), PATTERN, 100, first.fields)
    assert isinstance(same, Facts) and same.fields is first.fields and same.path == b"/b"
    for data, pattern in (
        (head % (0, b"X-Request-Id"), PATTERN),
        (head % (1, b"X-Request-Ie"), PATTERN),
        (head % (1, b"X-Request-Id"), request_pattern(frozenset({"other"}))),
    ):
        other = read_request(data, pattern, 100, first.fields)
        assert isinstance(other, Facts) and other.fields is not first.fields


# Responses.


@pytest.mark.parametrize(
    ("fields", "to_head", "length", "bodiless"),
    [
        ((), False, UNTIL_CLOSE, False),
        ((b"Content-Length: 7",), False, 7, False),
        ((b"Transfer-Encoding: chunked",), False, CHUNKED, False),
        ((b"Content-Length: 7",), True, 0, True),
        ((), True, 0, True),
    ],
)
def test_response_length(fields: tuple[bytes, ...], to_head: bool, length: int, bodiless: bool) -> None:
    found = response(b"HTTP/1.1 200 OK", *fields, to_head=to_head)
    assert (found.body_length, found.bodiless) == (length, bodiless)


def test_response_passes() -> None:
    found = response(
        b"HTTP/1.0 418 I'm a teapot", b"B: 2", b"Keep-Alive: 1", b"a:1", b"Content-Length: 3", b"X-RateLimit-Limit: 9"
    )
    assert found.kept == b"HTTP/1.1 418 I'm a teapot\r\nB: 2\r\na:1"
    assert (found.status, found.keep_alive, found.fields) == (418, False, (b"X-RateLimit-Limit", b"9"))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 099 X", b"HTTP/1.1 600 X", b"HTTP/1.1 20 X", b"HTTP/1.1 2000", b"HTTP/1.1 200 a\0b",
        b"HTTP/2.0 200 OK",        b"HTTP/1.1 200 a\x7fb", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1x", b"HTTP/1.1 200 OK\r\nContent-Length: +1",
    ],
)  # fmt: skip
def test_response_refused(head: bytes) -> None:
    assert isinstance(read_response(head, False), str)
