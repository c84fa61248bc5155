"""Webhooks as Standard Webhooks 1.0.0 has them: how one is signed, what an answer means, when to try again. Pure.

What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, by HMAC-SHA256 with the bytes that stand in base64 behind
`whsec_`. The id stays the same at every attempt, so a receiver knows a repeated delivery; the timestamp is the
attempt's, so an old one cannot be played back later.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

SECRET_PREFIX = "whsec_"  # noqa: S105  # what every secret begins with
NEW_SECRET_BYTES = 32
_SECRET_BYTES = range(24, 65)
_LONGEST_URL = 2048

# Seconds after each failure; together 23.7 hours. Beyond the last an event is given up.
DELAYS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
JITTER = (0.8, 1.2)  # of a delay: what failed together shall not come back together
_LONGEST_WAIT_S = 86400  # that a receiver may ask for with Retry-After

GONE = 410


class Reply(NamedTuple):
    """What came of one attempt: the receiver's status, or why there is none. `retry_after` as it was written."""

    status: int | None = None
    error: str = ""
    retry_after: str = ""

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of these, ever."""
        return self.status == GONE

    @property
    def failure(self) -> str:
        """Why it is not delivered, in a sentence; empty if it is."""
        if self.delivered:
            return ""
        if self.gone:
            return "it answered 410: it wants no more of these"
        return self.error or f"it answered {self.status}"


def next_at(reply: Reply, attempts: int, now_s: int, jitter: float) -> int | None:
    """When to try again after so many attempts, the last of which came to nothing; None: never.

    `jitter` is a factor drawn from JITTER.
    """
    if reply.gone or attempts > len(DELAYS_S):
        return None
    wait_s = max(1, round(DELAYS_S[attempts - 1] * jitter))
    return now_s + max(wait_s, min(retry_after_s(reply.retry_after, now_s), _LONGEST_WAIT_S))


def retry_after_s(text: str, now_s: int) -> int:
    """RFC 9110 section 10.2.3: seconds, or a date. 0 for what is neither, or is over."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp()) - now_s)
    except (ValueError, OverflowError):
        return 0


def sign(secret: str, event_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%b.%d.%b" % (event_id.encode(), timestamp_s, body)
    digest = hmac.digest(base64.b64decode(secret.removeprefix(SECRET_PREFIX)), signed, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def write_secret(random: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(random).decode()


def check_secret(text: str) -> str:
    """One of the receiver's making. Raises ValueError with a sentence, which never quotes it."""
    what = f"a signing secret is {SECRET_PREFIX} and the base64 of 24 to 64 random bytes"
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"does not begin with {SECRET_PREFIX}; {what}")
    try:
        random = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is no base64; {what}") from None
    if len(random) not in _SECRET_BYTES:
        raise ValueError(f"holds {len(random)} bytes; {what}")
    return text


def check_url(text: str) -> str:
    """Where webhooks may go. Raises ValueError with a sentence, which never quotes what may be a password."""
    if len(text) > _LONGEST_URL:
        raise ValueError(f"is longer than {_LONGEST_URL} characters")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("holds a space or a character that does not belong in a URL; encode it with %")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {str(error)[:1].lower()}{str(error)[1:]}") from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise ValueError("must be a URL such as https://ops.example.com/hooks")
    if "@" in url.netloc:
        raise ValueError("holds a user or a password; webhooks are signed, they need none")
    if url.fragment:
        raise ValueError("has a fragment (#), which is never sent")
    return text


def destination(url: str) -> str:
    """Who receives: host and port, without the path, which may hold a token."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
