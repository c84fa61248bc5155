"""The README keeps its word: its commands work as written, and what there is to know is in it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gatectl.app import NOUNS
from gatectl.errors import REFUSED
from gatectl.price_options import price_fields
from gatewayd.control.admin.plan_prices import AskedPrice, new_terms
from gatewayd.errors import PROBLEMS, Problem
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Subscription, Usage, charges, total_nanos
from gatewayd.settings import Settings
from tests import daemons
from tests.terminal import Terminal

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
ADMIN_PROBLEMS_FROM = 100
# What differs from one run to the next: ids, hashes, times, counts, amounts, and the padding that follows from them.
_VARYING = re.compile(r"just now|\d+ min ago|\b(?:gw|key|pln|rte|svc)_\w+|\b[0-9a-f]{64}\b|\d[\d,.:TZ-]*")


def transcript() -> list[tuple[str, list[str]]]:
    """Commands of the `console` blocks in their order, each with the lines that it is said to print."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


def shape(lines: list[str]) -> list[str]:
    return [" ".join(_VARYING.sub("#", line).split()) for line in lines if line.strip()]


def test_every_command_of_the_transcript_prints_what_it_says(tmp_path: Path) -> None:
    commands = transcript()
    assert len(commands) > 5
    with daemons.example("orders", tmp_path) as upstream, daemons.gateway(tmp_path) as gateway:
        for command, expected in commands:
            shown = shlex.split(command.replace("http://127.0.0.1:8001", upstream))
            assert shown[0] == "gatectl"
            codes = (REFUSED,) if shown[1] == "explain" else (0,)
            printed = Terminal().run(shown, [*gateway.gatectl.argv, *shown[1:]], gateway.gatectl.environment, codes)
            assert shape(printed.splitlines()) == shape(expected), command
            if shown[1:3] == ["key", "create"]:
                call_as_the_readme_does(gateway.url, printed.split()[0])


def call_as_the_readme_does(url: str, key: str) -> None:
    with httpx.Client(headers={"X-API-Key": key}) as client:
        answers = [client.get(f"{url}/orders/42") for _ in range(12)]
    assert [answer.status_code for answer in answers][:10] == [200] * 10
    refused = answers[-1]
    assert refused.status_code == 429
    for name, value in re.findall(r"^(RateLimit[\w-]*|X-RateLimit-Limit|Retry-After): (.*)$", README, re.MULTILINE):
        assert shape([value]) == shape([refused.headers[name]])


def test_every_noun_and_verb_of_gatectl_is_in_it() -> None:
    for noun in NOUNS:
        assert f"`gatectl {noun.name} " in README or f"`gatectl {noun.name}`" in README


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.number < ADMIN_PROBLEMS_FROM], ids=lambda p: p.code)
def test_every_problem_of_the_data_plane_is_in_it(problem: Problem) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| {problem.status} "))
    assert f"`{problem.code}`" in row


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_it_with_its_description(name: str) -> None:
    field = Settings.model_fields[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` "))
    assert row.endswith(f"| {field.description} |")
    if isinstance(field.default, int | str):
        assert (str(field.default).lower() if isinstance(field.default, bool) else str(field.default)) in row


def test_the_worked_bill_is_what_the_plan_in_it_charges() -> None:
    section = README.partition("\n### Prices\n")[2].partition("\n### ")[0]
    words = shlex.split(section.partition("```\n")[2].partition("\n```")[0])
    given: dict[str, Any] = {"tier": [value for option, value in pairwise(words) if option == "--tier"]}
    for option, value in pairwise(words):
        if option.startswith("--") and option != "--tier":
            given[option[2:].replace("-", "_")] = value
    terms = new_terms(msgspec.convert(price_fields(given), AskedPrice))
    orders, products = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+)(?: billable requests)? to `", section)
    )
    usage = [Usage(1, 1, 1, 0, orders, orders, 0), Usage(1, 2, 1, 0, products, products, 0)]
    lines = charges(usage, [Subscription(1, 1)], {1: terms})
    services = ("", "orders, ", "products, ")
    charged = [
        f"| {services[line.service_id]}{line.kind}{f' {line.tier}' if line.tier else ''} | {line.quantity:,} "
        f"| {format_nanos(line.each_nanos)} | {format_nanos(line.nanos)} |"
        for line in lines
    ]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    assert table[1:] == [*charged, f"| total | | | {format_nanos(total_nanos(lines))} |"]


def test_its_usage_line_names_every_option_of_gatewayd() -> None:
    help_text = subprocess.run([sys.executable, "-m", "gatewayd", "--help"], capture_output=True, text=True).stdout
    for option in set(re.findall(r"--[a-z-]+", help_text)) - {"--help", "--version"}:
        assert re.search(rf"\[{option}[ \]]", README), option
