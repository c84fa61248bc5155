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

import http
import re

from gatewayd.errors import BAD_REQUEST, NOT_IMPLEMENTED, TARGET_TOO_LONG, VERSION_NOT_SUPPORTED, Refusal
from gatewayd.policy.addresses import DOT_SEGMENT
from gatewayd.policy.facts import CHUNKED, UNTIL_CLOSE, Facts, Fields
from gatewayd.proxy.dating import is_dated

# Headers of a request that never pass as they came. A trailing `-` stands for the whole family.
_FRAMING = ("content-length", "transfer-encoding", "te", "trailer", "expect", "upgrade", "connection", "keep-alive")
_HOP_BY_HOP = ("proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings")
POSING = ("x-user-", "x-gateway-", "x-tenant-", "x-key-", "x-forwarded-")
CERTIFICATES = ("client-cert", "client-cert-chain")  # RFC 9440 section 2.4: only ours may pass
_READ = ("host", "forwarded", "authorization", "x-api-key", "x-request-id")

_RESPONSE_FRAMING = (
    "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "trailer", "te",
    "proxy-authenticate",
)  # fmt: skip
# The upstream's own limits are weighed against ours; its request id gives way to the one that the client knows.
_RESPONSE_LIMITS = ("ratelimit", "x-ratelimit")


def _splitter(names: frozenset[str], families: tuple[str, ...], dash: str = "-") -> re.Pattern[bytes]:
    """Splits at these headers and those that begin like a family, in any case, into kept, name, value, kept, ...

    Alternatives are grouped by their first letter, which spares the matcher most of them: twice as fast as one list.
    """
    by_letter: dict[str, list[str]] = {}
    for name in sorted(names):
        by_letter.setdefault(name[0], []).append(re.escape(name[1:]))
    for family in families:
        by_letter.setdefault(family[0], []).append(re.escape(family[1:]) + "[^:]*")
    groups = "|".join(f"{re.escape(letter)}(?:{'|'.join(rests)})" for letter, rests in sorted(by_letter.items()))
    groups = groups.replace(re.escape("-"), dash)
    return re.compile(rf"\r\n({groups}):[ \t]*([^\r]*)".encode(), re.IGNORECASE)


def request_pattern(key_headers: frozenset[str]) -> re.Pattern[bytes]:
    """The splitting pattern for a snapshot whose services read keys from `key_headers` (lower case) too.

    Also with `_` for `-`: to CGI and WSGI both are one variable, so X_User_Id could pose as X-User-Id.
    """
    return _splitter(frozenset((*_FRAMING, *_HOP_BY_HOP, *CERTIFICATES, *_READ)) | key_headers, POSING, dash="[-_]")


_RESPONSE = _splitter(frozenset((*_RESPONSE_FRAMING, "x-request-id")), _RESPONSE_LIMITS)
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)(.*)", re.DOTALL)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
# reg-name, IPv4 or bracketed IPv6 with a port (RFC 3986 section 3.2.2): it is written into headers of ours. No comma,
# though the RFC has it: no name holds one, but two Hosts that somebody has folded into one do.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9\-._~!$&'()*+;=]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9\-._~!$&'()*+;=]*)*)(?::[0-9]{0,5})?"
)
_ASKS_TO_UPGRADE = re.compile(rb"(?:^|,)[ \t]*upgrade[ \t]*(?:,|$)", re.IGNORECASE)
# A protocol with or without a version (RFC 9110 section 7.8); but never HTTP in another one, nor TLS, since that tunnel
# would carry requests past every guard.
_MAY_SWITCH = re.compile(
    rb"(?!(?:h2|h2c|h3|http|tls)(?:[-/]|\Z))[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?",
    re.IGNORECASE,
)
# In Proxy-Connection, which is no field of HTTP (RFC 9112 appendix C.2.2): llhttp reads no further after it, so what we
# had promised to hear would be refused. Its keep-alive is not believed: a proxy may have passed it on unread.
_CLOSES = re.compile(rb"(?:^|,)[ \t]*close[ \t]*(?:,|$)", re.IGNORECASE)
_TAKES_TRAILERS = re.compile(rb"(?:^|,)[ \t]*trailers[ \t]*(?:,|$)", re.IGNORECASE)
_LONGEST_LENGTH = 18  # digits: an exbibyte, and still a small integer


