"""The heads of requests and responses as bytes: read once, rewritten whole.

llhttp has accepted a head before it comes here, so its lines are well-formed: CRLF, a token before each colon, no
control bytes. What is left is done by one compiled pattern that splits a head at every header the gateway has an
interest in: what lies between are the headers that pass as they came, in their order and case, and are joined again
without being looked at. A callback per header would cost 0.3 µs each, and a browser sends fifteen.

Every header that the pattern names is dropped; what the other side needs of them is written anew. So framing (RFC 9112
section 6) is never copied, hop-by-hop headers (RFC 9110 section 7.6.1) never pass, and neither does a header by which
a caller could pose as the gateway.
"""

from __future__ import annotations

import re
from typing import Final

from gatewayd.errors import BAD_REQUEST, NOT_IMPLEMENTED, TARGET_TOO_LONG, VERSION_NOT_SUPPORTED, Refusal


def _any_case(*names: str) -> str:
    """A pattern for these names in any case. First letters as a set: sre skips an alternative by its first set."""
    return "|".join("".join(f"[{c.upper()}{c}]" if c.isalpha() else re.escape(c) for c in name) for name in names)


# Headers of a request that never pass as they came. A trailing `-` stands for the whole family.
_FRAMING = ("content-length", "transfer-encoding", "te", "trailer", "expect", "upgrade", "connection", "keep-alive")
_HOP_BY_HOP = ("proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings")
_IDENTITY = ("x-user-", "x-gateway-", "x-tenant-", "x-key-")
_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")
_READ = ("host", "authorization", "x-api-key", "x-request-id")


def request_pattern(key_headers: frozenset[str]) -> re.Pattern[bytes]:
    """The splitting pattern for a snapshot whose services read keys from `key_headers` (lower case) too."""
    exact = _any_case(*_FRAMING, *_HOP_BY_HOP, *_FORWARDED, *_READ, *sorted(key_headers - set(_READ)))
    families = "|".join(f"(?:{_any_case(name)})[^:]*" for name in _IDENTITY)
    return re.compile(rf"\r\n({exact}|{families}):[ \t]*([^\r]*)".encode())


_RESPONSE = re.compile(
    rf"\r\n({_any_case('content-length', 'transfer-encoding', 'connection', 'keep-alive', 'proxy-connection')}"
    rf"|{_any_case('upgrade', 'trailer', 'te', 'x-request-id')}"
    rf"|(?:{_any_case('ratelimit', 'x-ratelimit')})[^:]*):[ \t]*([^\r]*)".encode()
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9]\.[0-9])")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)(.*)", re.DOTALL)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
# `/.` begins every literal dot segment, `%2e` is the same dot encoded (RFC 3986 section 6.2.2): a cheap first sieve.
_DOT_SEGMENT = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:/|$)")
_DIGITS = re.compile(rb"[0-9]{1,18}")

CHUNKED: Final = -1  # in place of a length: the body comes in chunks
UNTIL_CLOSE: Final = -2  # the body ends with the connection (responses only)


class RequestHead:
    """What the gateway needs to know of a request, and the bytes that pass on. Lengths in bytes, -1 for chunked."""

    __slots__ = (
        "authorization", "body_length", "connection_named", "expects_continue", "fields", "host", "http_1_0",
        "keep_alive", "kept", "method", "path", "query", "request_id",
    )  # fmt: skip

    method: bytes
    path: bytes
    query: bytes  # with its question mark, or empty
    http_1_0: bool
    host: bytes
    keep_alive: bool
    body_length: int
    expects_continue: bool
    request_id: bytes | None
    authorization: bytes | None
    connection_named: tuple[bytes, ...]  # headers that Connection names beside the usual, lower case
    fields: list[bytes]  # alternately name and value of every header that was cut out
    kept: bytes  # the headers that pass, each beginning with CRLF

    def value_of(self, name: bytes) -> bytes | None:
        """The value of a header that was cut out, by its lower-case name; the first if there are several."""
        fields = self.fields
        for index in range(0, len(fields), 2):
            if fields[index].lower() == name:
                return fields[index + 1].rstrip(b" \t")
        return None


