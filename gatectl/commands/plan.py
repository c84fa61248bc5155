"""`gatectl plan`: rate limits, quotas and prices under one name."""

from typing import Annotated, Any, Literal

import typer

from gatectl import consent, paging
from gatectl import price_options as given
from gatectl.client import path_of, without_secret
from gatectl.errors import MisuseError, NotFoundError
from gatectl.grammar import Call, named_as_typed, noun, refuse_both
from gatectl.kinds import KINDS, hour_text
from gatectl.output import Column
from gatectl.price_options import price_fields
from gatectl.price_text import price_text
from gatectl.spans import Since, Until, span_of

COLUMNS = (
    Column("name"),
    Column("rates", "rates"),
    Column("burst", "bursts", source="rates"),
    Column("quota", "quota"),
    Column("price", "price", whole=True),
    Column("base_fee", "money", wide=True),
    Column("minimum", "money", wide=True),
    Column("included", "number", wide=True),
    Column("counts", wide=True),
    Column("billable", wide=True),
    Column("quota_mode", wide=True),
    Column("alerts", "percents", wide=True),
    Column("in_flight_limit", "number", wide=True),
    Column("clients_limit", "number", wide=True),
    Column("shadow", wide=True),
    Column("version", "number", wide=True),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
)
VERSION_COLUMNS = (Column("version", "number"), Column("since", "time"), *COLUMNS[:-4])

SIMULATION_COLUMNS = (
    Column("key"),
    Column("name"),
    Column("requests", "number"),
    Column("would_refuse", "number"),
    Column("earned", "money"),
    Column("would_earn", "money"),
    Column("units", "number", wide=True),
)

# By the field of the admin API: the option that it is typed behind.
_OPTIONS = {
    "name": "NAME",
    "rates": "--rate",
    "burst": "--burst",
    "quota": "--quota",
    "alerts": "--alert",
    "in_flight_limit": "--max-in-flight",
    "clients_limit": "--clients",
    **given.OPTIONS,
}

