"""Where each shell looks for a completion, and putting it there. Nobody's rc file is touched: its owner is told."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gatectl.completion import FILES, SCRIPTS
from gatectl.errors import GatectlError, MisuseError
from gatectl.files import file_written

_MARK = "_GATECTL_COMPLETE"  # in every script of ours, those of older versions too
_COMPINIT = "autoload -Uz compinit && compinit"
_ZSH_WITHIN_S = 5.0  # its rc file may do anything
# Of Linux, of Homebrew on ARM and on Intel.
_BASH_COMPLETION = (
    "/usr/share/bash-completion/bash_completion",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
    "/usr/local/etc/profile.d/bash_completion.sh",
)


class Place(NamedTuple):
    """A file that a shell reads by itself, or once `line` is in `rc`."""

    file: Path
    rc: str = ""
    line: str = ""


def script(shell: str) -> str:
    """The script of a shell."""
    return (Path(SCRIPTS) / FILES[shell]).read_text(encoding="utf-8")


def shell_of(environment: Mapping[str, str]) -> str:
    """The shell that its user logs in with."""
    name = Path(environment.get("SHELL", "")).name
    if name not in FILES:
        what = f"SHELL is {name!r}, which gatectl has no completion for" if name else "SHELL is not set"
        raise MisuseError(what, f"name one of {', '.join(FILES)}")
    return name


def place_of(shell: str, environment: Mapping[str, str]) -> Place:
    """Where the script belongs."""
    return _PLACES[shell](environment)


def install(shell: str, place: Place, *, dry_run: bool) -> str:
    """Write the script there, unless it is there; what was done."""
    wanted = script(shell)
    try:
        found = place.file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        found = ""
    except OSError as error:
        raise GatectlError(f"cannot read {place.file}: {error.strerror}") from None
    if found == wanted:
        return "it was there already"
    if found and _MARK not in found:
        raise GatectlError(f"{place.file} is not one that gatectl wrote", "move it away first")
    if dry_run:
        return "it would be replaced" if found else "it would be written"
    try:
        place.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GatectlError(f"cannot make {place.file.parent}: {error.strerror}") from None
    with file_written(str(place.file)) as file:
        file.write(wanted.encode())
    return "replaced an older one" if found else "written"


def _bash(environment: Mapping[str, str]) -> Place:
    own = environment.get("BASH_COMPLETION_USER_DIR", "").split(":")[0]
    folder = Path(own) if own else _data_home(environment) / "bash-completion"
    file = folder / "completions" / "gatectl"
    if any(Path(loader).exists() for loader in _BASH_COMPLETION):
        return Place(file)
    return Place(file, "~/.bashrc", f"source {_quoted(file)}")


def _zsh(environment: Mapping[str, str]) -> Place:
    """A folder that zsh reads and that is this user's to write: one of its home, or for root one of the system."""
    home = str(_home(environment))
    searched, completes = _ask_zsh(environment)
    told = ("", "") if completes else ("~/.zshrc", _COMPINIT)
    writable = [folder for folder in searched if os.access(folder, os.W_OK)]
    for folder in (*(each for each in writable if each.startswith(home + "/")),
                   *(each for each in writable if each.endswith("/site-functions"))):  # fmt: skip
        return Place(Path(folder) / FILES["zsh"], *told)
    folder = str(_data_home(environment) / "zsh" / "site-functions")
    file = Path(folder) / FILES["zsh"]
    if folder in searched:
        return Place(file, *told)
    return Place(file, "~/.zshrc", f"fpath=({_quoted(folder)} $fpath); {_COMPINIT}")


def _ask_zsh(environment: Mapping[str, str]) -> tuple[list[str], bool]:
    """Where this user's zsh looks, which only it knows, and whether it completes at all, which is its rc file's work.

    A new user's does not: neither Debian nor macOS has `compinit` in the system's rc file.
    """
    if not shutil.which("zsh"):
        return [], False
    try:
        asked = subprocess.run(
            ["zsh", "-ic", r"print -rl -- compdef=$+functions[compdef] $fpath"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ZSH_WITHIN_S,
            start_new_session=True,  # an interactive shell would take the terminal
        )
    except (OSError, subprocess.TimeoutExpired):
        return [], False
    lines = asked.stdout.decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith("/")], "compdef=1" in lines


def _fish(environment: Mapping[str, str]) -> Place:
    config = environment.get("XDG_CONFIG_HOME") or _home(environment) / ".config"
    return Place(Path(config) / "fish" / "completions" / FILES["fish"])


def _data_home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_DATA_HOME") or _home(environment) / ".local" / "share")


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or Path.home())


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))


_PLACES: Mapping[str, Callable[[Mapping[str, str]], Place]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
