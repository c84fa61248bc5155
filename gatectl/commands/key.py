"""`gatectl key`: the keys that callers show."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TextIO

import typer

from gatectl import consent, paging
from gatectl.client import path_of, without_secret
from gatectl.errors import GatectlError, MisuseError
from gatectl.grammar import Call, argument, noun, refuse_both
from gatectl.output import Column
from gatectl.times import parse_expiry, rfc3339

COLUMNS = (
    Column("prefix"),
    Column("name"),
    Column("services", "scope"),
    Column("plan"),
    Column("status", "status"),
    Column("expires_at", "time"),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
    Column("revoked_at", "time", wide=True),
)
SHOW_COLUMNS = (
    *COLUMNS,
    Column("limits.rates", "rates"),
    Column("limits.quota.limit", "quota"),
    Column("limits.quota.used", "number"),
    Column("limits.quota.remaining", "number"),
    Column("usage.requests", "number"),
    Column("usage.billable", "number"),
    Column("usage.cost", "money"),
)
SECRET = Column("key")

Ref = Annotated[str, typer.Argument(metavar="KEY", help="Its prefix gw_..., id or name; never the key itself.")]
Service = Annotated[list[str] | None, typer.Option("--service", metavar="NAME", help="Valid for this service alone.")]
Plan = Annotated[str | None, typer.Option("--plan", metavar="NAME", help="Limits and price.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Whose it is, or what for.")]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="In 90d, or at 2027-01-31 or an RFC 3339 time.")
]


def create(
    call: Call,
    service: Service = None,
    plan: Plan = None,
    name: Name = None,
    expires: Expires = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Write the key to this new file (mode 0600), not to stdout."),
    ] = None,
) -> None:
    """Create a key. It is shown this once and cannot be shown again.

    Without --service it is valid for all services of the tenant, without --plan it may do 10 requests a minute.
    Into a pipe goes the key alone.
    """
    if call.printer.form == "id" and not call.shared.quiet and out is None:
        raise MisuseError("-o id would lose the key, which is shown only once", "add --out FILE, or take -o json or -q")
    body = {"services": service or None, "plan": plan, "name": name, "expires": _expiry(expires)}
    body = {field: value for field, value in body.items() if value is not None}
    with _secret_file(out) as file:
        key = call.gateway.post("/v1/keys", body, call.in_tenant)
        if file is not None:
            file.write(key.pop("key") + "\n")
    _show_new(call, key, out)


def _show_new(call: Call, key: dict[str, Any], out: str | None) -> None:
    printer = call.printer
    if printer.asked and printer.form != "id":
        printer.one(key, COLUMNS if out else (SECRET, *COLUMNS))
        return
    if out is None:
        sys.stdout.write(f"{key['key']}\n")
    elif printer.form == "id":
        sys.stdout.write(f"{key['id']}\n")
    else:
        printer.one(key, COLUMNS)
    where = f"The key is in {out}, and" if out else "This is the only time that the key is shown:"
    printer.note(f"\nCreated key {key['prefix']} for {_described(key)}.")
    printer.note(f"{where} nowhere else; the gateway cannot show it." if out else f"{where} store it now.")


def _described(key: dict[str, Any]) -> str:
    services = key["services"]
    scope = f"service{'s' * (len(services) > 1)} {', '.join(services)}" if services else "all services"
    plan = f"plan {key['plan']}" if key["plan"] else "no plan (10 requests a minute)"
    expiry = f"until {key['expires_at']}" if key["expires_at"] else "without expiry"
    return f"{scope}, {plan}, {expiry}"


def list_(
    call: Call,
    service: Annotated[str | None, typer.Option("--service", metavar="NAME", help="Only keys of this service.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="NAME", help="Only keys of this plan.")] = None,
    status: Annotated[
        Literal["active", "expired", "revoked"] | None, typer.Option("--status", help="Only keys like this.")
    ] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List keys, the newest last."""
    paging.show_list(call, "/v1/keys", COLUMNS, limit, after, every, service=service, plan=plan, status=status)


