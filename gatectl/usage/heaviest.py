"""`gatectl usage top`: the answer as a table whose last column is a bar."""

from __future__ import annotations

from typing import Any

from gatectl.grammar import Call
from gatectl.kinds import hour_text
from gatectl.output import Column

BY = ("key", "service", "route", "client", "status", "tenant")
OF = ("requests", "refused", "errors", "cost", "bytes")


def top(call: Call, query: dict[str, Any]) -> None:
    answer = call.gateway.get("/v1/usage/top", query)
    printer = call.printer
    if printer.whole(answer):
        return
    count, items = answer["count"], answer["items"]
    printer.note(
        f"Most {answer['of']} by {answer['by']}, from {hour_text(answer['since'])} up to {hour_text(answer['until'])}\n"
    )
    printer.many([items], _columns(answer["by"], answer["of"]))
    if count > len(items):
        printer.note(f"\n{count - len(items):,} more; --limit shows them.")


def _columns(by: str, of: str) -> tuple[Column, ...]:
    return (
        Column(by),
        Column("requests", "number"),
        Column("billable", "number", wide=True),
        Column("errors", "number"),
        Column("refused", "number"),
        Column("units", "number", wide=True),
        Column("bytes_in", "size", wide=True),
        Column("bytes_out", "size", wide=True),
        Column("bytes", "size", wide=of != "bytes"),
        Column("cost", "money"),
        Column("share", "share"),
    )
