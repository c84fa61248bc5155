"""What every command has in common: nouns and verbs, whose names forgive, and what a verb is called with.

`gatectl NOUN VERB`: a noun is a typer group (`NounGroup`), a verb a typer command (`VerbCommand`). Both accept the
shared options (`shared_options`). What was given arrives at a verb as its `Call`. Among a noun's verbs may be a noun of
its own (`billing invoice list`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gatectl.client import Gateway
from gatectl.errors import MisuseError, NotFoundError, RejectedError, nearest
from gatectl.groups import REST, group_of
from gatectl.help_text import Helpful, HelpText
from gatectl.output import Printer, no_column
from gatectl.shared_options import SHARED_OPTIONS, Shared

if TYPE_CHECKING:
    from gatectl.destination import Destination

VERB_ALIASES = {"ls": "list", "rm": "remove"}
# What people type out of habit, where a near name would not be found by spelling.
VERB_HABITS = {
    "create": ("add", "create"), "new": ("add", "create"), "add": ("create",), "delete": ("remove", "revoke"),
    "del": ("remove", "revoke"), "remove": ("revoke",), "get": ("show", "list"), "describe": ("show",),
    "inspect": ("show",), "update": ("set",), "edit": ("set",),
}  # fmt: skip


class Call(typer.Context):
    """One invocation: what was given, the gateway to ask, the printer to answer with."""

    formatter_class = HelpText
    following: ClassVar[Call | None] = None  # what is being done, for who asks a person without being handed it

    def __init__(self, *args: Any, **more: Any) -> None:
        more.setdefault("help_option_names", ["-h", "--help"])
        super().__init__(*args, **more)
        self.shared: Shared = self.parent.shared if isinstance(self.parent, Call) else Shared()

    @property
    def gateway(self) -> Gateway:
        """The one to ask. Where it is not the local one, a line says so before the first change."""
        if self.shared.gateway is None:
            where = self.destination
            self.shared.gateway = Gateway(where.transport, where.token, None if where.local else self.name_gateway)
            self.find_root().call_on_close(self.shared.gateway.close)
        return self.shared.gateway

    @property
    def destination(self) -> Destination:
        """Which gateway was meant, of all the ways to say so."""
        if self.shared.destination is None:
            from gatectl import destination  # help needs none

            self.shared.destination = destination.choose(self.shared, os.environ)
        return self.shared.destination

    @property
    def spoken_with(self) -> Destination | None:
        """Where the gateway is that was asked something already, if that is not the local one."""
        where = self.shared.destination
        return None if self.shared.gateway is None or where is None or where.local else where

    def name_gateway(self) -> None:
        """Say once, on stderr, which gateway is about to be changed."""
        if not self.shared.named:
            self.shared.named = True
            self.printer.warn(f"on {self.destination.shown}")
            sys.stdout.flush()  # it is seen before the change is made

    @property
    def tenant(self) -> str | None:
        """The tenant that was named; None leaves it to the gateway, which takes `default`."""
        return self.shared.tenant

    @property
    def in_tenant(self) -> dict[str, Any]:
        """The query that chooses the tenant."""
        return {"tenant": self.shared.tenant} if self.shared.tenant else {}

    @property
    def printer(self) -> Printer:
        shared = self.shared
        columns = [name.strip() for name in shared.columns.split(",")] if shared.columns else None
        header, quiet = not shared.no_header, shared.quiet
        return Printer(shared.output, columns, header=header, quiet=quiet, clock=lambda: self.clock)

    @property
    def clock(self) -> int | None:
        """What the gateway's said when it last answered; None where none was asked."""
        return None if self.shared.gateway is None else self.shared.gateway.clock

    def example(self, command: str) -> str:
        """A command to type next, in the tenant that this call is about."""
        return f"gatectl {command}{self.elsewhere}"

    @property
    def elsewhere(self) -> str:
        """What a command to type needs beside, to be about the same tenant of the same gateway."""
        context = f" --context {self.shared.context}" if self.shared.context else ""
        return (f" -t {self.tenant}" if self.tenant else "") + context


# A verb's name, its function (whose docstring is its help), and examples of it; or a noun of the third level.
Verbs = Mapping[str, "tuple[Callable[..., None], Sequence[str]] | NounGroup"]
_NEGATIVE = re.compile(r"-\.?\d.*", re.ASCII)

# In these, what is not named stays as it is: there a default would be told that nothing takes.
_CHANGING = ("set", "simulate")


