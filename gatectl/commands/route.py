"""`gatectl route`: what leads to a service beside the addresses it has of itself."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import MisuseError, RejectedError
from gatectl.grammar import Call, argument, noun, refuse_both
from gatectl.output import Column
from gatectl.times import parse_seconds, parse_size

TO_KEY = "key"  # in place of a service: the key's own

COLUMNS = (
    Column("host", "any"),
    Column("path"),
    Column("methods", "scope"),
    Column("service", "chosen"),
    Column("name"),
    Column("exact", wide=True),
    Column("prefix", wide=True),
    Column("auth", wide=True),
    Column("rates", "rates", wide=True),
    Column("weight", "number", wide=True),
    Column("timeout_s", "seconds", wide=True),
    Column("first_byte_timeout_s", "seconds", wide=True),
    Column("body_limit_bytes", "size", wide=True),
    Column("networks", "lines", wide=True),
    Column("tenant", wide=True),
    Column("id"),
    Column("created_at", "time", wide=True),
)
TRIED_COLUMNS = (
    Column("reason"),
    Column("host", "any"),
    Column("path"),
    Column("methods", "scope"),
    Column("service", "chosen"),
    Column("name"),
    Column("exact", wide=True),
    Column("id", wide=True),
)

Ref = Annotated[str, typer.Argument(metavar="ROUTE", help="Its id rte_... or name.")]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="SERVICE", help="Where it leads; 'key' for the service that the caller's key is for."),
]
Path = Annotated[
    str | None,
    typer.Option("--path", metavar="PATH", help="Path and all below it; {name} is any one segment.  [default: /]"),
]
Exact = Annotated[bool | None, typer.Option("--exact/--no-exact", help="The path alone, nothing below it.")]
Host = Annotated[
    str | None, typer.Option("--host", metavar="HOST", help="For this host alone; *.example.com for all below it.")
]
Method = Annotated[list[str] | None, typer.Option("--method", metavar="METHOD", help="For these methods alone.")]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="RULE", help="strip it, keep it, or what stands in its place.  [default: strip]"),
]
Auth = Annotated[
    Literal["key", "none"] | None, typer.Option("--auth", help="What callers must show.  [default: as the service]")
]
Rate = Annotated[
    list[str] | None, typer.Option("--rate", metavar="N/TIME", help="For all its callers together, such as 100/s.")
]
Weight = Annotated[
    int | None, typer.Option("--weight", metavar="N", help="Units that a request takes of limits.  [default: 1]")
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="For a whole answer.  [default: as the service]")
]
FirstByteTimeout = Annotated[
    str | None,
    typer.Option("--first-byte-timeout", metavar="TIME", help="For an answer to begin.  [default: as the service]"),
]
BodyLimit = Annotated[
    str | None, typer.Option("--body-limit", metavar="SIZE", help="Largest request.  [default: as the service]")
]
Network = Annotated[
    list[str] | None, typer.Option("--network", metavar="NETWORK", help="Callers from here alone, such as 10.0.0.0/8.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What to call it.")]


def add(
    call: Call,
    to: To = None,
    path: Path = None,
    exact: Exact = None,
    host: Host = None,
    method: Method = None,
    prefix: Prefix = None,
    auth: Auth = None,
    rate: Rate = None,
    weight: Weight = None,
    timeout: Timeout = None,
    first_byte_timeout: FirstByteTimeout = None,
    body_limit: BodyLimit = None,
    network: Network = None,
    name: Name = None,
) -> None:
    """Add a route to a service.

    Of the routes that match a request the most specific is taken: by host, then path, then methods; never the first.
    """
    if to is None:
        raise MisuseError("--to is missing", "name a service, or 'key' for the one that the caller's key is for")
    if path is None and host is None:
        raise MisuseError("neither --path nor --host is given", "for every request that nothing else takes, --path /")
    with _named_as_typed():
        route = call.gateway.post("/v1/routes", _options(call.params), call.in_tenant)
    call.printer.one(route, COLUMNS if call.printer.form != "table" else _SHORT)
    methods = route["methods"] or ["GET"]
    shown = f"http://{route['host'].replace('*', 'www')}{route['path']}" if route["host"] else route["path"]
    call.printer.note(f"\nNext: {call.example(f'route test {methods[0]} {shown}')}")


_SHORT = tuple(column for column in COLUMNS if not column.wide)


def list_(
    call: Call,
    addresses: Annotated[
        bool, typer.Option("--addresses", help="Those that services have of themselves too, without an id.")
    ] = False,
    limit: paging.Limit = 100,
    after: paging.After = None,
    every: paging.All = False,
) -> None:
    """List routes, in the order in which they are tried."""
    asked = "true" if addresses and call.printer.form != "id" else None
    paging.show_list(call, "/v1/routes", COLUMNS, limit, after, every, addresses=asked)


def show(call: Call, route: Ref) -> None:
    """Show a route with its whole policy."""
    call.printer.one(call.gateway.get(path_of("routes", route), call.in_tenant), COLUMNS)


def set_(
    call: Call,
    route: Ref,
    to: To = None,
    path: Path = None,
    exact: Exact = None,
    host: Host = None,
    no_host: Annotated[bool, typer.Option("--no-host", help="For any host again.")] = False,
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="METHOD", help="For these alone; replaces all.")
    ] = None,
    no_method: Annotated[bool, typer.Option("--no-method", help="For all methods again.")] = False,
    prefix: Prefix = None,
    auth: Auth = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="As the service has it again.")] = False,
    rate: Annotated[
        list[str] | None, typer.Option("--rate", metavar="N/TIME", help="Such as 100/s; replaces all rates.")
    ] = None,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Take away its rates.")] = False,
    weight: Weight = None,
    timeout: Timeout = None,
    no_timeout: Annotated[bool, typer.Option("--no-timeout", help="As the service has it again.")] = False,
    first_byte_timeout: FirstByteTimeout = None,
    no_first_byte_timeout: Annotated[
        bool, typer.Option("--no-first-byte-timeout", help="As the service has it again.")
    ] = False,
    body_limit: BodyLimit = None,
    no_body_limit: Annotated[bool, typer.Option("--no-body-limit", help="As the service has it again.")] = False,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NETWORK", help="Such as 10.0.0.0/8; replaces all.")
    ] = None,
    no_network: Annotated[bool, typer.Option("--no-network", help="Callers from everywhere again.")] = False,
    name: Name = None,
) -> None:
    """Change a route; what is not named stays as it is."""
    changes = _options(call.params)
    if not changes:
        raise MisuseError("nothing to change", f"see '{call.command_path} --help'")
    with _named_as_typed():
        changed = call.gateway.patch(path_of("routes", route), changes, call.in_tenant)
    call.printer.one(changed, COLUMNS)


def remove(
    call: Call,
    routes: Annotated[list[str], typer.Argument(metavar="ROUTE", help="Ids or names.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove routes; the usage they saw stays."""
    consent.remove(call, "route", routes, COLUMNS, _called, yes=yes, dry_run=dry_run)


