"""From a file to the gateway: what would differ, whether that is meant, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from shlex import quote
from typing import Any, TextIO

from gatectl import consent
from gatectl.colours import Colours
from gatectl.config import differences as shown
from gatectl.config.files import Document
from gatectl.config.mistakes import MistakenError
from gatectl.config.sending import send
from gatectl.errors import GatectlError, RejectedError
from gatectl.grammar import Call
from gatectl.output import Column

DIFF, APPLY, ROLLBACK = "/v1/config/diff", "/v1/config/apply", "/v1/config/rollback"
REVISION_COLUMNS = (
    Column("number", "number"),
    Column("at", "time"),
    Column("actor"),
    Column("kind"),
    Column("message"),
    Column("restored", "number", wide=True),
    Column("added", "number"),
    Column("changed", "number"),
    Column("removed", "number"),
    Column("id", wide=True),
)
_MOST_SHOWN = 100  # before a question; `diff` shows all
_MOST_KEYS = 10
_MOST_COMPARED_AGAIN = 1000  # of more differences, that is: it takes seconds, for a remark


class Wish:
    """Something that would change the configuration: a document, or a revision that is wanted back."""

    def __init__(self, call: Call, path: str, body: Any, query: Mapping[str, Any], again: str) -> None:
        self._call = call
        self._path = path
        self._body = body
        self._query = dict(query)
        self.again = again  # what to type to look once more

    def __repr__(self) -> str:
        return f"<Wish {self._path}>"

    def rehearsed(self) -> Any:
        """The answer to it, had it been done."""
        return send(self._call, self._path, self._body, {**self._query, "dry_run": True}, changes=False)

    def granted(self, base: str) -> Any:
        """Do it, if the configuration is still the one that it was compared with."""
        try:
            return send(self._call, self._path, self._body, {**self._query, "base": base}, changes=True)
        except RejectedError as error:
            # Somebody was quicker: either the configuration is another, or it is just becoming one.
            error.what, changed, _ = error.what.partition("; compare again")
            if changed:
                error.hint = f"look again: '{self._call.example(self.again)}'"
            elif error.code == "conflict":
                error.hint = error.hint or "'gatectl config history' tells what came of it"
            raise


def wish_of(call: Call, document: Document, *, prune: bool, message: str | None, again: str) -> Wish:
    return Wish(call, APPLY, document.data, {**call.in_tenant, "prune": prune, "message": message}, again)


def compared(call: Call, document: Document, *, prune: bool) -> Any:
    """What `diff` answers."""
    return send(call, DIFF, document.data, {**call.in_tenant, "prune": prune}, changes=False)


@contextmanager
def placed(document: Document) -> Iterator[None]:
    """What the gateway finds wrong with a document, as mistakes with line and column."""
    try:
        yield
    except RejectedError as error:
        if error.errors and not isinstance(error, MistakenError):
            raise document.mistaken(error.errors) from None
        raise


@contextmanager
def restored(number: int) -> Iterator[None]:
    """What stands against an old revision is told without its places: there is no file of it."""
    try:
        yield
    except RejectedError as error:
        if error.errors:
            more = f", and {len(error.errors) - 1} more" if len(error.errors) > 1 else ""
            error.what = f"revision {number} cannot come back: {error.errors[0]['detail']}{more}"
            error.hint = f"'gatectl config show {number}' tells what it was"
        raise


@contextmanager
def told() -> Iterator[None]:
    """Mistakes go to stderr, a line each; that there were some is the error."""
    try:
        yield
    except MistakenError as error:
        tell(error, sys.stderr)
        raise


def tell(error: MistakenError, stream: TextIO) -> None:
    stream.write("".join(f"{shown.visible(str(mistake))}\n" for mistake in error.mistakes))


def left_over(call: Call, document: Document, answer: Any) -> str:
    """How many objects the file does not name, and what would remove them; nothing where nothing would."""
    if len(answer["differences"]) > _MOST_COMPARED_AGAIN:
        return ""
    try:
        return _not_named(int(compared(call, document, prune=True)["removed"]), "--prune")
    except GatectlError:
        pass  # a file without all the tenants cannot be taken for the whole
    alone = document.only_tenant
    if call.tenant or alone is None:
        return ""
    query = {"prune": True, "tenant": alone}
    try:
        return _not_named(int(send(call, DIFF, document.data, query, changes=False)["removed"]), f"--prune -t {alone}")
    except GatectlError:
        return ""  # it would be refused, which is no concern of who has not asked for it


def _not_named(count: int, option: str) -> str:
    if not count:
        return ""
    are, them = ("is", "it") if count == 1 else ("are", "them")
    return f"{count:,} {are} not in the file; {option} removes {them}"


def show_differences(call: Call, answer: Any, most: int | None = None) -> None:
    """Into the form that was asked for, else as text."""
    printer = call.printer
    if printer.whole(answer):
        return
    if printer.asked and printer.form not in ("table", "wide"):
        printer.many([answer["differences"]], shown.COLUMNS)
        return
    _draw(answer, sys.stdout, most)


def _draw(answer: Any, stream: TextIO, most: int | None) -> None:
    for line in shown.drawn(answer["differences"], Colours(stream), most):
        stream.write(line)
    stream.write(f"{shown.summary(answer)}\n")
    stream.flush()


def carry_out(call: Call, wish: Wish, answer: Any, *, yes: bool, note: str = "") -> None:
    """Show what `answer` says would differ, ask, do it, and say what came of it."""
    printer = call.printer
    if not answer["differences"]:
        unchanged(call, answer)
        return
    if not (yes and (printer.quiet or printer.asked)):
        _draw(answer, sys.stderr if printer.asked or printer.quiet else sys.stdout, _MOST_SHOWN)
        if note:
            printer.note(note)
    if not yes:
        consent.ask(shown.deed(answer["differences"]), name=shown.removed_tenants(answer["differences"]))
    made = wish.granted(answer["base"])
    _say_done(call, made)


def unchanged(call: Call, answer: Any) -> None:
    """There is nothing to do."""
    printer = call.printer
    if printer.asked:
        show_differences(call, {"revision": None, **answer})
    elif not printer.quiet:
        printer.text("Nothing to do: the gateway has it all as it is there.")


def _say_done(call: Call, made: Any) -> None:
    printer, revision = call.printer, made["revision"]
    if printer.form == "id":
        sys.stdout.write(f"{revision['number']}\n")
    elif not printer.whole(made):
        if printer.asked and printer.form not in ("table", "wide"):
            printer.one(revision, REVISION_COLUMNS)
        else:
            printer.text(f"Revision {revision['number']}: {shown.done(revision)}.")
    _say_secretless(call, made["differences"])


def _say_secretless(call: Call, differences: Any) -> None:
    """A key that came of a file has a secret that nobody knows. Also in a pipe, which is somebody's log."""
    keys = [each for each in differences if (each["kind"], each["change"]) == ("key", "add")]
    if not keys or call.printer.asked or call.printer.quiet:
        return
    count = "1 key has" if len(keys) == 1 else f"{len(keys):,} keys have"
    call.printer.text(f"{count} no secret yet. To get one, shown once:")
    for each in keys[:_MOST_KEYS]:
        call.printer.text(f"    gatectl key rotate {quote(each['name'])}{_elsewhere(call, each)}")
    if len(keys) > _MOST_KEYS:
        call.printer.text(f"    and so on for {len(keys) - _MOST_KEYS:,} more")


def _elsewhere(call: Call, difference: Mapping[str, Any]) -> str:
    context = f" --context {call.shared.context}" if call.shared.context else ""
    return ("" if difference["tenant"] == shown.DEFAULT_TENANT else f" -t {difference['tenant']}") + context
