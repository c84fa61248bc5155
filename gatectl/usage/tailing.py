"""`gatectl logs` and `gatectl usage tail`: requests that have been, and as they are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatectl.errors import UnreachableError
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


def tail(call: Call, query: Mapping[str, Any], typed: Mapping[str, str]) -> None:
    """Write until the gateway stops or somebody has seen enough."""
    printer = call.printer
    told = _Told(call, printer.form in ("json", "ndjson", "yaml"))
    with named_as_typed(typed):
        blocks = call.gateway.blocks("/v1/usage/tail", query, None)
    printer.note("Requests as they are counted; Ctrl-C ends it.\n")
    printer.live(told.pages(blocks), _columns(query, None), _meaning)
    raise UnreachableError("the gateway is stopping, and so does the tail", "'gatectl status' tells whether it is back")


def look_back(call: Call, query: Mapping[str, Any], typed: Mapping[str, str]) -> None:
    """Write those that are found, and how far back that is where it is less than was asked for."""
    printer = call.printer
    with named_as_typed(typed):
        answer = call.gateway.get("/v1/logs", query)
    if printer.whole(answer):
        return
    columns = _columns(query, answer)
    if printer.form in ("table", "wide"):
        printer.live([answer["items"]], columns, _meaning)
    else:
        printer.many([answer["items"]], columns)
    _tell_how_far(call, query, answer)


def _tell_how_far(call: Call, query: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    back_to = answer["looked_back_to"].replace("T", " ")
    if not answer["items"]:
        # What there is not, is not further back than this very moment where nothing has come yet.
        since = "" if answer["looked_back_to"] >= answer["at"] else f" since {back_to}"
        call.printer.note(f"None{since or ' yet'}; 'gatectl logs -f' shows those to come.")
    elif answer["ended_by"] == "limit":
        call.printer.note(f"\nThe last {len(answer['items'])}; --limit shows more, 'gatectl explain ID' tells of one.")
    if answer["ended_by"] == "kept" and query.get("since"):
        call.printer.note(
            f"Journals are kept back to {back_to} (journal_keep_bytes); 'gatectl usage show' has the sums."
        )
    if answer["ended_by"] == "bytes":
        call.printer.warn(f"looked back to {back_to}; there may be older ones")


def _columns(query: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Sequence[Column]:
    columns = (COLUMNS[0], TENANT, *COLUMNS[1:]) if query.get("everyone") else COLUMNS
    if answer is None or not answer["items"] or answer["items"][0]["time"][:10] == answer["at"][:10]:
        return columns
    return (Column("time", "time"), *columns[1:])  # from another day on: the clock alone would mislead


def _meaning(item: Object) -> str:
    return _MEANINGS.get(item["status"] // 100, "")


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
