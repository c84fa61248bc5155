"""Brings a worker's journal to the disk, for `journal_sync = "second"` and `"record"`.

A record is stored in mapped memory, which outlives every process but not the power. fdatasync(2) writes the pages that
have changed, and takes as long as the disk does: it runs in a thread, one at a time, and the loop serves on.

    second    begun twice a second, so that no more than the last second is lost
    record    begun as soon as a response waits to leave; one sync covers every record stored before it began, and what
              comes meanwhile waits for the next one together (group commit): the slower the disk, the larger the group

Who waits is told whether its record is on the disk. Where the disk has failed it is not, and the answer must not leave
as though it were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from gatewayd.proxy.journal import Journal, Unsynced

Release = Callable[[bool], None]  # called with whether the record is on the disk

log = logging.getLogger(__name__)


class Syncing:
    """The thread and who waits for it."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop
        self._executor = ThreadPoolExecutor(1, "journal-sync")  # it is started by the first sync
        self._under_way = False
        self._running: Future[str] | None = None
        self._covered: list[Unsynced] = []  # by the sync that is under way
        self._group: list[Release] = []  # who waits for that one
        self._waiting: list[Release] = []  # who waits for the next one
        self.error = ""  # what the last sync has failed of

    def __repr__(self) -> str:
        return f"<Syncing {len(self._group)} + {len(self._waiting)} waiting, {self.error or 'well'}>"

    def hold(self, release: Release) -> None:
        """Call `release` from the loop once all that is stored now is on the disk."""
        self._waiting.append(release)
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._sync)  # after the others whose bytes came in this turn of the loop

    def begin(self) -> None:
        """Sync what there is, unless that is being done."""
        if not self._under_way and self._journal.has_unsynced():
            self._under_way = True
            self._sync()

    def close(self) -> None:
        """Returns when nobody waits and nothing is unsynced. The loop does not turn meanwhile."""
        self._executor.shutdown()
        failure = "" if self._running is None else self._running.result()
        self._running = None
        self._group += self._waiting
        self._waiting = []
        self._covered = self._journal.unsynced()
        self._settle(failure or _failure_of(self._covered))

    def _sync(self) -> None:
        self._group, self._waiting = self._waiting, []
        self._covered = self._journal.unsynced()
        if not self._covered:  # a refusal that is nobody's usage, or a record that found no room
            self._settle("")
            self._go_on()
            return
        try:
            self._running = self._executor.submit(_failure_of, self._covered)
        except RuntimeError as error:  # the thread cannot be started, by a limit on processes
            self._settle(str(error))
            self._go_on()
        else:
            self._running.add_done_callback(self._tell_loop)

    def _tell_loop(self, running: Future[str]) -> None:
        self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        if self._running is not None:  # not closed since
            failure = self._running.result()
            self._running = None
            self._settle(failure)
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._sync()
        else:
            self._under_way = False

    def _settle(self, failure: str) -> None:
        group, self._group = self._group, []
        self._journal.synced(self._covered)
        self._covered = []
        if failure and not self.error:
            log.error("the journal cannot be brought to the disk: %s", failure)
        self.error = f"it cannot be brought to the disk: {failure}" if failure else ""
        for release in group:
            try:
                release(not failure)
            except Exception:  # a mistake with one answer must not hold the others for ever
                log.exception("an answer that waited for the disk could not be let go")


def _failure_of(covered: list[Unsynced]) -> str:
    """Sync these, in the thread. Returns what has failed, if anything: who waits must hear of it whatever it is."""
    failure = ""
    for each in covered:
        try:
            each.segment.sync()
        except OSError as error:
            failure = error.strerror or str(error)
        except Exception as error:
            failure = str(error) or type(error).__name__
    return failure
