"""Header rules of a service: what it sets, adds and removes on requests to its targets and on their answers.

They come after everything else that is done to a head, and never touch what the gateway itself answers for: framing
and hop-by-hop fields, credentials, and the fields that it writes. Such names are refused when a rule is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from gatewayd.conf import HeaderRuleConf

Side = Literal["request", "response"]

# What a viewer of the admin API is shown in place of a value that may be a credential, and so no value of a rule: who
# applies what a viewer was shown would send it to the upstream.
HIDDEN: Final = "<hidden from viewers>"

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")
_FRAMING = frozenset({
    "connection", "content-length", "expect", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "x-api-key", "client-cert", "client-cert-chain"})
_OURS: Final = {
    "request": frozenset({"host", "forwarded", "x-request-id"}),
    "response": frozenset({"x-request-id"}),
}
_OUR_FAMILIES: Final = {"request": ("x-forwarded-",), "response": ("ratelimit", "x-ratelimit")}


class HeaderRules:
    """Those of one side, compiled: what goes, then what comes, in order."""

    __slots__ = ("added", "dropped")

    def __init__(self, dropped: frozenset[bytes], added: bytes) -> None:
        self.dropped = dropped
        self.added = added  # each beginning with CRLF

    def __repr__(self) -> str:
        return f"<HeaderRules drops {len(self.dropped)}, adds {self.added!r}>"

    def applied(self, fields: bytes) -> bytes:
        """Fields that each begin with CRLF, ruled."""
        return self.without(fields) + self.added

    def without(self, fields: bytes) -> bytes:
        if not self.dropped:
            return fields
        return b"\r\n".join([line for line in fields.split(b"\r\n") if _normal(line) not in self.dropped])


def _normal(line: bytes) -> bytes:
    """The name of a field, as CGI and WSGI know it: in one case, and `_` is `-`."""
    return line.partition(b":")[0].lower().replace(b"_", b"-")


def compile_rules(rules: Iterable[HeaderRuleConf], side: Side) -> HeaderRules | None:
    """None where there are none. A later rule sees what an earlier one has made."""
    dropped: set[bytes] = set()
    added: list[tuple[bytes, bytes]] = []
    there_are = False
    for rule in rules:
        if rule.side != side:
            continue
        there_are = True
        name = rule.name.encode("latin-1")
        if rule.action != "add":
            dropped.add(_normal(name))
            added = [each for each in added if _normal(each[0]) != _normal(name)]
        if rule.action != "remove":
            added.append((name, rule.value.encode("latin-1")))
    if not there_are:
        return None
    return HeaderRules(frozenset(dropped), b"".join(b"\r\n%b: %b" % each for each in added))


def check_rule(rule: HeaderRuleConf, key_header: str) -> HeaderRuleConf:
    """A rule that may be. Raises ValueError with a sentence. `key_header`: the service's own."""
    if _NAME.fullmatch(rule.name) is None:
        raise ValueError(f"{rule.name[:80]!r} is not the name of a header")
    name = rule.name.lower().replace("_", "-")
    if name in _FRAMING:
        raise ValueError(f"{rule.name} frames the message or belongs to one connection; no rule may touch it")
    if name in _CREDENTIALS or name == key_header.lower().replace("_", "-"):
        raise ValueError(f"{rule.name} carries credentials; no rule may touch it")
    if name in _OURS[rule.side] or name.startswith(_OUR_FAMILIES[rule.side]):
        raise ValueError(f"{rule.name} is written by the gateway itself; no rule may touch it")
    if rule.action == "remove" and rule.value:
        raise ValueError(f"to remove {rule.name} takes no value")
    if rule.value == HIDDEN:
        raise ValueError(f"{HIDDEN} stands for the value of {rule.name}, and is none; give the value itself")
    if _VALUE.fullmatch(rule.value) is None:
        raise ValueError(f"the value of {rule.name} is too long, or holds a control character or one beyond Latin-1")
    if rule.value != rule.value.strip(" \t"):
        raise ValueError(f"the value of {rule.name} begins or ends with a space")
    return rule
