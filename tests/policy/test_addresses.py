"""Slugs, paths and targets, and who claims what."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.policy.addresses import (
    Claim,
    check_key_header,
    check_match_host,
    check_path,
    check_pattern,
    check_server_name,
    check_slug,
    check_target,
)
from gatewayd.policy.claims import ClaimedRoute, Claims
from gatewayd.policy.routing import Match


@pytest.mark.parametrize("slug", ["orders", "a", "0", "a-b", "x" * 63])
def test_slugs(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize("slug", ["", "-a", "Orders", "a_b", "a/b", "x" * 64, "proxy", "ä", "a\n", "a b", ".."])
def test_what_is_no_slug(slug: str) -> None:
    with pytest.raises(ValueError, match=r"slug|reserved"):
        check_slug(slug)


@pytest.mark.parametrize(
    ("path", "normal"), [("/", "/"), ("/v1/orders", "/v1/orders"), ("/v1/", "/v1"), ("/a;b=c/@:", "/a;b=c/@:")]
)
def test_paths(path: str, normal: str) -> None:
    assert check_path(path) == normal


@pytest.mark.parametrize(("path", "normal"), [("/{id}/", "/{id}"), ("/a/{a_1}/b", "/a/{a_1}/b"), ("/", "/")])
def test_patterns(path: str, normal: str) -> None:
    assert check_pattern(path) == normal


@pytest.mark.parametrize(
    "path", ["{id}", "/{}", "/{1}", "/{a}b", "/a{b}", "/{a", "/a}", "/{a/b}", "/{a}" * 9, "/{a}//b"]
)
def test_what_is_no_pattern(path: str) -> None:
    with pytest.raises(ValueError, match=r"^path .*(brace|names|empty|begin)"):
        check_pattern(path)


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("api.Example.com", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("*.example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0:0::1]", "[::1]"),
    ],
)
def test_hosts_of_routes(host: str, kept: str) -> None:
    assert check_match_host(host) == kept
    assert check_match_host(kept) == kept


@pytest.mark.parametrize(
    "host", ["", "*", "*.", "a.*.b", "**.a", "a b", "a:80", "::1", "[::g]", "a/b", "ä.de", "http://a", ".a"]
)
def test_what_is_no_host_of_a_route(host: str) -> None:
    with pytest.raises(ValueError, match=r"host|port|brackets"):
        check_match_host(host)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "does not begin with /"),
        ("v1", "does not begin with /"),
        ("/a//b", "empty segment"),
        ("//", "empty segment"),
        ("/a/../b", "dot segment"),
        ("/.", "dot segment"),
        ("/a?b", "character"),
        ("/a#b", "character"),
        ("/a%20", "character"),
        ("/a b", "character"),
        ("/ä", "character"),
        ("/a\n", "character"),
        ("/{id}", "character"),
        ("/proxy", "reserved"),
        ("/proxy/x", "reserved"),
        ("/" + "a" * 2000, "longer"),
    ],
)
def test_what_is_no_path(path: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_path(path)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://127.0.0.1:8001/", "http://127.0.0.1:8001"),
        ("HTTP://Orders.Internal/Base/", "http://orders.internal/Base"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://a_b.local:080", "http://a_b.local:80"),
        ("HTTPS://A:443/x/", "https://a:443/x"),
        ("http://[0:0:0:0:0:0:0:1]:8001/base", "http://[::1]:8001/base"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("Unix:/Run/App.sock:/", "unix:/Run/App.sock"),
        ("unix:/run/app.sock:/base/", "unix:/run/app.sock:/base"),
    ],
)
def test_targets(url: str, normal: str) -> None:
    assert check_target(url) == normal


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://", "no host"),
        ("https://a:0", "port"),
        ("unix:", "whole path"),
        ("unix:run/app.sock", "whole path"),
        ("unix:/run/", "whole path"),
        ("unix:///run/app.sock?x", "query"),
        ("unix:/run/app.sock:base", "does not begin with /"),
        ("unix:/" + "a" * 107, "longer than the 107"),
        ("unix:/run/my app.sock", "space"),
        ("127.0.0.1:8001", "no scheme"),
        ("", "no scheme"),
        ("ftp://a", "not a URL"),
        ("http://", "no host"),
        ("http:///x", "no host"),
        ("http://:80", "no host"),
        ("http://a:0", "port"),
        ("http://a:65536", "port"),
        ("http://a:", "port"),
        ("http://a:8o", "port"),
        ("http://a:80:80", "port"),
        ("http://user:secret@a", "a user or a password"),
        ("http://a?x=1", "neither a name|query"),
        ("http://a/?x=1", "query"),
        ("http://a/#x", "fragment"),
        ("http://a b", "space"),
        ("http://a\r\nX: y", "space"),
        ("http://ä", "non-ASCII"),
        ("http://[::g]", "IPv6"),
        ("http://-", "neither a name"),
        ("http://a..b", "neither a name"),
        ("http://a%41", "neither a name"),
        ("http://" + "a" * 3000, "longer"),
    ],
)
def test_what_is_no_target(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_target(url)


def test_a_password_in_a_target_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        check_target("http://user:hunter2@a")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "normal"), [("Api.Example", "api.example"), ("::0:1", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_server_names(name: str, normal: str) -> None:
    assert check_server_name(name) == normal


@pytest.mark.parametrize("name", ["", "a b", "-", "a:443", "https://a", "[::1]", "ä"])
def test_what_is_no_server_name(name: str) -> None:
    with pytest.raises(ValueError, match="neither the name of a host nor an address"):
        check_server_name(name)


@given(st.text() | st.from_regex(r"(http://|https://|unix:)[ -~]{0,30}"))
@example("\U0001342f" * 40)
def test_no_text_makes_a_check_fail_otherwise(text: str) -> None:
    for check in (check_slug, check_path, check_target, check_key_header, check_server_name):
        try:
            assert check(check(text)) == check(text)
        except ValueError as error:
            assert len(str(error)) < 300


@pytest.mark.parametrize("name", ["Host", "content-length", "X Key", "", "a:b", "X-Kéy"])
def test_headers_that_cannot_carry_a_key(name: str) -> None:
    with pytest.raises(ValueError, match=r"header|meaning"):
        check_key_header(name)


ORDERS = Claim("default", "orders", ("/v1/orders",))


@pytest.mark.parametrize(
    ("new", "address"),
    [
        (Claim("default", "other", ("/v1/orders",)), "/v1/orders"),
        (Claim("default", "other", ("/orders",)), "/orders"),
        (Claim("acme", "other", ("/default/orders",)), "/default/orders"),
        (Claim("default", "v1", ("/",)), None),
        (Claim("v1", "orders", ()), "/v1/orders"),
        (Claim("acme", "orders", ()), None),
        (Claim("default", "other", ("/orders/special",)), None),
        (Claim("default", "other", ("/v1",)), None),
    ],
)
def test_who_claims_what(new: Claim, address: str | None) -> None:
    claims = Claims()
    claims.add_service("orders", ORDERS)
    reason = claims.against_service("new", new)
    assert (reason is None) == (address is None)
    if address is not None:
        assert reason == (f"the address {address} is already that of service orders", "default")
    assert claims.against_service("orders", new) is None  # in its own way nobody is


def test_a_service_may_name_its_own_built_in_address() -> None:
    assert Claims().against_service("new", Claim("default", "orders", ("/orders",))) is None


ANYBODYS = Match("/orders/{id}")


@pytest.mark.parametrize(
    ("tenant", "match", "says"),
    [
        ("default", Match("/orders/{name}"), "would tie with route there (/orders/{id}) of tenant default"),
        ("default", Match("/orders/{id}", methods=("GET",)), None),
        ("default", Match("/orders"), "the address /orders is already that of service orders"),
        ("default", Match("/orders", exact=True), None),
        ("default", Match("/v1/orders/special"), None),
        ("acme", Match("/orders", exact=True), "/orders lies below /orders, which is an address of service orders"),
        ("acme", Match("/v1/orders/{id}/x"), "lies below /v1/orders, which is an address of service orders"),
        ("acme", Match("/v1/{any}/x"), None),
        ("acme", Match("/orders/x", host="acme.example.com"), None),
    ],
)
def test_where_a_route_may_be(tenant: str, match: Match, says: str | None) -> None:
    claims = Claims()
    claims.add_service("orders", ORDERS)
    claims.add_route("there", ClaimedRoute("default", "there", ANYBODYS))
    reason = claims.against_route("new", ClaimedRoute(tenant, "new", match))
    assert (reason is None) if says is None else says in str(reason)
    if says is None or "lies below" in says:
        # Whichever of the two comes first: the other is refused, or neither.
        claims = Claims()
        claims.add_route("new", ClaimedRoute(tenant, "new", match))
        assert (claims.against_service("orders", ORDERS) is None) == (says is None)
