"""`gatectl service`: the APIs behind the gateway."""

from typing import Annotated

import typer

from gatectl import consent, paging
from gatectl import service_options as given
from gatectl.client import path_of
from gatectl.errors import MisuseError, RejectedError
from gatectl.grammar import Call, noun
from gatectl.output import Column
from gatectl.service_options import named_as_typed, options

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
    Column("weights", "weights", wide=True),
    Column("drained", "lines", wide=True),
    Column("balance", wide=True),
    Column("hash_on", wide=True),
    Column("health.path", wide=True),
    Column("health.interval_s", "seconds", wide=True),
    Column("health.timeout_s", "seconds", wide=True),
    Column("health.healthy_after", "number", wide=True),
    Column("health.unhealthy_after", "number", wide=True),
    Column("health.eject_after", "number", wide=True),
    Column("health.eject_s", "seconds", wide=True),
    Column("health.slow_start_s", "seconds", wide=True),
    Column("breaker.failures", "number", wide=True),
    Column("breaker.ratio", "number", wide=True),
    Column("breaker.window_s", "seconds", wide=True),
    Column("breaker.open_s", "seconds", wide=True),
    Column("request_headers", "headers", wide=True),
    Column("response_headers", "headers", wide=True),
    Column("key_header", wide=True),
    Column("preserve_host", wide=True),
    Column("tenant", wide=True),
    Column("id", wide=True),
    Column("created_at", "time", wide=True),
)

TARGET_COLUMNS = (
    Column("service"),
    Column("url"),
    Column("weight", "number"),
    Column("state", "status"),
    Column("since", "time"),
    Column("seen_by", "lines"),
    Column("in_flight", "number", wide=True),
    Column("error"),
    Column("error_at", "time", wide=True),
)
DRAIN_COLUMNS = (Column("service"), Column("target"), Column("drained"), Column("in_flight", "number"))

Ref = Annotated[str, typer.Argument(metavar="SERVICE", help="Its name or id.")]


def add(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where it runs: http://, https:// or unix:/PATH of a socket.")
    ],
    target: given.Target = None,
    path: given.Path = None,
    auth: given.Auth = None,
    preserve_host: given.PreserveHost = None,
    timeout: given.Timeout = None,
    no_timeout: given.NoTimeout = False,
    connect_timeout: given.ConnectTimeout = None,
    first_byte_timeout: given.FirstByteTimeout = None,
    idle_timeout: given.IdleTimeout = None,
    tunnel_lifetime: given.TunnelLifetime = None,
    no_tunnel_lifetime: given.NoTunnelLifetime = False,
    body_limit: given.BodyLimit = None,
    max_in_flight: given.MaxInFlight = None,
    key_header: given.KeyHeader = None,
    tls_verify: given.TlsVerify = None,
    tls_server_name: given.TlsServerName = None,
    tls_ca: given.TlsCa = None,
    tls_cert: given.TlsCert = None,
    tls_key: given.TlsKey = None,
    weight: given.Weight = None,
    balance: given.Balance = None,
    hash_on: given.HashOn = None,
    health: given.Health = None,
    health_every: given.HealthEvery = None,
    health_timeout: given.HealthTimeout = None,
    healthy_after: given.HealthyAfter = None,
    unhealthy_after: given.UnhealthyAfter = None,
    eject_after: given.EjectAfter = None,
    eject_for: given.EjectFor = None,
    slow_start: given.SlowStart = None,
    breaker_failures: given.BreakerFailures = None,
    breaker_ratio: given.BreakerRatio = None,
    breaker_window: given.BreakerWindow = None,
    breaker_open: given.BreakerOpen = None,
    no_breaker: given.NoBreaker = False,
    request_header: given.RequestHeader = None,
    response_header: given.ResponseHeader = None,
) -> None:
    """Put the gateway in front of an API."""
    body = {"slug": name, "targets": [url, *(target or [])], **options(call.params)}
    with named_as_typed():
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
        list[str] | None, typer.Option("--path", metavar="PATH", help="Path to serve it under; replaces all paths.")
    ] = None,
    no_path: Annotated[bool, typer.Option("--no-path", help="Take away its paths.")] = False,
    auth: given.Auth = None,
    preserve_host: given.PreserveHost = None,
    timeout: given.Timeout = None,
    no_timeout: given.NoTimeout = False,
    connect_timeout: given.ConnectTimeout = None,
    first_byte_timeout: given.FirstByteTimeout = None,
    idle_timeout: given.IdleTimeout = None,
    tunnel_lifetime: given.TunnelLifetime = None,
    no_tunnel_lifetime: given.NoTunnelLifetime = False,
    body_limit: given.BodyLimit = None,
    no_body_limit: Annotated[bool, typer.Option("--no-body-limit", help="Take away its body limit.")] = False,
    max_in_flight: given.MaxInFlight = None,
    no_max_in_flight: Annotated[bool, typer.Option("--no-max-in-flight", help="Take away that limit.")] = False,
    key_header: given.KeyHeader = None,
    tls_verify: given.TlsVerify = None,
    tls_server_name: given.TlsServerName = None,
    no_tls_server_name: Annotated[bool, typer.Option("--no-tls-server-name", help="The URL's name again.")] = False,
    tls_ca: given.TlsCa = None,
    no_tls_ca: Annotated[bool, typer.Option("--no-tls-ca", help="Trust the system's authorities again.")] = False,
    tls_cert: given.TlsCert = None,
    tls_key: given.TlsKey = None,
    no_tls_cert: Annotated[bool, typer.Option("--no-tls-cert", help="Show no client certificate any more.")] = False,
    weight: given.Weight = None,
    balance: given.Balance = None,
    hash_on: given.HashOn = None,
    health: given.Health = None,
    no_health: Annotated[bool, typer.Option("--no-health", help="Check no longer.")] = False,
    health_every: given.HealthEvery = None,
    health_timeout: given.HealthTimeout = None,
    healthy_after: given.HealthyAfter = None,
    unhealthy_after: given.UnhealthyAfter = None,
    eject_after: given.EjectAfter = None,
    no_eject_after: Annotated[bool, typer.Option("--no-eject-after", help="Pass over no target any more.")] = False,
    eject_for: given.EjectFor = None,
    slow_start: given.SlowStart = None,
    breaker_failures: given.BreakerFailures = None,
    breaker_ratio: given.BreakerRatio = None,
    breaker_window: given.BreakerWindow = None,
    breaker_open: given.BreakerOpen = None,
    no_breaker: given.NoBreaker = False,
    request_header: given.RequestHeader = None,
    no_request_header: Annotated[bool, typer.Option("--no-request-header", help="Take away these rules.")] = False,
    response_header: given.ResponseHeader = None,
    no_response_header: Annotated[bool, typer.Option("--no-response-header", help="Take away these rules.")] = False,
) -> None:
    """Change a service; what is not named stays as it is."""
    changes = options(call.params)
    if target:
        changes["targets"] = target
    if not changes:
        raise MisuseError("nothing to change", f"see '{call.command_path} --help'")
    with named_as_typed():
        changed = call.gateway.patch(path_of("services", service), changes, call.in_tenant)
    call.printer.one(changed, COLUMNS)


