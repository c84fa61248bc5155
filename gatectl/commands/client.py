"""`gatectl client`: who stands behind X-Client-ID."""

from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of, without_secret
from gatectl.errors import MisuseError
from gatectl.grammar import Call, named_as_typed, noun, refuse_both
from gatectl.output import Column

COLUMNS = (
    Column("name"),
    Column("key"),
    Column("rates", "rates"),
    Column("burst", "bursts", source="rates"),
    Column("created_at", "time"),
    Column("tenant", wide=True),
    Column("id", wide=True),
)

_OPTIONS = {"name": "NAME", "rates": "--rate", "burst": "--burst"}

Ref = Annotated[str, typer.Argument(metavar="CLIENT", help="Its name, if no other has it, or its id.")]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Of this key.  [default: of all keys]")]
Burst = Annotated[int | None, typer.Option("--burst", metavar="N", help="At once, after a pause.")]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What stands in X-Client-ID.")],
    key: Key = None,
    rate: Annotated[
        list[str] | None,
        typer.Option("--rate", metavar="N/TIME", help="Its own, such as 5/s; repeatable.  [default: the plan's]"),
    ] = None,
    burst: Burst = None,
) -> None:
    """Register a client: it gets limits of its own within its key.

    With --key it is a client of that key, else of every key of the tenant.
    """
    given = {"name": name, "key": key and without_secret(key), "rates": rate or None, "burst": burst}
    body = {field: value for field, value in given.items() if value is not None}
    with named_as_typed(_OPTIONS):
        call.printer.one(call.gateway.post("/v1/clients", body, call.in_tenant), COLUMNS)


def list_(
    call: Call,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only clients of this key.")] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List clients: registered ones, and those that a plan accepted."""
    paging.show_list(call, "/v1/clients", COLUMNS, limit, after, every, key=key and without_secret(key))


def show(call: Call, client: Ref, key: Key = None) -> None:
    """Show a client."""
    call.printer.one(call.gateway.get(path_of("clients", client), _of(call, key)), COLUMNS)


def set_(
    call: Call,
    client: Ref,
    key: Key = None,
    rate: Annotated[
        list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 5/s; replaces all rates.")
    ] = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Let it have the plan's.")] = False,
    burst: Burst = None,
) -> None:
    """Change a client's limits."""
    refuse_both(("--rate", rate, "--no-rate", no_rate), ("--burst", burst, "--no-rate", no_rate))
    given = {"rates": rate or None, "burst": burst}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if no_rate:
        changes["rates"] = None
    if not changes:
        raise MisuseError("nothing to change", "give --rate, --burst or --no-rate")
    with named_as_typed(_OPTIONS):
        call.printer.one(call.gateway.patch(path_of("clients", client), changes, _of(call, key)), COLUMNS)


def remove(
    call: Call,
    clients: Annotated[list[str], typer.Argument(metavar="CLIENT", help="Names or ids.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove clients: their requests are limited with their key's others."""
    consent.remove(call, "client", clients, COLUMNS, lambda item: str(item["name"]), yes=yes, dry_run=dry_run)


def _of(call: Call, key: str | None) -> dict[str, Any]:
    return {**call.in_tenant, "key": key and without_secret(key)}


command = noun(
    "client",
    "Who stands behind X-Client-ID.",
    {
        "add": (add, ["gatectl client add mobile-app", "gatectl client add kiosk-7 --key ci --rate 5/s --burst 10"]),
        "list": (list_, ["gatectl client list", "gatectl client list --key gw_ab12cd34 -o csv"]),
        "show": (show, ["gatectl client show mobile-app", "gatectl client show mobile-app -o json"]),
        "set": (set_, ["gatectl client set mobile-app --rate 20/s", "gatectl client set mobile-app --no-rate"]),
        "remove": (remove, ["gatectl client remove mobile-app --dry-run", "gatectl client remove mobile-app --yes"]),
    },
)
