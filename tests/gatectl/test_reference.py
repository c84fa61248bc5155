"""What is written from the grammar is what would be written now."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.gatectl.conftest import Gatectl
from tests.reference.files import ROOT, wanted_files

FILES = dict(wanted_files())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_fresh(path: Path) -> None:
    assert path.read_text() == FILES[path], "write it anew: make completions"


def test_nothing_is_left_over() -> None:
    for folder in {path.parent for path in FILES} - {ROOT / "gatectl" / "completion", ROOT, ROOT / "gatectl"}:
        assert set(folder.iterdir()) == {path for path in FILES if path.parent == folder}


def test_a_second_opinion_finds_no_command_that_is_not_in_it(gatectl: Gatectl) -> None:
    """typer-cli walks the same grammar on its own."""
    typer = [sys.executable, "-m", "typer", "gatectl.app", "utils", "docs", "--name", "gatectl"]
    shown = subprocess.run(typer, env=gatectl.environment, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^##+ `(gatectl [^`]+)`$", shown, re.MULTILINE)
    assert len(commands) > 60
    reference = FILES[ROOT / "gatectl" / "REFERENCE.md"]
    headings = re.findall(r"^##+ (gatectl .+)$", reference, re.MULTILINE)
    assert sorted(commands) == sorted(headings)
    options = set(re.findall(r"^\* `[^`]*?(--[a-z-]+)", shown, re.MULTILINE)) - {"--version", "--help"}
    assert len(options) > 100
    assert options <= set(re.findall(r"--[a-z-]+", reference))


def test_a_wheel_puts_each_where_it_is_looked_for(tmp_path: Path) -> None:
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert shared["shared-data"] == {
        "completions/gatectl.bash": "share/bash-completion/completions/gatectl",
        "completions/_gatectl": "share/zsh/site-functions/_gatectl",
        "completions/gatectl.fish": "share/fish/vendor_completions.d/gatectl.fish",
        "gatectl/man": "share/man",
    }
    assert all((ROOT / source).exists() for source in shared["shared-data"])
