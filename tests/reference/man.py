"""Man pages in the macros of man(7): gatectl(1), one for each noun, gatewayd(8).

A generator of our own: what there is to write is six macros, where a library (argparse-manpage, click-man) knows
neither nouns in three levels nor our examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from typer.main import get_command

import gatectl
from gatectl.app import NOUNS
from gatewayd import cli
from gatewayd.settings import Settings
from tests.reference.walk import Argument, Command, Option, walk

_ROOT = Path(__file__).resolve().parent.parent.parent
# By name: what each variable is for. Those that gatectl does not look at are left out.
_ENVIRONMENT = {
    "GATECTL_SOCKET": "Admin socket of the gateway, as by --socket.",
    "GATECTL_URL": "Address of the gateway's admin API, as by --url.",
    "GATECTL_TOKEN": "Token for that address.",
    "GATECTL_CA": "File of the authorities that sign its certificate.",
    "GATECTL_SSH": "What reaches ssh:// instead of ssh, with options of its own.",
    "GATECTL_CONTEXT": "Context to work in, as by --context.",
    "GATECTL_PAGER": "What long tables on a terminal are shown by, instead of PAGER.",
    "PAGER": "What long tables on a terminal are shown by.",
    "NO_COLOR": "No colours, whatever its value.",
    "GATECTL_DEBUG": "Show where an error came from that should not have happened.",
}


def pages(root: Command) -> Iterator[tuple[str, str]]:
    """Name of a file and its text."""
    yield "gatectl.1", _overview(root)
    for noun in root.verbs:
        yield f"gatectl-{noun.name}.1", _noun(noun, root)
    yield "gatewayd.8", _daemon()


def _overview(root: Command) -> str:
    nouns = [(f"gatectl {noun.name}", noun.summary) for noun in root.verbs]
    return _page(
        "gatectl",
        1,
        root.summary,
        [
            _section("Synopsis", [_synopsis("gatectl", "NOUN VERB [ARGS] [OPTIONS]")]),
            _section(
                "Description", [_text(_of_package(root)), _text("Each noun has a page of its own: "), *_tagged(nouns)]
            ),
            _section("Options", [*_options(option for option in root.options)]),
            _section("Exit status", _tagged(_exit_codes())),
            _section("Environment", _tagged(_environment())),
            _section("Examples", _examples(root.examples)),
            _see_also(["gatewayd(8)", *(f"gatectl-{noun.name}(1)" for noun in root.verbs)]),
        ],
    )


def _of_package(root: Command) -> str:
    return (
        f"{root.summary} It speaks with a gatewayd over its admin socket. On a terminal it writes tables for people; "
        "into a pipe tab-separated values; by --output any other form. Data goes to standard output, all else to "
        "standard error."
    )


def _noun(noun: Command, root: Command) -> str:
    summary = next((line.summary for line in NOUNS if line.name == noun.name), noun.summary)
    verbs = [command for command in noun.all() if not command.verbs]
    sections = [_section("Synopsis", [_synopsis(" ".join(verb.path), _operands(verb)) for verb in verbs])]
    if noun.verbs:
        sections.append(_section("Description", [_text(noun.about or summary)]))
        sections.append(_section("Commands", [line for verb in verbs for line in _verb(verb)]))
    else:
        sections.append(_section("Description", [_text(noun.summary), *_paragraphs(noun.about)]))
        sections.append(_section("Options", [*_arguments(noun.arguments), *_options(_own(noun))]))
    sections.append(_section("Options of every command", _options(option for option in root.options if option.shared)))
    sections.append(_section("Examples", _examples([line for verb in verbs for line in verb.examples])))
    return _page(f"gatectl-{noun.name}", 1, summary, [*sections, _see_also(["gatectl(1)", "gatewayd(8)"])])


def _verb(verb: Command) -> list[str]:
    return [
        f'.SS "{_plain(" ".join(verb.path))} {_plain(_operands(verb))}"',
        _text(verb.summary),
        *_paragraphs(verb.about),
        *_arguments(verb.arguments),
        *_options(_own(verb)),
    ]


def _daemon() -> str:
    root = walk(get_command(cli.app), "gatewayd")
    settings = [(name, _setting(name)) for name in Settings.model_fields]
    return _page(
        "gatewayd",
        8,
        root.summary.partition(":")[0] + ".",
        [
            _section("Synopsis", [_synopsis("gatewayd", "[OPTIONS] [COMMAND]")]),
            _section("Description", [_text(root.summary), *_paragraphs(root.about)]),
            _section("Options", _options(root.options)),
            _section("Commands", [line for verb in root.verbs for line in _verb(verb)]),
            _section(
                "Settings",
                [_text("In gatewayd.toml by these names; in the environment in capitals behind GATEWAYD_."),
                 *_tagged(settings)],
            ),
            _see_also(["gatectl(1)"]),
        ],
    )  # fmt: skip


def _setting(name: str) -> str:
    field = Settings.model_fields[name]
    default = field.default
    shown = (
        f" Default: {str(default).lower() if isinstance(default, bool) else default}."
        if type(default) in (int, str, bool, float) and default != ""
        else ""
    )
    return f"{field.description}{shown}"


def _own(command: Command) -> Iterable[Option]:
    return [option for option in command.options if not option.shared]


def _operands(verb: Command) -> str:
    shown = []
    for argument in verb.arguments:
        name = argument.metavar if argument.required else f"[{argument.metavar}]"
        shown.append(name + "..." * argument.repeats)
    return " ".join([*shown, "[OPTIONS]"])


def _arguments(arguments: Iterable[Argument]) -> list[str]:
    return _tagged((argument.metavar, argument.help) for argument in arguments if argument.help)


def _options(options: Iterable[Option]) -> list[str]:
    return _tagged((option.shown, option.help + (" Repeatable." if option.repeats else "")) for option in options)


def _examples(lines: Iterable[str]) -> list[str]:
    return [".nf", *(f"$ {_plain(line)}" for line in lines), ".fi"]


def _exit_codes() -> list[tuple[str, str]]:
    readme = (_ROOT / "README.md").read_text()
    rows = readme.partition("| exit code | means |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    cells = [row.strip("| ").split(" | ", 1) for row in rows]
    return [(code, meaning.replace("`", "").replace("\\|", "|")) for code, meaning in cells]


def _environment() -> list[tuple[str, str]]:
    code = "".join(path.read_text() for path in sorted((_ROOT / "gatectl").rglob("*.py")))
    return [(name, text) for name, text in _ENVIRONMENT.items() if re.search(rf"\b{name}\b", code)]


def _page(name: str, number: int, summary: str, sections: Iterable[str]) -> str:
    title = f'.TH "{name.upper()}" "{number}" "" "gatewayd {gatectl.__version__}" "gatewayd"'
    line = _plain(summary.rstrip("."))
    body = f".SH NAME\n{_plain(name)} \\- {line[:1].lower() + line[1:] if line[1:2].islower() else line}\n" + "".join(
        sections
    )
    return f'.\\" Written by `make completions`: never by hand.\n{title}\n.nh\n.ad l\n{body}'


def _section(title: str, lines: Iterable[str]) -> str:
    written = "\n".join(lines)
    return f'.SH "{title.upper()}"\n{written}\n' if written else ""


def _synopsis(command: str, rest: str) -> str:
    return f".B {_plain(command)}\n{_plain(rest)}\n.br"


def _see_also(names: Iterable[str]) -> str:
    return _section("See also", [_plain(", ".join(names))])


def _tagged(items: Iterable[tuple[str, str]]) -> list[str]:
    return [f".TP\n.B {_plain(term)}\n{_text(text)}" for term, text in items]


def _paragraphs(about: str) -> list[str]:
    return [f".PP\n{_text(part)}" for part in about.split("\n\n") if part]


def _text(text: str) -> str:
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """As it is: no letter of it means anything to roff."""
    escaped = (
        text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq").replace("`", "\\(ga")
    )
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
