"""Rules of a service over headers: what they make of fields, and what they may not touch."""

from __future__ import annotations

import pytest

from gatewayd.conf import HeaderRuleConf
from gatewayd.policy.header_rules import Side, check_rule, compile_rules

FIELDS = b"\r\nA: 1\r\nX-Env: caller\r\nx_env: caller\r\nB: 2"


def ruled(fields: bytes, *rules: tuple[str, str, str]) -> bytes:
    compiled = compile_rules((HeaderRuleConf("request", *rule) for rule in rules), "request")  # type: ignore[arg-type]
    assert compiled is not None
    return compiled.applied(fields)


def test_set_replaces_whatever_its_case_and_dash() -> None:
    assert ruled(FIELDS, ("set", "X-Env", "prod")) == b"\r\nA: 1\r\nB: 2\r\nX-Env: prod"


def test_add_leaves_what_is_there() -> None:
    assert ruled(FIELDS, ("add", "X-Env", "prod")) == FIELDS + b"\r\nX-Env: prod"


def test_remove() -> None:
    assert ruled(FIELDS, ("remove", "x-env", ""), ("remove", "none", "")) == b"\r\nA: 1\r\nB: 2"
    assert ruled(b"\r\nA: 1", ("remove", "A", "")) == b""


def test_rules_come_one_after_the_other() -> None:
    assert ruled(b"", ("add", "A", "1"), ("set", "a", "2"), ("add", "A", "3")) == b"\r\na: 2\r\nA: 3"
    assert ruled(b"", ("set", "A", "1"), ("remove", "A", "")) == b""


def test_none() -> None:
    assert compile_rules((HeaderRuleConf("response", "remove", "Server"),), "request") is None


@pytest.mark.parametrize(
    ("side", "action", "name", "value", "why"),
    [
        ("request", "set", "A b", "", "not the name of a header"),
        ("request", "set", "", "", "not the name of a header"),
        ("request", "set", "A:", "", "not the name of a header"),
        ("request", "set", "Content-Length", "1", "frames the message"),
        ("request", "remove", "transfer_encoding", "", "frames the message"),
        ("response", "set", "Connection", "close", "frames the message"),
        ("response", "remove", "TRAILER", "", "frames the message"),
        ("request", "set", "Authorization", "Bearer x", "credentials"),
        ("request", "remove", "X-API-Key", "", "credentials"),
        ("request", "remove", "X-Orders-Key", "", "credentials"),
        ("request", "add", "Host", "a", "the gateway itself"),
        ("request", "set", "X_Forwarded_For", "1.2.3.4", "the gateway itself"),
        ("response", "set", "X-Request-Id", "a", "the gateway itself"),
        ("response", "remove", "RateLimit-Policy", "", "the gateway itself"),
        ("request", "set", "X-Env", "a\r\nB: c", "control character"),
        ("request", "set", "X-Env", "a\0", "control character"),
        ("request", "set", "X-Env", "\u20ac", "Latin-1"),
        ("request", "set", "X-Env", " a", "a space"),
        ("request", "remove", "X-Env", "a", "takes no value"),
    ],
)
def test_what_no_rule_may_do(side: Side, action: str, name: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_rule(HeaderRuleConf(side, action, name, value), "X-Orders-Key")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["X-Env", "Server", "Set-Cookie", "X-User-Tier", "Cache-Control"])
def test_what_it_may(name: str) -> None:
    rule = HeaderRuleConf("request", "set", name, "caf\u00e9 1")
    assert check_rule(rule, "X-API-Key") is rule
