"""`gatectl config edit`: the configuration in an editor, and what was made of it into the gateway.

Mistakes come back as comments at the top, and the editor opens once more. What was edited is never lost: where it was
not carried out, it is kept and named.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatectl.config.applying import carry_out, compared, placed, unchanged, wish_of
from gatectl.config.files import Document
from gatectl.config.mistakes import Mistake, MistakenError
from gatectl.config.reading import Source
from gatectl.config.writing import yaml_text
from gatectl.errors import GatectlError, MisuseError, RejectedError
from gatectl.grammar import Call

_HEAD = (
    "# Save and leave the editor: what would change is shown before it is done.\n"
    "# What is taken out of a list is removed. An unchanged file changes nothing.\n"
)
_MISTAKE = "# ! "
_TRIES = 3


def edit(call: Call, *, yes: bool, message: str | None) -> None:
    document, base = _current(call)
    draft = _Draft(call, _HEAD + yaml_text(document))
    with draft.kept_if_it_fails():
        while (edited := draft.edited()) is not None:
            try:
                answer = _answer(call, edited, base)
            except MistakenError as error:
                draft.note(error.mistakes)
                continue
            wish = wish_of(call, edited, prune=True, message=message, again="config edit")
            carry_out(call, wish, answer, yes=yes)
            draft.remove()
            return
        draft.remove()
        unchanged(call, {"differences": [], "added": 0, "changed": 0, "removed": 0, "base": base})


def _current(call: Call) -> tuple[Any, str]:
    """The configuration, and what names this state of it: what others change meanwhile must not be undone."""
    for _ in range(_TRIES):
        document = call.gateway.get("/v1/config", call.in_tenant)
        answer = compared(call, Document([Source("dump", yaml_text(document).encode())]), prune=True)
        if not answer["differences"]:
            return document, str(answer["base"])
    raise RejectedError("the configuration is being changed by others all the time", "try again in a moment")


def _answer(call: Call, edited: Document, base: str) -> Any:
    with placed(edited):
        answer = compared(call, edited, prune=True)
    if answer["base"] != base:
        raise RejectedError("the configuration has been changed by others meanwhile", "edit it again")
    return answer


class _Draft:
    """The file that is edited, of mode 0600."""

    def __init__(self, call: Call, text: str) -> None:
        descriptor, name = tempfile.mkstemp(prefix="gateway-", suffix=".yaml")
        os.close(descriptor)
        self._call = call
        self._path = Path(name)
        self._text = text  # as it was before the editor, without what was said of mistakes
        self._notes: list[str] = []
        self._touched = False

    def __repr__(self) -> str:
        return f"<_Draft {self._path}>"

    def edited(self) -> Document | None:
        """What came of it; None where nothing did. Mistakes that can be seen here lead back into the editor."""
        while True:
            self._path.write_text("".join(self._notes) + self._text)
            _run_editor(self._path)
            text = _without_notes(self._path.read_text(errors="surrogateescape"))
            if text == self._text:
                if self._notes:
                    raise RejectedError("the file still has mistakes, and nothing was done")
                return None
            self._text, self._touched = text, True
            try:
                return Document([Source("the file", text.encode(errors="surrogateescape"))])
            except MistakenError as error:
                self.note(error.mistakes)

    def note(self, mistakes: Sequence[Mistake]) -> None:
        """Say it at the top; what is said moves all the other lines down."""
        moved = len(mistakes)
        self._notes = [f"{_MISTAKE}{_told(mistake, moved)}\n" for mistake in mistakes]

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    @contextmanager
    def kept_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except GatectlError as error:
            if self._touched:
                kept = f"your edit is kept in {self._path}"
                error.hint = f"{error.hint}; {kept}" if error.hint else kept
            else:
                self.remove()
            raise
        except BaseException:
            if self._touched:
                self._call.printer.warn(f"your edit is kept in {self._path}")
            else:
                self.remove()
            raise


def _told(mistake: Mistake, moved: int) -> str:
    if mistake.place is None:
        return mistake.detail
    return f"line {mistake.place.line + moved}, column {mistake.place.column}: {mistake.detail}"


def _without_notes(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_MISTAKE))


def _run_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        command = shlex.split(editor)
    except ValueError as error:
        raise MisuseError(f"EDITOR is no command: {error}", "set it to one such as vi") from None
    # Ctrl-C is the editor's while it runs. Not ignored, which it would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.call([*command, str(path)])
    except OSError as error:
        raise MisuseError(f"cannot start the editor {editor!r}: {error.strerror}", "set EDITOR to another") from None
    finally:
        signal.signal(signal.SIGINT, before)
    if code != 0:
        raise GatectlError(f"the editor {editor!r} ended with {code}", "nothing was done")