def read_request(
    head: bytes, pattern: re.Pattern[bytes], target_limit_bytes: int, before: Fields | None = None
) -> Facts | Refusal:
    """Read a whole head that llhttp has accepted, and check what llhttp leaves open.

    `before`: what the previous request of the connection said; taken over if this one says the same.
    """
    line_end = head.find(b"\r\n")
    line = head[:line_end].split(b" ")
    if len(line) != 3:  # HTTP/0.9 has no version, and llhttp lets it through
        return Refusal(BAD_REQUEST, "the request line is malformed")
    facts = Facts()
    facts.method, target, version = line
    http_1_0 = False
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            return Refusal(VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        http_1_0 = True
    if len(target) > target_limit_bytes:
        return Refusal(TARGET_TOO_LONG, f"the request target is longer than {target_limit_bytes} bytes")
    if facts.method == b"CONNECT":
        return Refusal(NOT_IMPLEMENTED, "CONNECT is not served")
    raw = head[line_end:]
    if before is None or before.raw != raw or before.pattern is not pattern or before.http_1_0 != http_1_0:
        fields = read_fields(raw, pattern, http_1_0)
        if isinstance(fields, Refusal):
            return fields
        facts.fields = fields
    else:
        facts.fields = before
    if target[0] != _SLASH:
        origin = _origin_form(target, facts.fields.host)
        if isinstance(origin, Refusal):
            return origin
        target = origin
    if b"#" in target:
        return Refusal(BAD_REQUEST, "the request target has a fragment")
    path, mark, query = target.partition(b"?")
    # A path that climbs is refused rather than resolved: which of two servers resolves it is how prefixes are escaped.
    if (b"." in path or b"%2" in path) and DOT_SEGMENT.search(path) is not None:
        return Refusal(BAD_REQUEST, "the path has a `.` or `..` segment")
    facts.path = path
    facts.query = mark + query
    return facts


_SLASH = ord("/")
# What Connection names is looked up in a set: a caller may name 16,000, and look for each of them 1,000 times.
NONE_NAMED: frozenset[bytes] = frozenset()
_NAMED_AS_USUAL = (b"close", b"keep-alive", b"upgrade", b"")
_NONE: tuple[bytes, ...] = ()  # after a bare () mypy, and what mypyc compiles, hold the attribute to be empty for good
_READ_HERE = frozenset((
    b"connection", b"content-length", b"transfer-encoding", b"expect", b"x-request-id", b"te", b"trailer", b"upgrade",
    b"proxy-connection",
))  # fmt: skip


def read_fields(raw: bytes, pattern: re.Pattern[bytes], http_1_0: bool) -> Fields | Refusal:
    """What the header fields say; `raw` begins with the CRLF before the first and ends with the empty line."""
    fields = Fields()
    fields.raw, fields.pattern, fields.http_1_0 = raw, pattern, http_1_0
    fields.keep_alive = not http_1_0
    fields.expects_continue = fields.takes_trailers = False
    fields.request_id = fields.proven = fields.read_for = fields.client = None
    fields.connection_named = NONE_NAMED
    fields.upgrade = _NONE
    fields.cut = []
    host = None
    connection = trailer = upgrade = b""
    length: int | None = None
    closes = False
    parts = pattern.split(raw)  # kept, name, value, kept, name, value, ..., kept
    for index in range(1, len(parts), 3):
        name = parts[index].lower()
        value = parts[index + 1]
        if name == b"host":
            if host is not None:
                return Refusal(BAD_REQUEST, "more than one Host header")
            host = value.rstrip(b" \t")
        elif name not in _READ_HERE:
            fields.cut.append((name, parts[index], value))
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"content-length":
            value = value.rstrip(b" \t")
            if not value.isdigit() or len(value) > _LONGEST_LENGTH or length is not None:
                return Refusal(BAD_REQUEST, "Content-Length is no number, or stands beside another framing")
            length = int(value)
        elif name == b"transfer-encoding":
            if length is not None or http_1_0 or value.strip().lower() != b"chunked":
                return Refusal(BAD_REQUEST, "the only transfer coding understood is one `chunked`, in HTTP/1.1")
            length = CHUNKED
        elif name == b"expect":
            # Ignored in HTTP/1.0, whose clients know no interim answers (RFC 9110 section 10.1.1).
            fields.expects_continue = not http_1_0 and value.strip().lower() == b"100-continue"
        elif name == b"te":
            fields.takes_trailers |= not http_1_0 and _TAKES_TRAILERS.search(value) is not None
        elif name == b"trailer":
            trailer = trailer + b"," + value if trailer else value
        elif name == b"upgrade":
            upgrade = upgrade + b"," + value if upgrade else value
        elif name == b"proxy-connection":
            closes = closes or _CLOSES.search(value) is not None
        elif _REQUEST_ID.fullmatch(value := value.rstrip(b" \t")) is not None:
            fields.request_id = value
    if connection and (connection != b"keep-alive" or http_1_0):  # what all but a few send, and the default
        _read_connection(fields, connection)
    if closes:
        fields.keep_alive = False
    if host is None:
        if not http_1_0:
            return Refusal(BAD_REQUEST, "the Host header is missing")
        host = b""
    elif _HOST.fullmatch(host) is None:
        return Refusal(BAD_REQUEST, "the Host header is malformed")
    fields.host = host
    fields.body_length = length or 0
    kept = b"".join(parts[0::3])
    if fields.connection_named:
        kept = without(kept, fields.connection_named)
    fields.kept = kept
    if length or upgrade or fields.takes_trailers or fields.expects_continue:
        asks = upgrade and not http_1_0 and _ASKS_TO_UPGRADE.search(connection) is not None
        fields.kept = _said_anew(fields, trailer, upgrade if asks else b"") + kept
    return fields


def _said_anew(fields: Fields, trailer: bytes, upgrade: bytes) -> bytes:
    """What was cut out and goes on to the upstream all the same, by rules of its own."""
    said = b""
    if not fields.body_length:
        fields.expects_continue = False  # there is nothing to wait for
    elif fields.expects_continue:
        said = b"\r\nExpect: 100-continue"
    if trailer and fields.body_length == CHUNKED and b"trailer" not in fields.connection_named:
        said += b"\r\nTrailer: " + trailer
    protocols = [protocol.strip() for protocol in upgrade.split(b",")] if not fields.body_length else []
    # Those that may be switched to; if none may, the request is served as if it had not asked.
    protocols = [protocol for protocol in protocols if _MAY_SWITCH.fullmatch(protocol)]
    if protocols:
        fields.upgrade = tuple(protocol.lower() for protocol in protocols)
        # Alone in Connection, since not every server reads a list there.
        said += b"\r\nConnection: upgrade\r\nUpgrade: " + b", ".join(protocols)
    elif fields.takes_trailers:
        said += b"\r\nTE: trailers\r\nConnection: TE"
    return said


def _read_connection(fields: Fields, value: bytes) -> None:
    named = [token for token in (part.strip() for part in value.lower().split(b",")) if token]
    if b"close" in named:
        fields.keep_alive = False
    elif b"keep-alive" in named:
        fields.keep_alive = True
    fields.connection_named = frozenset(named).difference(_NAMED_AS_USUAL)


def _origin_form(target: bytes, host: bytes) -> bytes | Refusal:
    """A target that is no path (RFC 9112 section 3.2): an absolute URL becomes its path, the others are refused."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return Refusal(BAD_REQUEST, "the request target is neither a path nor an absolute URL")
    if not absolute[1] or absolute[1].lower() != host.lower():
        return Refusal(BAD_REQUEST, "the request target and the Host header disagree")
    return absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]


def without(kept: bytes, names: frozenset[bytes]) -> bytes:
    """`kept` without the headers that the message's Connection header has named."""
    lines = kept.split(b"\r\n")
    return b"\r\n".join([line for line in lines if line.partition(b":")[0].lower() not in names])


class ResponseHead:
    """What the gateway needs to know of a response, and the bytes that pass on."""

    __slots__ = ("bodiless", "body_length", "connection_named", "dated", "fields", "keep_alive", "kept", "status",
                 "trailer", "upgrade")  # fmt: skip

    status: int
    keep_alive: bool  # the upstream connection may serve another request
    body_length: int  # bytes, CHUNKED or UNTIL_CLOSE
    dated: bool  # nobody need say when it came
    bodiless: bool  # by its status or by the request's method: nothing frames a body, not even a length of 0
    kept: bytes  # the status line as HTTP/1.1, and the headers that pass, each beginning with CRLF
    connection_named: frozenset[bytes]  # fields that Connection names beside the usual, lower case
    upgrade: bytes  # protocols that it switches to
    trailer: bytes  # names that it announces for behind its body
    fields: tuple[bytes, ...]  # alternately name and value: the upstream's own rate-limit headers

    def with_kept(self, kept: bytes) -> ResponseHead:
        """The same with other bytes to pass on: a connection that reads one head again and again keeps its own."""
        other = ResponseHead()
        other.status, other.keep_alive, other.kept, other.dated = self.status, self.keep_alive, kept, self.dated
        other.body_length, other.bodiless = self.body_length, self.bodiless
        other.connection_named, other.upgrade = self.connection_named, self.upgrade
        other.trailer, other.fields = self.trailer, self.fields
        return other


def read_response(head: bytes, to_head_request: bool) -> ResponseHead | str:
    """Read a response head that llhttp has accepted; a sentence where it is not fit to be passed on.

    `to_head_request`: the answer to a HEAD has no body, whatever it declares (RFC 9112 section 6.3).
    """
    line_end = head.find(b"\r\n")
    line = head if line_end < 0 else head[:line_end]
    if line not in _USUAL_STATUS_LINES and _STATUS_LINE.fullmatch(line) is None:
        return "its status line is malformed"
    response = ResponseHead()
    status = response.status = int(line[9:12])
    http_1_0 = head[7] == _ZERO
    keep_alive = not http_1_0
    response.fields = _NONE
    response.connection_named = NONE_NAMED
    response.trailer = response.upgrade = b""
    length = UNTIL_CLOSE
    connection = b""
    closes = False
    parts = _RESPONSE.split(head)
    for index in range(1, len(parts), 3):
        value = parts[index + 1]
        match parts[index].lower():
            case b"content-length":
                value = value.rstrip(b" \t")
                if not value.isdigit() or len(value) > _LONGEST_LENGTH or length != UNTIL_CLOSE:
                    return "its Content-Length is malformed, or stands beside another framing"
                length = int(value)
            case b"transfer-encoding":
                if length != UNTIL_CLOSE or http_1_0 or value.strip().lower() != b"chunked":
                    return "its transfer coding is not understood, or stands beside another framing"
                length = CHUNKED
            case b"connection":
                connection = value if not connection else connection + b"," + value
            case b"proxy-connection":
                closes = closes or _CLOSES.search(value) is not None
            case b"upgrade":
                response.upgrade = response.upgrade + b"," + value if response.upgrade else value
            case b"trailer":
                response.trailer = response.trailer + b"," + value if response.trailer else value
            case b"ratelimit" | b"ratelimit-policy" | b"ratelimit-limit" | b"ratelimit-remaining" | b"ratelimit-reset":
                response.fields += (parts[index], value)
            case name if name.startswith(b"x-ratelimit"):
                response.fields += (parts[index], value)
    kept = b"".join(parts[0::3])
    if http_1_0:
        kept = b"HTTP/1.1" + kept[8:]
    if connection and (connection != b"keep-alive" or http_1_0):
        tokens = [token.strip() for token in connection.lower().split(b",")]
        keep_alive = b"close" not in tokens and (not http_1_0 or b"keep-alive" in tokens)
        named = response.connection_named = frozenset(tokens).difference(_NAMED_AS_USUAL)
        if named:  # not the status line, which may be named as well as any header
            kept = kept[: len(line)] + without(kept[len(line) :], named)
    response.keep_alive = keep_alive and not closes
    response.kept = kept
    response.dated = is_dated(kept)
    response.bodiless = to_head_request or status == 204 or status == 304 or status < 200
    response.body_length = length
    if response.bodiless:
        response.body_length = 0
        if length not in (0, UNTIL_CLOSE):
            # Who declares a body may send it, though none may follow (204) or can (HEAD): whenever it came, it would be
            # read as the next caller's answer. An upstream's connection costs less than that.
            response.keep_alive = False
        if length >= 0 and status != 204 and status >= 200:
            # The length that a GET would have had is part of the answer; it frames nothing here.
            response.kept += b"\r\nContent-Length: %d" % length
    return response


# llhttp lets any three digits through, and control bytes in the reason.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_USUAL_STATUS_LINES = frozenset(f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in http.HTTPStatus)
_ZERO = ord("0")
