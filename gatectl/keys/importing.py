"""`gatectl key import`: many keys from a file, with their progress."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from gatectl.errors import GatectlError
from gatectl.grammar import Call, named_as_typed
from gatectl.output import Column
from gatectl.progress import Progress, progress, tell_interrupted

COLUMNS = (Column("tenant"), Column("rows", "number"), Column("imported", "number"), Column("dry_run"))
PATH = "/v1/keys/import"
# A million rows take half a minute, and the gateway's machine may be busy.
TIMEOUT_S = 1800.0
POLL_S = 0.5
_READ_BYTES = 1 << 18
_UNSURE = "all of the keys are imported or none: 'gatectl audit list --action key.import' tells"


def import_(call: Call, name: str, dry_run: bool) -> None:
    call.printer.refuse_ids()
    query = {**call.in_tenant, "dry_run": "true" if dry_run else None}
    with _opened(name) as file:
        size = os.fstat(file.fileno()).st_size if name != "-" else None
        sender = _Sender(call, file, size)
        try:
            with progress(call.printer.quiet) as shown, named_as_typed({"file": name}):
                answer = sender.send(query, shown)
        except KeyboardInterrupt:
            if sender.all_sent and not dry_run:
                tell_interrupted(_UNSURE)
            raise
    if call.printer.asked or not call.printer.quiet:
        call.printer.one(answer, COLUMNS)
    count = f"{answer['rows']:,} key{'s' * (answer['rows'] != 1)}"
    call.printer.note(f"\n{count} would be imported." if dry_run else f"\nImported {count}.")


class _Sender:
    """Sends the file while a thread asks how far the gateway is."""

    def __init__(self, call: Call, file: BinaryIO, size: int | None) -> None:
        self._call = call
        self._file = file
        self._size = size
        self._sent = 0
        self.all_sent = False  # until then an import is none
        self._over = threading.Event()

    def send(self, query: dict[str, Any], shown: Progress) -> Any:
        asking = threading.Thread(target=self._ask, args=(shown,), daemon=True)
        asking.start()
        try:
            return self._call.gateway.upload(PATH, self._chunks(), "text/csv", query, TIMEOUT_S)
        finally:
            self._over.set()
            # Not for long: it may wait for a gateway that is stuck, and a person has pressed Ctrl-C.
            asking.join(POLL_S)

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(_READ_BYTES):
            yield chunk
            self._sent += len(chunk)
        self.all_sent = True

    def _ask(self, shown: Progress) -> None:
        while not self._over.wait(POLL_S):
            try:
                state = self._call.gateway.get(PATH)
            except GatectlError:
                continue  # the upload itself says what is wrong
            match state["state"]:
                case "receiving":
                    shown.show("reading", self._sent, self._size, state["rows"])
                case "checking":
                    shown.show("checking", 0, None, state["rows"])
                case "storing":
                    shown.show("storing", state["stored"], state["rows"], state["rows"])


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return open(name, "rb")  # noqa: PTH123 (a str is all)
    except OSError as error:
        raise GatectlError(f"cannot read {name}: {error.strerror}", "name a CSV file, or - for stdin") from None
