"""`gatectl key`: the keys that callers show."""

from typing import Annotated, Any, Literal

import typer

from gatectl import consent, paging
from gatectl.client import path_of, without_secret
from gatectl.errors import MisuseError, NotFoundError
from gatectl.grammar import Call, named_as_typed, noun, refuse_both
from gatectl.keys import importing, rotation, secrets, verification
from gatectl.keys.options import (
    OPTIONS,
    Allow,
    Burst,
    Expires,
    InFlight,
    Label,
    Name,
    Network,
    Plan,
    Price,
    Quota,
    Rate,
    Ref,
    Service,
    fields,
)
from gatectl.keys.rotation import Keep, Overlap, RetireAfter
from gatectl.keys.secrets import Out
from gatectl.output import Column

COLUMNS = (
    Column("prefix"),
    Column("name"),
    Column("services", "scope"),
    Column("plan"),
    Column("status", "status"),
    Column("expires_at", "time"),
    Column("last_used_at", "time", wide=True),
    Column("labels", "labels", wide=True),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
    Column("revoked_at", "time", wide=True),
)
SHOW_COLUMNS = (
    *COLUMNS,
    Column("disabled_at", "time", wide=True),
    Column("imported", wide=True),
    Column("allow", "lines"),
    Column("networks", "lines"),
    Column("generations", "generations"),
    Column("limits.rates", "rates"),
    Column("limits.quota.limit", "quota"),
    Column("limits.quota.used", "number"),
    Column("limits.quota.remaining", "number"),
    Column("limits.in_flight_limit", "number"),
    Column("overrides.price", "money"),
    Column("usage.requests", "number"),
    Column("usage.billable", "number"),
    Column("usage.cost", "money"),
)

# A change is answered without limits and usage, but with what is the key's own.
SET_COLUMNS = (
    *COLUMNS,
    Column("allow", "lines"),
    Column("networks", "lines"),
    Column("overrides.rates", "rates"),
    Column("overrides.quota", "quota"),
    Column("overrides.in_flight_limit", "number"),
    Column("overrides.price", "money"),
)

Refs = Annotated[list[str], typer.Argument(metavar="KEY", help="Prefixes gw_..., ids or names.")]


def create(
    call: Call,
    service: Service = None,
    plan: Plan = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Not even the tenant's default one.")] = False,
    name: Name = None,
    expires: Expires = None,
    allow: Allow = None,
    network: Network = None,
    label: Label = None,
    rate: Rate = None,
    burst: Burst = None,
    quota: Quota = None,
    max_in_flight: InFlight = None,
    price: Price = None,
    out: Out = None,
) -> None:
    """Create a key. It is shown this once and cannot be shown again.

    Without --service it is valid for all services of the tenant. Without --plan it has its tenant's default plan, or
    may do 10 requests a minute. Into a pipe goes the key alone.
    """
    secrets.refuse_losing(call, out, secrets.KEY)
    refuse_both(("--plan", plan, "--no-plan", no_plan))
    body = fields(
        services=service, plan=plan, name=name, expires=expires, allow=allow, networks=network, labels=label,
        rates=rate, burst=burst, quota=quota, in_flight_limit=max_in_flight, price=price,
    )  # fmt: skip
    if no_plan:
        body["plan"] = None

    def revoked(key: dict[str, Any]) -> str:
        call.gateway.post(f"{_path(key['id'])}/revoke", {}, call.in_tenant)
        return f"the new key {key['prefix']} was revoked again"

    with named_as_typed(OPTIONS):
        key = secrets.make(out, lambda: dict(call.gateway.post("/v1/keys", body, call.in_tenant)), revoked, secrets.KEY)
    secrets.show(call, key, out, COLUMNS, f"Created key {key['prefix']} for {_described(key)}.", revoked, secrets.KEY)


def _described(key: dict[str, Any]) -> str:
    services = key["services"]
    scope = f"service{'s' * (len(services) > 1)} {', '.join(services)}" if services else "all services"
    limits = "limits of its own" if key.get("overrides", {}).get("rates") else "no plan (10 requests a minute)"
    plan = f"plan {key['plan']}" if key["plan"] else limits
    expiry = f"until {key['expires_at']}" if key["expires_at"] else "without expiry"
    return f"{scope}, {plan}, {expiry}"


