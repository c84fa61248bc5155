"""The options of every command: `gatectl -t acme key list` and `gatectl key list -t acme` are the same.

The one nearer to the end wins: what was given is collected in one place, wherever it stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperOption

from gatectl.errors import MisuseError, nearest
from gatectl.output import FORMS

if TYPE_CHECKING:
    from gatectl.client import Gateway
    from gatectl.destination import Destination

SHARED_PANEL = "Options of every command"
_SHARED = "shared_"  # before their names: a verb may have an argument that is called `url` or `context`


class Shared:
    """Values of the shared options, collected from wherever they stood on the command line."""

    def __init__(self) -> None:
        self.tenant: str | None = None
        self.output: str | None = None
        self.columns: str | None = None
        self.no_header = False
        self.quiet = False
        self.no_pager = False  # `app.run` has looked for it before all else: also help is long
        self.url: str | None = None
        self.context: str | None = None
        self.socket: str | None = None
        self.token_file: str | None = None
        self.ca: str | None = None
        self.destination: Destination | None = None
        self.named = False  # where it goes to was told, where that is not the local gateway
        self.gateway: Gateway | None = None  # one for the whole invocation: it knows what clock it was told last


def _remember(ctx: typer.Context, param: Any, value: Any) -> Any:
    shared = getattr(ctx, "shared", None)
    if isinstance(shared, Shared) and value not in (None, False):
        name = param.name.removeprefix(_SHARED)
        if name == "output" and value not in FORMS:
            near = nearest(value, FORMS)
            hint = f"did you mean {near!r}?" if near else f"take one of {', '.join(FORMS)}"
            raise MisuseError(f"there is no output form {value!r}", hint)
        if name == "token":
            raise MisuseError(
                "a token is never an argument: 'ps' and the shell's history would show it",
                "take --token-file FILE, GATECTL_TOKEN or a context, and revoke this one",
            )
        if value == "":
            raise MisuseError(f"{param.opts[0]} is empty", f"see '{ctx.command_path} --help'")
        setattr(shared, name, value)
    return value


def _forms(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    return [form for form in FORMS if form.startswith(incomplete)]


def _shared_option(*names: str, help: str, **more: Any) -> TyperOption:  # noqa: A002 (typer's word)
    name = _SHARED + names[0].removeprefix("--").replace("-", "_")
    return TyperOption(
        param_decls=[*names, name],
        help=help,
        callback=_remember,
        expose_value=False,
        rich_help_panel=SHARED_PANEL,
        **more,
    )


SHARED_OPTIONS = (
    _shared_option("--tenant", "-t", metavar="SLUG", help="Work in this tenant instead of 'default'."),
    _shared_option("--output", "-o", metavar="FORM", autocompletion=_forms, help=f"One of {', '.join(FORMS)}."),
    _shared_option("--columns", metavar="A,B", help="Only these columns, in this order."),
    _shared_option("--no-header", is_flag=True, help="No line with the columns' names."),
    _shared_option("--quiet", "-q", is_flag=True, help="Only ids, one a line; no notes."),
    _shared_option("--no-pager", is_flag=True, help="Never through a pager; see GATECTL_PAGER."),
    _shared_option("--context", metavar="NAME", help="The gateway of that name; see 'gatectl context'."),
    _shared_option("--url", metavar="URL", help="The gateway there: https://..., ssh://...; or GATECTL_URL."),
    _shared_option("--token-file", metavar="FILE", help="Its token, - for stdin; or GATECTL_TOKEN holds it."),
    _shared_option("--ca", metavar="FILE", help="Authorities that may sign its certificate; or GATECTL_CA."),
    _shared_option("--socket", metavar="PATH", help="The gateway at this admin socket; or GATECTL_SOCKET."),
    _shared_option("--token", hidden=True, help="Refused, and said why."),
)
