"""`gatectl tenant`: the organisations that own services, plans and keys."""

from typing import Annotated

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import MisuseError
from gatectl.grammar import Call, noun
from gatectl.output import Column

COLUMNS = (
    Column("slug"),
    Column("name"),
    Column("currency"),
    Column("suspended"),
    Column("created_at", "time"),
    Column("id", wide=True),
)

Slug = Annotated[str, typer.Argument(metavar="TENANT", help="Its slug.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What people call it.")]
Currency = Annotated[str | None, typer.Option("--currency", metavar="CODE", help="Currency of its bills, such as EUR.")]


def add(
    call: Call,
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Lower-case letters, digits and dashes.")],
    name: Name = None,
    currency: Currency = None,
) -> None:
    """Add a tenant."""
    body = {"slug": slug, "name": name, "currency": currency}
    tenant = call.gateway.post("/v1/tenants", {field: value for field, value in body.items() if value is not None})
    call.printer.one(tenant, COLUMNS)
    call.printer.note(f"\nNext: gatectl service add NAME URL -t {tenant['slug']}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List tenants."""
    call.shared.tenant = None  # tenants are in no tenant
    paging.show_list(call, "/v1/tenants", COLUMNS, limit, after, every)


def show(call: Call, tenant: Slug) -> None:
    """Show a tenant."""
    call.printer.one(call.gateway.get(path_of("tenants", tenant)), COLUMNS)


def set_(
    call: Call,
    tenant: Slug,
    name: Name = None,
    currency: Currency = None,
    suspend: Annotated[
        bool | None, typer.Option("--suspend/--resume", help="Refuse all its requests, or serve them again.")
    ] = None,
) -> None:
    """Change a tenant: its name, its currency, whether it is served."""
    body = {"name": name, "currency": currency, "suspended": suspend}
    changes = {field: value for field, value in body.items() if value is not None}
    if not changes:
        raise MisuseError("nothing to change", "give --name, --currency, --suspend or --resume")
    call.printer.one(call.gateway.patch(path_of("tenants", tenant), changes), COLUMNS)


def remove(
    call: Call,
    tenant: Slug,
    force: Annotated[bool, typer.Option("--force", help="With its services, plans and keys.")] = False,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove a tenant; at a terminal its name has to be typed."""
    query = {"force": "true"} if force else None
    consent.remove(
        call, "tenant", [tenant], COLUMNS, lambda item: str(item["slug"]),
        yes=yes, dry_run=dry_run, type_name=True, query=query,
    )  # fmt: skip


command = noun(
    "tenant",
    "Organisations that own services, plans and keys.",
    {
        "add": (add, ["gatectl tenant add acme", "gatectl tenant add acme --name 'Acme Ltd' --currency EUR"]),
        "list": (list_, ["gatectl tenant list", "gatectl tenant list -o id"]),
        "show": (show, ["gatectl tenant show acme", "gatectl tenant show acme -o json"]),
        "set": (set_, ["gatectl tenant set acme --suspend", "gatectl tenant set acme --name 'Acme GmbH'"]),
        "remove": (remove, ["gatectl tenant remove acme --dry-run", "gatectl tenant remove acme --force --yes"]),
    },
)
