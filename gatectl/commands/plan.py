"""`gatectl plan`: rate limits, quotas and prices under one name."""

from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import MisuseError
from gatectl.grammar import Call, noun, refuse_both
from gatectl.output import Column

COLUMNS = (
    Column("name"),
    Column("rates", "rates"),
    Column("burst", "bursts", source="rates"),
    Column("quota", "quota"),
    Column("price", "money"),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
)

Ref = Annotated[str, typer.Argument(metavar="PLAN", help="Its name or id.")]
Rate = Annotated[
    list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 60/min or 10/s; several may be given.")
]
Burst = Annotated[
    int | None,
    typer.Option("--burst", metavar="N", help="At once, after a pause.  [default: as many as the rate]"),
]
Quota = Annotated[str | None, typer.Option("--quota", metavar="N/month", help="Such as 10000/month or 100k/month.")]
Price = Annotated[str | None, typer.Option("--price", metavar="AMOUNT", help="Of a request.  [default: 0.001]")]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What keys will call it.")],
    rate: Rate = None,
    burst: Burst = None,
    quota: Quota = None,
    price: Price = None,
) -> None:
    """Add a plan. Without --rate and --quota it limits nothing."""
    plan = call.gateway.post("/v1/plans", {"name": name, **_options(rate, burst, quota, price)}, call.in_tenant)
    _show_one(call, plan)
    command = f"key create --plan {plan['name']}"
    call.printer.note(f"\nNext: {call.example(command)}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List plans."""
    paging.show_list(call, "/v1/plans", COLUMNS, limit, after, every)


def show(call: Call, plan: Ref) -> None:
    """Show a plan."""
    _show_one(call, call.gateway.get(path_of("plans", plan), call.in_tenant))


def set_(
    call: Call,
    plan: Ref,
    rate: Annotated[
        list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 60/min; replaces all rates.")
    ] = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Take away its rates.")] = False,
    burst: Burst = None,
    quota: Quota = None,
    no_quota: Annotated[bool, typer.Option("--no-quota", help="Take away its quota.")] = False,
    price: Price = None,
) -> None:
    """Change a plan, for all its keys at once; usage so far keeps its price."""
    refuse_both(
        ("--rate", rate, "--no-rate", no_rate),
        ("--burst", burst, "--no-rate", no_rate),
        ("--quota", quota, "--no-quota", no_quota),
    )
    changes = _options(rate, burst, quota, price)
    if no_rate:
        changes["rates"] = []
    if no_quota:
        changes["quota"] = None
    if not changes:
        raise MisuseError("nothing to change", "give --rate, --burst, --quota or --price")
    _show_one(call, call.gateway.patch(path_of("plans", plan), changes, call.in_tenant))


def remove(
    call: Call,
    plans: Annotated[list[str], typer.Argument(metavar="PLAN", help="Names or ids.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove plans that no key uses any more."""
    consent.remove(call, "plan", plans, COLUMNS, lambda item: str(item["name"]), yes=yes, dry_run=dry_run)


def _show_one(call: Call, plan: Any) -> None:
    call.printer.one(plan, COLUMNS)


def _options(rate: list[str] | None, burst: int | None, quota: str | None, price: str | None) -> dict[str, Any]:
    given = {"rates": rate or None, "burst": burst, "quota": quota, "price": price}
    return {field: value for field, value in given.items() if value is not None}


command = noun(
    "plan",
    "Rate limits, quotas and prices under one name.",
    {
        "add": (
            add,
            [
                "gatectl plan add starter --rate 60/min --quota 10000/month --price 0.001",
                "gatectl plan add pro --rate 50/s --rate 1000/min --price 0.0005",
            ],
        ),
        "list": (list_, ["gatectl plan list", "gatectl plan list -o csv"]),
        "show": (show, ["gatectl plan show starter", "gatectl plan show starter -o json"]),
        "set": (set_, ["gatectl plan set starter --rate 120/min", "gatectl plan set starter --no-quota"]),
        "remove": (remove, ["gatectl plan remove starter --dry-run", "gatectl plan remove starter --yes"]),
    },
)
