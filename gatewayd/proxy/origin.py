"""Where a connection comes from: the client's address, and what the upstream is told of it.

One object a connection, of the kind that fits: whether the peer is a trusted proxy is asked once, when it connects. The
lines for the upstream are kept for as long as the requests of the connection repeat what they are made of.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gatewayd.policy.facts import Fields
from gatewayd.policy.forwarding import Networks, Told, is_trusted, plain_address, tell, tell_of_proxied

HTTP: Final = b"http"
HTTPS: Final = b"https"


class Origin:
    """A client that speaks for itself. `certificate`: a header line that says which one it has shown, or nothing."""

    __slots__ = ("_certificate", "_host", "_lines", "_scheme", "address")

    def __init__(self, address: bytes, scheme: bytes, certificate: bytes) -> None:
        self.address = address  # of the peer, which may be a proxy
        self._scheme = scheme
        self._certificate = certificate
        self._host: bytes | None = None
        self._lines = b""

    def __repr__(self) -> str:
        return f"<Origin {self.address.decode()}>"

    def fields_for(self, fields: Fields) -> bytes:
        """X-Forwarded-*, Forwarded and Client-Cert for the upstream, each line ending in CRLF.

        What the caller sent under these names was dropped: only a trusted proxy's word would be worth passing on.
        """
        host = fields.host
        if host != self._host:
            self._host = host
            self._lines = tell(self.address, host, self._scheme) + self._certificate
        return self._lines

    def client_address(self, fields: Fields) -> bytes:
        """The address of whoever has sent the request, as far as it can be trusted."""
        return self.address


class ProxiedOrigin(Origin):
    """A trusted proxy, which speaks for its clients."""

    __slots__ = ("_of", "_told", "_trusted")

    def __init__(self, address: bytes, scheme: bytes, certificate: bytes, trusted: Networks) -> None:
        super().__init__(address, scheme, certificate)
        self._trusted = trusted
        self._of: Fields | None = None
        self._told = Told(b"", b"")

    def fields_for(self, fields: Fields) -> bytes:
        return self._tell(fields).fields

    def client_address(self, fields: Fields) -> bytes:
        return self._tell(fields).client

    def _tell(self, fields: Fields) -> Told:
        if fields is not self._of:
            client, lines = tell_of_proxied(self.address, fields.host, self._scheme, fields.cut, self._trusted)
            self._of, self._told = fields, Told(client, lines + self._certificate)
        return self._told


def origin_of(address: bytes, trusted: Networks, scheme: bytes = HTTP, certificate: bytes = b"") -> Origin:
    """The origin of a connection from this address."""
    if is_trusted(address, trusted):
        return ProxiedOrigin(address, scheme, certificate, trusted)
    return Origin(address, scheme, certificate)


def peer_address(transport: asyncio.BaseTransport) -> bytes:
    """The address at the other end, which a listener for both families gives as IPv6 for IPv4 too."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return b"unknown"
    return (plain_address(peer[0]) if ":" in peer[0] else peer[0]).encode()