def test(
    call: Call,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST, ...")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="http://HOST/PATH, or a path on the gateway's own address.")
    ],
) -> None:
    """Show which route a request would take, and why none of the others.

    On a terminal those on other paths are left out.
    """
    with _named_as_typed():
        tried = call.gateway.get("/v1/routes/test", {**call.in_tenant, "method": method, "url": url})
    printer = call.printer
    if printer.whole(tried):
        return
    winner = tried["winner"]
    rows = [{**winner, "reason": "taken"}] if winner else []
    losers = tried["losers"]
    if printer.form == "table":
        losers = [loser for loser in losers if loser["reason"] != "another path"]
    if rows or losers:
        printer.many([[*rows, *losers]], TRIED_COLUMNS)
    if tried["other_tenant"]:
        printer.warn("a route of another tenant is taken")
    elif not winner:
        printer.warn("no route is taken: the answer is 404 no_route")
    if tried["more"] and printer.form != "table":
        printer.warn(f"{tried['more']} more on other paths are not shown")


def _called(route: Any) -> str:
    return str(route["name"] or route["id"])


# By the name of an option's parameter: the field of the admin API, and what makes the field's value of what was typed.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any] | None]] = {
    "to": ("service", lambda text: None if text == TO_KEY else text),
    "path": ("path", None),
    "exact": ("exact", None),
    "host": ("host", None),
    "method": ("methods", None),
    "prefix": ("prefix", None),
    "auth": ("auth", None),
    "rate": ("rates", None),
    "weight": ("weight", None),
    "timeout": ("timeout_s", parse_seconds),
    "first_byte_timeout": ("first_byte_timeout_s", parse_seconds),
    "body_limit": ("body_limit_bytes", parse_size),
    "network": ("networks", None),
    "name": ("name", None),
}


def _options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as the admin API names it; what was taken away with --no-... as null, or as an empty list."""
    given: dict[str, Any] = {}
    for name, (field, parse) in _FIELDS.items():
        option, value, no = _option(name), typed[name], typed.get(f"no_{name}", False)
        refuse_both((option, value, _option(f"no_{name}"), no))
        if no:
            given[field] = [] if name in ("rate", "network") else None
        elif value not in (None, ()):  # an option that may be repeated and was not given is ()
            with argument(option):
                given[field] = parse(value) if parse else value
    return given


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@contextmanager
def _named_as_typed() -> Iterator[None]:
    """A refused value is told by the option that it was typed behind, which the admin API does not know."""
    try:
        yield
    except RejectedError as error:
        typed = {"url": "URL", "method": "METHOD", **{field: _option(name) for name, (field, _) in _FIELDS.items()}}
        if error.field in typed:
            error.what = f"{typed[error.field]}: {error.what.removeprefix(error.field + ': ')}"
        raise


command = noun(
    "route",
    "What leads to a service: host, path, methods.",
    {
        "add": (
            add,
            [
                "gatectl route add --path /v1/users/{id} --to orders --method GET --method HEAD",
                "gatectl route add --host '*.example.com' --prefix /v2 --to shop --weight 5",
            ],
        ),
        "list": (list_, ["gatectl route list", "gatectl route list --addresses"]),
        "show": (show, ["gatectl route show rte_ab12cd34", "gatectl route show reads -o json"]),
        "set": (
            set_,
            ["gatectl route set reads --timeout 5s --network 10.0.0.0/8", "gatectl route set reads --no-auth"],
        ),
        "remove": (remove, ["gatectl route remove reads --dry-run", "gatectl route remove rte_ab12cd34 --yes"]),
        "test": (test, ["gatectl route test GET http://api.example.com/v1/users/7", "gatectl route test POST /orders"]),
    },
)