def list_(
    call: Call,
    service: Annotated[
        str | None, typer.Option("--service", metavar="SERVICE", help="Only keys of this service.")
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="PLAN", help="Only keys of this plan.")] = None,
    status: Annotated[
        Literal["active", "disabled", "expired", "revoked"] | None,
        typer.Option("--status", help="Only keys like this."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="NAME[=VALUE]", help="Only keys with this label.")
    ] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List keys, the newest last."""
    query = {"service": service, "plan": plan, "status": status, "label": label}
    paging.show_list(call, "/v1/keys", COLUMNS, limit, after, every, **query)


def show(call: Call, key: Ref) -> None:
    """Show a key: generations, limits, and what it has used this month."""
    call.printer.one(call.gateway.get(_path(key), call.in_tenant), SHOW_COLUMNS)


def set_(
    call: Call,
    key: Ref,
    service: Annotated[
        list[str] | None, typer.Option("--service", metavar="SERVICE", help="Valid for this service; replaces all.")
    ] = None,
    all_services: Annotated[bool, typer.Option("--all-services", help="Valid for all services.")] = False,
    plan: Plan = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Take it out of its plan.")] = False,
    name: Name = None,
    expires: Expires = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="Let it never expire.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="RULE", help="Only this; replaces all rules.")
    ] = None,
    no_allow: Annotated[bool, typer.Option("--no-allow", help="Every method and path.")] = False,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NETWORK", help="Only from there; replaces all.")
    ] = None,
    no_network: Annotated[bool, typer.Option("--no-network", help="From everywhere.")] = False,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Such as team=a; replaces all.")
    ] = None,
    no_label: Annotated[bool, typer.Option("--no-label", help="Without labels.")] = False,
    rate: Rate = None,
    burst: Burst = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="The plan's rates again.")] = False,
    quota: Quota = None,
    no_quota: Annotated[bool, typer.Option("--no-quota", help="The plan's quota again.")] = False,
    max_in_flight: InFlight = None,
    no_max_in_flight: Annotated[bool, typer.Option("--no-max-in-flight", help="The plan's limit again.")] = False,
    price: Price = None,
    no_price: Annotated[bool, typer.Option("--no-price", help="The plan's price again.")] = False,
) -> None:
    """Change a key's scope, plan, name, expiry, labels or limits of its own."""
    refuse_both(
        ("--service", service, "--all-services", all_services),
        ("--plan", plan, "--no-plan", no_plan),
        ("--expires", expires, "--no-expiry", no_expiry),
        ("--allow", allow, "--no-allow", no_allow),
        ("--network", network, "--no-network", no_network),
        ("--label", label, "--no-label", no_label),
        ("--rate", rate, "--no-rate", no_rate),
        ("--burst", burst, "--no-rate", no_rate),
        ("--quota", quota, "--no-quota", no_quota),
        ("--max-in-flight", max_in_flight, "--no-max-in-flight", no_max_in_flight),
        ("--price", price, "--no-price", no_price),
    )
    changes = fields(
        services=service, plan=plan, name=name, expires=expires, allow=allow, networks=network, labels=label,
        rates=rate, burst=burst, quota=quota, in_flight_limit=max_in_flight, price=price,
    )  # fmt: skip
    cleared = {
        "services": all_services, "plan": no_plan, "expires": no_expiry, "allow": no_allow, "networks": no_network,
        "labels": no_label, "rates": no_rate, "quota": no_quota, "in_flight_limit": no_max_in_flight, "price": no_price,
    }  # fmt: skip
    changes.update({field: None for field, asked in cleared.items() if asked})
    if not changes:
        raise MisuseError("nothing to change", "give --service, --plan, --expires or another; --help tells them all")
    with named_as_typed(OPTIONS):
        changed = call.gateway.patch(_path(key), changes, call.in_tenant)
    call.printer.one(changed, SET_COLUMNS)


def rotate(
    call: Call,
    key: Ref,
    overlap: Overlap = None,
    retire_after: RetireAfter = None,
    no_retire: Keep = False,
    out: Out = None,
    yes: consent.Yes = False,
) -> None:
    """Give a key a new secret, shown this once, under the same id.

    The old one works until the overlap has passed, and then hears expired_key. It ends sooner once nobody has used it
    for a while. 'key show' tells when each was used last, 'key revoke --generation' ends one by hand.
    """
    refuse_both(("--retire-after", retire_after, "--no-retire", no_retire))
    rotation.rotate(call, _path(key), COLUMNS, overlap, retire_after, no_retire, out, yes)


def disable(call: Call, keys: Refs) -> None:
    """Refuse keys until they are enabled again.

    No worker takes them any more when this returns.
    """
    _each(call, keys, "disable", "Disabled")


def enable(call: Call, keys: Refs) -> None:
    """Let keys that were disabled work again."""
    _each(call, keys, "enable", "Enabled")


