"""The grammar of gatectl as data: every noun, verb, option and argument, found by asking the real one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from typer.main import get_command

from gatectl import app, grammar
from gatectl.output import Column
from gatectl.shared_options import SHARED_OPTIONS

_DEPTH = 3  # of functions that a verb's function calls, in whose tables columns are looked for


class Option(NamedTuple):
    names: tuple[str, ...]  # as they may be typed, `--no-...` of a switch among them
    metavar: str  # empty: it takes no value
    help: str
    choices: tuple[str, ...]
    repeats: bool
    shared: bool

    @property
    def shown(self) -> str:
        """As help writes it: `-o, --output FORM`."""
        names = ", ".join(sorted(self.names, key=len))
        return f"{names} {self.metavar}" if self.metavar else names


class Argument(NamedTuple):
    metavar: str
    help: str
    choices: tuple[str, ...]
    repeats: bool
    required: bool


class Command(NamedTuple):
    """A verb, or a noun with its verbs. `path` is what is typed: ("gatectl", "service", "add")."""

    path: tuple[str, ...]
    summary: str
    about: str  # the paragraphs after the summary
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]
    columns: tuple[str, ...]
    verbs: tuple[Command, ...]
    aliases: Mapping[str, str]  # other names of its verbs

    @property
    def name(self) -> str:
        return self.path[-1]

    def all(self) -> Iterator[Command]:
        """It and what is below it, as `--help` orders it."""
        yield self
        for verb in self.verbs:
            yield from verb.all()


@cache
def walked() -> Command:
    """The whole grammar."""
    return walk(get_command(app.app), "gatectl")


def walk(root: Any, name: str) -> Command:
    """A command line made with typer, from its root on."""
    return _walk(root, (name,), None, None)


def _walk(command: Any, path: tuple[str, ...], parent: Any, function: Any) -> Command:
    ctx = command.context_class(command, info_name=path[-1], parent=parent, resilient_parsing=True)
    names = list(command.list_commands(ctx)) if hasattr(command, "list_commands") else []
    verbs = []
    for name in names:
        below = command.get_command(ctx, name)
        if below is not None and not below.hidden:
            verbs.append(_walk(below, (*path, name), ctx, _function(command, name, below)))
    summary, _, about = (command.help or "").strip().partition("\n")
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    options = [_option(param) for param in params if param.param_type_name == "option"]
    return Command(
        path,
        summary,
        about.strip(),
        tuple(options),
        tuple(_argument(param) for param in params if param.param_type_name == "argument"),
        tuple(line.strip() for line in (command.epilog or "").splitlines() if line.strip()),
        () if verbs else tuple(dict.fromkeys(_columns(function or command.callback))),
        tuple(verbs),
        _aliases(command, names),
    )


def _function(group: Any, name: str, command: Any) -> Any:
    verbs = getattr(group, "verbs", {})
    entry = verbs.get(name)
    return entry[0] if isinstance(entry, tuple) else getattr(command.callback, "__wrapped__", command.callback)


def _option(param: Any) -> Option:
    takes_value = not param.is_flag and not getattr(param, "count", False)
    return Option(
        names=tuple(sorted((*param.opts, *param.secondary_opts), key=lambda name: not name.startswith("--"))),
        metavar=(param.metavar or _metavar(param)) if takes_value else "",
        help=_with_default(_one_line(param.help), param) if takes_value else _one_line(param.help),
        choices=_choices(param) if takes_value else (),
        repeats=param.multiple,
        shared=param in SHARED_OPTIONS,
    )


def _with_default(told: str, param: Any) -> str:
    """As help has it, which says itself what typer knows of a default."""
    known = param.default not in (None, "") and not param.multiple and "[default: " not in told
    return f"{told} [default: {param.default}]" if known else told


def _argument(param: Any) -> Argument:
    metavar = (param.metavar or param.name.upper()).strip("[]")
    return Argument(metavar, _one_line(param.help), _choices(param), param.nargs == -1, param.required)


def _metavar(param: Any) -> str:
    return "|".join(_choices(param)) or param.name.upper()


def _choices(param: Any) -> tuple[str, ...]:
    return tuple(str(choice) for choice in getattr(param.type, "choices", ()))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _aliases(command: Any, names: Iterable[str]) -> dict[str, str]:
    """Other names that are understood: those the grammar lists, and plurals of all."""
    if not hasattr(command, "canonical"):
        return {}
    listed = [name for table in (*vars(grammar).values(), *vars(app).values()) if _is_names(table) for name in table]
    tried = [*listed, *(plural for name in names for plural in (f"{name.removesuffix('s')}s", f"{name}es"))]
    meant = {name: command.canonical(name) for name in tried if name not in names}
    return {name: meant[name] for name in sorted(meant) if meant[name] in names}


def _is_names(table: Any) -> bool:
    return isinstance(table, Mapping) and all(isinstance(name, str) for name in table)


def _columns(function: Any, depth: int = _DEPTH) -> Iterator[str]:
    """Fields of the columns in the tables that a function names, and of those that what it calls does."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for thing in _named(code.co_names, vars(sys.modules[function.__module__])):
        if isinstance(thing, Column):
            yield thing.field
        elif isinstance(thing, tuple) and any(isinstance(each, Column) for each in thing):
            yield from (each.field for each in thing if isinstance(each, Column))
        elif depth and callable(thing) and str(getattr(thing, "__module__", "")).startswith("gatectl."):
            yield from _columns(thing, depth - 1)


def _named(names: Sequence[str], scope: Mapping[str, Any]) -> list[Any]:
    """What code means by its names: globals, what it imports when it runs, and what it takes out of those."""
    named = [scope[name] for name in names if name in scope]
    imported = [import_module(name) for name in names if name.startswith("gatectl")]
    modules = [thing for thing in named if isinstance(thing, ModuleType)]
    parts = [found for module in (*modules, *imported) for name in names if (found := _part(module, name)) is not None]
    below = [thing for thing in parts if isinstance(thing, ModuleType)]
    return [
        *named,
        *parts,
        *(found for module in below for name in names if (found := _part(module, name)) is not None),
    ]


def _part(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None and "." not in name and hasattr(module, "__path__"):
        path = f"{module.__name__}.{name}"
        return import_module(path) if find_spec(path) else None
    return found
