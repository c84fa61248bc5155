"""`gatectl usage export`: rows of usage to a file, which is there when it is whole and not before, or to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gatectl.errors import MisuseError
from gatectl.files import file_written
from gatectl.grammar import Call
from gatectl.kinds import Object
from gatectl.output import Column, Printer
from gatectl.progress import Progress, progress

COLUMNS = (
    Column("time"),
    *map(Column, ("period", "tenant", "service", "route", "key", "client", "status")),
    *(
        Column(name, "number")
        for name in ("requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out",
                     "billable_units", "billable_bytes", "p50_ms", "p95_ms", "p99_ms")
    ),
    Column("price", "money"),
    Column("cost", "money"),
)  # fmt: skip
FORMATS = ("csv", "ndjson", "parquet")
PATIENCE_S = 60.0  # between two pages, of a gateway that has other things to do

_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_FORMS = {None: None, "csv": "csv", "ndjson": "ndjson", "json": "ndjson"}

# Writes pages into a file.
Writer = Callable[[Iterator[Sequence[Object]], BinaryIO], None]


def export(call: Call, query: dict[str, Any], asked: str | None, out: str | None) -> None:
    printer = call.printer
    writer = _writer(printer, _format(printer, asked, out))
    blocks = call.gateway.blocks("/v1/usage/export", query, PATIENCE_S)
    # A bar would be drawn over rows that go to the same terminal.
    with progress(printer.quiet or (out is None and printer.terminal)) as shown:
        pages = _Pages(blocks, shown)
        if out is None:
            writer(iter(pages), sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with file_written(out) as file:
                writer(iter(pages), file)
        shown.show("exported", 0, None, pages.rows)
    if out is None:
        return
    printer.note(f"Exported {pages.rows:,} rows to {out}.")


def _format(printer: Printer, asked: str | None, out: str | None) -> str:
    form = printer.form if printer.asked else None
    if form not in _FORMS:
        raise MisuseError(f"an export is no {printer.form}", f"take --format {', '.join(FORMATS)}")
    by_form = _FORMS[form]
    if asked is not None and by_form is not None and asked != by_form:
        raise MisuseError(f"--format {asked} and -o {form} contradict each other", "give one of them")
    chosen = asked or by_form or (_SUFFIXES.get(Path(out).suffix) if out else None) or "csv"
    if chosen == "parquet" and out is None:
        raise MisuseError("parquet is written to a file", "name it with --out")
    return chosen


def _writer(printer: Printer, chosen: str) -> Writer:
    columns = printer.chosen(COLUMNS)
    if chosen == "parquet":
        from gatectl.usage import parquet

        return parquet.writer([column.field for column in columns])

    def write(pages: Iterator[Sequence[Object]], file: BinaryIO) -> None:
        for text in printer.texts(chosen, pages, COLUMNS):
            file.write(text.encode("utf-8", "surrogatepass"))

    return write


class _Pages:
    """Rows as they come; how far they are is shown by the time of the last one."""

    def __init__(self, blocks: Iterator[bytes], shown: Progress) -> None:
        self._blocks = blocks
        self._shown = shown
        self.rows = 0

    def __iter__(self) -> Iterator[Sequence[Object]]:
        self._shown.show("exporting", 0, None, 0)
        for block in self._blocks:
            page = [json.loads(line) for line in block.splitlines()]
            self.rows += len(page)
            self._shown.show("exporting", 0, None, self.rows)
            yield page
