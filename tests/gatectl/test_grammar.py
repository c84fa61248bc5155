"""The grammar as a whole: the same option means the same everywhere, help is in groups, and names forgive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import typer

from gatectl.app import HEADINGS, NOUNS, app
from gatectl.grammar import NounGroup
from gatectl.groups import GLANCE, GROUPS
from gatectl.shared_options import SHARED_OPTIONS, SHARED_PANEL
from tests.gatectl.conftest import Gatectl

# What takes another kind of value in one command than in the others, and why that is meant.
OTHER_VALUES = {
    "--by": "usage show takes several dimensions, usage top ranks by one",
    "--file": "a configuration may be several, a dump is one",
    "--format": "of an export of usage, and of an invoice: other files",
    "--label": "in a list a name without a value finds all that have it",
    "--method": "a route has several, a request that is tried has one",
    "--path": "a service is at several paths, a route and a request have one",
    "--quota": "of an alert it is the part of one that is used",
    "--service": "a key is valid for several, a filter is of one",
    "--key": "a simulation may be of several, all else is of one",
    "--status": "of a key a word, of an answer a number or its class",
    "--weight": "of targets, one each; of a route's requests in limits, one",
}
# What it does is told in the words of what it does it to: the rate of a plan, of a key, of a tenant.
OTHER_WORDS = {
    "--address", "--allow", "--body-limit", "--burst", "--by", "--file", "--force",
    "--format", "--host", "--key", "--label", "--limit", "--max-in-flight", "--method", "--name", "--network",
    "--no-allow", "--no-body-limit", "--no-max-in-flight", "--no-network", "--no-plan", "--no-quota", "--no-rate",
    "--no-timeout", "--out", "--path", "--period", "--plan", "--price", "--quota", "--rate", "--reason",
    "--secret-stdin", "--service", "--status", "--target", "--until", "--weight",
}  # fmt: skip


def every_verb() -> list[tuple[str, Any]]:
    root: Any = typer.main.get_command(app)
    return [each for noun in NOUNS for each in verbs_of(noun.name, root.get_command(None, noun.name))]


def verbs_of(name: str, command: Any) -> list[tuple[str, Any]]:
    """The verb itself, or those of a noun, however deep."""
    if isinstance(command, NounGroup):
        return [each for verb in command.verbs for each in verbs_of(f"{name} {verb}", command.get_command(None, verb))]
    return [(name, command)]


def options() -> dict[str, list[tuple[str, Any]]]:
    """By name: the commands that have it, each with its own."""
    found = defaultdict(list)
    for name, command in every_verb():
        for param in command.params:
            if param.param_type_name == "option" and param.rich_help_panel != SHARED_PANEL:
                found[param.opts[0]].append((name, param))
    return found


def value_of(param: Any) -> tuple[Any, ...]:
    kind = type(param.type).__name__.removesuffix("Range")
    return tuple(param.opts[1:]), param.metavar, kind, tuple(getattr(param.type, "choices", ())), param.multiple


def differing(of: Callable[[Any], Any]) -> dict[str, Any]:
    """By option: the commands, by what is `of` the option in them, where that is not always the same."""
    found = {}
    for option, uses in options().items():
        alike = defaultdict(list)
        for name, param in uses:
            alike[of(param)].append(name)
        if len(alike) > 1:
            found[option] = dict(alike)
    return found


def test_an_option_takes_the_same_wherever_it_is() -> None:
    assert {option: uses for option, uses in differing(value_of).items() if option not in OTHER_VALUES} == {}
    assert OTHER_VALUES.keys() <= differing(value_of).keys(), "is no exception any more"


def test_an_option_is_told_in_the_same_words_wherever_it_is() -> None:
    found = differing(lambda param: param.help.partition("  [default: ")[0])  # which `set` has none of
    assert {option: uses for option, uses in found.items() if option not in OTHER_WORDS} == {}
    assert found.keys() >= OTHER_WORDS, "is no exception any more"


def test_no_option_is_called_as_a_shared_one() -> None:
    shared = {name for param in SHARED_OPTIONS for name in param.opts}
    taken = {option: [name for name, _ in uses] for option, uses in options().items() if option in shared}
    # Where a webhook is; that of the gateway stands before the verb there.
    assert taken == {"--url": ["alert add"]}


def test_every_option_says_what_it_does() -> None:
    for option, uses in options().items():
        for name, param in uses:
            assert param.help.partition("  [default: ")[0].endswith("."), (name, option)


def test_long_commands_are_grouped_and_short_ones_are_not() -> None:
    for name, command in every_verb():
        sections = command.help_sections()
        own = {heading: params for heading, params in sections.items() if heading not in (SHARED_PANEL, "Arguments")}
        if sum(map(len, own.values())) <= GLANCE:
            assert len(own) <= 1 or any(param.rich_help_panel for params in own.values() for param in params), name
        assert max(map(len, own.values()), default=0) <= 18, name
        assert list(sections)[-1] == SHARED_PANEL


def test_groups_name_options_that_there_are() -> None:
    known = {option.removeprefix("--").removeprefix("no-") for option in options()} | {"all-services"}
    assert not {name.removeprefix("no-") for names in GROUPS.values() for name in names} - known - {"breaker"}


def test_every_noun_stands_under_one_heading_in_the_order_of_the_list() -> None:
    headed = " ".join(HEADINGS.values()).split()
    assert len(headed) == len(set(headed))
    assert [name for name in headed if name in {noun.name for noun in NOUNS}] == [noun.name for noun in NOUNS]


@pytest.mark.parametrize(
    ("line", "same_as"),
    [
        ("help", "--help"),
        ("help service", "service --help"),
        ("help service add", "service add --help"),
        ("service help add", "service add --help"),
        ("service help", "service --help"),
        ("help billing invoices show", "billing invoice show --help"),
        ("help keys ls", "key list -h"),
        ("service add -h x http://a", "service add --help"),
    ],
)
def test_help_is_found_where_it_is_looked_for(gatectl: Gatectl, line: str, same_as: str) -> None:
    told = gatectl(*line.split())
    assert told == gatectl(*same_as.split())
    assert told.code == 0
    assert told.out.startswith("Usage: gatectl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("service list --limt 5", "no such option: --limt; did you mean '--limit'?"),
        ("service add a http://b --auth kye", "'kye' is not one of 'key', 'none'; did you mean 'key'?"),
        ("usage show --interval hours", "did you mean 'hour'?"),
        ("service list -o jsn", "there is no output form 'jsn'; did you mean 'json'?"),
        ("help servce", "there is no noun 'servce'; did you mean 'service'?"),
        ("help service ad", "service has no verb 'ad'; did you mean 'add'?"),
        ("service list --columns slg", "there is no column 'slg'; did you mean 'slug'?"),
        ("usage show --by servce", "did you mean 'service'?"),
        ("key delete ci", "key has no verb 'delete'; did you mean 'revoke'?"),
        ("key add", "key has no verb 'add'; did you mean 'create'?"),
        ("plan creat x", "plan has no verb 'creat'; did you mean 'add'?"),
        ("get services", "the noun comes first; did you mean 'gatectl service list'?"),
        ("get key ci", "the noun comes first; did you mean 'gatectl key show ci'?"),
        ("delete service orders", "the noun comes first; did you mean 'gatectl service remove orders'?"),
        ("create key", "the noun comes first; did you mean 'gatectl key create'?"),
        ("list", "there is no noun 'list'; it is one of status, "),
        ("audit verify --sha256", "requires an argument; see 'gatectl audit verify --help'"),
        ("api", "missing argument 'PATH'; see 'gatectl api --help'"),
        ("explain", "missing argument 'METHOD|REQUEST_ID'"),
        ("explain get", "GET needs a path; such as: gatectl explain GET /orders/42"),
        ("usage show --since 15 m", "gatectl: unexpected extra argument: m; see"),
        ("audit show x", "invalid value for 'ID': 'x' is not a whole number; see"),
        ("config show x", "'x' is not a whole number; see"),
        ("audit list --limit 0", "0 is less than 1; see"),
        ("logs --limit 0", "0 is not from 1 to 10000; see"),
        ("completion install ksh", "invalid value for 'SHELL': 'ksh' is not one of 'bash', 'zsh', 'fish'; "),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_did_you_mean(gatectl: Gatectl, line: str, said: str) -> None:
    ended = gatectl(*line.split())
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("line", ["service set", "plan set", "plan simulate", "route set"])
def test_what_is_not_named_stays_and_no_default_is_told(gatectl: Gatectl, line: str) -> None:
    own = gatectl(*line.split(), "--help").out.partition("\nOptions")[0].partition("\nArguments\n")[2]
    assert "--weight" in own or "--price" in own
    assert "--" in own and "[default: " not in own.partition("--")[2]
    assert "[default: " in gatectl(line.split()[0], "add", "--help").out


def test_an_argument_that_may_be_left_out_is_shown_so() -> None:
    for name, command in every_verb():
        for param in command.params:
            if param.param_type_name == "argument" and name != "api":  # whose path is the last of one word or two
                assert param.required != param.metavar.startswith("["), (name, param.name)


@pytest.mark.usefixtures("daemon")
def test_options_stand_before_or_after(gatectl: Gatectl) -> None:
    asked = gatectl("service", "show", "orders", "-o", "json")
    assert asked.code == 0
    for line in ("-o json service show orders", "service -o json show orders", "service show -o json orders"):
        assert gatectl(*line.split()) == asked
    assert gatectl("service", "list", "-n", "1").out == gatectl("services", "ls", "--limit", "1").out
