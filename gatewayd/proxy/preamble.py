"""The PROXY protocol: the header by which a balancer that passes bytes on says whose they are.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, version 1 (a line of text) and 2 (binary). What follows the
header belongs to TLS or HTTP, and TLS cannot be given bytes back: so a reader is told how many bytes are the header's
for certain, and takes no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gatewayd.policy.forwarding import plain_address

FIRST_BYTES: Final = len(b"PROXY UNKNOWN\r\n")  # the shortest header there is
MOST_TEXT_BYTES: Final = 107
MOST_BINARY_BYTES: Final = (
    16 + 4096
)  # addresses take 36 (216 of Unix sockets); the rest is certificates' names and such

_TEXT = b"PROXY "
_LEAST_TEXT_BYTES = {b"TCP4": 32, b"TCP6": 22, b"UNKN": FIRST_BYTES}  # of a whole line of this kind
_PORT = re.compile(rb"[0-9]{1,5}")
_BINARY = b"\r\n\r\n\0\r\nQUIT\n"
_BINARY_HEAD_BYTES = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_TCP4, _TCP6 = 0x11, 0x21


@dataclass(frozen=True, slots=True)
class Preamble:
    """A whole header. No address: the balancer speaks for itself, as in a health check, or does not say for whom."""

    address: bytes


def read_preamble(data: bytes) -> Preamble | int | str:
    """What these bytes are, the first of a connection: a header, the start of one that has at least so many bytes more,
    or, as a sentence, no header at all."""
    if data.startswith(_TEXT):
        return _read_text(data)
    if data.startswith(_BINARY):
        return _read_binary(data)
    if _TEXT.startswith(data) or _BINARY.startswith(data):
        return FIRST_BYTES - len(data)
    return "there is no PROXY header"


def _read_text(data: bytes) -> Preamble | int | str:
    end = data.find(b"\r\n")
    if end >= 0:
        return _read_line(data[:end]) if end + 2 == len(data) else "the PROXY header is too short"
    if len(data) < FIRST_BYTES:
        return FIRST_BYTES - len(data)
    least = _LEAST_TEXT_BYTES.get(data[6:10])
    if least is None:
        return "the PROXY header is of an unknown family"
    ending = 1 if data.endswith(b"\r") else 2
    more = max(least - len(data), ending)
    return more if len(data) + ending <= MOST_TEXT_BYTES else "the PROXY header is too long"


def _read_line(line: bytes) -> Preamble | str:
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # whatever else the line says
        return Preamble(b"")
    try:
        _, family, source, destination, *ports = words
        kind = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}[family]
        kind(destination.decode("ascii"))
        address = plain_address(str(kind(source.decode("ascii"))))
    except (ValueError, KeyError):
        return "the PROXY header is malformed"
    if len(ports) != 2 or not all(_PORT.fullmatch(port) and int(port) <= 65535 for port in ports):
        return "the PROXY header has no two ports"
    return Preamble(address.encode())


def _read_binary(data: bytes) -> Preamble | int | str:
    if len(data) < _BINARY_HEAD_BYTES:
        return _BINARY_HEAD_BYTES - len(data)
    command, family = data[12], data[13]
    whole = _BINARY_HEAD_BYTES + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        return "the PROXY header is of an unknown version or command"
    if whole > MOST_BINARY_BYTES:
        return "the PROXY header is too long"
    if len(data) < whole:
        return whole - len(data)
    if len(data) > whole:
        return "the PROXY header is too short"
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return Preamble(b"")
    size = 4 if family == _TCP4 else 16
    addresses = data[_BINARY_HEAD_BYTES:]  # source, destination, two ports; what comes after (TLVs) is not read
    if len(addresses) < 2 * size + 4:
        return "the PROXY header has no addresses"
    source = addresses[:size]
    return Preamble(plain_address(str(IPv4Address(source) if size == 4 else IPv6Address(source))).encode())