Ref = Annotated[str, typer.Argument(metavar="PLAN", help="Its name or id.")]
Rate = Annotated[
    list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 60/min or 10/s; several may be given.")
]
NewRates = Annotated[
    list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 60/min; replaces all rates.")
]
NoRate = Annotated[bool, typer.Option("--no-rate", help="Take away its rates.")]
Burst = Annotated[
    int | None,
    typer.Option("--burst", metavar="N", help="At once, after a pause.  [default: as many as the rate]"),
]
Quota = Annotated[str | None, typer.Option("--quota", metavar="N/month", help="Such as 10000/month or 100k/month.")]
NoQuota = Annotated[bool, typer.Option("--no-quota", help="Take away its quota.")]
Mode = Annotated[
    Literal["hard", "soft"] | None,
    typer.Option("--quota-mode", help="Whether a used up quota refuses (hard) or only counts.  [default: hard]"),
]
InFlight = Annotated[int | None, typer.Option("--max-in-flight", metavar="N", help="Requests of one key at once.")]
Shadow = Annotated[
    bool | None, typer.Option("--shadow/--enforce", help="Count what the limits would refuse, or refuse it.")
]
Alert = Annotated[
    list[int] | None, typer.Option("--alert", metavar="PERCENT", help="Tell when so much of the quota is used.")
]
Clients = Annotated[
    int | None,
    typer.Option("--clients", metavar="N", help="Unknown clients of a key that are limited each on its own."),
]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What keys will call it.")],
    rate: Rate = None,
    burst: Burst = None,
    quota: Quota = None,
    quota_mode: Mode = None,
    alert: Alert = None,
    in_flight: InFlight = None,
    clients: Clients = None,
    shadow: Shadow = None,
    price: given.Price = None,
    unit_price: given.UnitPrice = None,
    mib_price: given.MibPrice = None,
    base_fee: given.BaseFee = None,
    minimum: given.Minimum = None,
    included: given.Included = None,
    tier: given.Tier = None,
    tiers: given.TierMode = None,
    package: given.Package = None,
    count: given.Count = None,
    billable: given.Billable = None,
) -> None:
    """Add a plan. Without --rate and --quota it limits nothing."""
    terms = _terms(rate, burst, quota, quota_mode, alert, in_flight, clients, shadow) | price_fields(call.params)
    with named_as_typed(_OPTIONS):
        plan = call.gateway.post("/v1/plans", {"name": name, **terms}, call.in_tenant)
    _show_one(call, plan)
    command = f"key create --plan {plan['name']}"
    call.printer.note(f"\nNext: {call.example(command)}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List plans."""
    paging.show_list(call, "/v1/plans", COLUMNS, limit, after, every)


def show(
    call: Call,
    plan: Ref,
    versions: Annotated[bool, typer.Option("--versions", help="All that it was, and since when.")] = False,
    version: Annotated[int | None, typer.Option("--version", min=1, metavar="N", help="As it was then.")] = None,
) -> None:
    """Show a plan, as it is or as it was."""
    if versions and version is not None:
        raise MisuseError("--versions and --version contradict each other", "give one of them")
    path = path_of("plans", plan)
    if versions:
        paging.show_list(call, f"{path}/versions", VERSION_COLUMNS, limit=100, after=None, every=True)
    elif version is None:
        _show_one(call, call.gateway.get(path, call.in_tenant))
    else:
        try:
            found = call.gateway.get(path, {**call.in_tenant, "version": version})
        except NotFoundError as error:
            if "has no version" in error.what:
                error.hint = f"'{call.example(f'plan show {plan} --versions')}' lists them"
            raise
        call.printer.one(found, (*COLUMNS, VERSION_COLUMNS[1]))


def set_(
    call: Call,
    plan: Ref,
    rate: NewRates = None,
    no_rate: NoRate = False,
    burst: Burst = None,
    quota: Quota = None,
    no_quota: NoQuota = False,
    quota_mode: Mode = None,
    alert: Alert = None,
    no_alert: Annotated[bool, typer.Option("--no-alert", help="Tell nothing.")] = False,
    in_flight: InFlight = None,
    no_in_flight: Annotated[bool, typer.Option("--no-max-in-flight", help="As many at once as come.")] = False,
    clients: Clients = None,
    shadow: Shadow = None,
    price: given.Price = None,
    unit_price: given.UnitPrice = None,
    no_unit_price: given.NoUnitPrice = False,
    mib_price: given.MibPrice = None,
    no_mib_price: given.NoMibPrice = False,
    base_fee: given.BaseFee = None,
    no_base_fee: given.NoBaseFee = False,
    minimum: given.Minimum = None,
    no_minimum: given.NoMinimum = False,
    included: given.Included = None,
    no_included: given.NoIncluded = False,
    tier: given.Tier = None,
    no_tier: given.NoTier = False,
    tiers: given.TierMode = None,
    package: given.Package = None,
    no_package: given.NoPackage = False,
    count: given.Count = None,
    billable: given.Billable = None,
) -> None:
    """Change a plan, for all its keys at once; usage so far keeps its price."""
    refuse_both(
        ("--rate", rate, "--no-rate", no_rate),
        ("--burst", burst, "--no-rate", no_rate),
        ("--quota", quota, "--no-quota", no_quota),
        ("--alert", alert, "--no-alert", no_alert),
        ("--max-in-flight", in_flight, "--no-max-in-flight", no_in_flight),
    )
    changes = _terms(rate, burst, quota, quota_mode, alert, in_flight, clients, shadow) | price_fields(call.params)
    cleared: dict[str, tuple[bool, Any]] = {
        "rates": (no_rate, []),
        "quota": (no_quota, None),
        "alerts": (no_alert, []),
        "in_flight_limit": (no_in_flight, None),
    }
    changes |= {field: nothing for field, (asked, nothing) in cleared.items() if asked}
    if not changes:
        raise MisuseError("nothing to change", "give --rate, --burst, --quota or --price")
    with named_as_typed(_OPTIONS):
        _show_one(call, call.gateway.patch(path_of("plans", plan), changes, call.in_tenant))


def simulate(
    call: Call,
    plan: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="Whose keys' usage is replayed.  [default: that of --like]")
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="PLAN", help="Whose terms are tried.  [default: PLAN's]")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="KEY", help="Only this key, of whatever plan; repeatable.")
    ] = None,
    since: Since = "30d",
    until: Until = None,
    rate: NewRates = None,
    no_rate: NoRate = False,
    burst: Burst = None,
    quota: Quota = None,
    no_quota: NoQuota = False,
    quota_mode: Mode = None,
    shadow: Shadow = None,
    price: given.Price = None,
    unit_price: given.UnitPrice = None,
    no_unit_price: given.NoUnitPrice = False,
    mib_price: given.MibPrice = None,
    no_mib_price: given.NoMibPrice = False,
    base_fee: given.BaseFee = None,
    no_base_fee: given.NoBaseFee = False,
    minimum: given.Minimum = None,
    no_minimum: given.NoMinimum = False,
    included: given.Included = None,
    no_included: given.NoIncluded = False,
    tier: given.Tier = None,
    no_tier: given.NoTier = False,
    tiers: given.TierMode = None,
    package: given.Package = None,
    no_package: given.NoPackage = False,
    count: given.Count = None,
) -> None:
    """Replay recorded usage against other terms. Nothing is changed.

    Says of each key how many of its requests would have been refused, and what it would have earned. Usage is known by
    the hour: within one it is taken as kindly as it can have been, so that more may have been refused, never less.
    """
    whose = plan or like
    if whose is None:
        raise MisuseError("whose usage?", "name a plan, or one with --like")
    refuse_both(("--rate", rate, "--no-rate", no_rate), ("--burst", burst, "--no-rate", no_rate))
    refuse_both(("--quota", quota, "--no-quota", no_quota))
    body = _terms(rate, burst, quota, quota_mode, None, None, None, shadow) | price_fields(call.params)
    body |= {field: nothing for field, asked, nothing in (("rates", no_rate, []), ("quota", no_quota, None)) if asked}
    body |= {"like": like} if like else {}
    body |= {"keys": [without_secret(each) for each in key]} if key else {}
    body |= span_of(since, until)
    with named_as_typed(_OPTIONS):
        answer = call.gateway.post(f"{path_of('plans', whose)}/simulate", body, call.in_tenant)
    printer = call.printer
    if answer["missing_before"]:
        kept = hour_text(answer["missing_before"])
        printer.warn(f"hours before {kept} are gone: of quotas and of what prices include, the month counts from there")
    if printer.whole(answer):
        return
    tried = f"{_rates_text(answer['terms'])} at {_cost_text(answer['terms'], answer['currency'])}"
    printer.note(f"Usage from {hour_text(answer['since'])} up to {hour_text(answer['until'])}, had it been {tried}\n")
    total = answer["total"] if len(answer["items"]) > 1 else None
    printer.many([answer["items"]], SIMULATION_COLUMNS, total=total)


