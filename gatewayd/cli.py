"""The command line of the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gatewayd import __version__
from gatewayd.boot import log_to_stderr
from gatewayd.errors import StartupError
from gatewayd.settings import Settings, load, unknown_variables

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line. What is wrong with it is one line too, with exit status 2."""
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"gatewayd: {_in_a_line(error)}", err=True)
        status = 2
    sys.exit(status)


def _in_a_line(error: typer.TyperException) -> str:
    """What is wrong, and what to type instead."""
    what, _, meant = error.format_message().partition(" (Possible options")[0].partition(" Did you mean ")
    what = what[:1].lower() + what[1:].rstrip(".")
    near: Any = getattr(error, "possibilities", None)
    if meant or near:
        return f"{what}; did you mean {meant.rstrip('?') or repr(near[0])}?"
    context: Any = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return f"{what}; see gatewayd --help"
    option = getattr(error, "option_name", None)
    if any(option in param.opts for param in context.parent.command.params):
        return f"settings stand before the command; did you mean 'gatewayd {option} ... {context.info_name}'?"
    return f"{what}; see gatewayd {context.info_name} --help"


def _described(name: str) -> str:
    """What the setting says of itself: one text for `--help` and the README."""
    return Settings.model_fields[name].description or ""


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help=_described("listen"))] = None,
    state_dir: Annotated[Path | None, typer.Option(metavar="DIR", help=_described("state_dir"))] = None,
    admin_socket: Annotated[Path | None, typer.Option(metavar="PATH", help=_described("admin_socket"))] = None,
    admin_listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help=_described("admin_listen"))] = None,
    admin_tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help=_described("admin_tls_cert"))] = None,
    admin_tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help=_described("admin_tls_key"))] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help=_described("workers"))] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help=_described("tls_cert"))] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help=_described("tls_key"))] = None,
    trusted_proxies: Annotated[str | None, typer.Option(metavar="NETWORKS", help=_described("trusted_proxies"))] = None,
    proxy_protocol: Annotated[
        bool | None, typer.Option("--proxy-protocol", help=_described("proxy_protocol"), show_default=False)
    ] = None,
    journal_sync: Annotated[
        str | None, typer.Option(metavar="process|second|record", help=_described("journal_sync"))
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file (gatewayd.toml).")] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """An API gateway in front of any HTTP API: keys, plans, rate limits, quotas, exact usage and bills.

    Runs in the foreground until SIGTERM or Ctrl-C; operate it with gatectl. Settings come from these options, then from
    GATEWAYD_* in the environment, then from gatewayd.toml.
    """
    if version:
        typer.echo(f"gatewayd {__version__}")
        return
    flags = {
        "listen": listen,
        "state_dir": state_dir,
        "admin_socket": admin_socket,
        "admin_listen": admin_listen,
        "admin_tls_cert": admin_tls_cert,
        "admin_tls_key": admin_tls_key,
        "workers": workers,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "trusted_proxies": trusted_proxies,
        "proxy_protocol": proxy_protocol,
        "journal_sync": journal_sync,
    }
    context.obj = (flags, config)
    if context.invoked_subcommand is None:
        _end_with(_serve, flags, config)


@app.command(short_help="Validate the settings, and say what keeps a start from going well.")
def check(context: typer.Context) -> None:
    """Validate the settings, show what they come to, and say what would keep a start from going well. Starts nothing.

    Settings stand before it: gatewayd --config FILE check. Exit status 1: there is something. Ports are not tried where
    a gateway is running already.
    """
    flags, config = context.obj
    _end_with(_check, flags, config)


@app.command(short_help="Print a systemd unit for these settings.")
def unit(context: typer.Context) -> None:
    """Print a systemd unit for these settings; `gatewayd unit > /etc/systemd/system/gatewayd.service` installs it."""
    flags, config = context.obj
    _end_with(lambda settings: _unit(settings, flags, config), flags, config)


@app.command(short_help="Print the records of journal segments.")
def journal(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the records of journal segments, of those in use too, and count what is damaged.

    Exit status 1: a file is damaged, or is none.
    """
    from gatewayd.journal_reader import print_segments

    sys.exit(print_segments(files, as_json=as_json))


def _serve(settings: Settings) -> int:
    from gatewayd.supervisor import Supervisor

    log_to_stderr("supervisor")
    logging.getLogger("asyncio").setLevel(logging.WARNING)

    async def supervise() -> int:
        return await Supervisor(settings).run()

    return asyncio.run(supervise())


def _check(settings: Settings) -> int:
    from gatewayd.preflight import problems

    for name, value in settings.model_dump(mode="json").items():
        typer.echo(f"{name} = {_as_written(value)}")
    found = problems(settings)
    for line in found:
        typer.echo(f"gatewayd: {line}", err=True)
    return 1 if found else 0


def _unit(settings: Settings, flags: dict[str, Any], config: Path | None) -> int:
    from gatewayd.unit import unit as unit_of
    from gatewayd.unit import warnings

    typer.echo(unit_of(settings, flags, config), nl=False)
    for line in warnings(settings):
        typer.echo(f"gatewayd: warning: {line}", err=True)
    return 0


def _as_written(value: Any) -> str:
    """A value as README and environment have it, not as Python does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)


def _end_with(command: Any, flags: dict[str, Any], config: Path | None) -> None:
    """Run a command on the settings; whatever keeps it from starting is one line and exit status 1."""
    for line in unknown_variables(os.environ):
        typer.echo(f"gatewayd: warning: {line}", err=True)
    try:
        settings = load({name: value for name, value in flags.items() if value is not None}, config)
        status = command(settings)
    except StartupError as error:
        typer.echo(f"gatewayd: {error}", err=True)
        status = 1
    sys.exit(status)
