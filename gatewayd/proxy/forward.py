"""What goes out on either side: the upstream's request head and the client's response head, as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewayd.policy.facts import CHUNKED, Fields, Route, Target
from gatewayd.policy.routing import length_of_segments
from gatewayd.proxy.dating import date_field
from gatewayd.proxy.head import ResponseHead

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange


def request_bytes(exchange: Exchange, route: Route, target: Target) -> bytes:
    """The request head for the upstream. Path and query are the caller's bytes, less the prefix that matched."""
    request = exchange.facts
    fields = request.fields
    service = route.service
    strip = route.strip
    if strip < 0:
        strip = length_of_segments(request.path, -strip)
    path = target.base + route.rewrite + request.path[strip:] or b"/"
    if path[:1] != b"/":
        path = b"/" + path
    host = fields.host if service.conf.preserve_host and fields.host else target.host_header
    length = fields.body_length
    if length == 0:
        # A POST without a body says so (RFC 9110 section 8.6); a GET without one says nothing.
        framing = b"Content-Length: 0\r\n" if request.method in _EXPECT_BODY else b""
    else:
        framing = b"Transfer-Encoding: chunked\r\n" if length == CHUNKED else b"Content-Length: %d\r\n" % length
    return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: %b%b" % (
        request.method,
        path,
        request.query,
        host,
        exchange.client.origin.fields_for(fields),
        framing,
        fields.passed,
        exchange.request_id,
        fields.sent,
    )


_EXPECT_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


def passed_fields(fields: Fields, route: Route, credential_headers: frozenset[bytes]) -> bytes:
    """Of the headers that were cut out, those that may pass: credentials that are the upstream's, not ours.

    The header that a route reads keys from never passes, nor does any other that holds a gateway key or the key that
    was shown: one that was imported looks like anything, and may have come as a bearer token.
    """
    ours = route.service.key_header if route.needs_key else b""
    shown = fields.credential or b"gw_"
    passed = b""
    for lower, name, value in fields.cut:
        if lower == ours or lower not in credential_headers or lower in fields.connection_named:
            continue
        if b"gw_" not in value and shown not in value:
            passed += b"%b: %b\r\n" % (name, value)
    return passed


def choose_fields(fields: Fields, route: Route, credential_headers: frozenset[bytes]) -> None:
    """What of the caller's fields goes to the upstream of this route, as the service's rules have it."""
    fields.passed = passed_fields(fields, route, credential_headers) if fields.cut else b""
    fields.sent = fields.kept
    rules = route.service.request_rules
    if rules is not None:
        fields.passed = rules.without(b"\r\n" + fields.passed)[2:]
        fields.sent = rules.applied(fields.kept[:-4]) + b"\r\n\r\n"


def response_bytes(exchange: Exchange, response: ResponseHead, keep_alive: bool) -> bytes:
    """The response head for the client, framed anew."""
    if response.bodiless:
        framing = b""
    elif response.body_length >= 0:
        framing = b"Content-Length: %d\r\n" % response.body_length
    else:
        framing = b"Transfer-Encoding: chunked\r\n" if exchange.chunk_response else b""
        if response.trailer and response.body_length == CHUNKED and exchange.facts.fields.takes_trailers:
            framing += b"Trailer: %b\r\n" % response.trailer
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif exchange.facts.fields.http_1_0:
        framing += b"Connection: keep-alive\r\n"
    return b"%b\r\n%b%bX-Request-Id: %b\r\n%b\r\n" % (
        response.kept,
        b"" if response.dated else date_field(),
        limit_fields(exchange, response),
        exchange.request_id,
        framing,
    )


def switch_bytes(exchange: Exchange, response: ResponseHead) -> bytes:
    """The head of a 101 for the client."""
    return b"%b\r\n%bX-Request-Id: %b\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % (
        response.kept,
        limit_fields(exchange, response),
        exchange.request_id,
        response.upgrade,
    )


def limit_fields(exchange: Exchange, response: ResponseHead | None = None) -> bytes:
    """The rate-limit headers of what it is charged to, as of now; each ends in CRLF."""
    lease = exchange.facts.lease
    if lease is None:
        return b"" if response is None else _limit_fields_beside(response, b"", None)
    fields = lease.header_fields(exchange.started_at)
    if response is None or not response.fields:
        return fields
    return _limit_fields_beside(response, fields, lease.left())


def _limit_fields_beside(response: ResponseHead, ours: bytes, remaining: int | None) -> bytes:
    """Our rate-limit fields and the upstream's own, which are never made more permissive.

    RateLimit and RateLimit-Policy are lists: both stand. X-RateLimit-* has one voice: whoever has less left.
    """
    fields = response.fields
    pairs = [(fields[index], fields[index + 1]) for index in range(0, len(fields), 2)]
    older = [pair for pair in pairs if pair[0].lower().startswith(b"x-")]
    theirs = {name.lower(): value for name, value in older}.get(b"x-ratelimit-remaining", b"")
    if older and remaining is not None:
        if theirs.isdigit() and int(theirs[:18]) < remaining:
            ours = ours[: ours.index(b"X-RateLimit-Limit")]
        else:
            pairs = [pair for pair in pairs if pair not in older]
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs) + ours
