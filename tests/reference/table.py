"""`gatectl/completion/table.py`: the grammar as one constant, which a compiled module holds ready to use."""

from __future__ import annotations

from typing import Any

from tests.reference.kinds import columns_of, kind_of_argument, kind_of_option
from tests.reference.walk import Command, Option

_HEAD = '''"""The grammar as completion needs it. Written by `make completions`: never by hand.

Tuples of constants alone, so that the compiled module holds them ready: 0.06 ms, where JSON of the same takes 0.13 and
to import `json` 8.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gatectl.completion.line import CommandRow, OptionRow

'''
_HELP = (("--help", "-h"), "-", False, "Show what it does, its options, and examples.")


def written(root: Command) -> str:
    """The module's text."""
    shared = [_option(option) for option in root.options if option.shared]
    return (
        f"{_HEAD}SHARED: tuple[OptionRow, ...] = (\n{_rows([*shared, _HELP], 1)})\n\n"
        f"ROOT: CommandRow = {_command(root, 0)}\n"
    )


def _command(command: Command, depth: int) -> str:
    """A line for each option and each verb, so that a change of one is a change of a line."""
    inner = "    " * (depth + 1)
    options = [_option(option) for option in command.options if not option.shared]
    arguments = tuple((kind_of_argument(command, argument), argument.repeats) for argument in command.arguments)
    verbs = "".join(f"{inner}    {_command(verb, depth + 2)},\n" for verb in command.verbs)
    return (
        f"(\n{inner}{command.name!r},\n{inner}{command.summary!r},\n"
        f"{inner}{_tuple(_rows(options, depth + 2), inner)},\n"
        f"{inner}{arguments!r},\n"
        f"{inner}{_tuple(verbs, inner)},\n"
        f"{inner}{tuple(command.aliases.items())!r},\n"
        f"{inner}{'|'.join(columns_of(command))!r},\n"
        f"{'    ' * depth})"
    )


def _option(option: Option) -> tuple[Any, ...]:
    return option.names, kind_of_option(option), option.repeats, option.help.partition("  [default")[0]


def _rows(rows: list[tuple[Any, ...]], depth: int) -> str:
    return "".join(f"{'    ' * depth}{row!r},\n" for row in rows)


def _tuple(rows: str, indent: str) -> str:
    return f"(\n{rows}{indent})" if rows else "()"