def revoke(
    call: Call,
    keys: Refs,
    generation: Annotated[
        int | None, typer.Option("--generation", min=1, metavar="N", help="Only this older secret of a rotated key.")
    ] = None,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Revoke keys, for ever.

    No worker takes them any more when this returns.
    """
    gateway, printer = call.gateway, call.printer
    found = consent.unique([gateway.get(_path(key), call.in_tenant) for key in keys])
    part = "" if generation is None else f"generation {generation} of "
    names = [part + _called(key) for key in found]
    if dry_run:
        consent.would_do(call, [f"revoke {_what(part)}{name}" for name in names], found, COLUMNS)
        return
    if not yes:
        consent.ask(f"revoke {_what(part, found)}{', '.join(names)}")
    body = {} if generation is None else {"generation": generation}
    try:
        revoked = [gateway.post(f"{_path(key['id'])}/revoke", body, call.in_tenant) for key in found]
    except NotFoundError as error:
        if generation is not None:
            error.hint = f"'{call.example('key show ' + found[0]['prefix'])}' tells which there are"
        raise
    for name in names:
        printer.note(f"Revoked {_what(part)}{name}.")
    if printer.asked or printer.quiet:
        printer.many([revoked], COLUMNS)


def verify(
    call: Call,
    service: Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="For this service.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="METHOD", help="With --path.  [default: GET]")
    ] = None,
    path: Annotated[str | None, typer.Option("--path", metavar="PATH", help="Within the service: /users/7.")] = None,
    address: Annotated[str | None, typer.Option("--address", metavar="IP", help="From there.")] = None,
) -> None:
    """Tell whether a key would be let in. The key is read from stdin.

    Exit code 8 where it would not, with the code of the refusal. The rates of the moment are not asked.
    """
    verification.verify(call, service=service, method=method, path=path, address=address)


def import_(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV whose first line names the columns; - for stdin.")],
    dry_run: consent.DryRun = False,
) -> None:
    """Import keys with secrets of your own making, all of the file or none.

    Columns, in any order: secret (20 to 512 visible characters) or sha256 (hex), and if wanted name, services (with
    spaces between), plan, expires, id, label:NAME.
    """
    importing.import_(call, file, dry_run)


def _each(call: Call, keys: list[str], verb: str, done: str) -> None:
    gateway, printer = call.gateway, call.printer
    found = consent.unique([gateway.get(_path(key), call.in_tenant) for key in keys])
    changed = [gateway.post(f"{_path(key['id'])}/{verb}", {}, call.in_tenant) for key in found]
    for key in changed:
        printer.note(f"{done} key {_called(key)}.")
    if printer.asked or printer.quiet or not printer.terminal:
        printer.many([changed], COLUMNS)


def _called(key: dict[str, Any]) -> str:
    return f"{key['prefix']}{' (' + key['name'] + ')' if key['name'] else ''}"


def _what(part: str, found: list[Any] | None = None) -> str:
    return "" if part else f"key{'s' * (len(found or '.') > 1)} "


def _path(reference: str) -> str:
    return path_of("keys", without_secret(reference))


command = noun(
    "key",
    "API keys: create, limit, rotate, revoke.",
    {
        "create": (
            create,
            [
                "gatectl key create --service orders --plan starter --expires 90d",
                "KEY=$(gatectl key create --allow 'GET /v1/*' --label team=a)",
            ],
        ),
        "list": (list_, ["gatectl key list --service orders", "gatectl key list --status revoked --all -o ndjson"]),
        "show": (show, ["gatectl key show gw_ab12cd34", "gatectl key show ci -o json"]),
        "set": (set_, ["gatectl key set gw_ab12cd34 --plan pro", "gatectl key set ci --rate 100/s --no-expiry"]),
        "rotate": (
            rotate,
            ["gatectl key rotate ci --overlap 7d", "gatectl key rotate ci --overlap 0 --yes"],
        ),
        "disable": (disable, ["gatectl key disable ci", "gatectl key disable gw_ab12cd34 gw_bc23df45"]),
        "enable": (enable, ["gatectl key enable ci", "gatectl key enable gw_ab12cd34 -o json"]),
        "revoke": (revoke, ["gatectl key revoke gw_ab12cd34", "gatectl key revoke ci --generation 1 --yes"]),
        "verify": (verify, ["gatectl key verify < ci.key", "gatectl key verify --service orders -o json < ci.key"]),
        "import": (import_, ["gatectl key import keys.csv --dry-run", "gatectl key import keys.csv -t acme"]),
    },
)
