"""A refusal as bytes: the one place where the data plane turns a problem into a response (RFC 9457)."""

from __future__ import annotations

import http

import msgspec

from gatewayd.errors import Refusal
from gatewayd.proxy.dating import date_field

_json = msgspec.json.Encoder()


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


def render(
    refusal: Refusal, request_id: bytes, limit_fields: bytes, *, head_only: bool, close: bool
) -> tuple[bytes, int]:
    """The whole response and the length of its body."""
    problem = refusal.problem
    body = _json.encode(
        {
            "type": problem.type,
            "title": problem.title,
            "status": problem.status,
            "detail": refusal.detail,
            "code": problem.code,
            "request_id": request_id.decode("latin-1"),
        }
    )
    extra = b"".join(b"%b: %b\r\n" % pair for pair in refusal.headers)
    head = b"%b%bContent-Type: application/problem+json\r\nContent-Length: %d\r\nX-Request-Id: %b\r\n%b%b%b\r\n" % (
        STATUS_LINES[problem.status],
        date_field(),
        len(body),
        request_id,
        limit_fields,
        extra,
        b"Connection: close\r\n" if close else b"",
    )
    return (head, 0) if head_only else (head + body, len(body))
