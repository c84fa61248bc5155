"""Completion in real shells: a part is typed, Tab is pressed, the screen is read.

bash is everywhere; zsh and fish need an installation, and are driven by `make test-all`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from gatectl.completion import SCRIPTS
from tests.gatectl import shells
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon, key
from tests.gatectl.shells import Shell

Start = Callable[..., AbstractContextManager[Shell]]
TAB, TWICE = "\t", "\t\t"

SHELLS = [
    pytest.param(shells.bash, f"source {SCRIPTS}/gatectl.bash", id="bash"),
    pytest.param(shells.zsh, f"source {SCRIPTS}/_gatectl", id="zsh", marks=pytest.mark.slow),
    pytest.param(shells.fish, f"source {SCRIPTS}/gatectl.fish", id="fish", marks=pytest.mark.slow),
]


def completed(shell: Shell, typed: str, becomes: str) -> None:
    shell.clear()
    shell.press(typed)
    assert shell.typed(typed), shell
    shell.press(TAB)
    assert shell.typed(becomes), f"{typed!r} became {shell.line!r}, not {becomes!r}\n{shell!r}"


def listed(shell: Shell, typed: str, *texts: str) -> None:
    shell.clear()
    shell.press(typed)
    assert shell.typed(typed), shell
    shell.press(TWICE)
    assert shell.shows(*texts), shell


def silent(shell: Shell, typed: str) -> None:
    """Nothing at all: neither a name nor an error, and the line as it was."""
    shell.clear()
    shell.press(typed)
    assert shell.typed(typed), shell
    shell.press(TWICE)
    shell.settle()
    assert (shell.line, shell.screen) == (typed, [f"{shells.PROMPT}{typed}".rstrip()]), shell


@pytest.mark.parametrize(("start", "script"), SHELLS)
def test_nouns_verbs_options_names_and_files(
    gatectl: Gatectl, daemon: FakeDaemon, folder: Path, start: Start, script: str
) -> None:
    daemon.state["keys"].append(key("de45gh67", "my key: 1", [], None))
    (folder / "secrets-of-mine.csv").write_text("secret\n")
    with start(folder, gatectl.environment, script, f"cd {folder}") as shell:
        listed(shell, "gatectl ", "service", "tenant", "explain")
        completed(shell, "gatectl serv", "gatectl service ")
        completed(shell, "gatectl service he", "gatectl service health ")
        completed(shell, "gatectl keys rev", "gatectl keys revoke ")
        completed(shell, "gatectl service list --no-h", "gatectl service list --no-header ")
        completed(shell, "gatectl service list -o nd", "gatectl service list -o ndjson ")
        completed(shell, "gatectl service list --output=nd", "gatectl service list --output=ndjson ")
        space = " " * (start is shells.fish)  # which always ends a word so; in the others a comma may follow
        whole = f"gatectl service list --columns slug,connect_timeout_s{space}"
        completed(shell, "gatectl service list --columns slug,conn", whole)
        listed(shell, "gatectl service show ", "orders", "products")
        completed(shell, "gatectl service show o", "gatectl service show orders ")
        completed(shell, "gatectl -t acme service show prod", "gatectl -t acme service show products ")
        assert daemon.requests[-1][2]["tenant"] == "acme"
        completed(shell, "gatectl key show gw_a", "gatectl key show gw_ab12cd34 ")
        completed(shell, "gatectl service drain http://127.0.0.1:8003", "gatectl service drain http://127.0.0.1:8003 ")
        completed(shell, "gatectl key import secr", "gatectl key import secrets-of-mine.csv ")
        completed(shell, "gatectl key create --out secr", "gatectl key create --out secrets-of-mine.csv ")
        completed(shell, "gatectl key create --out=secr", "gatectl key create --out=secrets-of-mine.csv ")
        name_as_word(shell)


def name_as_word(shell: Shell) -> None:
    """A name with spaces and a colon becomes one word, plain and within a quote."""
    escaped = r"my\ key:\ 1"
    completed(shell, "gatectl key show my", f"gatectl key show {escaped} ")
    completed(shell, r"gatectl key show my\ k", f"gatectl key show {escaped} ")
    completed(shell, "gatectl key show 'my k", "gatectl key show 'my key: 1' ")


@pytest.mark.parametrize(("start", "script"), SHELLS)
def test_a_name_within_quotes_is_only_a_name(
    gatectl: Gatectl, daemon: FakeDaemon, folder: Path, start: Start, script: str
) -> None:
    names = ("a$(id)", 'say "hi"', "it's")
    daemon.state["keys"] = [key(f"ab12cd3{number}", name, [], None) for number, name in enumerate(names, 4)]
    with start(folder, gatectl.environment, script) as shell:
        completed(shell, 'gatectl key show "a', r'gatectl key show "a\$(id)" ')
        completed(shell, 'gatectl key show "s', r'gatectl key show "say \"hi\"" ')
        within = r"'it\'s'" if start is shells.fish else r"'it'\''s'"
        completed(shell, "gatectl key show 'i", f"gatectl key show {within} ")


@pytest.mark.parametrize(("start", "script"), SHELLS)
def test_silent_without_a_daemon(gatectl: Gatectl, folder: Path, start: Start, script: str) -> None:
    (folder / "a-file").write_text("")
    with start(folder, gatectl.environment, script, f"cd {folder}") as shell:
        silent(shell, "gatectl service show ")
        silent(shell, "gatectl key revoke x")
        silent(shell, "gatectl nonsense ")
        completed(shell, "gatectl service sh", "gatectl service show ")
