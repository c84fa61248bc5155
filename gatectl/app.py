"""gatectl as a whole: the list of its nouns, and the one place where failures become a line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple, TextIO, cast

import typer
from typer.main import get_command

from gatectl import __version__
from gatectl.errors import BROKEN_PIPE, INTERRUPTED, OK, GatectlError, MisuseError, exit_code, nearest
from gatectl.grammar import VERB_ALIASES, VERB_HABITS, NounGroup
from gatectl.pager import LeftError, Paged


class Noun(NamedTuple):
    """A file in `commands`, imported when it is needed."""

    name: str
    summary: str


# `status`, `doctor`, `top`, `logs` and `explain` are verbs that need no noun. In the order of an operator's day, as
# `gatectl --help` has them.
NOUNS = (
    Noun("status", "How the gateway is: workers, journal, database, problems."),
    Noun("doctor", "What is wrong or soon will be, and how to mend it."),
    Noun("top", "What is going on now, on a live screen."),
    Noun("logs", "Requests that have been, and those that come."),
    Noun("explain", "What would become of a request, or became of one, and why."),
    Noun("service", "APIs behind the gateway and where they are."),
    Noun("route", "What leads to a service: host, path, methods."),
    Noun("plan", "Rate limits, quotas and prices under one name."),
    Noun("key", "API keys: create, limit, rotate, revoke."),
    Noun("client", "Who stands behind X-Client-ID."),
    Noun("quota", "How much of its month each key has used."),
    Noun("usage", "Who called what, how often and how fast."),
    Noun("billing", "What it costs them, this month or any other."),
    Noun("alert", "Webhooks that are told of quotas, spending and refusals."),
    Noun("tenant", "Organisations that own services, plans and keys."),
    Noun("config", "All that is configured as one file: dump, diff, apply, roll back."),
    Noun("token", "Tokens of the admin API for other machines."),
    Noun("audit", "Who changed what, and when."),
    Noun("backup", "A copy of everything, while the gateway goes on."),
    Noun("restore", "A backup back into a state folder."),
    Noun("context", "Gateways elsewhere, under names."),
    Noun("api", "Any request to the admin API."),
    Noun("completion", "What completes gatectl in bash, zsh and fish."),
    Noun("version", "Which gatectl this is, and which gatewayd answers it."),
)

_BY_NAME = {noun.name: noun for noun in NOUNS}
_PLURALS = {
    "log": "logs",
    "statuses": "status",
    "usages": "usage",
    "audits": "audit",
    "bill": "billing",
    "bills": "billing",
}
# What is looked for by itself, and where it is.
_HOMES = {
    "invoice": "billing invoice",
    "credit": "billing credit",
    "ledger": "billing ledger",
    "cycle": "billing cycles",
    "webhook": "alert",
    "tail": "logs --follow",
    "export": "usage export",
}


# What typer says as no operator would. Compiled where something is wrong: it takes a hundredth of `service list`.
_TYPERS_WORDS = (
    (r"^Got unexpected extra argument\(s\) \((.*)\)$", r"unexpected extra argument: \1"),
    (r"is not a valid (?:int|integer)(?: range)?$", "is not a whole number"),
    (r"is not a valid float(?: range)?$", "is not a number"),
    (r"'\[([A-Z_]+)\]'", r"'\1'"),
    (r"is not in the range (\S+)<=x<=(\S+)$", r"is not from \1 to \2"),
    (r"is not in the range x>=(\S+)$", r"is less than \1"),
)

# What stands after a noun, here.
_VERBS = {"add", "list", "show", "set", "remove", "revoke", "rotate", *VERB_ALIASES, *VERB_HABITS}

# Under which headings `gatectl --help` has them.
HEADINGS = {
    "Look": "status doctor top logs explain",
    "Operate": "service route plan key client quota usage billing alert tenant",
    "Administer": "config token audit backup restore",
    "This program": "context api completion version",
}


class Nouns(NounGroup):
    """The root. A noun's module is imported when the noun is used: the eight others would cost 0.4 `python -c pass`."""

    kind = "noun"
    usage_of_rest = "NOUN VERB [ARGS] [OPTIONS]"

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_BY_NAME)

    def canonical(self, name: str) -> str:
        return _PLURALS.get(name) or (name[:-1] if name[:-1] in _BY_NAME else name)

    def habit(self, name: str) -> str | None:
        return _HOMES.get(name) or _HOMES.get(name.removesuffix("s"))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if not ctx.resilient_parsing and self.canonical(args[0]) not in _BY_NAME and args[0] in _VERBS:
            raise self._turned_round(ctx, *args)
        return super().resolve_command(ctx, args)

    def _turned_round(self, ctx: Any, verb: str, *more: str) -> MisuseError:
        """`kubectl get services` is in many fingers."""
        name = self.canonical(more[0]) if more else ""
        noun = self.get_command(ctx, name)
        if not isinstance(noun, NounGroup):
            return MisuseError(f"there is no noun {verb!r}", f"it is one of {', '.join(_BY_NAME)}")
        meant: str | None = noun.canonical(verb)
        if verb == "get" and not more[1:]:
            meant = "list"
        if meant not in noun.verbs:
            meant = noun.habit(verb)
        words = " ".join(["gatectl", name, *([meant, *more[1:]] if meant else ["--help"])])
        return MisuseError("the noun comes first", f"did you mean {words!r}?")

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        noun = _BY_NAME.get(cmd_name)
        if noun is None:
            return None
        return import_module(f"gatectl.commands.{noun.name}").command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        longest = max(map(len, _BY_NAME))
        for heading, names in HEADINGS.items():
            rows = [(name.ljust(longest), _BY_NAME[name].summary) for name in names.split() if name in _BY_NAME]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def summary_of(self, ctx: Any, name: str) -> str:
        return _BY_NAME[name].summary


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"gatectl {__version__}\n")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Operate an API gateway: services, plans, keys, usage and bills."""


app = typer.Typer(
    cls=Nouns,
    callback=_root,
    add_completion=False,
    rich_markup_mode=None,
    epilog="gatectl service add orders http://127.0.0.1:8001\n"
    "gatectl key create --service orders\n"
    "gatectl usage show --since 24h --by key --plot",
)


def run(arguments: Sequence[str]) -> int:
    """Follow a command line; the exit code. Everything that goes wrong below ends here, as one line on stderr."""
    if sys.stderr is None:  # closed: what is opened next would get its number, and what children say there
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (it stays open to the end)
    if sys.stdout is None or not sys.stdout.isatty() or "--no-pager" in arguments:
        return _follow(arguments)
    terminal, sys.stdout = sys.stdout, cast(TextIO, paged := Paged(sys.stdout))
    try:
        return _follow(arguments)
    except LeftError:
        return OK
    finally:
        sys.stdout = terminal
        paged.close()


def _follow(arguments: Sequence[str]) -> int:
    root: Any = get_command(app)
    try:
        if sys.stdout is None:
            raise GatectlError("standard output is closed")
        # What a terminal's encoding lacks is shown by its number: better than no answer at all.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code = _invoked(root, list(arguments) or ["--help"])
        sys.stdout.flush()
    except (KeyboardInterrupt, EOFError, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except LeftError:
        raise
    except GatectlError as error:
        return _explain(error)
    except typer.TyperException as error:
        return _explain(_as_misuse(error))
    except OSError as error:
        return _explain(GatectlError(f"cannot write the answer: {error.strerror or error}"))
    except Exception as error:
        if os.environ.get("GATECTL_DEBUG"):
            raise
        what = f"this should not have happened: {type(error).__name__}: {error}"
        return _explain(GatectlError(what, "GATECTL_DEBUG=1 shows where; please report it"))
    return code


def _invoked(root: Any, arguments: list[str]) -> int:
    try:
        with root.make_context("gatectl", arguments) as ctx:
            root.invoke(ctx)
    except typer.Exit as exit_:
        return exit_.exit_code
    return OK


def _explain(error: GatectlError) -> int:
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    # Names from the gateway are quoted in errors, and a line is promised.
    line = "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in f"gatectl: {error}")
    with suppress(OSError):  # the exit code tells it too
        sys.stderr.write(line + "\n")
    return exit_code(error)


def _as_misuse(error: typer.TyperException) -> GatectlError:
    """typer's own complaint (an unknown option, a missing argument, a bad number) in our form."""
    what = error.format_message().partition(" (Possible options")[0].rstrip(".").replace("'[METHOD]'", "'PATH'")
    for words, ours in _TYPERS_WORDS:
        what = re.sub(words, ours, what, flags=re.DOTALL)
    near = next(iter(getattr(error, "possibilities", None) or ()), None) or _near_choice(error, what)
    path = ctx.command_path if (ctx := getattr(error, "ctx", None)) else "gatectl"
    return MisuseError(what[:1].lower() + what[1:], f"did you mean {near!r}?" if near else f"see '{path} --help'")


def _near_choice(error: typer.TyperException, what: str) -> str | None:
    """Of an option that takes one of some words: the one that is like what was typed."""
    choices = getattr(getattr(getattr(error, "param", None), "type", None), "choices", ())
    typed = what.rpartition(" is not one of")[0].rpartition(": ")[2].strip("'")
    return nearest(typed, map(str, choices))


def _reader_gone() -> int:
    """Quietly, as for any program in a pipe. The interpreter flushes stdout once more at exit: let it go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
