"""`gatectl logs`: requests that have been, and with -f those that come."""

from typing import Annotated, Any

import typer

from gatectl.client import without_secret
from gatectl.errors import MisuseError
from gatectl.grammar import Call, argument, verb_command

_TYPED = {"status": "--status", "limit": "--limit", "lines": "--limit", "since": "--since", "until": "--until"}


def logs(
    call: Call,
    request: Annotated[str | None, typer.Argument(metavar="[REQUEST_ID]", hidden=True)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those that come, until Ctrl-C.")] = False,
    service: Annotated[str | None, typer.Option("--service", metavar="NAME", help="Only of this service.")] = None,
    route: Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only on this route.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")] = None,
    client: Annotated[str | None, typer.Option("--client", metavar="NAME", help="Only from this client.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only answered so: 5xx, 404 or 5xx,429.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what the gateway refused.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors: 5xx, or broken off.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="24h, 7d, today, this-month, last-month or 2026-09-01."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only up to here.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10000, metavar="N", help="The newest so many.")
    ] = 100,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Of every tenant.")] = False,
) -> None:
    """Show the newest requests, oldest first; -f goes on with what comes.

    A line a request, oldest first, from the journals that are kept. With --refused and --errors both. Who reads more
    slowly than requests come is told how many are missing.
    """
    if request is not None:
        raise MisuseError(f"logs takes no {request!r}", f"'gatectl explain {request}' tells of one request")
    if all_tenants and call.tenant:
        raise MisuseError("--all-tenants and --tenant contradict each other", "give one of them")
    if follow and until:
        raise MisuseError("--follow and --until contradict each other", "give one of them")
    from gatectl.usage import tailing

    query: dict[str, Any] = {
        **call.in_tenant,
        "everyone": "true" if all_tenants else None,
        "service": service,
        "route": route,
        "key": key and without_secret(key),
        "client": client,
        "status": status,
        "refused": "true" if refused else None,
        "errors": "true" if errors else None,
        "since": _moment("--since", since),
    }
    if follow:
        tailing.tail(call, {**query, "lines": limit}, _TYPED)
    else:
        tailing.look_back(call, {**query, "until": _moment("--until", until), "limit": limit}, _TYPED)


def _moment(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    from datetime import UTC, datetime

    from gatectl.times import parse_moment, rfc3339

    with argument(option):
        return rfc3339(parse_moment(text, datetime.now(UTC)))


command = verb_command(
    "logs",
    logs,
    ["gatectl logs --status 5xx,429 --since 1h", "gatectl logs -f --service orders --refused"],
)
