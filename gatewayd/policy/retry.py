"""When a request may be sent a second time: only where nothing can happen twice."""

from __future__ import annotations

# RFC 9110 section 9.2.2. PATCH and POST are not in it, nor is any method we do not know.
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


def may_repeat(method: bytes, body_streamed: bool) -> bool:
    """After a connection died without a byte of a response: whoever was there may not have read the request.

    A pooled connection may have been dying before the request went out, so the same target may be asked again, on a new
    one. A target that dies with a new connection is not asked again, but another is, once: a request that kills whoever
    reads it must not be carried from one target to the next.

    A body that was streamed is gone: nobody holds it to be sent again.
    """
    return method in IDEMPOTENT and not body_streamed
