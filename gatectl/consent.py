"""Verbs that take something away: they show what, ask at a terminal, and elsewhere need `--yes`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gatectl.client import path_of
from gatectl.errors import MisuseError, RejectedError
from gatectl.grammar import Call
from gatectl.output import Column

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where nobody can be asked.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def ask(deed: str, *, name: str | None = None) -> None:
    """Ask at the terminal whether to do it, or to type a name; any other answer, or no terminal, ends the call.

    Where it would be done elsewhere than here, the question says where.
    """
    call = Call.following
    where = None if call is None else call.spoken_with
    if where is not None:
        deed = f"{deed} on {where.name or where.transport.place}"
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise MisuseError(f"there is nobody to ask whether to {deed}", "add --yes, or look first with --dry-run")
    if call is not None and where is not None:
        call.name_gateway()
    sys.stdout.flush()  # whoever is asked sees what it is about
    prompt = "[y/N]" if name is None else f"Type {name!r} to go on:"
    sys.stderr.write(f"{deed[0].upper()}{deed[1:]}? {prompt} ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # the shell's prompt begins on a line of its own
        raise
    if not answer.endswith("\n"):  # Ctrl-D leaves the cursor behind the question
        sys.stderr.write("\n")
    answer = answer.strip()
    if answer != name and (name is not None or answer.lower() not in ("y", "yes")):
        raise MisuseError("not confirmed, nothing was done")


def remove(
    call: Call,
    noun: str,
    references: Sequence[str],
    columns: Sequence[Column],
    name_of: Callable[[Any], str],
    *,
    yes: bool,
    dry_run: bool,
    type_name: bool = False,
    query: dict[str, Any] | None = None,
    may_be_refused: bool = False,
) -> None:
    """Remove each of `references`, which must all exist before the first one goes.

    Where it `may_be_refused` the gateway knows of dry runs, and is asked.
    """
    gateway, printer, scope = call.gateway, call.printer, call.in_tenant if noun != "tenant" else {}
    objects = unique([gateway.get(path_of(f"{noun}s", reference), scope) for reference in references])
    names = [name_of(item) for item in objects]
    if dry_run:
        for item in objects if may_be_refused else ():
            with _force_as_typed():
                gateway.delete(path_of(f"{noun}s", item["id"]), {**scope, **(query or {}), "dry_run": "true"})
        would_do(call, [f"remove {noun} {name}" for name in names], objects, columns)
        return
    if not yes:
        ask(f"remove {noun} {', '.join(names)}", name=names[0] if type_name else None)
    for item, name in zip(objects, names, strict=True):
        with _force_as_typed():
            gateway.delete(path_of(f"{noun}s", item["id"]), {**scope, **(query or {})})
        printer.note(f"Removed {noun} {name}.")
    if printer.asked:
        printer.many([objects], columns)


@contextmanager
def _force_as_typed() -> Iterator[None]:
    """What the gateway says of `force`, which is a member of its API, is what to type next."""
    try:
        yield
    except RejectedError as error:
        error.what, force, what_it_does = error.what.partition("; force ")
        error.hint = f"--force {what_it_does}" if force else error.hint
        raise


def would_do(call: Call, deeds: Sequence[str], objects: Sequence[Any], columns: Sequence[Column]) -> None:
    """The answer to `--dry-run`: what would be done, or, in a form that was asked for, to what."""
    if call.printer.asked:
        call.printer.many([objects], columns)
    else:
        sys.stdout.write("".join(f"would {deed}\n" for deed in deeds))


def unique(objects: Sequence[Any]) -> list[Any]:
    """Each object once, however often and by whatever name it was given."""
    return list({item["id"]: item for item in objects}.values())
