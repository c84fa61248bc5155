"""gatectl run many times from one interpreter that has imported it all: a process each, but no start of one.

`python -m tests.gatectl.many SPEC.json` forks for each command line of the file, gives the child descriptors of its own
(and another user where that is asked for), and lets it end as it would. It prints what came of each. To start an
interpreter takes a tenth of a second, and there are a hundred commands, each in a dozen kinds of trouble. Nothing of
pytest is imported here, which would have something to do at the end.
"""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import gatectl

ROOT = Path(__file__).parent.parent.parent
_WITHIN_S = 40
# Of the interpreter: nobody who installs gatectl has them, and unbuffered output fails in other places.
_OURS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")

# These make the process so large that to fork it and to end it takes longer than to start one, and register something
# to be done at the end, which is then another end than that of all else.
_HEAVY = ("gatectl.billing.fonts", "gatectl.billing.pdf")


class Line(NamedTuple):
    """A command line, what is on its standard input, and what may be in place of its outputs ("" closes one)."""

    words: Sequence[str]
    typed: str = ""
    stdout: str | None = None
    stderr: str | None = None


def run_all(
    lines: Sequence[Line], folder: Path, environment: Mapping[str, str], user: int | None = None
) -> list[tuple[int, str, str]]:
    """Exit code and outputs of each, one after the other, in this folder."""
    spec = folder / "many.json"
    spec.write_text(json.dumps({"lines": lines, "user": user}))
    environment = {name: value for name, value in environment.items() if name not in _OURS}
    done = subprocess.run(
        [sys.executable, "-m", "tests.gatectl.many", str(spec)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def _main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    for module in pkgutil.walk_packages(gatectl.__path__, "gatectl."):
        if module.name not in _HEAVY:
            import_module(module.name)
    answers = []
    for each in spec["lines"]:
        line = Line(*each)
        outputs = (line.stdout or "out", line.stderr or "err")
        child = os.fork()
        if child == 0:
            _become(line, outputs, spec["user"])
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.append([code, *(_written(name) for name in outputs)])
    print(json.dumps(answers))


def _become(line: Line, outputs: tuple[str, str], user: int | None) -> None:
    """What the console script would be."""
    sys.argv[1:] = line.words
    Path("in").write_text(line.typed)
    for number, name in enumerate(("in", *outputs)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    if line.stdout == "":
        os.close(1)
        sys.stdout = None
    if line.stderr == "":
        os.close(2)
        sys.stderr = None
    if user is not None:
        os.setgroups([])
        os.setresuid(user, user, user)
    import_module("gatectl.__main__").main()


def _written(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        return ""
    text = path.read_text()
    path.unlink()
    return text


if __name__ == "__main__":
    _main()
