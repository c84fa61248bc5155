"""`gatectl completion`: what makes a shell know gatectl's nouns, verbs, options and names."""

import os
from typing import Annotated, Literal

import typer

from gatectl import consent
from gatectl.completion import installing
from gatectl.grammar import Call, noun
from gatectl.output import Column

COLUMNS = (Column("shell"), Column("file"), Column("done"), Column("next"))


def bash(call: Call) -> None:
    """Print the script for bash 3.2 and later."""
    typer.echo(installing.script("bash"), nl=False)


def zsh(call: Call) -> None:
    """Print the script for zsh."""
    typer.echo(installing.script("zsh"), nl=False)


def fish(call: Call) -> None:
    """Print the script for fish 3.1 and later."""
    typer.echo(installing.script("fish"), nl=False)


def install(
    call: Call,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        typer.Argument(metavar="[SHELL]", help="bash, zsh or fish.  [default: that of SHELL]"),
    ] = None,
    dry_run: consent.DryRun = False,
) -> None:
    """Put the script where the shell looks for it.

    No rc file is changed: where one has to be, the line is told.
    """
    named = shell or installing.shell_of(os.environ)
    place = installing.place_of(named, os.environ)
    done = installing.install(named, place, dry_run=dry_run)
    then = f"add to {place.rc}: {place.line}" if place.line else f"start a new {named}"
    call.printer.one({"shell": named, "file": str(place.file), "done": done, "next": then}, COLUMNS)


command = noun(
    "completion",
    "What completes gatectl in bash, zsh and fish.",
    {
        "bash": (
            bash,
            ["source <(gatectl completion bash)", "gatectl completion bash > /etc/bash_completion.d/gatectl"],
        ),
        "zsh": (zsh, ["source <(gatectl completion zsh)", "gatectl completion zsh > ~/.zfunc/_gatectl"]),
        "fish": (fish, ["gatectl completion fish | source", "gatectl completion fish > ~/gatectl.fish"]),
        "install": (install, ["gatectl completion install", "gatectl completion install zsh --dry-run"]),
    },
)
