"""Puts a backup back into a state folder in which no gateway runs.

All is unpacked and checked beside what is there first; until then nothing has changed, and what fails or is interrupted
leaves nothing behind. Then what is there is moved into a folder of its own, and what was unpacked into its place. While
that goes on a file says so, and a gateway refuses to start: of an old database and new journals it would make a wrong
bill. Whoever was stopped in the middle, by a power cut say, runs the same command again; the file also names the folder
that the old state goes to, so that a database and its log end up in the same one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gatectl.backups import archive
from gatectl.errors import GatectlError, RejectedError

UNDER_WAY = "restore-under-way"  # gatewayd's `supervisor` knows it by this name too
STATE = (archive.DATABASE, f"{archive.DATABASE}-wal", f"{archive.DATABASE}-shm", "journal", "levels")
_STAGED = "restore.part"
_LOCK = "control.lock"
_KEPT = re.compile(r"before-restore-[0-9TZ-]+", re.ASCII)


def default_state_dir() -> str:
    """`STATE_DIRECTORY` of systemd, /var/lib/gatewayd for root, else $XDG_STATE_HOME/gatewayd.

    gatewayd's `settings.default_state_dir` says the same; a test compares the two.
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return given.split(":")[0]
    if os.geteuid() == 0:
        return "/var/lib/gatewayd"
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return f"{state_home}/gatewayd"


def look(path: str, state_dir: Path, shown: archive.Shown) -> dict[str, Any]:
    """What would be restored. It writes nothing, not beside a gateway's state either, so one may run meanwhile."""
    return _told(archive.unpack(path, None, shown), state_dir, None, dry_run=True)


def is_occupied(state_dir: Path) -> bool:
    """There is state of a gateway, and not of a restore that was broken off."""
    there = any((state_dir / name).exists() and not _is_hollow(state_dir / name) for name in STATE)
    return there and not (state_dir / UNDER_WAY).exists()


def restore(path: str, state_dir: Path, shown: archive.Shown, *, force: bool) -> dict[str, Any]:
    """What was restored, and where what was there before is now. Raises GatectlError; then nothing has changed."""
    made = [folder for folder in (state_dir, *state_dir.parents) if not folder.exists()]
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _nobody_else(state_dir):
            if is_occupied(state_dir) and not force:
                raise RejectedError(
                    f"{state_dir} holds the state of a gateway",
                    "--force puts it aside; or restore into another folder with --state-dir",
                )
            with _staging(state_dir) as staged:
                manifest = archive.unpack(path, staged, shown)
                archive.check_database(staged / archive.DATABASE)
                kept = _swap(state_dir, staged)
    except OSError as error:
        raise GatectlError(f"cannot restore into {state_dir}: {error.strerror}") from None
    finally:
        for folder in made if not (state_dir / archive.DATABASE).exists() else ():
            with suppress(OSError):
                folder.rmdir()
    return _told(manifest, state_dir, kept, dry_run=False)


def _told(manifest: archive.Manifest, state_dir: Path, kept: Path | None, *, dry_run: bool) -> dict[str, Any]:
    return {
        "state_dir": str(state_dir), "created_at": manifest.created_at, "gatewayd": manifest.gatewayd,
        "schema": manifest.schema, "files": len(manifest.files), "size_bytes": manifest.size_bytes,
        "waiting_records": manifest.waiting_records, "kept": None if kept is None else str(kept), "dry_run": dry_run,
    }  # fmt: skip


@contextmanager
def _nobody_else(state_dir: Path) -> Iterator[None]:
    """Hold both locks of a running gateway, its supervisor's and its control's."""
    descriptors = [os.open(state_dir, os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        descriptors.append(os.open(state_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for descriptor in descriptors:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RejectedError(f"a gateway is running on {state_dir}", "stop it first") from None
    finally:
        with suppress(OSError):  # a folder that we made goes again if nothing is restored
            if not any((state_dir / name).exists() for name in STATE):
                (state_dir / _LOCK).unlink()
        for descriptor in descriptors:
            os.close(descriptor)


def _is_hollow(path: Path) -> bool:
    """A folder with nothing in it."""
    return path.is_dir() and not any(path.iterdir())


@contextmanager
def _staging(state_dir: Path) -> Iterator[Path]:
    folder = state_dir / _STAGED
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "journal").mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(state_dir: Path, staged: Path) -> Path | None:
    """The only part that changes something. Ctrl-C waits: it is a few renames."""
    _own(staged, state_dir)
    with _undisturbed():
        try:
            kept = _begun(state_dir)
            _sync(staged / "journal", staged, state_dir)
            _put_aside(state_dir, kept)
            for name in ("journal", archive.DATABASE):
                (staged / name).rename(state_dir / name)
            _sync(state_dir)
            (state_dir / UNDER_WAY).unlink()
            _sync(state_dir)
        except OSError as error:
            why = f"the restore into {state_dir} was broken off in the middle: {error.strerror}"
            raise GatectlError(why, "no gateway starts on it; mend that and run the same command again") from None
    return kept if kept.exists() else None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that would end us do so afterwards.

    Not by masking them: that is a thread's, and at a terminal another one draws a bar, and would get them.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _begun(state_dir: Path) -> Path:
    """Say that it is under way. Where what was there goes to: if it was under way before, to the same folder."""
    under_way = state_dir / UNDER_WAY
    name = under_way.read_text() if under_way.exists() else ""
    if not _KEPT.fullmatch(name):
        name = f"before-restore-{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        under_way.write_text(name)
    return state_dir / name


def _put_aside(state_dir: Path, kept: Path) -> None:
    there = [state_dir / name for name in STATE if (state_dir / name).exists()]
    if not kept.exists() and all(_is_hollow(path) for path in there):
        for path in there:
            path.rmdir()
        return
    kept.mkdir(mode=0o700, exist_ok=True)
    for path in there:
        if not (kept / path.name).exists():
            path.rename(kept / path.name)
        elif path.is_dir():  # what the restore that was broken off had put here
            shutil.rmtree(path)
        else:
            path.unlink()
    _own(kept, state_dir)


def _own(folder: Path, like: Path) -> None:
    """A gateway of another user than root's must be able to read what root restores, and to lock our lock."""
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (like / _LOCK, folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync(*folders: Path) -> None:
    """Files of a folder, and their names, are on the disk when this returns."""
    for folder in folders:
        for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
