"""How a connection to a target is made: which address, in which turn, for how long, and in TLS or not.

A name with several addresses is tried one by one, beginning with another each time. An attempt may take no more than
its share of what is left of the connect timeout, so that an address where nobody answers leaves time for the others;
one that has failed is tried last for a while. Nothing is sent before a connection stands, so nothing can happen twice.

Of a target that somebody bound to a tenant has named, addresses of the gateway's own machine are left out each time, so
that it does not help to let the name lead elsewhere later.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gatewayd.own_machine import MOST_JUDGED, REFUSED, is_of_this_machine
from gatewayd.policy.facts import Target
from gatewayd.upstream_tls import TlsFileError

if TYPE_CHECKING:
    from gatewayd.proxy.resolver import Resolver
    from gatewayd.proxy.target_tls import Contexts
    from gatewayd.proxy.upstream import UpstreamConnection

ATTEMPT_S: Final = 3.0  # SYN, and SYN again after 1 s (RFC 6298); only the last address may take longer
SHUN_S: Final = 10.0  # how long an address that failed is tried last
SHUTDOWN_S: Final = 5.0  # for the upstream's half of closing a TLS connection


class DialError(Exception):
    """No connection. The sentence is for callers of the service: it names no host and no file."""

    def __init__(self, why: str, *, out_of_descriptors: bool = False) -> None:
        super().__init__(why)
        self.out_of_descriptors = out_of_descriptors  # nobody's fault but ours, and soon over


class Dialer:
    """Makes the connections to one target."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop, resolver: Resolver, contexts: Contexts) -> None:
        self._target = target
        self._loop = loop
        self._resolver = resolver
        self._contexts = contexts
        self._turn = 0
        self._failed_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Dialer {self._target.url}>"

    async def dial(self, protocol: Callable[[str], UpstreamConnection], timeout_s: float) -> UpstreamConnection:
        """A connection, made by `protocol` from the address that it is to. Raises DialError, or TimeoutError."""
        deadline = self._loop.time() + timeout_s
        async with asyncio.timeout_at(deadline):
            addresses = self._in_turn(self._permitted(await self._addresses()))
            context = await self._context()
            error: OSError = TimeoutError()
            try:
                for index, address in enumerate(addresses):
                    try:
                        async with asyncio.timeout_at(self._attempt_until(deadline, len(addresses) - index)):
                            connection = await self._open(address, protocol, context, timeout_s)
                    except OSError as failure:  # which a TimeoutError is
                        self._failed_at[address] = self._loop.time()
                        error = failure
                    else:
                        self._failed_at.pop(address, None)
                        return connection
                if isinstance(error, TimeoutError) and error.errno is None:  # ours; the kernel's own has ETIMEDOUT
                    raise error
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise DialError("the gateway has too many open files", out_of_descriptors=True)
                raise DialError(in_plain_words(error))
            finally:
                del error  # it holds this frame: a cycle, and the whole request would wait for the collector

    def current_addresses(self) -> tuple[str, ...]:
        """Where the target's name leads now; nothing where that is unknown, or no name's affair."""
        return self._resolver.refresh(self._target.host) if self._target.has_name else ()

    async def _addresses(self) -> tuple[str, ...]:
        if not self._target.has_name:
            return (self._target.host,)
        try:
            return await self._resolver.addresses(self._target.host)
        except OSError as error:
            raise DialError(f"the upstream's name has no address ({error.strerror or 'not found'})") from None

    def _permitted(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Asked of the kernel each time: the machine's addresses may change too. 20 us, and only of bound targets."""
        if not self._target.bound:
            return addresses
        permitted = tuple(address for address in addresses[:MOST_JUDGED] if not is_of_this_machine(address))
        if not permitted:
            raise DialError(f"the upstream cannot be connected to: {REFUSED}")
        return permitted

    def _in_turn(self, addresses: tuple[str, ...]) -> Sequence[str]:
        if len(addresses) == 1:
            return addresses
        self._turn += 1
        begin = self._turn % len(addresses)
        now = self._loop.time()
        self._failed_at = {
            address: at for address, at in self._failed_at.items() if now - at < SHUN_S and address in addresses
        }
        return sorted(addresses[begin:] + addresses[:begin], key=lambda address: self._failed_at.get(address, 0.0))

    def _attempt_until(self, deadline: float, addresses_left: int) -> float:
        if addresses_left == 1:
            return deadline
        now = self._loop.time()
        return now + min((deadline - now) / addresses_left, ATTEMPT_S)

    async def _context(self) -> ssl.SSLContext | None:
        if self._target.tls is None:
            return None
        try:
            return await self._contexts.context(self._target.tls)
        except TlsFileError:  # which file it is stands in the log
            raise DialError("the gateway cannot read the certificates that it needs for it") from None

    async def _open(
        self,
        address: str,
        protocol: Callable[[str], UpstreamConnection],
        context: ssl.SSLContext | None,
        timeout_s: float,
    ) -> UpstreamConnection:
        target, loop = self._target, self._loop
        if not target.port:
            _, connection = await loop.create_unix_connection(lambda: protocol(address), address)
        elif context is None:
            _, connection = await loop.create_connection(lambda: protocol(address), address, target.port)
        else:
            _, connection = await loop.create_connection(
                lambda: protocol(address),
                address,
                target.port,
                ssl=context,
                server_hostname=target.server_name,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        return connection


# OpenSSL's numbers (x509_vfy.h) in words that name nothing of the upstream's; for others, OpenSSL's own.
_VERIFICATION: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself, and not trusted here",
    19: "its chain ends in an authority that is not trusted here",
    20: "it is signed by an authority that is not trusted here",
    21: "it is signed by an authority that is not trusted here",
    23: "it has been revoked",
    26: "it is not meant for servers",
    62: "it is for another name",
    64: "it is for another address",
}


def in_plain_words(error: OSError) -> str:
    """Why there is no connection, in a sentence for whoever called."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _VERIFICATION.get(error.verify_code, error.verify_message)
        return f"verification of the upstream's certificate failed: {why}"
    if isinstance(error, ssl.SSLError):
        why = (error.reason or "no reason given").replace("_", " ").lower()
        return f"the TLS handshake with the upstream failed ({why})"
    if isinstance(error, socket.gaierror):
        return f"the upstream's address cannot be used ({error.strerror})"
    return f"the upstream refused the connection ({error.strerror or 'closed in the handshake'})"
