"""A file's stamp, by which its reader knows that it has changed without reading it again."""

from __future__ import annotations

import os

Stamp = tuple[int, int, int, int]


def stamp(path: str | os.PathLike[str]) -> Stamp | None:
    """What is another once the file has been written or replaced; None while there is none of that name."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a path as the operator wrote it)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