def show(call: Call, key: Ref) -> None:
    """Show a key with its limits and this month's usage."""
    call.printer.one(call.gateway.get(_path(key), call.in_tenant), SHOW_COLUMNS)


def set_(
    call: Call,
    key: Ref,
    service: Annotated[
        list[str] | None, typer.Option("--service", metavar="NAME", help="Valid for this service; replaces all.")
    ] = None,
    all_services: Annotated[bool, typer.Option("--all-services", help="Valid for all services.")] = False,
    plan: Plan = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Take it out of its plan.")] = False,
    name: Name = None,
    expires: Expires = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="Let it never expire.")] = False,
) -> None:
    """Change a key's scope, plan, name or expiry."""
    refuse_both(
        ("--service", service, "--all-services", all_services),
        ("--plan", plan, "--no-plan", no_plan),
        ("--expires", expires, "--no-expiry", no_expiry),
    )
    changes: dict[str, Any] = {"services": service or None, "plan": plan, "name": name, "expires": _expiry(expires)}
    changes = {field: value for field, value in changes.items() if value is not None}
    cleared = {"services": all_services, "plan": no_plan, "expires": no_expiry}
    changes.update({field: None for field, asked in cleared.items() if asked})
    if not changes:
        raise MisuseError("nothing to change", "give --service, --plan, --name or --expires")
    call.printer.one(call.gateway.patch(_path(key), changes, call.in_tenant), COLUMNS)


def revoke(
    call: Call,
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="Prefixes gw_..., ids or names.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Revoke keys, for ever.

    No worker takes them any more when this returns.
    """
    gateway, printer = call.gateway, call.printer
    found = consent.unique([gateway.get(_path(key), call.in_tenant) for key in keys])
    names = [f"{key['prefix']}{' (' + key['name'] + ')' if key['name'] else ''}" for key in found]
    if dry_run:
        consent.would_do(call, [f"revoke key {name}" for name in names], found, COLUMNS)
        return
    if not yes:
        consent.ask(f"revoke key{'s' * (len(found) > 1)} {', '.join(names)}")
    revoked = [gateway.post(f"{_path(key['id'])}/revoke", {}, call.in_tenant) for key in found]
    for name in names:
        printer.note(f"Revoked key {name}.")
    if printer.asked or printer.quiet:
        printer.many([revoked], COLUMNS)


def _path(reference: str) -> str:
    return path_of("keys", without_secret(reference))


def _expiry(text: str | None) -> str | None:
    with argument("--expires"):
        return None if text is None else rfc3339(parse_expiry(text, datetime.now(UTC)))


@contextmanager
def _secret_file(path: str | None) -> Iterator[TextIO | None]:
    """A new file of mode 0600, opened before the key exists: a key that cannot be written down is never made."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise MisuseError(f"{path} exists", "name a new file") from None
    except OSError as error:
        raise GatectlError(f"cannot write {path}: {error.strerror}", "no key was created") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        os.unlink(path)  # noqa: PTH108 (pathlib would do no more)
        raise


command = noun(
    "key",
    "API keys: create, limit, revoke.",
    {
        "create": (
            create,
            [
                "gatectl key create --service orders --plan starter --name ci --expires 90d",
                "KEY=$(gatectl key create --service orders)",
            ],
        ),
        "list": (list_, ["gatectl key list --service orders", "gatectl key list --status revoked --all -o ndjson"]),
        "show": (show, ["gatectl key show gw_ab12cd34", "gatectl key show ci -o json"]),
        "set": (set_, ["gatectl key set gw_ab12cd34 --plan pro", "gatectl key set ci --no-expiry"]),
        "revoke": (revoke, ["gatectl key revoke gw_ab12cd34", "gatectl key revoke ci old-ci --yes"]),
    },
)
