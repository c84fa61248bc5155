"""Who calls, and what the upstream is told of it: X-Forwarded-* and Forwarded (RFC 7239).

Anybody can write these headers, so they count only where a proxy of the operator's own has written them. From anyone
else they are replaced by what is known: the address of the connection. From a trusted proxy they are lists that grow
at their end, so they are read from there: each trusted address vouches for the one before it, and the first that is not
trusted is the client's. What stands before that was said by the client, and proves nothing.

X-Forwarded-For is read first, since it is what nearly every proxy writes. A `Forwarded` that does not end in the same
address was passed through by a proxy that knows nothing of it, hence is the client's own word, and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

Networks = tuple[IPv4Network | IPv6Network, ...]
CutFields = Sequence[tuple[bytes, bytes, bytes]]  # see `facts.Fields.cut`

MOST_HOPS = 32  # ours and a content network's are three; what is beyond is cut off at the client's end
_UNKNOWN = b"unknown"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# One `name=value` of Forwarded, and what ends it. The quoted form has no two ways to match, so no input is slow.
_PAIR = re.compile(
    rb"[ \t]*(?:(" + _TOKEN + rb")=(" + _TOKEN + rb'|"(?:[^"\\]|\\[\t -~\x80-\xff])*")[ \t]*)?(;|,|\Z)', re.DOTALL
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_HIDDEN = re.compile(rb"unknown|_[A-Za-z0-9._-]+")  # a proxy that knows the address and does not say it
_SCHEME = re.compile(rb"https?", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]+)(?::[0-9]{1,5})?")


class Hop(NamedTuple):
    """One address of a list. `address` is empty where the proxy has hidden it."""

    text: bytes  # as it came
    address: bytes


class Element(NamedTuple):
    """One element of `Forwarded`: what one proxy has said."""

    text: bytes
    hop: Hop
    proto: bytes  # empty where it said none


class Told(NamedTuple):
    """What comes of a request: the client's address, and header lines for the upstream, each ending in CRLF."""

    client: bytes
    fields: bytes


def plain_address(text: str) -> str:
    """An address as it is written everywhere: IPv4 where it is that, and without a zone (RFC 4291 section 2.5.5.2).

    Raises ValueError for what is no address.
    """
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def is_trusted(address: bytes, trusted: Networks) -> bool:
    """Whether one of these networks holds the address, which is a `plain_address`."""
    if not trusted:
        return False
    try:
        parsed = ip_address(address.decode("ascii"))
    except ValueError:  # of a listener that has no addresses, such as a Unix socket
        return False
    return any(parsed in network for network in trusted)


def tell(address: bytes, host: bytes, scheme: bytes) -> bytes:
    """What the upstream is told of a client that spoke for itself."""
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b'Forwarded: for=%b;host="%b";proto=%b\r\n' % (address, scheme, host, _node(address), host, scheme)
    )


def tell_of_proxied(address: bytes, host: bytes, scheme: bytes, cut: CutFields, trusted: Networks) -> Told:
    """What the upstream is told when a trusted proxy has sent the request: the lists as they are, and the proxy."""
    hops = _read_addresses(_values(cut, b"x-forwarded-for"))
    elements = _read_elements(_values(cut, b"forwarded"))
    forwarded = [element.hop for element in elements]
    if not hops:
        hops = [Hop(hop.address or hop.text, hop.address) for hop in forwarded]
    elif not forwarded or forwarded[-1].address != hops[-1].address:
        elements = [Element(b"for=%b" % (_node(hop.address) if hop.address else hop.text), hop, b"") for hop in hops]
    proto = _one(_values(cut, b"x-forwarded-proto"), _SCHEME) or (elements[-1].proto if elements else b"") or scheme
    first_host = _one(_values(cut, b"x-forwarded-host"), _HOST) or host
    ours = b'for=%b;host="%b";proto=%b' % (_node(address), host, scheme)
    fields = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\n" % (
        b", ".join([*(hop.text for hop in hops), address]),
        proto.lower(),
        first_host,
        b", ".join([*(element.text for element in elements), ours]),
    )
    return Told(_client(address, hops, trusted), fields)


def _client(address: bytes, hops: list[Hop], trusted: Networks) -> bytes:
    """The last address that is not trusted, or the first of all where every one is."""
    for hop in reversed(hops):
        if not hop.address or not is_trusted(address, trusted):
            break
        address = hop.address
    return address


def _values(cut: CutFields, name: bytes) -> list[bytes]:
    """All of this name. Lower names are compared, so that a name with `_` for `-` is none of them."""
    return [value.strip(b" \t") for lower, _, value in cut if lower == name]


def _one(values: list[bytes], valid: re.Pattern[bytes]) -> bytes:
    """The value of a field that may stand once; which of several is the proxy's cannot be known."""
    return values[0] if len(values) == 1 and valid.fullmatch(values[0]) is not None else b""


def _read_addresses(values: Iterable[bytes]) -> list[Hop]:
    """The list of X-Forwarded-For, as far back as it can be read."""
    hops: list[Hop] = []
    for part in reversed(b",".join(values).split(b",")):
        text = part.strip(b" \t")
        if not text:  # an empty element of a list says nothing (RFC 9110 section 5.6.1)
            continue
        hop = _read_node(text)
        if hop is None or len(hops) == MOST_HOPS:
            break
        hops.append(hop)
    hops.reverse()
    return hops


def _read_node(text: bytes) -> Hop | None:
    """An address with or without a port, or a word in its place; None for anything else."""
    match = _NODE.fullmatch(text)
    if match is None:
        return Hop(text, b"") if _HIDDEN.fullmatch(text) is not None else None
    try:
        return Hop(text, plain_address((match[1] or match[2] or match[3]).decode("ascii")).encode())
    except ValueError:
        return None


def _read_elements(values: Iterable[bytes]) -> list[Element]:
    """The list of Forwarded. Nothing of one that is malformed: with its quotes in doubt, so is where elements end."""
    line = b", ".join(values)
    elements: list[Element] = []
    pairs: dict[bytes, bytes] = {}
    begin = position = 0
    ending = b","
    while ending:
        match = _PAIR.match(line, position)
        if match is None:
            return []
        position, ending = match.end(), match[3]
        if match[1]:
            pairs.setdefault(match[1].lower(), _unquoted(match[2]))
        if ending != b";":
            if pairs:
                elements.append(_element(line[begin : match.start(3)].strip(b" \t"), pairs))
            begin, pairs = position, {}
    return elements[-MOST_HOPS:]


def _element(text: bytes, pairs: dict[bytes, bytes]) -> Element:
    hop = _read_node(pairs.get(b"for", _UNKNOWN)) or Hop(_UNKNOWN, b"")
    proto = pairs.get(b"proto", b"")
    return Element(text, hop, proto if _SCHEME.fullmatch(proto) is not None else b"")


def _unquoted(value: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1]) if value[:1] == b'"' else value


def _node(address: bytes) -> bytes:
    """An address as a node of Forwarded, which has IPv6 in brackets and quotes (RFC 7239 section 6)."""
    return b'"[%b]"' % address if b":" in address else address
