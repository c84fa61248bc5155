"""`gatectl quota`: how much of its month each key has used, and more of it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of, without_secret
from gatectl.errors import MisuseError
from gatectl.grammar import Call, argument, named_as_typed, noun
from gatectl.output import Column
from gatectl.times import parse_expiry, rfc3339

COLUMNS = (
    Column("key"),
    Column("name"),
    Column("plan"),
    Column("limit", "number"),
    Column("used", "number"),
    Column("remaining", "number"),
    Column("resets_at", "time"),
    Column("period", wide=True),
    Column("quota", "quota", wide=True),
    Column("granted", "number", wide=True),
    Column("forgiven", "number", wide=True),
    Column("mode", wide=True),
    Column("alerts", "percents", wide=True),
    Column("alerts_passed", "percents", wide=True),
    Column("tenant", wide=True),
    Column("id", wide=True),
)
SHOW_COLUMNS = (*COLUMNS, Column("grants", "grants"))

Ref = Annotated[str, typer.Argument(metavar="KEY", help="Its prefix gw_..., id or name; never the key itself.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="For the audit.")]


def show(
    call: Call,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Its prefix gw_..., id or name.  [default: all that have one]")
    ] = None,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """Show this month's quota of a key, or of all keys that have one.

    Quotas count units: requests, by the weight of their route.
    """
    if key is None:
        paging.show_list(call, "/v1/quotas", COLUMNS, limit, after, every)
        return
    if after is not None or every:
        raise MisuseError("a key has one quota", "leave out KEY, or --after and --all")
    call.printer.one(call.gateway.get(_path(key), call.in_tenant), SHOW_COLUMNS)


def grant(
    call: Call,
    key: Ref,
    units: Annotated[str, typer.Argument(metavar="UNITS", help="How much more, such as 500 or 50k.")],
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="In 7d, or at 2026-12-01.  [default: the month's end]"),
    ] = None,
    reason: Reason = None,
) -> None:
    """Grant a key more of this month's quota."""
    with argument("--until"):
        ends = None if until is None else rfc3339(parse_expiry(until, datetime.now(UTC)))
    given = {"units": units, "until": ends, "reason": reason}
    body = {field: value for field, value in given.items() if value is not None}
    with named_as_typed({"units": "UNITS", "until": "--until", "reason": "--reason"}):
        call.printer.one(call.gateway.post(f"{_path(key)}/grants", body, call.in_tenant), COLUMNS)


def reset(
    call: Call, key: Ref, reason: Reason = None, yes: consent.Yes = False, dry_run: consent.DryRun = False
) -> None:
    """Forgive what a key has used this month. Usage and the bill stay."""
    quota = call.gateway.get(_path(key), call.in_tenant)
    path, body = f"{_path(quota['id'])}/reset", {} if reason is None else {"reason": reason}
    deed = f"forgive {quota['used']} used units of the quota of key {_name(quota)}"
    if dry_run:
        tried = call.gateway.post(path, body, {**call.in_tenant, "dry_run": "true"})
        consent.would_do(call, [deed], [tried], COLUMNS)
        return
    if not yes:
        consent.ask(deed)
    call.printer.one(call.gateway.post(path, body, call.in_tenant), COLUMNS)


def _name(quota: Any) -> str:
    return f"{quota['key']}{' (' + quota['name'] + ')' if quota['name'] else ''}"


def _path(reference: str) -> str:
    return path_of("quotas", without_secret(reference))


command = noun(
    "quota",
    "How much of its month each key has used.",
    {
        "show": (show, ["gatectl quota show", "gatectl quota show gw_ab12cd34 -o json"]),
        "grant": (
            grant,
            ["gatectl quota grant ci 50k", "gatectl quota grant gw_ab12cd34 50k --until 2d --reason 'launch day'"],
        ),
        "reset": (reset, ["gatectl quota reset ci --dry-run", "gatectl quota reset gw_ab12cd34 --yes"]),
    },
)