def health(
    call: Call,
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Its name or id; none for all.")] = None,
) -> None:
    """Show how targets stand, as the probes and each worker see them."""
    query = {**call.in_tenant, **({"service": service} if service else {})}
    call.printer.many([call.gateway.get("/v1/targets", query)["items"]], TARGET_COLUMNS)


def drain(
    call: Call,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its URL.")],
    service: Annotated[
        str | None, typer.Option("--service", metavar="SERVICE", help="Where several have this target: of which.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Give it requests again.")] = False,
) -> None:
    """Give a target no new requests; what it has goes on."""
    body = {"target": target, "undo": undo, **({"service": service} if service else {})}
    call.printer.refuse_ids()
    try:
        drained = call.gateway.post("/v1/targets/drain", body, call.in_tenant)
    except RejectedError as error:
        error.hint = error.hint or "name one with --service"
        raise
    if call.printer.asked or not call.printer.quiet:
        call.printer.one(drained, DRAIN_COLUMNS)
    if drained["in_flight"]:
        command = f"service health {drained['service']}"
        call.printer.note(f"\nIt finishes what it has: {call.example(command)}")


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
        call, "service", services, COLUMNS, lambda item: str(item["slug"]),
        yes=yes, dry_run=dry_run, query=query, may_be_refused=True,
    )  # fmt: skip


command = noun(
    "service",
    "APIs behind the gateway and where they are.",
    {
        "add": (
            add,
            [
                "gatectl service add orders http://127.0.0.1:8001",
                "gatectl service add shop https://a.test --target https://b.test --health /up",
            ],
        ),
        "list": (list_, ["gatectl service list", "gatectl service list -o json"]),
        "show": (show, ["gatectl service show orders", "gatectl service show orders --columns url --no-header"]),
        "set": (
            set_,
            ["gatectl service set orders --timeout 5s", "gatectl service set orders --tls-ca /etc/ssl/orders-ca.pem"],
        ),
        "health": (health, ["gatectl service health", "gatectl service health orders -o json"]),
        "drain": (
            drain,
            ["gatectl service drain http://10.0.0.2:8001", "gatectl service drain http://10.0.0.2:8001 --undo"],
        ),
        "remove": (remove, ["gatectl service remove orders --dry-run", "gatectl service remove orders --yes"]),
    },
)
