"""Names of upstreams and their addresses: looked up off the path, remembered for a while, kept when DNS is gone.

One look-up at a time for each name, whoever asks. What is remembered is used until it is `remember_s` old; then the
next who asks waits for a new answer, but not long: an old address is better than none. A name that has open
connections is looked up again by the sweeper (`refresh`), so that in the ordinary case nobody waits at all.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Final

PATIENCE_S: Final = 1.0  # with a look-up while an older answer is there

log = logging.getLogger(__name__)


class _Name:
    """What is known of one name. Times are the loop's."""

    __slots__ = ("addresses", "asked_at", "error", "look_up")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()  # the same tuple for as long as the answers hold the same addresses
        self.asked_at = 0.0
        self.error: OSError | None = None  # of the last look-up
        self.look_up: asyncio.Task[None] | None = None


class Resolver:
    """The names that this worker's pools are about."""

    def __init__(self, loop: asyncio.AbstractEventLoop, remember_s: float) -> None:
        self._loop = loop
        self._remember_s = remember_s
        self._names: dict[str, _Name] = {}

    def __repr__(self) -> str:
        asking = sum(name.look_up is not None for name in self._names.values())
        return f"<Resolver {len(self._names)} names, {asking} asked for>"

    async def addresses(self, host: str) -> tuple[str, ...]:
        """At least one address. Raises OSError where the name has none and never had."""
        name = self._names.setdefault(host, _Name())
        if not name.addresses:
            await asyncio.wait({self._ask(host, name)})
            if not name.addresses:
                raise name.error or OSError("no address")
        elif self._is_old(name):
            look_up = self._ask(host, name)
            patience_s = name.asked_at + PATIENCE_S - self._loop.time()
            if patience_s > 0:
                await asyncio.wait({look_up}, timeout=patience_s)
        return name.addresses

    def refresh(self, host: str) -> tuple[str, ...]:
        """What is remembered, which may be nothing; asked for anew if it is old."""
        name = self._names.setdefault(host, _Name())
        if self._is_old(name):
            self._ask(host, name)
        return name.addresses

    def keep(self, hosts: Iterable[str]) -> None:
        """Forget all other names."""
        for host in self._names.keys() - set(hosts):
            self._cancel(self._names.pop(host))

    def close(self) -> None:
        for name in self._names.values():
            self._cancel(name)

    def _is_old(self, name: _Name) -> bool:
        return name.look_up is not None or self._loop.time() - name.asked_at >= self._remember_s

    def _ask(self, host: str, name: _Name) -> asyncio.Task[None]:
        if name.look_up is None:
            name.asked_at = self._loop.time()
            name.look_up = self._loop.create_task(self._look_up(host, name))
        return name.look_up

    async def _look_up(self, host: str, name: _Name) -> None:
        try:
            found = await self._loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if name.addresses and name.error is None:
                log.warning("%s cannot be looked up (%s); its last addresses are kept", host, error)
            name.error = error if isinstance(error, OSError) else OSError(str(error))
        else:
            addresses = tuple(dict.fromkeys(str(info[4][0]) for info in found))
            if name.error is not None and name.addresses:
                log.info("%s can be looked up again", host)
            name.error = None
            if addresses and set(addresses) != set(name.addresses):  # servers that rotate answers change nothing by it
                name.addresses = addresses
        finally:
            name.look_up = None

    def _cancel(self, name: _Name) -> None:
        if name.look_up is not None:
            name.look_up.cancel()
