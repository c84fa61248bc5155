"""What would keep the daemon from starting, or from serving well: looked at by `gatewayd check`, which changes nothing.

A start finds the same out, one at a time and too late; here all of it is told at once.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gatewayd.binding import bind_listeners, bind_remote
from gatewayd.control.database import FILE_NAME, HEAD
from gatewayd.errors import StartupError
from gatewayd.settings import Settings
from gatewayd.supervisor import check_files, lock_state, refuse_half_restored

LEAST_FREE_BYTES = 1 << 28


def problems(settings: Settings) -> list[str]:
    """A line each, in the order of CHECKS. Several may stumble over the same folder."""
    return list(dict.fromkeys(line for check in CHECKS for line in _found(check, settings)))


def _found(check: Callable[[Settings], Iterator[str]], settings: Settings) -> Iterator[str]:
    try:
        yield from check(settings)
    except OSError as error:  # whoever may not enter /var/lib/private, say, is not told what is in it
        told = f"cannot be looked at: {(error.strerror or str(error)).lower()}"
        yield f"{error.filename or settings.state_dir} {told}; check as the user that runs gatewayd"


def is_running(settings: Settings) -> bool:
    """A gateway uses the state folder: its ports are its own then."""
    try:
        os.close(lock_state(settings.state_dir))
    except StartupError:
        return True
    except OSError:
        return False
    return False


def certificates(settings: Settings) -> Iterator[str]:
    yield from _told(lambda: check_files(settings))


def address(settings: Settings) -> Iterator[str]:
    if not is_running(settings):
        yield from _told(lambda: _bind(settings))
        yield from _told(lambda: _bind_remote(settings))


def _bind(settings: Settings) -> None:
    for listener in bind_listeners(settings):
        listener.close()


def _bind_remote(settings: Settings) -> None:
    with bind_remote(settings):
        pass


def state_folder(settings: Settings) -> Iterator[str]:
    """It, or where it would be made."""
    for folder in (settings.state_dir, settings.state_dir / "journal"):
        yield from _not_writable(folder, "state_dir")
    if settings.state_dir.is_dir() and stat.S_IMODE(settings.state_dir.stat().st_mode) & 0o077:
        yield f"{settings.state_dir} is open to others; chmod 700 {settings.state_dir}"
    yield from _told(lambda: refuse_half_restored(settings.state_dir))


def database(settings: Settings) -> Iterator[str]:
    path = settings.state_dir / FILE_NAME
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as opened:
            schema = str(opened.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        yield f"the database {path} cannot be read: {error}"
        return
    if schema > HEAD:
        yield f"the database {path} was written by a newer gatewayd (schema {schema}, this one knows up to {HEAD})"


def disk(settings: Settings) -> Iterator[str]:
    folder = _existing(settings.state_dir)
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    if free < LEAST_FREE_BYTES:
        yield f"the disk of {settings.state_dir} has {free >> 20} MiB free; journals and database need more"


def admin_socket(settings: Settings) -> Iterator[str]:
    yield from _not_writable(settings.admin_socket.parent, "admin_socket")
    if settings.admin_socket.exists() and not settings.admin_socket.is_socket():
        yield f"{settings.admin_socket} is no socket, and in the way of one (admin_socket)"


# To add one: a function that yields a line for each thing that is wrong, and its name here.
CHECKS: tuple[Callable[[Settings], Iterator[str]], ...] = (
    state_folder,
    database,
    disk,
    admin_socket,
    certificates,
    address,
)


def _told(attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except StartupError as error:
        yield str(error)


def _not_writable(folder: Path, setting: str) -> Iterator[str]:
    nearest = _existing(folder)
    if not nearest.is_dir():
        yield f"{nearest} is no folder, so {folder} cannot be made ({setting})"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        what = "cannot be written" if nearest == folder else f"cannot be made: {nearest} cannot be written"
        yield f"folder {folder} {what} by this user ({setting})"


def _existing(path: Path) -> Path:
    """It, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())
