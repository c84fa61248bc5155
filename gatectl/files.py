"""Files that commands write for people: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gatectl.errors import GatectlError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextmanager
def file_written(name: str, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file that gets its name when all is in it: one that was there is replaced at once, or stays as it is.

    What is not whole leaves nothing behind, also after Ctrl-C. Into /dev/stdout, a pipe, or what a link leads to, it is
    written directly: to replace that would take it away. A `private` one is its user's alone (0600).
    """
    path = Path(name)
    direct = path.is_symlink() or (path.exists() and not path.is_file())
    target = path if direct else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        opened = target.open("wb") if direct else os.fdopen(os.open(target, _NEW, 0o600 if private else 0o666), "wb")
    except OSError as error:
        raise GatectlError(f"cannot write {name}: {error.strerror}") from None
    try:
        with opened as file:
            yield file
            if not direct:
                file.flush()
                os.fsync(file.fileno())  # a full disk may say so only now
                target.replace(path)
    except BaseException as error:
        if not direct:
            target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise GatectlError(f"cannot write {name}: {error.strerror}") from None
        raise
