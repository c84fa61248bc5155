"""`gatectl context`: gateways elsewhere, under names. What it does is done here; only `check` asks one."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from gatectl import consent, contexts
from gatectl.contexts import LOCAL, Context, Contexts
from gatectl.destination import checked_token, read_token
from gatectl.errors import MisuseError
from gatectl.grammar import Call, noun, refuse_both
from gatectl.output import Column
from gatectl.places import default_socket
from gatectl.transports.tcp import Tcp
from gatectl.transports.urls import transport_to

COLUMNS = (
    Column("name"),
    Column("current"),
    Column("url"),
    Column("token"),
    Column("ca"),
)
CHECK_COLUMNS = (
    Column("gateway"),
    Column("actor"),
    Column("role"),
    Column("tenant"),
    Column("via"),
    Column("expires_at", "time"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called here.")]
TokenStdin = Annotated[bool, typer.Option("--token-stdin", help="Its token is on standard input; asked for unseen.")]


def add(
    call: Call,
    name: Name,
    token_stdin: TokenStdin = False,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one.")] = False,
) -> None:
    """Add a gateway under a name.

    It is that of --url or --socket, with the token of --token-file or --token-stdin and the authorities of --ca. The
    token is kept in a file that nobody else can read; without one, GATECTL_TOKEN is taken.
    """
    if not call.shared.url and not call.shared.socket:
        raise MisuseError("a context needs a gateway", "name it with --url https://HOST:PORT, ssh://HOST, or --socket")
    context = _given(call, Context(""), token_stdin)
    with contexts.changed() as known:
        known.add(name, context)
        known.current = name if use else known.current
    call.printer.note(
        f"Added context {name}{' and use it from now on' * use}; 'gatectl context check {name}' tries it."
    )
    _show(call, name, known)


def set_(
    call: Call,
    name: Name,
    token_stdin: TokenStdin = False,
    no_token: Annotated[bool, typer.Option("--no-token", help="Keep none.")] = False,
    no_ca: Annotated[bool, typer.Option("--no-ca", help="Trust the system's authorities again.")] = False,
) -> None:
    """Change where a context leads, or its token.

    To what --url, --socket, --token-file, --token-stdin and --ca say; the rest stays.
    """
    shared = call.shared
    refuse_both(("--token-file", shared.token_file, "--no-token", no_token), ("--ca", shared.ca, "--no-ca", no_ca))
    refuse_both(("--token-stdin", token_stdin, "--no-token", no_token))
    if not any((shared.url, shared.socket, shared.token_file, token_stdin, no_token, shared.ca, no_ca)):
        raise MisuseError("nothing to change", f"see 'gatectl context set --help' for what {name} can be given")
    with contexts.changed() as known:
        before = known.named(name)
        kept = before._replace(token="" if no_token else before.token, ca="" if no_ca else before.ca)
        known.by_name[name] = _given(call, kept, token_stdin)
    call.printer.note(f"Changed context {name}.")
    _show(call, name, known)


def use(call: Call, name: Annotated[str, typer.Argument(metavar="NAME", help="A context, or 'local'.")]) -> None:
    """Take a context wherever no gateway is named.

    'local' is the gateway of this machine, and what is taken at first.
    """
    with contexts.changed() as known:
        if name != LOCAL:
            known.named(name)
        known.current = name
    call.printer.note(f"From now on commands are for {_described(name, known)}.")
    for variable in ("GATECTL_URL", "GATECTL_CONTEXT", "GATECTL_SOCKET"):
        if os.environ.get(variable):
            call.printer.warn(f"{variable} is set, and comes before the current context")
            break


def list_(call: Call) -> None:
    """List contexts, the local gateway first."""
    known = contexts.load()
    call.printer.many([[_row(name, known) for name in (LOCAL, *sorted(known.by_name))]], COLUMNS)


def show(
    call: Call, name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="[default: the current one]")] = None
) -> None:
    """Show a context, but never its token."""
    known = contexts.load()
    _show_one(call, name or known.current, known)


def check(
    call: Call,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="[default: what a command takes now]")] = None,
) -> None:
    """Ask a gateway who one is there, and in what role.

    Shows that it answers, and until when the token works.
    """
    if name is not None:
        if call.shared.context or call.shared.url or call.shared.socket:
            raise MisuseError("two gateways are named", "give one of them")
        call.shared.context = name
    answer = call.gateway.get("/v1/whoami")
    call.printer.one({"gateway": call.destination.shown, **answer}, CHECK_COLUMNS)


def rename(
    call: Call,
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="What to call it instead.")],
) -> None:
    """Give a context another name."""
    with contexts.changed() as known:
        known.rename(name, new)
    call.printer.note(f"Context {name} is {new} now.")


def remove(
    call: Call,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Contexts.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Forget contexts and their tokens.

    The tokens work on, for whoever else has them: 'gatectl token revoke' ends one.
    """
    known = contexts.load()
    names = list(dict.fromkeys(names))
    rows = [_row(name, known) for name in names if known.named(name)]
    if dry_run:
        consent.would_do(call, [f"remove context {name}" for name in names], rows, COLUMNS)
        return
    if not yes:
        consent.ask(f"remove context {', '.join(names)}")
    with contexts.changed() as known:
        was = known.current
        for name in names:
            known.remove(name)
    for name in names:
        call.printer.note(f"Removed context {name}.")
    if known.current != was:
        call.printer.warn("commands are for the local gateway again")


