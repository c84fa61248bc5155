"""Completion for bash, zsh and fish: the scripts in completions/ and the answers they ask for.

`python -m gatectl.completion DIRECTORY` writes the scripts anew; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer._completion_classes import completion_init  # typer registers its shells nowhere that is public
from typer._completion_shared import get_completion_script
from typer.completion import shell_complete

from gatectl import COMPLETE_VARIABLE

# Where each shell looks for it by name.
FILES: Mapping[str, str] = {"bash": "gatectl.bash", "zsh": "_gatectl", "fish": "gatectl.fish"}


def answer(root: Any, question: str) -> int:
    """Print what completes the command line that the shell's script put into the environment."""
    completion_init()
    return shell_complete(root, {}, "gatectl", COMPLETE_VARIABLE, question)


def script(shell: str) -> str:
    """The script for a shell."""
    return get_completion_script(prog_name="gatectl", complete_var=COMPLETE_VARIABLE, shell=shell).strip() + "\n"


def write_scripts(directory: Path) -> None:
    """Write the scripts of all shells."""
    for shell, name in FILES.items():
        (directory / name).write_text(script(shell))


if __name__ == "__main__":
    write_scripts(Path(sys.argv[1]))
