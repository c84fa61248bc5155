"""`gatectl token`: what lets people and programs elsewhere use the admin API, and how much of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import GatectlError, MisuseError
from gatectl.grammar import Call, argument, named_as_typed, noun
from gatectl.keys.secrets import Shown, make, refuse_losing, show
from gatectl.output import Column
from gatectl.times import parse_expiry, rfc3339

COLUMNS = (
    Column("name"),
    Column("role"),
    Column("tenant", "any"),
    Column("status", "status"),
    Column("expires_at", "time"),
    Column("last_used_at", "time"),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
    Column("created_by", wide=True),
)
TOKEN = Shown(Column("token"), "token")

Refs = Annotated[list[str], typer.Argument(metavar="TOKEN", help="Names or ids tok_...; never the token itself.")]
Out = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="Write the token to this new file (mode 0600), not to stdout."),
]


def create(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for; the audit calls it so.")],
    role: Annotated[
        Literal["viewer", "operator", "admin"],
        typer.Option("--role", help="A viewer changes nothing; an admin decides over tenants, money and tokens."),
    ],
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="In 90d, or at 2027-01-31 or an RFC 3339 time.")
    ] = None,
    out: Out = None,
) -> None:
    """Create a token. It is shown this once and cannot be shown again.

    With --tenant, all that it may see and do is in that tenant. Into a pipe goes the token alone.
    """
    refuse_losing(call, out, TOKEN)
    with argument("--expires"):
        expires_at = None if expires is None else rfc3339(parse_expiry(expires, datetime.now(UTC)))
    body = {"name": name, "role": role, "tenant": call.tenant, "expires_at": expires_at}
    body = {field: value for field, value in body.items() if value is not None}

    def revoked(made: dict[str, Any]) -> str:
        call.gateway.delete(path_of("tokens", made["id"]))
        return f"the new token {name} was revoked again"

    with named_as_typed({"name": "NAME", "expires_at": "--expires", "tenant": "--tenant"}):
        made = make(out, lambda: dict(call.gateway.post("/v1/tokens", body)), revoked, TOKEN)
    show(call, made, out, COLUMNS, f"Created token {made['name']}: {_described(made)}.", revoked, TOKEN)


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List tokens, the newest first, and when each was used last."""
    call.shared.tenant = None  # tokens are the gateway's
    paging.show_list(call, "/v1/tokens", COLUMNS, limit, after, every)


def revoke(call: Call, tokens: Refs, yes: consent.Yes = False, dry_run: consent.DryRun = False) -> None:
    """Revoke tokens, for ever. What is under way with one ends too."""
    for token in tokens:
        if token.startswith("gwt_"):
            raise MisuseError(
                "that is a token itself, which is a secret", "call it by its name; see 'gatectl token list'"
            )
    found = consent.unique([call.gateway.delete(path_of("tokens", token), {"dry_run": "true"}) for token in tokens])
    if dry_run:
        consent.would_do(call, [f"revoke token {token['name']}" for token in found], found, COLUMNS)
        return
    if not yes:
        consent.ask(f"revoke token {', '.join(token['name'] for token in found)}")
    done = []
    for token in found:
        try:
            done.append(call.gateway.delete(path_of("tokens", token["id"])))
        except GatectlError as error:
            if done:
                error.what = f"{error.what} (revoked before it: {', '.join(each['name'] for each in done)})"
            raise
        call.printer.note(f"Revoked token {token['name']}.")
    if call.printer.asked or call.printer.quiet:
        call.printer.many([done], COLUMNS)


def _described(token: dict[str, Any]) -> str:
    reach = f"tenant {token['tenant']} alone" if token["tenant"] else "all tenants"
    expiry = f"until {token['expires_at']}" if token["expires_at"] else "without expiry"
    return f"{token['role']}, {reach}, {expiry}"


command = noun(
    "token",
    "Tokens of the admin API for other machines.",
    {
        "create": (
            create,
            [
                "gatectl token create laptop --role operator --expires 90d --out prod.token",
                "gatectl token create acme-ci --role viewer --tenant acme",
            ],
        ),
        "list": (list_, ["gatectl token list", "gatectl token list -o ndjson --all"]),
        "revoke": (revoke, ["gatectl token revoke laptop", "gatectl token revoke tok_ab12cd34 --yes"]),
    },
)
