"""What every handler is given: the database, the settings, and a hand on the data plane."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request

from gatewayd.control.bearers import Bearers
from gatewayd.control.database import Database
from gatewayd.control.importing import KeyImport
from gatewayd.control.pressure import Pressure
from gatewayd.control.tailing import Tails
from gatewayd.control.watching import Watch
from gatewayd.settings import Settings
from gatewayd.told import Told

LOOKING_BACK = 2  # through journals at once: it takes up to seconds of a core


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as `status` shows it."""

    slot: int
    pid: int
    state: str  # "serving" or "gone"
    requests: int
    in_flight: int
    connections: int
    cached_keys: int
    journal_full: bool
    journal_lost: int = 0
    journal_error: str = ""


@dataclass(frozen=True, slots=True)
class JournalView:
    """The journals as `status` shows them: segments on disk, slots torn by accidents, whether one cannot be written.

    `damaged`: names of files that were set aside because they are no segments. `failure`: why records cannot be added
    to the rollups for the moment; they stay in the journals. `error`: why workers cannot write them, or not bring them
    to the disk. `lost`: requests that were ever served and not recorded (`on_full = "serve"`).
    `waiting_*`: records that are not on the rollups yet, and the age of the oldest.
    """

    segments: int
    torn: int
    full: bool
    damaged: tuple[str, ...] = ()
    failure: str = ""
    error: str = ""
    lost: int = 0
    waiting_records: int = 0
    waiting_bytes: int = 0
    waiting_s: int = 0


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target as one of those sees it who have something to say of it. Times are seconds since 1970, 0 for none."""

    seen_by: str  # "probe" or "worker-N"
    url: str
    state: str
    since_s: int
    error: str
    error_at_s: int
    in_flight: int = 0


@dataclass(slots=True)
class FaringView:
    """What a URL was sent within `LOAD_S`, and how it has answered: the histograms of all workers, still packed."""

    sent: int = 0
    ended: int = 0
    errors: int = 0
    times: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class LoadView:
    """Where requests are in flight, by number; of targets by URL, with how these fare."""

    services: Counter[int] = field(default_factory=Counter)
    keys: Counter[int] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    faring: dict[str, FaringView] = field(default_factory=dict)


class Plane(Protocol):
    """The data plane, as control reaches it. A change is committed first and then published."""

    async def publish_snapshot(self) -> None:
        """Tenants or services changed: compile, push to every worker, wait until it is in force."""

    async def publish_keys(self, public_ids: Sequence[str] | None) -> None:
        """These keys changed (None: any may have): every worker forgets them, wait until it has."""

    def alert_added(self) -> None:
        """An alert was added, or enabled again: look whether it has something to tell already."""

    def alert_removed(self, alert_id: int) -> None:
        """An alert was removed: break off what is on its way to its receiver."""

    async def catch_up(self) -> None:
        """Returns when every response that was complete at the call is in the rollups."""

    async def what_if(self, head: bytes, address: str, public_id: str | None, secret: bytes | None) -> Told | None:
        """What a worker would do with this request. None: it cannot tell."""

    async def recall(self, request_id: str) -> Told | None:
        """What became of this request. None: no worker remembers it."""

    def journals_held(self) -> AbstractContextManager[None]:
        """While it is open, no segment of the journals is put away."""

    def keep_losses(self) -> None:
        """How many requests were not recorded is written, as far as workers have told it."""

    def workers(self) -> list[WorkerView]: ...

    def journal(self) -> JournalView: ...

    def quotas(self) -> dict[int, tuple[float, int]]:
        """What limits count of the quotas in use, by key: the month's start, and units that are on the rollups."""

    def targets(self, service_id: int) -> list[TargetView]:
        """What is known of a service's targets. Of whom nobody says anything, all is well."""

    def all_targets(self) -> dict[int, list[TargetView]]:
        """The same of every service, by its number."""

    def load(self) -> LoadView: ...

    def pressures(self, keys: Collection[int]) -> dict[int, Pressure]:
        """How near these keys are to their limits, where that is known. A thread may ask."""

    def whole_until_ns(self) -> int:
        """What ended before that has been taken from the journals."""

    def positions(self, *, to_the_end: bool = False) -> dict[str, int]:
        """Up to where each segment has been taken from the journals, or is filled."""


@dataclass(slots=True)
class Imports:
    """The import of keys under way, if there is one."""

    running: KeyImport | None = None
    tenant: str = ""  # whose keys those are


class Applying:
    """A configuration that is being compared or applied, as others see how far it is."""

    def __init__(self) -> None:
        self.state = "planning"
        self.of = 0
        self.done: Callable[[], int] = lambda: 0

    def __repr__(self) -> str:
        return f"<Applying {self.state} {self.done()} of {self.of}>"

    def begin(self, state: str, done: Callable[[], int], of: int) -> None:
        self.state, self.done, self.of = state, done, of


@dataclass(slots=True)
class Applies:
    """The apply or rollback under way, if there is one. `planning`: documents are compared one after the other.

    `comparing`: one that is compared for its own sake. `held_bytes`: of all documents that came or are coming in.
    """

    running: Applying | None = None
    comparing: Applying | None = None
    held_bytes: int = 0
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Exports:
    """How many exports of usage are under way."""

    running: int = 0

    def ended(self) -> None:
        self.running -= 1


@dataclass(slots=True)
class Backups:
    """Whether a backup is under way: one at a time, since each copies the whole database; none once control drains."""

    running: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class ControlState:
    """Set as `app.state.control`."""

    database: Database
    settings: Settings
    plane: Plane
    listen: str  # the address that is bound, HOST:PORT: settings may have asked for any free port
    started_at: int
    admin_listen: str = ""  # the same of the admin API for other machines, if there is one
    bearers: Bearers = field(init=False)
    imports: Imports = field(default_factory=Imports)
    applies: Applies = field(default_factory=Applies)
    exports: Exports = field(default_factory=Exports)
    backups: Backups = field(default_factory=Backups)
    tails: Tails = field(default_factory=Tails)
    looking_back: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKING_BACK))
    watch: Watch = field(default_factory=lambda: Watch(time.time_ns() // 1_000_000_000))

    def __post_init__(self) -> None:
        object.__setattr__(self, "bearers", Bearers(self.database))

    @property
    def url(self) -> str:
        """Where callers find the data plane."""
        return f"{self.settings.scheme}://{self.listen}"


def control_of(request: Request) -> ControlState:
    control = request.app.state.control
    assert isinstance(control, ControlState)
    return control
