"""A secret, a key's or another, on its one way from the gateway to whoever asked, and back: never an argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO, NamedTuple

import typer

from gatectl.errors import GatectlError, MisuseError
from gatectl.grammar import Call
from gatectl.output import Column

_LONGEST_LINE = 4096  # of stdin: what is longer is no key, but a file of another kind


class Shown(NamedTuple):
    """A field of an answer that comes once, and what people call it."""

    column: Column
    called: str

    @property
    def field(self) -> str:
        return self.column.field


KEY = Shown(Column("key"), "key")

Out = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="Write the key to this new file (mode 0600), not to stdout."),
]


def refuse_losing(call: Call, out: str | None, secret: Shown) -> None:
    if call.printer.form == "id" and not call.shared.quiet and out is None:
        raise MisuseError(
            f"-o id would lose the {secret.called}, which is shown only once", "add --out FILE, or take -o json or -q"
        )
    if out is None and call.printer.asked and call.printer.names and secret.field not in call.printer.names:
        raise MisuseError(
            f"--columns would lose the {secret.called}, which is shown only once", f"add {secret.field}, or --out FILE"
        )


def make(
    out: str | None,
    ask: Callable[[], dict[str, Any]],
    undo: Callable[[dict[str, Any]], str],
    secret: Shown,
) -> dict[str, Any]:
    """What `ask` makes; with `out`, its secret goes there and is no longer in it.

    `undo` is called when the secret could not be written down, and says what has become of what was made.
    """
    with _secret_file(out) as file:
        made = ask()
        if file is None:
            return made
        try:
            file.write(f"{made[secret.field]}\n".encode())
            os.fsync(file.fileno())  # a full disk may say so only now
        except OSError as error:
            raise GatectlError(f"cannot write {out}: {error.strerror}", _undone(made, undo)) from None
        return {field: value for field, value in made.items() if field != secret.field}


def show(
    call: Call,
    made: dict[str, Any],
    out: str | None,
    columns: Sequence[Column],
    said: str,
    undo: Callable[[dict[str, Any]], str],
    secret: Shown,
) -> None:
    """The secret alone into a pipe; a person is told what it is, and that it comes once. `undo` as in `make`."""
    printer = call.printer
    try:
        sys.stdout.flush()  # what comes once stays on the screen: it goes through no pager
        _write(call, made, out, columns, secret)
        sys.stdout.flush()
    except OSError as error:
        if out is not None:
            raise
        raise GatectlError(f"cannot write the {secret.called}: {error.strerror}", _undone(made, undo)) from None
    if printer.asked and printer.form != "id":
        return
    called = secret.called
    where = f"The {called} is in {out}, and" if out else f"This is the only time that the {called} is shown:"
    printer.note(f"\n{said}")
    printer.note(f"{where} nowhere else; the gateway cannot show it." if out else f"{where} store it now.")


def _undone(made: dict[str, Any], undo: Callable[[dict[str, Any]], str]) -> str:
    try:
        return undo(made)
    except GatectlError as error:
        return f"{made['id']} is left, whose secret nobody knows: {error.what}"


def _write(call: Call, made: dict[str, Any], out: str | None, columns: Sequence[Column], secret: Shown) -> None:
    printer = call.printer
    if printer.asked and printer.form != "id":
        printer.one(made, columns if out else (secret.column, *columns))
    elif out is None:
        sys.stdout.write(f"{made[secret.field]}\n")
    elif printer.form == "id":
        sys.stdout.write(f"{made['id']}\n")
    else:
        printer.one(made, columns)


def from_stdin(how: str, called: str = "key", prompt: str = "API key: ") -> str:
    """A secret: typed unseen at a terminal, else the first line of standard input. `how`: a command that gives one."""
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass  # for who types

        secret = getpass(prompt).strip()
    else:
        secret = "" if sys.stdin is None else sys.stdin.readline(_LONGEST_LINE).strip()
    if not secret:
        raise MisuseError(f"standard input holds no {called}", f"write it there: {how}")
    return secret


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
