"""A target, compiled: where it is, what its Host is, who may share its connections."""

from __future__ import annotations

import pytest

from gatewayd.conf import TlsConf
from gatewayd.policy.snapshot import compile_target


@pytest.mark.parametrize(
    ("url", "host", "port", "host_header", "base", "has_name"),
    [
        ("http://a", "a", 80, b"a", b"", True),
        ("http://a:80/x", "a", 80, b"a", b"/x", True),
        ("http://a:443", "a", 443, b"a:443", b"", True),
        ("https://a", "a", 443, b"a", b"", True),
        ("https://a:443", "a", 443, b"a", b"", True),
        ("https://a:80", "a", 80, b"a:80", b"", True),
        ("https://10.0.0.1:8443/v1", "10.0.0.1", 8443, b"10.0.0.1:8443", b"/v1", False),
        ("http://[::1]:8001/base", "::1", 8001, b"[::1]:8001", b"/base", False),
        ("http://[::1]", "::1", 80, b"[::1]", b"", False),
        ("http://[fe80::1%eth0]:81", "fe80::1%eth0", 81, b"[fe80::1]:81", b"", False),
        ("unix:/run/app.sock", "/run/app.sock", 0, b"localhost", b"", False),
        ("unix:/run/app.sock:/base", "/run/app.sock", 0, b"localhost", b"/base", False),
    ],
)
def test_targets(url: str, host: str, port: int, host_header: bytes, base: bytes, has_name: bool) -> None:
    target = compile_target(url, TlsConf())
    assert (target.host, target.port, target.host_header, target.base) == (host, port, host_header, base)
    assert target.has_name is has_name
    assert (target.tls is not None) is url.startswith("https:")


def test_the_name_in_the_certificate() -> None:
    assert compile_target("https://a.example.:444", TlsConf()).server_name == "a.example"
    assert compile_target("https://[::1]", TlsConf()).server_name == "::1"
    assert compile_target("https://10.0.0.1", TlsConf(server_name="b.example")).server_name == "b.example"
    assert compile_target("http://a", TlsConf(server_name="b.example")).server_name == ""


def test_connections_are_shared_where_tls_is_spoken_the_same_way() -> None:
    plain, other = TlsConf(), TlsConf(verify=False)
    assert compile_target("https://a", plain).identity == compile_target("https://a", TlsConf()).identity
    assert compile_target("https://a", plain).identity != compile_target("https://a", other).identity
    assert compile_target("http://a", plain).identity == compile_target("http://a", other).identity
