"""`gatectl service`: the APIs behind the gateway."""

import os
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

COLUMNS = (
    Column("slug"),
    Column("url"),
    Column("targets", "lines"),
    Column("auth"),
    Column("paths", "lines", wide=True),
    Column("timeout_s", "seconds", wide=True),
    Column("connect_timeout_s", "seconds", wide=True),
    Column("first_byte_timeout_s", "seconds", wide=True),
    Column("idle_timeout_s", "seconds", wide=True),
    Column("tunnel_lifetime_s", "seconds", wide=True),
    Column("body_limit_bytes", "size", wide=True),
    Column("in_flight_limit", "number", wide=True),
    Column("tls_verify", wide=True),
    Column("tls_server_name", wide=True),
    Column("tls_ca_file", wide=True),
    Column("tls_cert_file", wide=True),
    Column("tls_key_file", wide=True),
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
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="For a whole answer.  [default: 30s]")]
NoTimeout = Annotated[bool, typer.Option("--no-timeout", help="An answer may take as long as it takes.")]
ConnectTimeout = Annotated[
    str | None, typer.Option("--connect-timeout", metavar="TIME", help="For connecting.  [default: 10s]")
]
FirstByteTimeout = Annotated[
    str | None, typer.Option("--first-byte-timeout", metavar="TIME", help="For an answer to begin.  [default: 30s]")
]
IdleTimeout = Annotated[
    str | None,
    typer.Option("--idle-timeout", metavar="TIME", help="For the next byte of an answer or tunnel.  [default: 5m]"),
]
TunnelLifetime = Annotated[
    str | None, typer.Option("--tunnel-lifetime", metavar="TIME", help="Of a WebSocket or the like.  [default: 1d]")
]
NoTunnelLifetime = Annotated[bool, typer.Option("--no-tunnel-lifetime", help="Tunnels may stay for ever.")]
MaxInFlight = Annotated[
    int | None, typer.Option("--max-in-flight", metavar="N", help="Requests at once, in each worker; 503 beyond.")
]
TlsVerify = Annotated[
    bool | None,
    typer.Option("--tls-verify/--no-tls-verify", help="Check the certificates of https targets.  [default: yes]"),
]
TlsServerName = Annotated[
    str | None,
    typer.Option("--tls-server-name", metavar="NAME", help="Whose certificate it must be, if not the URL's."),
]
TlsCa = Annotated[
    str | None,
    typer.Option("--tls-ca", metavar="FILE", help="Authorities to trust, in PEM, on the gateway's machine."),
]
TlsCert = Annotated[
    str | None, typer.Option("--tls-cert", metavar="FILE", help="Client certificate to show, in PEM; needs --tls-key.")
]
TlsKey = Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, in PEM.")]
BodyLimit = Annotated[str | None, typer.Option("--body-limit", metavar="SIZE", help="Largest request, such as 10MiB.")]
KeyHeader = Annotated[
    str | None, typer.Option("--key-header", metavar="NAME", help="Header of the key.  [default: X-API-Key]")
]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where it runs: http://, https:// or unix:/PATH of a socket.")
    ],
    target: Target = None,
    path: Path = None,
    auth: Auth = None,
    preserve_host: PreserveHost = None,
    timeout: Timeout = None,
    no_timeout: NoTimeout = False,
    connect_timeout: ConnectTimeout = None,
    first_byte_timeout: FirstByteTimeout = None,
    idle_timeout: IdleTimeout = None,
    tunnel_lifetime: TunnelLifetime = None,
    no_tunnel_lifetime: NoTunnelLifetime = False,
    body_limit: BodyLimit = None,
    max_in_flight: MaxInFlight = None,
    key_header: KeyHeader = None,
    tls_verify: TlsVerify = None,
    tls_server_name: TlsServerName = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Put the gateway in front of an API."""
    options = _options(call.params)
    body = {"slug": name, "targets": [url, *(target or [])], **options}
    with _named_as_typed():
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
    no_timeout: NoTimeout = False,
    connect_timeout: ConnectTimeout = None,
    first_byte_timeout: FirstByteTimeout = None,
    idle_timeout: IdleTimeout = None,
    tunnel_lifetime: TunnelLifetime = None,
    no_tunnel_lifetime: NoTunnelLifetime = False,
    body_limit: BodyLimit = None,
    no_body_limit: Annotated[bool, typer.Option("--no-body-limit", help="Take away its body limit.")] = False,
    max_in_flight: MaxInFlight = None,
    no_max_in_flight: Annotated[bool, typer.Option("--no-max-in-flight", help="Take away that limit.")] = False,
    key_header: KeyHeader = None,
    tls_verify: TlsVerify = None,
    tls_server_name: TlsServerName = None,
    no_tls_server_name: Annotated[bool, typer.Option("--no-tls-server-name", help="The URL's name again.")] = False,
    tls_ca: TlsCa = None,
    no_tls_ca: Annotated[bool, typer.Option("--no-tls-ca", help="Trust the system's authorities again.")] = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    no_tls_cert: Annotated[bool, typer.Option("--no-tls-cert", help="Show no client certificate any more.")] = False,
) -> None:
    """Change a service; what is not named stays as it is."""
    changes = _options(call.params)
    if target:
        changes["targets"] = target
    if not changes:
        raise MisuseError("nothing to change", f"see '{call.command_path} --help'")
    with _named_as_typed():
        changed = call.gateway.patch(path_of("services", service), changes, call.in_tenant)
    call.printer.one(changed, COLUMNS)


def remove(
    call: Call,
    services: Annotated[list[str], typer.Argument(metavar="SERVICE", help="Names or ids.")],
    force: Annotated[bool, typer.Option("--force", help="With the routes that lead to them.")] = False,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove services; their usage stays on the bill."""
    query = {"force": "true"} if force else {}
    consent.remove(
        call, "service", services, COLUMNS, lambda item: str(item["slug"]), yes=yes, dry_run=dry_run, query=query
    )


