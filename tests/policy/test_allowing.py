"""Lists of what is allowed: how rules and networks are written, and what they match."""

from __future__ import annotations

import pytest

from gatewayd.policy.allowing import check_allow, check_network, compile_allow


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("GET /v1/users/*", "GET /v1/users/*"),
        ("  get   /v1 ", "GET /v1"),
        ("head,GET,get /x/{id}", "GET,HEAD /x/{id}"),
        ("* /", "* /"),
        ("* /*", "* /*"),
        ("* /v1/", "* /v1/"),
        ("PURGE /a(b)$", "PURGE /a(b)$"),
    ],
)
def test_rules_are_kept_in_one_spelling(written: str, kept: str) -> None:
    assert check_allow(written) == kept
    assert check_allow(kept) == kept


@pytest.mark.parametrize(
    "text",
    ["", "GET", "/v1", "GET v1", "GET /v1 /v2", "GET, /v1", "GE(T /v1", "GET,* /v1", "GET /v1/*/x", "GET /v1*", "GET *",
     "GET /{id", "GET /a{id}", "GET /{id}b", "GET /{}", "GET /{a b}", "GET /a//b", "GET /a/../b", "GET /a%20b",
     "GET /a?b", "GET /ä", "GET /" + "a" * 1024],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=" ") as refused:
        check_allow(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "asked", "allowed"),
    [
        (["GET /v1"], b"GET /v1", True),
        (["GET /v1"], b"GET /v1/", False),
        (["GET /v1"], b"POST /v1", False),
        (["GET /v1"], b"GET /V1", False),
        (["GET /v1"], b"XGET /v1", False),
        (["* /v1"], b"DELETE /v1", True),
        (["GET,HEAD /x/{id}"], b"HEAD /x/7", True),
        (["GET,HEAD /x/{id}"], b"GET /x/", False),
        (["GET,HEAD /x/{id}"], b"GET /x/7/y", False),
        (["GET,HEAD /x/{id}/y"], b"GET /x/7/y", True),
        (["GET /x/{id}"], b"GET /x/7%2Fy", False),
        (["GET /x/{id}"], b"GET /x/7%2fy", False),
        (["GET /x/{id}"], b"GET /x/7%5cy", False),
        (["GET /x/{id}"], b"GET /x/7\\y", False),
        (["GET /x/{id}"], b"GET /x/7%20y%", True),
        (["GET /x/{id}/*"], b"GET /x/7/y%2Fz", True),
        (["GET /v1/users/*"], b"GET /v1/users/", True),
        (["GET /v1/users/*"], b"GET /v1/users/7/posts", True),
        (["GET /v1/users/*"], b"GET /v1/users", False),
        (["GET /v1/users/*"], b"GET /v1/usersx", False),
        (["GET /v1/users/*"], b"GET /v1/%75sers/7", False),
        (["* /*"], b"GET /", True),
        (["* /"], b"GET /", True),
        (["* /"], b"GET /a", False),
        (["GET /a.b"], b"GET /axb", False),
        (["GET /a", "POST /b"], b"POST /b", True),
        (["GET /a", "POST /b"], b"POST /a", False),
        (["GET /a/{x}"], b"GET /a/\xff\n", True),
        (["GET /a"], b"GET /a\n", False),
    ],
)
def test_what_a_list_allows(rules: list[str], asked: bytes, allowed: bool) -> None:
    compiled = compile_allow(tuple(check_allow(rule) for rule in rules))
    assert (compiled.fullmatch(asked) is not None) is allowed


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 192.0.2.7 ", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_kept_in_one_spelling(written: str, kept: str) -> None:
    assert check_network(written) == kept
    assert check_network(kept) == kept


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "300.0.0.1", "localhost", "fe80::1%eth0/64x"])
def test_what_is_no_network_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="network"):
        check_network(text)
