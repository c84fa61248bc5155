"""Options of a service: how they are typed, and what the admin API calls what they mean."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer

from gatectl.errors import RejectedError
from gatectl.grammar import argument, refuse_both
from gatectl.times import parse_duration, parse_size

Target = Annotated[list[str] | None, typer.Option("--target", metavar="URL", help="One more place where it runs.")]
Path = Annotated[
    list[str] | None, typer.Option("--path", metavar="PATH", help="Serve it under this path too; / for a whole host.")
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
Weight = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="URL=N",
        help="Share of a target beside the others'.  [default: 1]",
        rich_help_panel="Balancing",
    ),
]
Balance = Annotated[
    Literal["round-robin", "least-outstanding", "hash"] | None,
    typer.Option("--balance", help="Which target is next.  [default: round-robin]"),
]
HashOn = Annotated[
    str | None,
    typer.Option("--hash-on", metavar="WHAT", help="address, key, client or header:NAME.  [default: address]"),
]
Health = Annotated[
    str | None,
    typer.Option("--health", metavar="PATH", help="Ask each target for this, and leave out who is not well."),
]
HealthEvery = Annotated[str | None, typer.Option("--health-every", metavar="TIME", help="How often.  [default: 10s]")]
HealthTimeout = Annotated[
    str | None, typer.Option("--health-timeout", metavar="TIME", help="For its answer.  [default: 5s]")
]
HealthyAfter = Annotated[
    int | None, typer.Option("--healthy-after", metavar="N", help="Good answers in a row.  [default: 2]")
]
UnhealthyAfter = Annotated[
    int | None, typer.Option("--unhealthy-after", metavar="N", help="Bad ones, or none, in a row.  [default: 3]")
]
EjectAfter = Annotated[
    int | None,
    typer.Option("--eject-after", metavar="N", help="Pass over a target after N failures or 5xx to callers in a row."),
]
EjectFor = Annotated[str | None, typer.Option("--eject-for", metavar="TIME", help="For so long.  [default: 30s]")]
SlowStart = Annotated[
    str | None, typer.Option("--slow-start", metavar="TIME", help="Over which a target that is back gets its share.")
]
BreakerFailures = Annotated[
    int | None, typer.Option("--breaker-failures", metavar="N", help="Open a circuit after so many.  [default: 20]")
]
BreakerRatio = Annotated[
    float | None, typer.Option("--breaker-ratio", metavar="PART", help="Of all requests, at least.  [default: 0.5]")
]
BreakerWindow = Annotated[
    str | None, typer.Option("--breaker-window", metavar="TIME", help="In which both are counted.  [default: 10s]")
]
BreakerOpen = Annotated[
    str | None, typer.Option("--breaker-open", metavar="TIME", help="Before one may try again.  [default: 10s]")
]
NoBreaker = Annotated[bool, typer.Option("--no-breaker", help="Circuits never open.")]
RequestHeader = Annotated[
    list[str] | None,
    typer.Option("--request-header", metavar="RULE", help="Such as 'set X-Env: prod', 'add X-A: b', 'remove Cookie'."),
]
ResponseHeader = Annotated[
    list[str] | None, typer.Option("--response-header", metavar="RULE", help="The same, on answers.")
]
BodyLimit = Annotated[str | None, typer.Option("--body-limit", metavar="SIZE", help="Largest request, such as 10MiB.")]
KeyHeader = Annotated[
    str | None, typer.Option("--key-header", metavar="NAME", help="Header of the key.  [default: X-API-Key]")
]


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    return int(seconds) if seconds == int(seconds) else seconds


def _file(path: str) -> str:
    """The gateway reads it, from a folder of its own: so the whole path."""
    if not path:
        raise ValueError("the name of a file is missing")
    return os.path.abspath(path)  # noqa: PTH100 (pathlib costs a start-up more)


def _weights(texts: list[str]) -> dict[str, int]:
    weights = {}
    for text in texts:
        url, equals, weight = text.rpartition("=")
        if not (equals and url and weight.isascii() and weight.isdigit() and len(weight) < 10):
            raise ValueError(f"{text!r} is not a target and its weight, such as http://127.0.0.1:8002=3")
        weights[url] = int(weight)
    return weights


def _header_rules(texts: list[str]) -> list[dict[str, str]]:
    return [_header_rule(text) for text in texts]


def _header_rule(text: str) -> dict[str, str]:
    action, _, rest = text.strip().partition(" ")
    name, colon, value = rest.partition(":")
    if action not in ("set", "add", "remove") or not name.strip() or bool(colon) is (action == "remove"):
        raise ValueError(f"{text!r} is not a rule such as 'set X-Env: prod', 'add X-A: b' or 'remove Server'")
    rule = {"action": action, "name": name.strip()}
    return {**rule, "value": value.strip(" \t")} if colon else rule


# By the name of an option's parameter: the field of the admin API, and what makes the field's value of what was typed.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any] | None]] = {
    "path": ("paths", None),
    "auth": ("auth", None),
    "preserve_host": ("preserve_host", None),
    "timeout": ("timeout_s", _seconds),
    "connect_timeout": ("connect_timeout_s", _seconds),
    "first_byte_timeout": ("first_byte_timeout_s", _seconds),
    "idle_timeout": ("idle_timeout_s", _seconds),
    "tunnel_lifetime": ("tunnel_lifetime_s", _seconds),
    "body_limit": ("body_limit_bytes", parse_size),
    "max_in_flight": ("in_flight_limit", None),
    "key_header": ("key_header", None),
    "tls_verify": ("tls_verify", None),
    "tls_server_name": ("tls_server_name", None),
    "tls_ca": ("tls_ca_file", _file),
    "tls_cert": ("tls_cert_file", _file),
    "tls_key": ("tls_key_file", _file),
    "weight": ("weights", _weights),
    "balance": ("balance", None),
    "hash_on": ("hash_on", None),
    "health": ("health.path", None),
    "health_every": ("health.interval_s", _seconds),
    "health_timeout": ("health.timeout_s", _seconds),
    "healthy_after": ("health.healthy_after", None),
    "unhealthy_after": ("health.unhealthy_after", None),
    "eject_after": ("health.eject_after", None),
    "eject_for": ("health.eject_s", _seconds),
    "slow_start": ("health.slow_start_s", _seconds),
    "breaker_failures": ("breaker.failures", None),
    "breaker_ratio": ("breaker.ratio", None),
    "breaker_window": ("breaker.window_s", _seconds),
    "breaker_open": ("breaker.open_s", _seconds),
    "request_header": ("request_headers", _header_rules),
    "response_header": ("response_headers", _header_rules),
}
_LISTS = ("path", "request_header", "response_header")


def options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as the admin API names it; what was taken away with --no-... as null."""
    given: dict[str, Any] = {}
    for name, (field, parse) in _FIELDS.items():
        option, value, no = _option(name), typed[name], typed.get(f"no_{name}", False)
        refuse_both((option, value, _option(f"no_{name}"), no))
        if no:
            _put(given, field, [] if name in _LISTS else None)
        elif value not in (None, ()):  # an option that may be repeated and was not given is ()
            with argument(option):
                _put(given, field, parse(value) if parse else value)
    if typed.get("no_tls_cert"):
        refuse_both(("--tls-key", typed["tls_key"], "--no-tls-cert", True))
        given["tls_key_file"] = None
    if typed["no_breaker"]:
        refuse_both(("--breaker-failures", typed["breaker_failures"], "--no-breaker", True))
        _put(given, "breaker.failures", 0)
    return given


def _put(given: dict[str, Any], field: str, value: Any) -> None:
    """A field of an object within is that object's."""
    *outer, name = field.split(".")
    for each in outer:
        given = given.setdefault(each, {})
    given[name] = value


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@contextmanager
def named_as_typed() -> Iterator[None]:
    """A refused value is told by the option that it was typed behind, which the admin API does not know."""
    try:
        yield
    except RejectedError as error:
        typed = {"targets": "URL", **{field: _option(name) for name, (field, _) in _FIELDS.items()}}
        if error.field in typed:
            error.what = f"{typed[error.field]}: {error.what.removeprefix(error.field + ': ')}"
        raise
