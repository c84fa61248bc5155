"""`gatectl key verify`: whether a key would be let in. The key comes from stdin, never as an argument."""

from __future__ import annotations

import sys

import typer

from gatectl.errors import REFUSED
from gatectl.grammar import Call
from gatectl.keys.secrets import from_stdin
from gatectl.output import Column

COLUMNS = (
    Column("valid"),
    Column("code"),
    Column("detail"),
    Column("prefix"),
    Column("name"),
    Column("tenant"),
    Column("services", "scope"),
    Column("plan"),
    Column("status", "status"),
    Column("generation", "number"),
    Column("expires_at", "time"),
    Column("quota.remaining", "number"),
    Column("id", wide=True),
    Column("labels", "labels", wide=True),
)


def verify(call: Call, **about: str | None) -> None:
    question = {field: value for field, value in about.items() if value is not None}
    answer = call.gateway.post(
        "/v1/keys/verify", {"key": from_stdin("gatectl key verify < FILE"), **question}, call.in_tenant
    )
    if call.printer.quiet and not call.printer.asked:
        sys.stdout.write(f"{answer['code'] or 'ok'}\n")
    else:
        call.printer.one(answer, COLUMNS if "id" in answer else COLUMNS[:3])
    if not answer["valid"]:
        raise typer.Exit(REFUSED)
