"""gatectl/REFERENCE.md: every command with its options and examples; and the table of commands in the README."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.reference.walk import Command, Option

_BEGIN = "<!-- Written by `make completions`: -->\n"
_END = "<!-- up to here. -->\n"
# Sections of the README on what a noun is about, where they are not called as it is.
_SECTIONS = {
    "billing": "Bills and invoices",
    "explain": "Why a request gets what it gets",
    "config": "The configuration as a file",
    "token": "Remote",
    "context": "Remote",
}


def reference(root: Command) -> str:
    """The whole of REFERENCE.md."""
    shared = [option for option in root.options if option.shared]
    parts = [
        "<!-- Written by `make completions`: never by hand. -->\n# gatectl\n",
        f"{root.summary} `gatectl NOUN VERB --help` shows the same at a terminal.\n",
        "".join(f"- [`{' '.join(noun.path)}`](#{'-'.join(noun.path)}): {noun.summary}\n" for noun in root.verbs),
        "## Options of every command\n",
        _options(shared),
        *(part for noun in root.verbs for command in noun.all() for part in _command(command)),
    ]
    return "\n".join(parts)


def _command(command: Command) -> Iterable[str]:
    level = "#" * min(len(command.path), 4)
    yield f"{level} {' '.join(command.path)}\n"
    yield f"{command.summary}\n"
    if command.verbs:
        return
    if command.about:
        yield f"{command.about}\n"
    operands = " ".join(_operand(command))
    yield f"```\n{' '.join(command.path)} {operands}\n```\n"
    if command.arguments:
        yield _table("argument", ((f"`{_cell(each.metavar)}`", each.help) for each in command.arguments))
    if own := [option for option in command.options if not option.shared]:
        yield _options(own)
    if command.examples:
        yield "```\n" + "".join(f"{line}\n" for line in command.examples) + "```\n"


def _operand(command: Command) -> Iterable[str]:
    for argument in command.arguments:
        yield (argument.metavar if argument.required else f"[{argument.metavar}]") + "..." * argument.repeats
    yield "[OPTIONS]"


def _options(options: Iterable[Option]) -> str:
    return _table("option", ((f"`{_cell(each.shown)}`", each.help + " Repeatable." * each.repeats) for each in options))


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"| {title} | is |\n|---|---|\n" + "".join(f"| {name} | {_cell(text)} |\n" for name, text in rows)


def _cell(text: str) -> str:
    return (
        text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
        if "`" not in text
        else text.replace("|", "\\|")
    )


def readme(text: str, root: Command) -> str:
    """The README with its table of commands as the grammar has them."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin and end, "README.md has lost the marks around its table of commands"
    rows = "".join(_row(noun, text) for noun in root.verbs)
    return f"{before}{begin}\n| command | does | verbs |\n|---|---|---|\n{rows}\n{end}{after}"


def _row(noun: Command, text: str) -> str:
    verbs = ", ".join(f"`{verb.name}`" for verb in noun.verbs) or f"`{_cell(' '.join(_operand(noun)))}`"
    about = noun.summary.rstrip(".") + (f"; [more](#{anchor})" if (anchor := _anchor(noun.name, text)) else "")
    return f"| [`gatectl {noun.name}`](gatectl/REFERENCE.md#gatectl-{noun.name}) | {_cell(about)} | {verbs} |\n"


def _anchor(noun: str, text: str) -> str:
    """Of the section on it: the one called so, or as its plural."""
    titles = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    named = [title for title in titles if title in (_SECTIONS.get(noun), noun.capitalize(), f"{noun.capitalize()}s")]
    return re.sub(r"[^a-z0-9 -]", "", named[0].lower()).replace(" ", "-") if named else ""