def _file(path: str) -> str:
    """The gateway reads it, from a folder of its own: so the whole path."""
    if not path:
        raise ValueError("the name of a file is missing")
    return os.path.abspath(path)  # noqa: PTH100 (pathlib costs a start-up more)


# By the name of an option's parameter: the field of the admin API, and what makes the field's value of what was typed.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any] | None]] = {
    "path": ("paths", None),
    "auth": ("auth", None),
    "preserve_host": ("preserve_host", None),
    "timeout": ("timeout_s", parse_seconds),
    "connect_timeout": ("connect_timeout_s", parse_seconds),
    "first_byte_timeout": ("first_byte_timeout_s", parse_seconds),
    "idle_timeout": ("idle_timeout_s", parse_seconds),
    "tunnel_lifetime": ("tunnel_lifetime_s", parse_seconds),
    "body_limit": ("body_limit_bytes", parse_size),
    "max_in_flight": ("in_flight_limit", None),
    "key_header": ("key_header", None),
    "tls_verify": ("tls_verify", None),
    "tls_server_name": ("tls_server_name", None),
    "tls_ca": ("tls_ca_file", _file),
    "tls_cert": ("tls_cert_file", _file),
    "tls_key": ("tls_key_file", _file),
}


def _options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as the admin API names it; what was taken away with --no-... as null."""
    given: dict[str, Any] = {}
    for name, (field, parse) in _FIELDS.items():
        option, value, no = _option(name), typed[name], typed.get(f"no_{name}", False)
        refuse_both((option, value, _option(f"no_{name}"), no))
        if no:
            given[field] = [] if name == "path" else None
        elif value not in (None, ()):  # an option that may be repeated and was not given is ()
            with argument(option):
                given[field] = parse(value) if parse else value
    if typed.get("no_tls_cert"):
        refuse_both(("--tls-key", typed["tls_key"], "--no-tls-cert", True))
        given["tls_key_file"] = None
    return given


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@contextmanager
def _named_as_typed() -> Iterator[None]:
    """A refused value is told by the option that it was typed behind, which the admin API does not know."""
    try:
        yield
    except RejectedError as error:
        typed = {"targets": "URL", **{field: _option(name) for name, (field, _) in _FIELDS.items()}}
        if error.field in typed:
            error.what = f"{typed[error.field]}: {error.what.removeprefix(error.field + ': ')}"
        raise


command = noun(
    "service",
    "APIs behind the gateway and where they are.",
    {
        "add": (
            add,
            [
                "gatectl service add orders http://127.0.0.1:8001",
                "gatectl service add shop https://10.0.0.1 --target https://10.0.0.2 --path /s",
            ],
        ),
        "list": (list_, ["gatectl service list", "gatectl service list -o json"]),
        "show": (show, ["gatectl service show orders", "gatectl service show orders --columns url --no-header"]),
        "set": (
            set_,
            ["gatectl service set orders --timeout 5s", "gatectl service set orders --tls-ca /etc/ssl/orders-ca.pem"],
        ),
        "remove": (remove, ["gatectl service remove orders --dry-run", "gatectl service remove orders --yes"]),
    },
)
