"""Invoices as documents: each format from the bytes that were hashed, and the way to a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from gatectl.billing.paper import Paper, paper
from gatectl.billing.screen import LINE_COLUMNS
from gatectl.errors import GatectlError, MisuseError
from gatectl.files import file_written
from gatectl.grammar import Call
from gatectl.kinds import Object
from gatectl.output import csv_text

_MANY_LINES = 20_000  # at 1.5 to 5 ms a line


def format_of(chosen: str | None, out: str | None) -> str:
    """The format that was asked for, or that the file's name ends in."""
    ending = Path(out).suffix.lower().removeprefix(".") if out else ""
    name = chosen or (ending if ending in FORMATS else "json")
    if name == "pdf" and out is None and sys.stdout.isatty():
        raise MisuseError("a PDF is nothing for a terminal", "add --out FILE")
    return name


def verified(facts: Object, content: bytes) -> bytes:
    """The canonical bytes, if they are those that were hashed when the invoice was issued."""
    if sha256(content).hexdigest() != facts["sha256"]:
        raise GatectlError(f"invoice {facts['number']} is not what its SHA-256 is of", "see 'gatectl billing verify'")
    return content


def canonical(body: Object) -> bytes:
    """JSON as the gateway hashes it: sorted keys, no spaces, UTF-8."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def deliver(call: Call, document: bytes, out: str | None) -> None:
    """Write a document to stdout or to a file."""
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(document)
        return
    with file_written(out) as file:
        file.write(document)
    call.printer.note(f"Wrote {out}, {len(document):,} bytes.")


def _json(call: Call, facts: Object, content: bytes) -> bytes:
    return content


def _csv(call: Call, facts: Object, content: bytes) -> bytes:
    return csv_text(json.loads(content)["lines"], LINE_COLUMNS).encode()


def _html(call: Call, facts: Object, content: bytes) -> bytes:
    from gatectl.billing.html import html

    return html(_paper(facts, content)).encode()


def _pdf(call: Call, facts: Object, content: bytes) -> bytes:
    try:
        from gatectl.billing.pdf import pdf
    except ModuleNotFoundError as error:
        what = f"a PDF needs {error.name}, which is not installed"
        raise GatectlError(what, "pip install 'gatewayd[pdf]', or take --format html") from None
    written = _paper(facts, content)
    if len(written.lines) > _MANY_LINES:
        call.printer.warn(f"{len(written.lines):,} lines take minutes to draw; HTML and CSV take none")
    document, missing = pdf(written, facts["issued_at"])
    if missing:
        some = "".join(sorted(missing)[:8])
        call.printer.warn(f"no font here has {some}: they are boxes in the PDF; apt install fonts-noto-cjk has most")
    return document


def _paper(facts: Object, content: bytes) -> Paper:
    return paper(json.loads(content), facts["sha256"])


FORMATS: Mapping[str, Callable[[Call, Any, bytes], bytes]] = {"pdf": _pdf, "html": _html, "csv": _csv, "json": _json}
