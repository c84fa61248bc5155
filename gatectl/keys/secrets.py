"""A key's secret, on its one way from the gateway to whoever asked for it, and on its way back: never an argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO

import typer

from gatectl.errors import GatectlError, MisuseError
from gatectl.grammar import Call
from gatectl.output import Column

SECRET = Column("key")
_LONGEST_LINE = 4096  # of stdin: what is longer is no key, but a file of another kind

Out = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="Write the key to this new file (mode 0600), not to stdout."),
]


def refuse_losing(call: Call, out: str | None) -> None:
    if call.printer.form == "id" and not call.shared.quiet and out is None:
        raise MisuseError("-o id would lose the key, which is shown only once", "add --out FILE, or take -o json or -q")


def make(out: str | None, ask: Callable[[], dict[str, Any]], undo: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """The key that `ask` makes; with `out`, its secret goes there and is no longer in it.

    `undo` is called when the secret could not be written down, and says what has become of the key.
    """
    with _secret_file(out) as file:
        key = ask()
        if file is None:
            return key
        try:
            file.write(f"{key['key']}\n".encode())
            os.fsync(file.fileno())  # a full disk may say so only now
        except OSError as error:
            raise GatectlError(f"cannot write {out}: {error.strerror}", undo(key)) from None
        return {field: value for field, value in key.items() if field != "key"}


def show(call: Call, key: dict[str, Any], out: str | None, columns: Sequence[Column], said: str) -> None:
    """The secret alone into a pipe; a person is told what it is, and that it comes once."""
    printer = call.printer
    if printer.asked and printer.form != "id":
        printer.one(key, columns if out else (SECRET, *columns))
        return
    if out is None:
        sys.stdout.write(f"{key['key']}\n")
    elif printer.form == "id":
        sys.stdout.write(f"{key['id']}\n")
    else:
        printer.one(key, columns)
    where = f"The key is in {out}, and" if out else "This is the only time that the key is shown:"
    printer.note(f"\n{said}")
    printer.note(f"{where} nowhere else; the gateway cannot show it." if out else f"{where} store it now.")


def from_stdin(how: str) -> str:
    """A key: typed unseen at a terminal, else the first line of standard input. `how`: the command that gives one."""
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass  # for who types

        key = getpass("API key: ").strip()
    else:
        key = "" if sys.stdin is None else sys.stdin.readline(_LONGEST_LINE).strip()
    if not key:
        raise MisuseError("standard input holds no key", f"write it there: {how}")
    return key


@contextmanager
def _secret_file(path: str | None) -> Iterator[BinaryIO | None]:
    """A new file of mode 0600, opened before the key exists: a key that cannot be written down is never made."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise MisuseError(f"{path} exists", "name a new file") from None
    except OSError as error:
        raise GatectlError(f"cannot write {path}: {error.strerror}", "nothing was done") from None
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file
    except BaseException:
        os.unlink(path)  # noqa: PTH108 (pathlib would do no more)
        raise