def _given(call: Call, before: Context, token_stdin: bool) -> Context:
    """`before` with what the shared options name, each checked: what cannot work is not kept."""
    shared = call.shared
    if shared.url and shared.socket:
        raise MisuseError("--url and --socket each name a gateway", "give one of them")
    if shared.token_file and token_stdin:
        raise MisuseError("--token-file and --token-stdin each name a token", "give one of them")
    url = f"unix:{os.path.abspath(shared.socket)}" if shared.socket else shared.url or before.url  # noqa: PTH100 (a str is all)
    ca = os.path.abspath(shared.ca) if shared.ca else before.ca  # noqa: PTH100
    transport = transport_to(url, ca)
    if isinstance(transport, Tcp):
        transport.check_authorities()
    token = _token(shared.token_file, token_stdin) or before.token
    if token and not isinstance(transport, Tcp):
        raise MisuseError(
            f"{url.partition(':')[0]}: takes no token: whoever may log in there is known",
            "leave it out, or --no-token where there was one" if before.token else "leave it out",
        )
    return Context(url, token, ca)


def _token(file: str | None, stdin: bool) -> str:
    if not stdin:
        return read_token(file) if file else ""
    from gatectl.keys.secrets import from_stdin

    secret = from_stdin("gatectl token create ci --role viewer | gatectl context add ...", "token", "Token: ")
    return checked_token(secret, "standard input")


def _row(name: str, known: Contexts) -> dict[str, Any]:
    """What may be shown."""
    if name == LOCAL:
        context = Context(f"unix:{os.environ.get('GATECTL_SOCKET') or default_socket()}")
    else:
        context = known.named(name)
    current = known.current == name
    return {
        "id": name, "name": name, "current": current, "url": context.url, "token": bool(context.token),
        "ca": context.ca or None,
    }  # fmt: skip


def _show(call: Call, name: str, known: Contexts) -> None:
    if call.printer.asked or call.printer.quiet:
        _show_one(call, name, known)


def _show_one(call: Call, name: str, known: Contexts) -> None:
    call.printer.one(_row(name, known), COLUMNS)


def _described(name: str, known: Contexts) -> str:
    return "the local gateway" if name == LOCAL else f"{name} ({known.by_name[name].url})"


command = noun(
    "context",
    "Gateways elsewhere, under names.",
    {
        "add": (
            add,
            [
                "gatectl context add prod --url https://gw.example:8443 --token-file t --use",
                "gatectl context add lab --url ssh://ops@gw.example/run/gatewayd/admin.sock",
            ],
        ),
        "list": (list_, ["gatectl context list", "gatectl context list -o json"]),
        "show": (show, ["gatectl context show", "gatectl context show prod -o json"]),
        "use": (use, ["gatectl context use prod", "gatectl context use local"]),
        "check": (check, ["gatectl context check prod", "gatectl context check -o json"]),
        "set": (
            set_,
            [
                "gatectl context set prod --token-stdin < new.token",
                "gatectl context set prod --ca /etc/ssl/our-ca.pem",
            ],
        ),
        "rename": (rename, ["gatectl context rename prod prod-eu", "gatectl context rename gw lab"]),
        "remove": (remove, ["gatectl context remove prod", "gatectl context remove prod lab --yes"]),
    },
)