class VerbCommand(Helpful, TyperCommand):
    """A verb: its own options, then the shared ones."""

    context_class = Call

    def __init__(self, name: str | None, **more: Any) -> None:
        more["rich_markup_mode"] = None
        super().__init__(name, **more)
        own = {option for param in self.params for option in param.opts}
        if name in _CHANGING:
            for param in self.params:
                if param.param_type_name == "option" and group_of(param.opts[0]) != REST:
                    param.help = (param.help or "").partition("  [default: ")[0]
        # `alert add --url` is where the webhook goes; the gateway is then named before the noun.
        self.params.extend(option for option in SHARED_OPTIONS if option.opts[0] not in own)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [param for param in self.params if param.param_type_name == "argument" and not param.hidden]
        return [f"{param.metavar}{'...' * (param.nargs == -1)}" for param in arguments] + ["[OPTIONS]"]

    def _refuse_unknown_columns(self, ctx: Any) -> None:
        """Before anything is done: what was changed would otherwise be told as a command line that is wrong."""
        from gatectl.completion.line import columns_of
        from gatectl.completion.table import ROOT

        known = columns_of(ROOT, ctx.command_path.split()[1:])
        for name in ctx.printer.names if known else ():
            if name not in known:
                raise no_column(name, known)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._numbers_are_no_options(args))
        except typer.TyperException as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise

    def _numbers_are_no_options(self, args: list[str]) -> list[str]:
        """`billing adjust -5 --reason X` as `--reason X -- -5`, which is how the parser knows an argument."""
        if not any(_NEGATIVE.fullmatch(arg) for arg in args):
            return args
        with_value = {name for param in self.params if not getattr(param, "is_flag", False) for name in param.opts}
        options, arguments, left = [], [], iter(args)
        for arg in left:
            if arg == "--":
                break
            if arg.startswith("-") and not _NEGATIVE.fullmatch(arg):
                options.append(arg)
                options += [value for value in (next(left, None),) if value is not None] if arg in with_value else []
            else:
                arguments.append(arg)
        return [*options, "--", *arguments, *left]

    def invoke(self, ctx: Any) -> Any:
        Call.following = ctx
        if ctx.shared.columns:
            self._refuse_unknown_columns(ctx)
        try:
            return super().invoke(ctx)
        except NotFoundError as error:
            # Tenants are the whole gateway's, contexts are of none, and some hints say the tenant themselves.
            if error.hint.startswith("'gatectl ") and not {"tenant", "-t", "context"} & set(error.hint.split()):
                error.hint = error.hint.replace("' shows", f"{ctx.elsewhere}' shows")
            raise
        except RejectedError as error:
            taken = error.code == "conflict" and ctx.info_name == "add"
            listed = f"list{ctx.elsewhere if ctx.parent.info_name != 'tenant' else ''}' shows what there is"
            what_to_type = listed if taken else f"{ctx.info_name} --help' tells what it takes"
            told = "; " in error.what  # the gateway has said itself what to do next
            error.hint = error.hint or ("" if told else f"'{ctx.parent.command_path} {what_to_type}")
            raise


class NounGroup(Helpful, TyperGroup):
    """A noun and its verbs. Names forgive: aliases are taken, and a near miss is named."""

    context_class = Call
    kind = "verb"
    usage_of_rest = "VERB ..."

    def __init__(self, **more: Any) -> None:
        self.verbs: Verbs = {}
        more.update(rich_markup_mode=None, subcommand_metavar=self.usage_of_rest, options_metavar=None)
        super().__init__(**more)
        self.params.extend(SHARED_OPTIONS)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        verb = self.verbs.get(cmd_name)
        return verb if verb is None or isinstance(verb, NounGroup) else verb_command(cmd_name, *verb)

    def canonical(self, name: str) -> str:
        """The name that `name` stands for, which may be itself and may not exist."""
        singular = name.removesuffix("s")
        return singular if isinstance(self.verbs.get(singular), NounGroup) else VERB_ALIASES.get(name, name)

    def habit(self, name: str) -> str | None:
        """A name that another program would have for it."""
        known = nearest(name, VERB_HABITS, 0.8) or name
        return next((verb for verb in VERB_HABITS.get(known, ()) if verb in self.verbs), None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = self.canonical(args[0])
        command = self.get_command(ctx, name)
        if command is not None:
            return name, command, args[1:]
        if ctx.resilient_parsing:
            return None, None, args[1:]
        if name == "help":  # as git and kubectl have it: `help service add`, `service help add`
            if args[1:]:
                return self.resolve_command(ctx, [*args[1:], "--help"])
            typer.echo(ctx.get_help())
            raise typer.Exit
        if name.startswith("-"):
            self.parse_args(ctx, args)  # says which option there is not
        known = self.list_commands(ctx)
        near = nearest(name, known, 0.8) or self.habit(name) or nearest(name, known)
        where = "" if ctx.parent is None else f"{ctx.info_name} has "
        what = f"{where}no {self.kind} {name!r}" if where else f"there is no {self.kind} {name!r}"
        raise MisuseError(what, f"did you mean {near!r}?" if near else f"it is one of {', '.join(known)}")

    def invoke(self, ctx: Any) -> Any:
        if not ctx._protected_args and not self.invoke_without_command:
            verbs = ", ".join(self.list_commands(ctx))
            raise MisuseError(f"{ctx.command_path} needs a {self.kind}: {verbs}", f"see '{ctx.command_path} --help'")
        return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, self.summary_of(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section(f"{self.kind.capitalize()}s"):
            formatter.write_dl(rows)

    def summary_of(self, ctx: Any, name: str) -> str:
        """One line on a verb."""
        command = self.get_command(ctx, name)
        return (command.help or "").partition("\n")[0] if command else ""


def noun(name: str, summary: str, verbs: Verbs) -> NounGroup:
    """A noun from the table of its verbs."""
    group = NounGroup(name=name, help=summary)
    group.verbs = verbs
    return group


def verb_command(name: str, function: Callable[..., None], examples: Sequence[str]) -> Any:
    """A verb from its function, by typer. Made when it is asked for: all five of a noun cost 0.3 `python -c pass`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=VerbCommand, epilog="\n".join(examples))(function)
    return get_command(app)


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Turns the ValueError of a parser into a line that names the option."""
    try:
        yield
    except ValueError as error:
        raise MisuseError(f"{name}: {error}") from None


@contextmanager
def named_as_typed(options: Mapping[str, str]) -> Iterator[None]:
    """A refused value is told by the option that it was typed behind, which the admin API does not know."""
    try:
        yield
    except RejectedError as error:
        if option := options.get(error.field):
            error.what = f"{option}: {error.what.removeprefix(error.field + ': ').removeprefix(error.field + ' ')}"
        raise


def refuse_both(*options: tuple[str, Any, str, bool]) -> None:
    """Of `--rate 5/s --no-rate` neither may win quietly: a limit would be lifted, or not."""
    for option, value, opposite, asked in options:
        if asked and value:
            raise MisuseError(f"{option} and {opposite} contradict each other", "give one of them")
