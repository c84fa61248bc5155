"""Trailer fields: which of those behind a chunked body are passed on (RFC 9110 section 6.5).

They are read as strictly as header fields (see `chunked`) and go on where the outgoing message is chunked too: a
request's always, a response's to a client that has sent `TE: trailers`, which is then said to the upstream as well
(RFC 9110 section 10.1.4). A `Trailer` header, which announces them, passes where they can. Nothing is ever merged into
a head, ours or the message's. What a service's header rules remove or set does not pass here either.

Never passed is what a recipient must know before the body, or must not be told by a stranger after the guards have
looked (RFC 9110 section 6.5.1): framing and `Content-*`, hop-by-hop fields and those that Connection names, routing,
credentials, conditions and controls of caching, limits, and names by which a caller could pose as the gateway. Of the
`Content-*`, Content-Digest may pass: it is made for this place (RFC 9530 section 2).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from gatewayd.proxy.head import CERTIFICATES, POSING

_NEVER = (
    "transfer-encoding", "te", "trailer",
    "connection", "keep-alive", "upgrade", "http2-settings",
    "host", "via", "max-forwards", "forwarded", "x-request-id",
    "authorization", "www-authenticate", "authentication-info", "cookie", "set-cookie", "x-api-key",
    "expect", "range", "pragma", "cache-control", "age", "expires", "date", "location", "retry-after", "vary",
    "warning",
)  # fmt: skip
_FAMILIES = ("content-(?!digest$)", "if-", "proxy-", "ratelimit", "x-ratelimit", *CERTIFICATES, *POSING)
_REFUSED = re.compile("|".join((*(f"{name}$" for name in _NEVER), *_FAMILIES)).encode())


def passed_on(
    lines: Iterable[bytes],
    named: Container[bytes],
    credential_headers: Container[bytes],
    ruled: Container[bytes] = (),
) -> bytes:
    """Of these lines (without their ends) those that pass, each ending in CRLF.

    `named`: what the message's Connection header names; `credential_headers`: where services read keys; `ruled`: what
    the service's rules remove, with `-` for `_`. Lower case.
    """
    passed = b""
    for line in lines:
        name = line.partition(b":")[0].lower()
        folded = name.replace(b"_", b"-")  # to CGI and WSGI both are one (see `head.request_pattern`)
        if name in named or name in credential_headers or folded in credential_headers or folded in ruled:
            continue
        if _REFUSED.match(folded) is None:
            passed += line + b"\r\n"
    return passed
