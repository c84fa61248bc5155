"""`gatectl completion`: the scripts, and where they are put."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatectl.completion import FILES
from tests.gatectl.conftest import Gatectl
from tests.gatectl.test_shells import SHELLS, Start, completed
from tests.reference.files import ROOT


@pytest.fixture
def gatectl(gatectl: Gatectl, folder: Path) -> Gatectl:
    """With a home of its own."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "FPATH", "ZDOTDIR"):
        gatectl.environment.pop(name, None)
    gatectl.environment |= {"HOME": str(folder), "SHELL": "/bin/bash"}
    return gatectl


def installed(gatectl: Gatectl, *arguments: str, **environment: str) -> dict[str, Any]:
    ended = gatectl("completion", "install", *arguments, "-o", "json", **environment)
    assert (ended.code, ended.err) == (0, "")
    told: dict[str, Any] = json.loads(ended.out)
    return told


@pytest.mark.parametrize("shell", FILES)
def test_the_script_is_printed(gatectl: Gatectl, shell: str) -> None:
    assert gatectl("completion", shell) == (0, (ROOT / "completions" / FILES[shell]).read_text(), "")


@pytest.mark.parametrize(
    ("shell", "variable", "file"),
    [
        ("bash", "", ".local/share/bash-completion/completions/gatectl"),
        ("bash", "XDG_DATA_HOME", "elsewhere/bash-completion/completions/gatectl"),
        ("bash", "BASH_COMPLETION_USER_DIR", "elsewhere/completions/gatectl"),
        ("fish", "", ".config/fish/completions/gatectl.fish"),
        ("fish", "XDG_CONFIG_HOME", "elsewhere/fish/completions/gatectl.fish"),
    ],
)
def test_it_is_put_where_the_shell_looks(gatectl: Gatectl, folder: Path, shell: str, variable: str, file: str) -> None:
    environment = {"SHELL": f"/usr/bin/{shell}"} | ({variable: str(folder / "elsewhere")} if variable else {})
    assert installed(gatectl, "--dry-run", **environment)["done"] == "it would be written"
    assert not (folder / file).exists()
    told = installed(gatectl, **environment)
    assert (told["shell"], told["file"], told["done"]) == (shell, str(folder / file), "written")
    assert (folder / file).read_text() == (ROOT / "completions" / FILES[shell]).read_text()
    assert installed(gatectl, **environment)["done"] == "it was there already"
    (folder / file).write_text("# an older one: _GATECTL_COMPLETE\n")
    assert installed(gatectl, **environment)["done"] == "replaced an older one"


def test_zsh_is_told_the_line_that_it_needs(gatectl: Gatectl, folder: Path) -> None:
    """Here there is no zsh that could tell where it looks."""
    told = installed(gatectl, "zsh", PATH=str(folder))
    assert told["file"] == f"{folder}/.local/share/zsh/site-functions/_gatectl"
    assert told["next"].startswith(f"add to ~/.zshrc: fpath=({folder}/.local/share/zsh/site-functions $fpath)")
    assert not (folder / ".zshrc").exists()


@pytest.mark.slow
def test_a_zsh_that_completes_nothing_yet_is_told_so(gatectl: Gatectl, folder: Path) -> None:
    """A new user's, whose rc file is empty; by the line that is told it is another."""
    own = "fpath=(~/.zfunc $fpath)\n"
    (folder / ".zfunc").mkdir()
    (folder / ".zshenv").write_text("skip_global_compinit=1\n")
    (folder / ".zshrc").write_text(own)
    told = installed(gatectl, "zsh")
    assert told["next"] == "add to ~/.zshrc: autoload -Uz compinit && compinit"
    (folder / ".zshrc").write_text(f"{own}{told['next'].partition(': ')[2]} -u\n")
    again = installed(gatectl, "zsh")
    assert (again["file"], again["done"], again["next"]) == (told["file"], "it was there already", "start a new zsh")


def test_what_is_not_ours_stays(gatectl: Gatectl, folder: Path) -> None:
    file = folder / ".config" / "fish" / "completions" / "gatectl.fish"
    file.parent.mkdir(parents=True)
    file.write_text("complete -c gatectl -a mine\n")
    ended = gatectl("completion", "install", "fish")
    assert ended == (1, "", f"gatectl: {file} is not one that gatectl wrote; move it away first\n")
    assert file.read_text() == "complete -c gatectl -a mine\n"


def test_mistakes_are_one_line(gatectl: Gatectl, folder: Path) -> None:
    gatectl.environment["SHELL"] = "/bin/csh"
    ended = gatectl("completion", "install")
    assert ended.code == 2
    assert ended.err == "gatectl: SHELL is 'csh', which gatectl has no completion for; name one of bash, zsh, fish\n"
    del gatectl.environment["SHELL"]
    assert gatectl("completion", "install").err == "gatectl: SHELL is not set; name one of bash, zsh, fish\n"
    (folder / "file").write_text("")
    ended = gatectl("completion", "install", "fish", XDG_CONFIG_HOME=str(folder / "file"))
    assert (ended.code, ended.err.count("\n")) == (1, 1)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(("start", "script"), SHELLS)
def test_an_installed_one_works(gatectl: Gatectl, folder: Path, start: Start, script: str, request: Any) -> None:
    """By the line that it is told, if any: bash with bash-completion where there is one, zsh in a folder of its own."""
    shell = request.node.callspec.id
    own = "fpath=(~/.zfunc $fpath)"
    if shell == "zsh":
        (folder / ".zfunc").mkdir()
        (folder / ".zshrc").write_text(own)
    told = installed(gatectl, shell)
    assert Path(told["file"]).is_relative_to(folder)
    loader = {"bash": "source /usr/share/bash-completion/bash_completion 2>/dev/null", "zsh": own}
    lines = [loader.get(shell, ""), told["next"].partition(": ")[2]]
    with start(folder, gatectl.environment, *lines) as at_terminal:
        completed(at_terminal, "gatectl service show o", "gatectl service show orders ")
