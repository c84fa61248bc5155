"""`gatectl usage tail`: requests as they are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gatectl.errors import MisuseError, UnreachableError
from gatectl.grammar import Call, named_as_typed
from gatectl.kinds import Object
from gatectl.output import Column

COLUMNS = (
    Column("time", "clock"),
    Column("status"),
    Column("service"),
    Column("key"),
    Column("client", wide=True),
    Column("route", wide=True),
    Column("units", "number", wide=True),
    Column("bytes_in", "size", wide=True),
    Column("bytes_out", "size", wide=True),
    Column("gateway_ms", "number", wide=True),
    Column("upstream_ms", "number", wide=True),
    Column("total_ms", "number"),
    Column("request_id", wide=True),
    Column("code"),
)
TENANT = Column("tenant")
# Colours by the class of a status; the others in the terminal's own.
_MEANINGS = {2: "good", 3: "other", 4: "warn", 5: "ill"}


def tail(call: Call, query: dict[str, Any], typed: dict[str, str]) -> None:
    """Write until the gateway stops or somebody has seen enough."""
    printer = call.printer
    if printer.form == "id":
        raise MisuseError("these have no ids", "leave out -o id and -q")
    told = _Told(call, printer.form in ("json", "ndjson", "yaml"))
    columns = (COLUMNS[0], TENANT, *COLUMNS[1:]) if query.get("everyone") else COLUMNS
    with named_as_typed(typed):
        blocks = call.gateway.blocks("/v1/usage/tail", query, None)
    printer.note("Requests as they are counted; Ctrl-C ends it.\n")
    printer.live(told.pages(blocks), columns, lambda item: _MEANINGS.get(item["status"] // 100, ""))
    raise UnreachableError("the gateway is stopping, and so does the tail", "'gatectl status' tells whether it is back")


class _Told:
    """What the gateway tells: records, and how many it could not tell because we read too slowly."""

    def __init__(self, call: Call, whole: bool) -> None:
        self._call = call
        self._whole = whole  # the form has room for every kind of line

    def pages(self, blocks: Iterator[bytes]) -> Iterator[Sequence[Object]]:
        for block in blocks:
            page = []
            for line in block.splitlines():
                item = json.loads(line)
                if "lost" not in item or self._whole:
                    page.append(item)
                    continue
                if page:
                    yield page
                    page = []
                self._call.printer.warn(f"{item['lost']:,} requests are missing here: they came faster than we read")
            yield page
