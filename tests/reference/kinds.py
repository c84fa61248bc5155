"""Which values complete what: of an option or argument, the kind of thing that stands there.

A kind is one of `gatectl.completion.sources`, "=a|b" for one of some words, ",a|b" for several of them, "" for what
nobody can know, "-" for nothing. The rules go by metavar and by name, so what is new in the grammar mostly completes by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatectl.commands import usage
from gatectl.completion import sources
from gatectl.output import FORMS
from tests.reference.walk import Argument, Command, Option

# Of options, by their name. Those of a noun's name need no line.
OPTIONS: Mapping[str, str] = {
    "--to": "service",
    "--default-plan": "plan",
    "--since": "moment",
    "--until": "moment",
    "--expires": "expiry",
    "--period": "period",
    "--output": "=" + "|".join(FORMS),
    "--columns": "columns",
    "--by": "," + "|".join(usage.DIMENSIONS),
    "--status": ",2xx|3xx|4xx|5xx|401|403|404|429|502|503|504",
    "--socket": "file",
    "--state-dir": "folder",
    "--input": "file",
    "--billable": ",2xx|3xx|4xx|5xx|client-left",
}

# Of options and arguments, by the word that help has for their value. Those of a noun's name need no line.
METAVARS: Mapping[str, str] = {
    "FILE": "file",
    "DIR": "folder",
    "FOLDER": "folder",
    "TIME": "duration",
    "METHOD": "method",
    "METHOD|REQUEST_ID": "method",
    "MONTH": "period",
    "PERIOD": "period",
    "N": "",
}

# Words that help has for the value of an option which is called as what it chooses: `--service NAME`.
_CHOSEN = ("NAME", "SLUG")

# Columns that a command makes while it runs.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "gatectl usage show": ("time", *usage.DIMENSIONS),
    "gatectl usage top": (
        *usage.DIMENSIONS,
        *(column.field for column in usage.MEASURES[:-4]),
        "bytes",
        "cost",
        "share",
    ),
}


def kind_of_option(option: Option) -> str:
    if not option.metavar:
        return "-"
    if option.choices:
        return "=" + "|".join(option.choices)
    if option.metavar in ("FILE", "DIR", "FOLDER"):
        return METAVARS[option.metavar]
    for name in option.names:
        if name in OPTIONS:
            return OPTIONS[name]
        if (noun := name.removeprefix("--")) in sources.KINDS and option.metavar in (*_CHOSEN, noun.upper()):
            return noun
    return kind_of_metavar(option.metavar)


def kind_of_argument(command: Command, argument: Argument) -> str:
    """A NAME is one of its noun's, unless it is given here."""
    if argument.choices:
        return "=" + "|".join(argument.choices)
    noun = command.path[-2]
    if argument.metavar == "NAME" and noun in sources.KINDS and command.name not in ("add", "create"):
        return noun
    if noun == "config" and argument.metavar == "N":
        return "revision"
    return kind_of_metavar(argument.metavar)


def kind_of_metavar(metavar: str) -> str:
    if metavar in METAVARS:
        return METAVARS[metavar]
    return metavar.lower() if metavar.isupper() and metavar.lower() in sources.KINDS else ""


def columns_of(command: Command) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*COLUMNS.get(" ".join(command.path), ()), *command.columns)))
