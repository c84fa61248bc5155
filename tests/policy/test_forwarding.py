"""What a trusted proxy's word is worth, and where it ends."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.policy.forwarding import MOST_HOPS, Told, is_trusted, plain_address, tell, tell_of_proxied

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PEER = b"10.0.0.1"


def told(*fields: tuple[str, str], peer: bytes = PEER, scheme: bytes = b"http") -> Told:
    cut = [(name.lower().encode(), name.encode(), value.encode()) for name, value in fields]
    return tell_of_proxied(peer, b"api.example", scheme, cut, TRUSTED)


def line(result: Told, name: str) -> str:
    (value,) = [each[len(name) + 2 :] for each in result.fields.decode().split("\r\n") if each.startswith(f"{name}: ")]
    return value


def test_a_client_that_speaks_for_itself() -> None:
    assert tell(b"192.0.2.1", b"api.example", b"https") == (
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: api.example\r\n"
        b'Forwarded: for=192.0.2.1;host="api.example";proto=https\r\n'
    )
    assert b'for="[2001:db8::1]";' in tell(b"2001:db8::1", b"api.example", b"http")


@pytest.mark.parametrize(
    ("value", "client", "passed"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("192.0.2.1:443", "192.0.2.1", "192.0.2.1:443, 10.0.0.1"),
        ("[2001:db8::1]:443", "2001:db8::1", "[2001:db8::1]:443, 10.0.0.1"),
        ("2001:DB8::1", "2001:db8::1", "2001:DB8::1, 10.0.0.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1, 10.0.0.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1", "6.6.6.6, 192.0.2.1, 10.0.0.1"),  # the first is the client's own word
        ("192.0.2.1, 10.9.9.9, fd00::1", "192.0.2.1", "192.0.2.1, 10.9.9.9, fd00::1, 10.0.0.1"),
        ("10.3.3.3, 10.2.2.2", "10.3.3.3", "10.3.3.3, 10.2.2.2, 10.0.0.1"),
        (" , 192.0.2.1 ,, ", "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("6.6.6.6, unknown", "10.0.0.1", "6.6.6.6, unknown, 10.0.0.1"),  # a proxy that hides the address
        ("6.6.6.6, _a.b-c", "10.0.0.1", "6.6.6.6, _a.b-c, 10.0.0.1"),
        ("6.6.6.6, <script>, 192.0.2.1", "192.0.2.1", "192.0.2.1, 10.0.0.1"),
        ("6.6.6.6, 1.2.3, 10.2.2.2", "10.2.2.2", "10.2.2.2, 10.0.0.1"),
        ("1.2.3.4.5", "10.0.0.1", "10.0.0.1"),
        ("::1::2", "10.0.0.1", "10.0.0.1"),
        ("192.0.2.1:99999999", "10.0.0.1", "10.0.0.1"),
        ("", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_end(value: str, client: str, passed: str) -> None:
    result = told(("X-Forwarded-For", value))
    assert (result.client.decode(), line(result, "X-Forwarded-For")) == (client, passed)


def test_fields_of_one_name_are_one_list() -> None:
    result = told(("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1"))
    assert (result.client, line(result, "X-Forwarded-For")) == (b"192.0.2.1", "6.6.6.6, 192.0.2.1, 10.0.0.1")


def test_a_name_with_an_underscore_is_none_of_them() -> None:
    assert told(("X_Forwarded_For", "192.0.2.1")).client == PEER


@pytest.mark.parametrize(
    ("value", "client", "passed"),
    [
        ("for=192.0.2.1", "192.0.2.1", "for=192.0.2.1, "),
        ('For="[2001:db8::1]:443";Proto=https', "2001:db8::1", 'For="[2001:db8::1]:443";Proto=https, '),
        ("for=6.6.6.6, for=192.0.2.1;by=10.1.1.1", "192.0.2.1", "for=6.6.6.6, for=192.0.2.1;by=10.1.1.1, "),
        ('for="192.0.2.1\\:80"', "192.0.2.1", 'for="192.0.2.1\\:80", '),
        ('for="a,b;c=\\"", for=192.0.2.1;', "192.0.2.1", 'for="a,b;c=\\"", for=192.0.2.1;, '),
        ("for=unknown", "10.0.0.1", "for=unknown, "),
        ("proto=https", "10.0.0.1", "proto=https, "),
        ('for="192.0.2.1', "10.0.0.1", ""),  # a quote that does not end: nothing of it is sure
        ("for 192.0.2.1", "10.0.0.1", ""),
        ("for=192.0.2.1, \x00", "10.0.0.1", ""),
    ],
)
def test_forwarded_is_read_where_there_is_no_other(value: str, client: str, passed: str) -> None:
    result = told(("Forwarded", value))
    assert result.client.decode() == client
    assert line(result, "Forwarded") == f'{passed}for=10.0.0.1;host="api.example";proto=http'


def test_a_forwarded_that_the_proxy_has_not_written_is_dropped() -> None:
    result = told(("X-Forwarded-For", "2001:db8::1, unknown, 192.0.2.1"), ("Forwarded", "for=6.6.6.6;proto=https"))
    assert result.client == b"192.0.2.1"
    assert line(result, "Forwarded").startswith('for="[2001:db8::1]", for=unknown, for=192.0.2.1, for=10.0.0.1;')
    assert line(result, "X-Forwarded-Proto") == "http"
    agreeing = told(("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1;proto=https;secret=_x"))
    assert line(agreeing, "Forwarded").startswith("for=192.0.2.1;proto=https;secret=_x, for=10.0.0.1;")
    assert line(agreeing, "X-Forwarded-Proto") == "https"


@pytest.mark.parametrize(
    ("values", "passed"),
    [(["https"], "https"), (["HTTPS"], "https"), (["ftp"], "http"), (["https, http"], "http"), (["https"] * 2, "http")],
)
def test_the_scheme_that_the_proxy_tells_stays_if_it_is_one(values: list[str], passed: str) -> None:
    result = told(*(("X-Forwarded-Proto", value) for value in values))
    assert line(result, "X-Forwarded-Proto") == passed
    assert line(result, "Forwarded").endswith(";proto=http")  # our element tells of our hop


@pytest.mark.parametrize(
    ("value", "passed"),
    [("shop.example:8443", "shop.example:8443"), ("[::1]:1", "[::1]:1"), ('a"b', "api.example"), ("", "api.example")],
)
def test_the_host_that_the_proxy_tells_stays_if_it_is_one(value: str, passed: str) -> None:
    assert line(told(("X-Forwarded-Host", value)), "X-Forwarded-Host") == passed


def test_lists_have_a_bound() -> None:
    addresses = [f"10.1.{number // 256}.{number % 256}" for number in range(10_000)]
    result = told(("X-Forwarded-For", ", ".join(addresses)))
    assert line(result, "X-Forwarded-For").split(", ")[:-1] == addresses[-MOST_HOPS:]
    assert result.client.decode() == addresses[-MOST_HOPS]
    result = told(("Forwarded", ", ".join(f"for={address}" for address in addresses)))
    assert line(result, "Forwarded").count(",") == MOST_HOPS


LONG = 30_000


@pytest.mark.parametrize(
    "text", [" " * LONG, '"' * LONG, "for=" * LONG, "\\" * LONG, 'a="\\"' * LONG, ";" * LONG, "," * LONG]
)
@pytest.mark.timeout(5)
def test_no_value_is_slow(text: str) -> None:
    for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"):
        assert told((name, text)).client == PEER


ADDRESSES = st.ip_addresses().map(lambda address: plain_address(str(address)))
PROXIES = st.ip_addresses(network="10.0.0.0/8").map(str)
STRANGERS = ADDRESSES.filter(lambda address: not is_trusted(address.encode(), TRUSTED))
JUNK = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)


@given(before=JUNK, client=STRANGERS, proxies=st.lists(PROXIES, max_size=5))
def test_whatever_a_client_has_said_before_it_is_found(before: str, client: str, proxies: list[str]) -> None:
    result = told(("X-Forwarded-For", ", ".join([before, client, *proxies])))
    assert result.client.decode() == client
    nodes = [f'"[{client}]"' if ":" in client else client, *proxies]
    result = told(("Forwarded", ", ".join(f"for={node}" for node in nodes)))
    assert result.client.decode() == client


@given(
    st.lists(
        st.tuples(st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"]), JUNK)
    )
)
def test_junk_gives_four_lines_and_an_address(fields: list[tuple[str, str]]) -> None:
    cut = [(name.lower().encode(), name.encode(), value.encode("latin-1")) for name, value in fields]
    result = tell_of_proxied(PEER, b"api.example", b"http", cut, TRUSTED)
    ip_address(result.client.decode())
    lines = result.fields.split(b"\r\n")
    assert [each.partition(b":")[0] for each in lines] == [
        b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Forwarded", b"",
    ]  # fmt: skip
    assert lines[3].endswith(b'for=10.0.0.1;host="api.example";proto=http')


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_an_address_is_written_one_way(written: str, plain: str) -> None:
    assert plain_address(written) == plain


def test_whom_to_trust() -> None:
    assert is_trusted(b"10.255.0.1", TRUSTED)
    assert is_trusted(b"fd12::1", TRUSTED)
    assert not is_trusted(b"11.0.0.1", TRUSTED)
    assert not is_trusted(b"unknown", TRUSTED)
    assert not is_trusted(b"10.0.0.1", ())
