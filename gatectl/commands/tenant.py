"""`gatectl tenant`: the organisations that own services, plans and keys."""

from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import MisuseError, NotFoundError
from gatectl.grammar import Call, named_as_typed, noun, refuse_both
from gatectl.output import Column

COLUMNS = (
    Column("slug"),
    Column("name"),
    Column("currency"),
    Column("suspended"),
    Column("created_at", "time"),
    Column("default_plan", wide=True),
    Column("time_zone", wide=True),
    Column("contact", wide=True),
    Column("rates", "rates", wide=True),
    Column("burst", "bursts", wide=True, source="rates"),
    Column("allow", "lines", wide=True),
    Column("id", wide=True),
)

# By the field of the admin API: the option that it is typed behind.
_OPTIONS = {
    "slug": "SLUG",
    "rates": "--rate",
    **{
        field: "--" + field.replace("_", "-")
        for field in ("name", "currency", "time_zone", "contact", "allow", "burst")
    },
}

Slug = Annotated[str, typer.Argument(metavar="TENANT", help="Its slug.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What people call it.")]
Currency = Annotated[str | None, typer.Option("--currency", metavar="CODE", help="Currency of its bills, such as EUR.")]
Zone = Annotated[
    str | None, typer.Option("--time-zone", metavar="ZONE", help="Whose months its bills are of, such as Europe/Rome.")
]
Contact = Annotated[str | None, typer.Option("--contact", metavar="TEXT", help="Whom to write to.")]
Rate = Annotated[
    list[str] | None,
    typer.Option("--rate", metavar="N/TIME", help="For all its keys together, such as 1000/s; repeatable."),
]
Burst = Annotated[int | None, typer.Option("--burst", metavar="N", help="At once, after a pause.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="RULE", help="What may be called, such as 'GET /v1/*'; repeatable."),
]
DefaultPlan = Annotated[
    str | None, typer.Option("--default-plan", metavar="PLAN", help="A plan of its own, which new keys take.")
]


def add(
    call: Call,
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Lower-case letters, digits and dashes.")],
    name: Name = None,
    currency: Currency = None,
    time_zone: Zone = None,
    contact: Contact = None,
    allow: Allow = None,
    rate: Rate = None,
    burst: Burst = None,
) -> None:
    """Add a tenant."""
    body = {"slug": slug, **_options(name, currency, time_zone, contact, allow, rate, burst)}
    with named_as_typed(_OPTIONS):
        tenant = call.gateway.post("/v1/tenants", body)
    _show_one(call, tenant)
    call.printer.note(f"\nNext: gatectl service add NAME URL -t {tenant['slug']}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List tenants."""
    call.shared.tenant = None  # tenants are in no tenant
    paging.show_list(call, "/v1/tenants", COLUMNS, limit, after, every)


def show(call: Call, tenant: Slug) -> None:
    """Show a tenant."""
    _show_one(call, call.gateway.get(path_of("tenants", tenant)))


def set_(
    call: Call,
    tenant: Slug,
    name: Name = None,
    currency: Currency = None,
    time_zone: Zone = None,
    contact: Contact = None,
    default_plan: DefaultPlan = None,
    no_default_plan: Annotated[bool, typer.Option("--no-default-plan", help="New keys have no plan.")] = False,
    allow: Allow = None,
    no_allow: Annotated[bool, typer.Option("--no-allow", help="Everything may be called.")] = False,
    rate: Annotated[
        list[str] | None, typer.Option("--rate", metavar="N/TIME", help="For all its keys together; replaces all.")
    ] = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Take away its rates.")] = False,
    burst: Burst = None,
    suspend: Annotated[
        bool | None, typer.Option("--suspend/--resume", help="Refuse all its requests, or serve them again.")
    ] = None,
) -> None:
    """Change a tenant."""
    refuse_both(
        ("--default-plan", default_plan, "--no-default-plan", no_default_plan),
        ("--allow", allow, "--no-allow", no_allow),
        ("--rate", rate, "--no-rate", no_rate),
        ("--burst", burst, "--no-rate", no_rate),
    )
    changes = _options(name, currency, time_zone, contact, allow, rate, burst)
    if suspend is not None:
        changes["suspended"] = suspend
    if default_plan or no_default_plan:
        changes["default_plan"] = default_plan
    changes |= {field: [] for field, asked in (("allow", no_allow), ("rates", no_rate)) if asked}
    if not changes:
        raise MisuseError("nothing to change", "give --name, --currency, --default-plan, --rate, --suspend ...")
    try:
        with named_as_typed(_OPTIONS):
            _show_one(call, call.gateway.patch(path_of("tenants", tenant), changes))
    except NotFoundError as error:
        error.hint = error.hint.replace("plan list'", f"plan list -t {tenant}'")  # its own plans, not ours
        raise


def suspend(call: Call, tenant: Slug) -> None:
    """Refuse all requests for its services (403), until it is resumed."""
    _show_one(call, call.gateway.patch(path_of("tenants", tenant), {"suspended": True}))


def resume(call: Call, tenant: Slug) -> None:
    """Serve a suspended tenant again."""
    _show_one(call, call.gateway.patch(path_of("tenants", tenant), {"suspended": False}))


def remove(
    call: Call,
    tenant: Slug,
    force: Annotated[
        bool, typer.Option("--force", help="With its services, plans and keys, and with what it owes.")
    ] = False,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove a tenant; at a terminal its name has to be typed.

    Its usage and bills stay. While it owes something that no invoice has billed it is kept, unless forced.
    """
    query = {"force": "true"} if force else None
    consent.remove(
        call, "tenant", [tenant], COLUMNS, lambda item: str(item["slug"]),
        yes=yes, dry_run=dry_run, type_name=True, query=query, may_be_refused=True,
    )  # fmt: skip


def _show_one(call: Call, tenant: Any) -> None:
    call.printer.one(tenant, COLUMNS)


def _options(
    name: str | None,
    currency: str | None,
    time_zone: str | None,
    contact: str | None,
    allow: list[str] | None,
    rate: list[str] | None,
    burst: int | None,
) -> dict[str, Any]:
    given = {
        "name": name,
        "currency": currency,
        "time_zone": time_zone,
        "contact": contact,
        "allow": allow or None,
        "rates": rate or None,
        "burst": burst,
    }
    return {field: value for field, value in given.items() if value is not None}


command = noun(
    "tenant",
    "Organisations that own services, plans and keys.",
    {
        "add": (add, ["gatectl tenant add acme", "gatectl tenant add acme --name 'Acme Ltd' --currency EUR"]),
        "list": (list_, ["gatectl tenant list", "gatectl tenant list -o id"]),
        "show": (show, ["gatectl tenant show acme", "gatectl tenant show acme -o json"]),
        "set": (
            set_,
            ["gatectl tenant set acme --default-plan starter", "gatectl tenant set acme --rate 1000/s --burst 2000"],
        ),
        "suspend": (suspend, ["gatectl tenant suspend acme", "gatectl tenant suspend acme -o json"]),
        "resume": (resume, ["gatectl tenant resume acme", "gatectl tenant resume acme -o json"]),
        "remove": (remove, ["gatectl tenant remove acme --dry-run", "gatectl tenant remove acme --force --yes"]),
    },
)