def remove(
    call: Call,
    plans: Annotated[list[str], typer.Argument(metavar="PLAN", help="Names or ids.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove plans that no key uses any more."""
    consent.remove(
        call, "plan", plans, COLUMNS, lambda item: str(item["name"]), yes=yes, dry_run=dry_run, may_be_refused=True
    )


def _rates_text(terms: Any) -> str:
    rates = KINDS["rates"].human(terms["rates"]) if terms["rates"] else "no rates"
    quota = f", {KINDS['quota'].human(terms['quota'])} ({terms['quota_mode']})" if terms["quota"] else ""
    return f"{rates}{quota}{', in shadow' if terms['shadow'] else ''}"


def _cost_text(terms: Any, currency: str) -> str:
    """What is tried of the price, as long as what a person may have typed."""
    fees = [(terms.get("base_fee", "0"), "base fee"), (terms.get("minimum", "0"), "minimum")]
    included = [f"{terms['included']:,} included"] if terms.get("included") else []
    return ", ".join([f"{price_text(terms)} {currency}", *included, *(f"{a} {fee}" for a, fee in fees if a != "0")])


def _show_one(call: Call, plan: Any) -> None:
    call.printer.one(plan, COLUMNS)


def _terms(
    rate: list[str] | None,
    burst: int | None,
    quota: str | None,
    quota_mode: str | None,
    alert: list[int] | None,
    in_flight: int | None,
    clients: int | None,
    shadow: bool | None,
) -> dict[str, Any]:
    fields = {
        "rates": rate or None,
        "burst": burst,
        "quota": quota,
        "quota_mode": quota_mode,
        "alerts": alert or None,
        "in_flight_limit": in_flight,
        "clients_limit": clients,
        "shadow": shadow,
    }
    return {field: value for field, value in fields.items() if value is not None}


command = noun(
    "plan",
    "Rate limits, quotas and prices under one name.",
    {
        "add": (
            add,
            [
                "gatectl plan add starter --rate 60/min --quota 10000/month --price 0.001",
                "gatectl plan add pro --base-fee 20 --tier 5k=0.001 --tier rest=0.0005",
            ],
        ),
        "list": (list_, ["gatectl plan list", "gatectl plan list -o csv"]),
        "show": (show, ["gatectl plan show starter --versions", "gatectl plan show starter -o json"]),
        "set": (set_, ["gatectl plan set starter --rate 120/min", "gatectl plan set starter --no-quota"]),
        "simulate": (
            simulate,
            [
                "gatectl plan simulate starter --rate 30/min --since 7d",
                "gatectl plan simulate --like starter --price 0.002",
            ],
        ),
        "remove": (remove, ["gatectl plan remove starter --dry-run", "gatectl plan remove starter --yes"]),
    },
)
