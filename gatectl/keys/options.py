"""What a key can be given, as options and as fields of the admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gatectl.errors import MisuseError
from gatectl.grammar import argument
from gatectl.times import parse_expiry, rfc3339

Ref = Annotated[str, typer.Argument(metavar="KEY", help="Its prefix gw_..., id or name; never the key itself.")]
Service = Annotated[
    list[str] | None, typer.Option("--service", metavar="SERVICE", help="Valid for this service; several may be given.")
]
Plan = Annotated[str | None, typer.Option("--plan", metavar="PLAN", help="Limits and price.")]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Whose it is, or what for.")]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="In 90d, or at 2027-01-31 or an RFC 3339 time.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="RULE", help="Only this, such as 'GET /v1/users/*'; several may be."),
]
Network = Annotated[
    list[str] | None,
    typer.Option("--network", metavar="NETWORK", help="Only from there, such as 10.0.0.0/8; likewise."),
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A word of your own, such as team=a; likewise."),
]
Rate = Annotated[
    list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 60/min, in place of the plan's rates.")
]
Burst = Annotated[int | None, typer.Option("--burst", metavar="N", help="At once, of its own rates.")]
Quota = Annotated[str | None, typer.Option("--quota", metavar="N/month", help="In place of the plan's.")]
InFlight = Annotated[
    int | None, typer.Option("--max-in-flight", metavar="N", help="Requests at once, in place of the plan's.")
]
Price = Annotated[str | None, typer.Option("--price", metavar="AMOUNT", help="Of a request, in place of the plan's.")]

# By the field of the admin API: the option that it is typed behind.
OPTIONS = {
    "services": "--service", "plan": "--plan", "name": "--name", "expires": "--expires", "allow": "--allow",
    "networks": "--network", "labels": "--label", "rates": "--rate", "burst": "--burst", "quota": "--quota",
    "in_flight_limit": "--max-in-flight", "price": "--price",
}  # fmt: skip


def fields(
    *,
    services: list[str] | None,
    plan: str | None,
    name: str | None,
    expires: str | None,
    allow: list[str] | None,
    networks: list[str] | None,
    labels: list[str] | None,
    rates: list[str] | None,
    burst: int | None,
    quota: str | None,
    in_flight_limit: int | None,
    price: str | None,
) -> dict[str, Any]:
    """Those that were given, for the admin API."""
    given = {
        "services": services or None, "plan": plan, "name": name, "expires": _expiry(expires), "allow": allow or None,
        "networks": networks or None, "labels": _labels(labels), "rates": rates or None, "burst": burst, "quota": quota,
        "in_flight_limit": in_flight_limit, "price": price,
    }  # fmt: skip
    return {field: value for field, value in given.items() if value is not None}


def _expiry(text: str | None) -> str | None:
    with argument("--expires"):
        return None if text is None else rfc3339(parse_expiry(text, datetime.now(UTC)))


def _labels(written: list[str] | None) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    for text in written or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise MisuseError(f"--label {text!r} is not NAME=VALUE", "write one such as --label team=a")
        if name in labels:
            raise MisuseError(f"--label {name} is given twice", "give it once")
        labels[name] = value
    return labels or None
