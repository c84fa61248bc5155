"""The supervisor: the `gatewayd` that was started. Binds sockets, starts control and workers, restarts what dies.

It opens no database and no journal, so nothing it does can harm them. It binds every socket itself and keeps them for
its whole life: while a worker or control restarts, connections wait in the socket's queue and none is refused. Each
worker has a listening socket of its own (SO_REUSEPORT), which the kernel spreads connections over; a worker that is
restarted gets the same one.

It stops on SIGTERM or SIGINT: workers first, which drain, then control, which ingests what they wrote. SIGHUP rolls the
workers one by one: the new one serves from the same socket before the old one drains.

Only one supervisor runs on a state folder: it holds the folder's lock. The lock dies with it, so after `kill -9` the
next one may start while the orphans still drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from gatewayd import __version__
from gatewayd.binding import (
    CHANNEL_NAME,
    address_of,
    admin_address,
    bind_admin,
    bind_channel,
    bind_listeners,
    bind_remote,
)
from gatewayd.boot import CANNOT_START, READY, Boot, send_boot
from gatewayd.errors import StartupError
from gatewayd.listener_tls import TlsFiles, listener_context
from gatewayd.settings import Settings

START_TIMEOUT_S = 60.0  # a first start may migrate a large database
KILL_AFTER_S = 10.0  # beyond the drain timeout; control's own is half of it, and then it ingests what is left
RESTART_DELAYS_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # by how often it died within STABLE_S
STABLE_S = 10.0
RESTORE_UNDER_WAY = "restore-under-way"  # also in gatectl's backups.restoring

log = logging.getLogger(__name__)


class RefusedError(StartupError):
    """A child cannot start and has said why on standard error: there is nothing to add."""


def _safe_path() -> list[str]:
    """`-m` alone looks for every module in the current directory first: whose `re.py` lies there, gatewayd would run.

    Where we were started so ourselves (`python -m gatewayd` in a clone), children look where we do.
    """
    try:
        return [] if str(Path.cwd()) in sys.path else ["-P"]
    except OSError:  # it is gone
        return ["-P"]


@dataclass(slots=True, eq=False)
class Child:
    """One process to keep running."""

    name: str
    module: str
    boot: Boot
    process: asyncio.subprocess.Process | None = None
    connection: socket.socket | None = None
    deaths: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.process.pid if self.process else 'not running'}>"


class Supervisor:
    """Runs until told to stop. Raises StartupError when the first start fails."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._listeners: list[socket.socket] = []
        self._retired: set[asyncio.subprocess.Process] = set()  # rolled workers, until they have drained

    async def run(self) -> int:
        check_files(self._settings)
        prepare_folders(self._settings)
        with contextlib.ExitStack() as held:
            held.callback(os.close, lock_state(self._settings.state_dir))
            refuse_half_restored(self._settings.state_dir)
            self._listeners = bind_listeners(self._settings)
            channel = held.enter_context(bind_channel(self._settings.state_dir))
            held.callback((self._settings.state_dir / CHANNEL_NAME).unlink, missing_ok=True)
            admin = held.enter_context(bind_admin(self._settings.admin_socket))
            held.callback(self._settings.admin_socket.unlink, missing_ok=True)
            try:
                return await self._supervise(channel, admin, held.enter_context(bind_remote(self._settings)))
            except RefusedError:
                return 1

    async def _supervise(self, channel: socket.socket, admin: socket.socket, remote: socket.socket | None) -> int:
        settings, listeners = self._settings, self._listeners
        listen, admin_listen = address_of(listeners[0]), "" if remote is None else address_of(remote)
        values = settings.model_dump(mode="json")
        sockets = tuple(each.fileno() for each in (channel, admin, remote) if each is not None)
        control = Child("control", "gatewayd.control.main", Boot(values, sockets, listen, admin_listen=admin_listen))
        workers = [
            Child(
                f"worker-{slot}",
                "gatewayd.proxy",
                Boot(values, (self._listener(listeners, slot),), listen, slot),
            )
            for slot in range(settings.workers)
        ]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        roll = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, roll.set)
        try:
            if not await self._start_all(control, workers):
                return 0
            self._keepers = [asyncio.create_task(self._keep(child)) for child in (control, *workers)]
            many = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
            url = f"{settings.scheme}://{listen}"
            if remote is not None:
                scheme = "http" if settings.admin_tls_cert is None else "https"
                say(f"gatewayd: admin API for tokens at {scheme}://{admin_listen}")
            say(f"gatewayd {__version__} ready: {url} ({many}), admin socket {settings.admin_socket}")
            notify_systemd("READY=1")
            rolling = asyncio.create_task(self._roll_when_asked(roll, workers))
            await self._stopping.wait()
            rolling.cancel()
            notify_systemd("STOPPING=1")
        finally:
            await self._stop(control, workers)
        return 0

    async def _start_all(self, control: Child, workers: list[Child]) -> bool:
        """Control first, since workers wait for its word. False when told to stop meanwhile.

        Importing is most of a start, so all do it at once. A worker opens its journal when it gets its boot, and does
        not get it before control is ready: where control cannot start, no worker has touched anything.
        """

        async def start() -> None:
            await asyncio.gather(*(self._spawn(child) for child in (control, *workers)))
            await self._make_ready(control)
            await asyncio.gather(*(self._make_ready(worker) for worker in workers))

        starting, stopping = asyncio.create_task(start()), asyncio.create_task(self._stopping.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            return False
        starting.result()
        return True

    @staticmethod
    def _listener(listeners: list[socket.socket], slot: int) -> int:
        return listeners[slot % len(listeners)].fileno()

    async def _start(self, child: Child) -> None:
        """Start the process and wait until it says that it is ready."""
        await self._spawn(child)
        await self._make_ready(child)

    @staticmethod
    async def _spawn(child: Child) -> None:
        """Start the process, which imports what it needs and waits for its boot."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_safe_path(),
                "-m",
                child.module,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(), *child.boot.sockets),
                start_new_session=True,  # Ctrl-C is for the supervisor, which drains the others in order
            )
        if child.connection is not None:
            child.connection.close()
        child.connection = ours

    @staticmethod
    async def _make_ready(child: Child) -> None:
        """Send the boot and wait until the process says that it is ready."""
        process, ours = child.process, child.connection
        assert process is not None
        assert ours is not None
        try:
            send_boot(ours, child.boot)
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await asyncio.get_running_loop().sock_recv(ours, 1)
        except OSError:
            ready = b""
        except TimeoutError:
            process.kill()
            raise StartupError(f"{child.name} did not become ready within {START_TIMEOUT_S:.0f} s") from None
        if ready != READY:
            status = await process.wait()
            if status == CANNOT_START:
                raise RefusedError(f"{child.name} cannot start")
            raise StartupError(f"{child.name} ended while starting (exit status {status})")

    async def _keep(self, child: Child) -> None:
        """Restart the process whenever it dies, the later the more often it does."""
        while True:
            process = child.process
            assert process is not None
            status = await process.wait()
            if self._stopping.is_set():
                return
            if process is not child.process:  # rolled: another has taken its place
                continue
            now = time.monotonic()
            child.deaths = [at for at in child.deaths if now - at < STABLE_S] + [now]
            delay_s = RESTART_DELAYS_S[min(len(child.deaths), len(RESTART_DELAYS_S)) - 1]
            log.error("%s (pid %d) ended with status %d; restarting", child.name, process.pid, status)
            await asyncio.sleep(delay_s)
            try:
                await self._start(child)
            except (StartupError, OSError) as error:  # OSError: no memory or descriptors for a process just now
                log.error("%s cannot be started: %s", child.name, error)

    async def _roll_when_asked(self, asked: asyncio.Event, workers: list[Child]) -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                for worker in workers:
                    await self._roll(worker)
            except (StartupError, OSError) as error:
                log.error("%s; the workers that are left serve on", error)
            else:
                log.info("workers were replaced")

    async def _roll(self, worker: Child) -> None:
        """Start the new one; once it serves the old one drains. The old one serves on when the new one fails."""
        old, connection = worker.process, worker.connection
        assert old is not None
        assert connection is not None
        self._retired = {process for process in self._retired if process.returncode is None} | {old}
        worker.connection = None  # its end would tell the old one to drain
        try:
            await self._start(worker)
        except (StartupError, OSError):
            self._retired.discard(old)
            worker.process, worker.connection = old, connection
            raise
        with contextlib.suppress(ProcessLookupError):
            old.terminate()
        connection.close()

    async def _stop(self, control: Child, workers: list[Child]) -> None:
        self._stopping.set()
        for keeper in self._keepers:
            keeper.cancel()
        # While we held them too, connections would be taken by the kernel and wait for nobody until the drain's end.
        for listener in self._listeners:
            listener.close()
        patience_s = self._settings.drain_timeout_s + KILL_AFTER_S
        ending = [(worker.name, worker.process) for worker in workers]
        ending += [("a replaced worker", process) for process in self._retired]
        await asyncio.gather(*(self._end(name, process, patience_s) for name, process in ending))
        await self._end(control.name, control.process, KILL_AFTER_S)

    @staticmethod
    async def _end(name: str, process: asyncio.subprocess.Process | None, patience_s: float) -> None:
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            log.error("%s (pid %d) did not stop in time and is killed", name, process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def say(line: str) -> None:
    # The one line that scripts and people wait for, in one write: with PYTHONUNBUFFERED print() makes two, and what
    # another process logs can come between them.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def check_files(settings: Settings) -> None:
    """Raise StartupError with one line if the workers could not load what the settings name."""
    for files in (TlsFiles.of_data_plane(settings), TlsFiles.of_admin(settings)):
        if files is not None:
            listener_context(files)
    if settings.admin_listen is not None:
        admin_address(settings.admin_listen, encrypted=settings.admin_tls_cert is not None)


def prepare_folders(settings: Settings) -> None:
    """Make the folders. Raises StartupError with one line about the first that cannot be made."""
    journal = settings.state_dir / "journal"
    for folder, option in ((settings.state_dir, "--state-dir"), (journal, "--state-dir")):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"cannot make folder {folder}: {error.strerror}; choose another with {option}") from None
    if not os.access(journal, os.W_OK | os.X_OK):
        raise StartupError(f"cannot write to folder {journal}; choose another with --state-dir, or mend its owner")
    runtime = settings.admin_socket.parent
    try:
        runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot make folder {runtime}: {error.strerror}; name another --admin-socket") from None


def lock_state(state_dir: Path) -> int:
    """A descriptor that holds the folder's lock for as long as it is open. Raises StartupError."""
    descriptor = os.open(state_dir, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartupError(
            f"another gatewayd is using {state_dir}; stop it, or choose another with --state-dir"
        ) from None
    return descriptor


def refuse_half_restored(state_dir: Path) -> None:
    """Raise StartupError where a restore was broken off: of an old database and new journals comes a wrong bill."""
    if (state_dir / RESTORE_UNDER_WAY).exists():
        raise StartupError(f"a restore into {state_dir} was broken off in the middle; run 'gatectl restore' again")


def notify_systemd(state: str) -> None:
    """sd_notify(3): one datagram to NOTIFY_SOCKET, when there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
