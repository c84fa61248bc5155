"""The PROXY protocol's header: read whole and in any pieces, and never a byte more than it has."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.policy.forwarding import plain_address
from gatewayd.proxy.preamble import FIRST_BYTES, MOST_BINARY_BYTES, MOST_TEXT_BYTES, Preamble, read_preamble

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"\x16\x03\x01GET / HTTP/1.1\r\n\r\n"


def read(stream: bytes, step: int = 1 << 20) -> tuple[Preamble | str | None, int]:
    """What a reader makes of the stream that takes what it is told to, `step` bytes at most at a time; and how many it
    took. None where the stream ends first."""
    taken, room = b"", FIRST_BYTES
    while True:
        piece = stream[len(taken) : len(taken) + min(room, step)]
        if not piece:
            return None, len(taken)
        taken += piece
        result = read_preamble(taken)
        if not isinstance(result, int):
            return result, len(taken)
        assert result > 0
        room = result


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


def of_v4(source: str, tlvs: bytes = b"") -> bytes:
    return binary(0x21, 0x11, socket.inet_aton(source) + socket.inet_aton("10.0.0.9") + b"\x01\x02\x03\x04" + tlvs)


def of_v6(source: str, tlvs: bytes = b"") -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "::9")
    return binary(0x21, 0x21, addresses + b"\x01\x02\x03\x04" + tlvs)


GOOD = [
    (b"PROXY TCP4 192.0.2.1 10.0.0.9 56324 443\r\n", b"192.0.2.1"),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", b"1.1.1.1"),
    (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n", b"2001:db8::1"),
    (b"PROXY TCP6 :: :: 0 0\r\n", b"::"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 1\r\n", b"192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", b""),
    (b"PROXY UNKNOWN ffff::1 \xff\0\n anything\r\n", b""),
    (b"PROXY UNKNOWN " + b"x" * (MOST_TEXT_BYTES - 16) + b"\r\n", b""),
    (of_v4("192.0.2.1"), b"192.0.2.1"),
    (of_v4("192.0.2.1", b"\x03\0\4abcd" + b"\x04\0\0"), b"192.0.2.1"),
    (of_v6("2001:db8::1"), b"2001:db8::1"),
    (of_v6("2001:db8::1", b"\xff" * 3000), b"2001:db8::1"),
    (binary(0x20, 0x00, b""), b""),  # LOCAL
    (binary(0x20, 0x11, b"\x01" * 12), b""),
    (binary(0x21, 0x00, b"tlvs"), b""),  # of no family
    (binary(0x21, 0x31, b"/run/x.sock" + b"\0" * 205), b""),  # Unix sockets
]


@pytest.mark.parametrize(("header", "address"), GOOD)
@pytest.mark.parametrize("step", [1 << 20, 1, 2, 13])
def test_a_header_is_read_and_nothing_after_it(header: bytes, address: bytes, step: int) -> None:
    assert read(header + REST, step) == (Preamble(address), len(header))
    last = len(header) - 1
    for cut in (cut for cut in range(len(header)) if cut < 200 or cut % 97 == 0 or cut == last):  # one has 3,000 bytes
        assert read(header[:cut], step)[0] is None


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 20,
        b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 70000\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n00000",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n0000000",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        b"PROXY TCP4 1.1.1.999 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n00000000",
        b"PROXY TCP6 1.1.1.1 ::1 1 2\r\n",
        b"PROXY UNKNOWNX \r\n",
        b"PROXY UNKNOWN " + b"x" * (MOST_TEXT_BYTES - 15) + b"\r\n",
        b"PROXY TCP6 " + b"x" * 200,
        b"PROXY TCP4 x\r\nGET / HTTP/1.1\r\n\r\n",
        binary(0x11, 0x11, b"\0" * 12),
        binary(0x22, 0x11, b"\0" * 12),
        binary(0x21, 0x11, b"\0" * 11),
        binary(0x21, 0x21, b"\0" * 35),
        binary(0x21, 0x11, b"\0" * (MOST_BINARY_BYTES - 15)),
    ],
)
def test_what_is_no_header_is_a_sentence(stream: bytes) -> None:
    for step in (1 << 20, 1):
        result, taken = read(stream, step)
        assert isinstance(result, str), result
        assert taken <= MOST_TEXT_BYTES


@given(st.binary(max_size=300), st.integers(1, 40))
@example(b"PROXY ", 1)
@example(SIGNATURE + b"\x21\x11\xff\xff", 16)
def test_garbage_never_raises(garbage: bytes, step: int) -> None:
    for stream in (
        garbage,
        b"PROXY " + garbage,
        b"PROXY TCP4 " + garbage,
        SIGNATURE + garbage,
        SIGNATURE + b"\x21" + garbage,
    ):
        read(stream, step)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535), st.binary(max_size=400), st.integers(1, 50))
def test_every_address_is_read_in_both_versions(source: object, port: int, rest: bytes, step: int) -> None:
    text = str(source)
    family = "TCP6" if ":" in text else "TCP4"
    line = f"PROXY {family} {text} {'::1' if ':' in text else '10.0.0.1'} {port} {port}\r\n".encode()
    expected = Preamble(plain_address(text).encode())
    assert read(line + rest, step) == (expected, len(line))
    header = of_v6(text, rest) if ":" in text else of_v4(text, rest)
    assert read(header + rest, step) == (expected, len(header))


@given(st.sampled_from([header for header, _ in GOOD]), st.integers(0, 60), st.integers(0, 255))
def test_one_wrong_byte_never_makes_the_reader_take_what_follows(header: bytes, position: int, byte: int) -> None:
    """Not even of a header that is none: what a reader takes is bounded by the bytes that it has seen."""
    wrong = bytearray(header)
    wrong[position % len(header)] = byte
    result, taken = read(bytes(wrong) + REST * 300)
    assert result is None or taken <= MOST_BINARY_BYTES
