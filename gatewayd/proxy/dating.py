"""The Date of answers: of our own, and of those that an upstream has not dated (RFC 9110 section 6.6.1).

Whoever receives an answer without one has to say when it came before passing it on, so that caches behind know its age.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache

_DATE = re.compile(rb"\r\nDate[ \t]*:", re.IGNORECASE)


def is_dated(fields: bytes) -> bool:
    """Of fields that each begin with CRLF."""
    return _DATE.search(fields) is not None


def date_field() -> bytes:
    """As of now, ending in CRLF."""
    return _field_of(time.time_ns() // 1_000_000_000)


@lru_cache(maxsize=1)
def _field_of(now_s: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(now_s, usegmt=True).encode()