def read_request(head: bytes, pattern: re.Pattern[bytes], target_limit_bytes: int) -> RequestHead | Refusal:
    """Read a head that llhttp has accepted; `head` ends before the empty line. Checks what llhttp leaves open."""
    line_end = head.find(b"\r\n")
    line = _REQUEST_LINE.fullmatch(head if line_end < 0 else head[:line_end])
    if line is None:
        return Refusal(BAD_REQUEST, "the request line is malformed")
    method, target, version = line.groups()
    if version != b"1.1" and version != b"1.0":
        return Refusal(VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(target) > target_limit_bytes:
        return Refusal(TARGET_TOO_LONG, f"the request target is longer than {target_limit_bytes} bytes")
    parts = pattern.split(head[line_end:]) if line_end >= 0 else [b""]
    request = RequestHead()
    request.method = method
    request.http_1_0 = version == b"1.0"
    refusal = _read_fields(request, parts) or _read_target(request, target)
    return request if refusal is None else refusal


def _read_fields(request: RequestHead, parts: list[bytes]) -> Refusal | None:
    """Facts from the headers that were cut out. `parts` is kept, name, value, kept, name, value, ..., kept."""
    http_1_0 = request.http_1_0
    host = None
    length = 0
    chunked = False
    request.keep_alive = not http_1_0
    request.expects_continue = False
    request.request_id = request.authorization = None
    request.connection_named = ()
    fields: list[bytes] = []
    for index in range(1, len(parts), 3):
        name, value = parts[index].lower(), parts[index + 1]
        if name == b"host":
            if host is not None:
                return Refusal(BAD_REQUEST, "more than one Host header")
            host = value.rstrip(b" \t")
        elif name == b"content-length":
            value = value.rstrip(b" \t")
            if _DIGITS.fullmatch(value) is None:
                return Refusal(BAD_REQUEST, "Content-Length is not a number")
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or http_1_0 or value.strip().lower() != b"chunked":
                return Refusal(BAD_REQUEST, "the only transfer coding understood is one final `chunked`, in HTTP/1.1")
            chunked = True
        elif name == b"connection":
            _read_connection(request, value)
        elif name == b"expect":
            request.expects_continue = value.strip().lower() == b"100-continue"
        elif name == b"x-request-id":
            value = value.rstrip(b" \t")
            if _REQUEST_ID.fullmatch(value) is not None:
                request.request_id = value
        else:
            if name == b"authorization":
                request.authorization = value
            fields += (parts[index], value)
    if host is None:
        if not http_1_0:
            return Refusal(BAD_REQUEST, "the Host header is missing")
        host = b""
    request.host = host
    request.body_length = CHUNKED if chunked else length
    request.fields = fields
    request.kept = b"".join(parts[0::3]) if len(parts) > 1 else parts[0]
    return None


def _read_connection(request: RequestHead, value: bytes) -> None:
    lowered = value.lower()
    if lowered == b"keep-alive":  # what all but a few send
        request.keep_alive = True
        return
    named = [token for token in (part.strip() for part in lowered.split(b",")) if token]
    if b"close" in named:
        request.keep_alive = False
    elif b"keep-alive" in named:
        request.keep_alive = True
    request.connection_named += tuple(token for token in named if token not in (b"close", b"keep-alive", b"upgrade"))


def _read_target(request: RequestHead, target: bytes) -> Refusal | None:
    """Split the target into path and query without decoding either (RFC 9112 section 3.2)."""
    if target[:1] != b"/":
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            if request.method == b"CONNECT":
                return Refusal(NOT_IMPLEMENTED, "CONNECT is not served")
            return Refusal(BAD_REQUEST, "the request target is neither a path nor an absolute URL")
        if absolute[1].lower() != request.host.lower():
            return Refusal(BAD_REQUEST, "the request target and the Host header disagree")
        target = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
    if b"#" in target:
        return Refusal(BAD_REQUEST, "the request target has a fragment")
    path, mark, query = target.partition(b"?")
    # A path that climbs is refused rather than resolved: which of two servers resolves it is how prefixes are escaped.
    if (b"/." in path or b"%2" in path) and _DOT_SEGMENT.search(path) is not None:
        return Refusal(BAD_REQUEST, "the path has a `.` or `..` segment")
    request.path = path
    request.query = mark + query
    return None


def without(kept: bytes, names: tuple[bytes, ...]) -> bytes:
    """`kept` without the headers that the message's Connection header has named."""
    pattern = rb"\r\n(?:" + b"|".join(re.escape(name) for name in names) + rb"):[^\r]*"
    return re.sub(pattern, b"", kept, flags=re.IGNORECASE)


class ResponseHead:
    """What the gateway needs to know of a response, and the bytes that pass on."""

    __slots__ = ("bodiless", "body_length", "fields", "keep_alive", "kept", "reason", "status")

    status: int
    reason: bytes
    keep_alive: bool  # the upstream connection may serve another request
    body_length: int  # bytes, CHUNKED or UNTIL_CLOSE
    bodiless: bool  # by its status or by the request's method: nothing frames a body, not even a length of 0
    kept: bytes
    fields: list[bytes]  # alternately name and value: the upstream's own rate-limit headers


def read_response(head: bytes, to_head_request: bool) -> ResponseHead | str:
    """Read a response head that llhttp has accepted; a sentence where it is not fit to be passed on.

    `to_head_request`: the answer to a HEAD has no body, whatever it declares (RFC 9112 section 6.3).
    """
    line_end = head.find(b"\r\n")
    line = _STATUS_LINE.fullmatch(head if line_end < 0 else head[:line_end])
    if line is None:
        return "its status line is malformed"
    parts = _RESPONSE.split(head[line_end:]) if line_end >= 0 else [b""]
    response = ResponseHead()
    status = response.status = int(line[2])
    response.reason = line[3] or b""
    http_1_0 = line[1] == b"0"
    response.keep_alive = not http_1_0
    response.fields = []
    length: int | None = None
    chunked = False
    named: tuple[bytes, ...] = ()
    for index in range(1, len(parts), 3):
        name, value = parts[index].lower(), parts[index + 1].rstrip(b" \t")
        if name == b"content-length":
            if _DIGITS.fullmatch(value) is None or (length is not None and int(value) != length):
                return "its Content-Length is malformed"
            length = int(value)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                return "its transfer coding is not understood"
            chunked = True
        elif name == b"connection":
            tokens = [token.strip() for token in value.lower().split(b",")]
            response.keep_alive = b"close" not in tokens and (not http_1_0 or b"keep-alive" in tokens)
            named += tuple(token for token in tokens if token not in (b"close", b"keep-alive", b"upgrade", b""))
        elif b"ratelimit" in name:
            response.fields += (parts[index], value)
    if chunked and (length is not None or http_1_0):
        return "it is framed in two ways at once"
    kept = b"".join(parts[0::3]) if len(parts) > 1 else parts[0]
    response.kept = without(kept, named) if named else kept
    response.bodiless = to_head_request or status == 204 or status == 304 or status < 200
    if response.bodiless:
        response.body_length = 0
        if length is not None and status != 204 and status >= 200:
            # The length that a GET would have had is part of the answer; it frames nothing here.
            response.kept += b"\r\nContent-Length: %d" % length
    elif chunked:
        response.body_length = CHUNKED
    elif length is not None:
        response.body_length = length
    else:
        response.body_length = UNTIL_CLOSE
    return response
