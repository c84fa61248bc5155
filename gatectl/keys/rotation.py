"""`gatectl key rotate`: another secret for the same key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gatectl import consent
from gatectl.grammar import Call, named_as_typed
from gatectl.keys import secrets
from gatectl.output import Column

Overlap = Annotated[
    str | None,
    typer.Option("--overlap", metavar="TIME", help="How long the old secret works too; 0: not at all.  [default: 24h]"),
]
RetireAfter = Annotated[
    str | None,
    typer.Option(
        "--retire-after",
        metavar="TIME",
        help="End the old one sooner: when nobody has used it for so long, and the new one is in use.  [default: 24h]",
    ),
]
Keep = Annotated[bool, typer.Option("--no-retire", help="Keep the old one for the whole overlap, used or not.")]


def rotate(
    call: Call,
    path: str,
    columns: Sequence[Column],
    overlap: str | None,
    retire_after: str | None,
    keep: bool,
    out: str | None,
    yes: bool,
) -> None:
    """As the verb says. `path` is the key's address."""
    secrets.refuse_losing(call, out, secrets.KEY)
    body: dict[str, Any] = {"overlap": overlap, "retire_after": retire_after}
    body = {field: value for field, value in body.items() if value is not None}
    if keep:
        body["retire_after"] = None
    at_once = overlap in ("0", "0s")
    if at_once and not yes:
        name = call.gateway.get(path, call.in_tenant)["prefix"]
        consent.ask(f"rotate key {name} and cut off whoever has its old secret")
    with named_as_typed({"overlap": "--overlap", "retire_after": "--retire-after"}):
        key = secrets.make(
            out, lambda: dict(call.gateway.post(f"{path}/rotate", body, call.in_tenant)), _lost, secrets.KEY
        )
    secrets.show(call, key, out, columns, _said(key), _lost, secrets.KEY)


def _lost(key: dict[str, Any]) -> str:
    return f"the new secret of {key['prefix']} is lost, {_old(key)}; rotate it again"


def _said(key: dict[str, Any]) -> str:
    return f"Rotated key {key['prefix']}, generation {key['generation']}; {_old(key)}."


def _old(key: dict[str, Any]) -> str:
    """What becomes of the secret before this one."""
    before = key["generations"][1]
    return (
        f"the old one works until {before['expires_at']}" if before["status"] == "active" else "the old one has ended"
    )
