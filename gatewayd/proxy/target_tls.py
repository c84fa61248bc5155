"""TLS contexts of this worker: one for each way of speaking TLS, made anew when a file of theirs has changed.

A context is made when the first connection needs it, and looked after by the sweeper; both read files in a thread,
since the system's authorities alone cost 20 ms. Connections that are open keep the context they began with.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterable
from typing import Final, NamedTuple

from gatewayd.conf import TlsConf
from gatewayd.stamp import Stamp, stamp
from gatewayd.upstream_tls import TlsFileError, files_of, upstream_context

CHECK_S: Final = 3.0  # how often files are looked at

log = logging.getLogger(__name__)

_Stamps = tuple[Stamp | None, ...]  # of each file


class _Made(NamedTuple):
    stamps: _Stamps
    context: ssl.SSLContext | None
    error: TlsFileError | None


class Contexts:
    """By TLS options."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._made: dict[TlsConf, _Made] = {}
        self._making: dict[TlsConf, asyncio.Future[_Made]] = {}
        self._checked_at = 0.0
        self._check: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Contexts {len(self._made)} made>"

    async def context(self, conf: TlsConf) -> ssl.SSLContext:
        """Raises TlsFileError, at once for as long as the files are those that failed."""
        made = self._made.get(conf)
        if made is None:
            made = await asyncio.shield(self._make(conf))
        if made.context is None:
            assert made.error is not None
            raise made.error
        return made.context

    def look_after(self, confs: Iterable[TlsConf]) -> None:
        """Look at the files of these, if that is due, and forget the others."""
        now = self._loop.time()
        if self._check is not None or now - self._checked_at < CHECK_S:
            return
        self._checked_at = now
        for conf in self._made.keys() - set(confs):
            del self._made[conf]
        if self._made:
            self._check = self._loop.create_task(self._look())

    def close(self) -> None:
        for task in (self._check, *self._making.values()):
            if task is not None:
                task.cancel()

    def _make(self, conf: TlsConf) -> asyncio.Future[_Made]:
        making = self._making.get(conf)
        if making is None:
            making = self._making[conf] = self._loop.create_task(self._make_in_thread(conf))
        return making

    async def _make_in_thread(self, conf: TlsConf) -> _Made:
        try:
            made = self._made[conf] = await self._loop.run_in_executor(None, _make, conf)
            if made.error is not None:
                log.error("TLS to an upstream cannot be set up: %s", made.error)
            return made
        finally:
            del self._making[conf]

    async def _look(self) -> None:
        try:
            confs = list(self._made)
            looked = await self._loop.run_in_executor(None, lambda: [_stamps(conf) for conf in confs])
            for conf, stamps in zip(confs, looked, strict=True):
                if conf in self._made and self._made[conf].stamps != stamps:
                    self._renew(conf, await self._loop.run_in_executor(None, _make, conf))
        finally:
            self._check = None

    def _renew(self, conf: TlsConf, made: _Made) -> None:
        before = self._made[conf]
        if made.context is not None:
            log.info("TLS to upstreams: %s read anew", ", ".join(files_of(conf)))
        elif str(made.error) != str(before.error):
            log.error(
                "TLS to an upstream: %s%s", made.error, "; the files from before stay in use" if before.context else ""
            )
        self._made[conf] = made._replace(context=made.context or before.context)


def _make(conf: TlsConf) -> _Made:
    stamps = _stamps(conf)  # before they are read: what changes meanwhile is seen at the next look
    try:
        return _Made(stamps, upstream_context(conf), None)
    except TlsFileError as error:
        return _Made(stamps, None, error)


def _stamps(conf: TlsConf) -> _Stamps:
    return tuple(stamp(path) for path in files_of(conf))
