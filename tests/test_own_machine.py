"""Which addresses are of the gateway's own machine, however they are written."""

from __future__ import annotations

import socket

import pytest

from gatewayd.own_machine import is_of_this_machine


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.10", "::1", "::1%lo", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "224.0.0.1", "ff02::1", "fd00:ec2::254", "fd00:42::42", "100.100.100.200",
        "168.63.129.16", "192.0.0.192", "fd00:ec2::254%1", "fd00:ec2::254%251", "/run/app.sock", "localhost", "",
    ],
)  # fmt: skip
def test_those_that_are(address: str) -> None:
    assert is_of_this_machine(address)


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "203.0.113.9", "2001:db8::1", "::ffff:192.0.2.1", "2002:c000:201::", "64:ff9b::c000:201"],
)
def test_those_that_are_not(address: str) -> None:
    assert not is_of_this_machine(address)


def own_address() -> str:
    """In the network; a machine without one has no other than those of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("203.0.113.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        return str(asking.getsockname()[0])


def test_the_machines_addresses_in_the_network() -> None:
    own = own_address()
    assert is_of_this_machine(own)
    assert is_of_this_machine(f"::ffff:{own}")


def test_a_zone_hides_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel looks at a zone only of link-local addresses, and forgets it of others."""

    class Asking:
        def __init__(self, family: int, kind: int) -> None:
            assert (family, kind) == (socket.AF_INET6, socket.SOCK_DGRAM)

        def __enter__(self) -> Asking:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def connect(self, address: tuple[str, int]) -> None:
            assert address[0].partition("%")[0] == "2001:db8::9"

        def getsockname(self) -> tuple[str, int, int, int]:
            return "2001:db8::9", 40000, 0, 0

    monkeypatch.setattr(socket, "socket", Asking)
    assert is_of_this_machine("2001:db8::9")
    assert is_of_this_machine("2001:db8::9%1")
