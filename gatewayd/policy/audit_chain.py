"""The chain of the audit: each line's hash covers the line and the hash before it.

So whoever alters, adds or takes out a line in the middle must write all later ones anew, and the newest hash, noted
elsewhere now and then (`audit verify` shows it), gives even that away.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

GENESIS = ""  # before the first line


class Line(NamedTuple):
    """What of an audit line the hash covers: all of it. `at` is seconds since 1970, `before` and `after` JSON texts."""

    at: int
    actor: str
    action: str
    tenant: str
    subject: str
    before: str | None
    after: str | None


def link(previous: str, line: Line) -> str:
    """The hash of `line` after the one with the hash `previous`, in hexadecimal digits (SHA-256).

    It is of a JSON array, ASCII without spaces: any program can recompute it, and no two lines read the same.
    """
    text = json.dumps([previous, *line], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
