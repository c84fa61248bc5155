"""`gatectl service`: the APIs behind the gateway."""

from typing import Annotated, Any, Literal

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import MisuseError
from gatectl.grammar import Call, argument, noun, refuse_both
from gatectl.output import Column
from gatectl.times import parse_duration, parse_size

COLUMNS = (
    Column("slug"),
    Column("url"),
    Column("targets", "lines"),
    Column("auth"),
    Column("paths", "lines", wide=True),
    Column("timeout_s", "seconds", wide=True),
    Column("connect_timeout_s", "seconds", wide=True),
    Column("body_limit_bytes", "size", wide=True),
    Column("key_header", wide=True),
    Column("preserve_host", wide=True),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
)

Ref = Annotated[str, typer.Argument(metavar="SERVICE", help="Its name or id.")]
Target = Annotated[list[str] | None, typer.Option("--target", metavar="URL", help="One more place where it runs.")]
Path = Annotated[
    list[str] | None, typer.Option("--path", metavar="PREFIX", help="Serve it under this path too; / for a whole host.")
]
Auth = Annotated[Literal["key", "none"] | None, typer.Option("--auth", help="What callers must show.  [default: key]")]
PreserveHost = Annotated[
    bool | None, typer.Option("--preserve-host/--no-preserve-host", help="Pass the caller's Host on to the target.")
]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="For a whole answer, such as 30s.")]
ConnectTimeout = Annotated[str | None, typer.Option("--connect-timeout", metavar="TIME", help="For connecting.")]
BodyLimit = Annotated[str | None, typer.Option("--body-limit", metavar="SIZE", help="Largest request, such as 10MiB.")]
KeyHeader = Annotated[
    str | None, typer.Option("--key-header", metavar="NAME", help="Header of the key.  [default: X-API-Key]")
]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it runs, such as http://127.0.0.1:8001.")],
    target: Target = None,
    path: Path = None,
    auth: Auth = None,
    preserve_host: PreserveHost = None,
    timeout: Timeout = None,
    connect_timeout: ConnectTimeout = None,
    body_limit: BodyLimit = None,
    key_header: KeyHeader = None,
) -> None:
    """Put the gateway in front of an API."""
    options = _options(path, auth, preserve_host, timeout, connect_timeout, body_limit, key_header)
    body = {"slug": name, "targets": [url, *(target or [])], **options}
    service = call.gateway.post("/v1/services", body, call.in_tenant)
    call.printer.one(service, COLUMNS if call.printer.form != "table" else COLUMNS[:4])
    if service["auth"] == "none":
        call.printer.note(f"\nNext: curl {service['url']}")
    else:
        command = f"key create --service {service['slug']}"
        call.printer.note(f"\nNext: {call.example(command)}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List services."""
    paging.show_list(call, "/v1/services", COLUMNS, limit, after, every)


def show(call: Call, service: Ref) -> None:
    """Show a service with all its settings."""
    call.printer.one(call.gateway.get(path_of("services", service), call.in_tenant), COLUMNS)


def set_(
    call: Call,
    service: Ref,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="URL", help="Where it runs; replaces all targets.")
    ] = None,
    path: Annotated[
        list[str] | None, typer.Option("--path", metavar="PREFIX", help="Path to serve it under; replaces all paths.")
    ] = None,
    no_path: Annotated[bool, typer.Option("--no-path", help="Take away its paths.")] = False,
    auth: Auth = None,
    preserve_host: PreserveHost = None,
    timeout: Timeout = None,
    connect_timeout: ConnectTimeout = None,
    body_limit: BodyLimit = None,
    no_body_limit: Annotated[bool, typer.Option("--no-body-limit", help="Take away its body limit.")] = False,
    key_header: KeyHeader = None,
) -> None:
    """Change a service; what is not named stays as it is."""
    refuse_both(("--path", path, "--no-path", no_path), ("--body-limit", body_limit, "--no-body-limit", no_body_limit))
    changes = _options(path, auth, preserve_host, timeout, connect_timeout, body_limit, key_header)
    if target:
        changes["targets"] = target
    if no_path:
        changes["paths"] = []
    if no_body_limit:
        changes["body_limit_bytes"] = None
    if not changes:
        raise MisuseError("nothing to change", f"see '{call.command_path} --help'")
    call.printer.one(call.gateway.patch(path_of("services", service), changes, call.in_tenant), COLUMNS)


def remove(
    call: Call,
    services: Annotated[list[str], typer.Argument(metavar="SERVICE", help="Names or ids.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove services; their usage stays on the bill."""
    consent.remove(call, "service", services, COLUMNS, lambda item: str(item["slug"]), yes=yes, dry_run=dry_run)


def _options(
    path: list[str] | None,
    auth: str | None,
    preserve_host: bool | None,
    timeout: str | None,
    connect_timeout: str | None,
    body_limit: str | None,
    key_header: str | None,
) -> dict[str, Any]:
    """What was given, as the admin API names it."""
    given: dict[str, Any] = {"paths": path or None, "auth": auth, "preserve_host": preserve_host}
    with argument("--timeout"):
        given["timeout_s"] = _seconds(timeout)
    with argument("--connect-timeout"):
        given["connect_timeout_s"] = _seconds(connect_timeout)
    with argument("--body-limit"):
        given["body_limit_bytes"] = None if body_limit is None else parse_size(body_limit)
    given["key_header"] = key_header
    return {field: value for field, value in given.items() if value is not None}


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = parse_duration(text)
    return int(seconds) if seconds == int(seconds) else seconds


command = noun(
    "service",
    "APIs behind the gateway and where they are.",
    {
        "add": (
            add,
            [
                "gatectl service add orders http://127.0.0.1:8001",
                "gatectl service add shop http://10.0.0.1 --target http://10.0.0.2 --path /shop",
            ],
        ),
        "list": (list_, ["gatectl service list", "gatectl service list -o json"]),
        "show": (show, ["gatectl service show orders", "gatectl service show orders --columns url --no-header"]),
        "set": (set_, ["gatectl service set orders --timeout 5s", "gatectl service set orders --path /v2/orders"]),
        "remove": (remove, ["gatectl service remove orders --dry-run", "gatectl service remove orders --yes"]),
    },
)
