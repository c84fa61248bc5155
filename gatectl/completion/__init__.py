"""What completes a command line in bash, zsh and fish, answered before anything of typer is imported.

A shell's script (`scripts/`) runs gatectl with the name of the shell in `COMPLETE_VARIABLE` and the words so far as its
arguments. `table` is the grammar, written by `make completions`; `line` finds what stands at the cursor; `sources` says
where values come from, `names` asks the gateway for them; `shells` says it as the shell wants to hear it.

Somebody waits with a finger on the key, so silence is better than anything else: no gateway, a slow one, one that
forbids or that answers nonsense completes nothing, and says nothing. Here typer costs 10 times `python -c pass`, and
even `typing`, `re` and `urllib` would be dear: nothing is imported that is not needed for the word in question.
"""

from __future__ import annotations

import os
import sys

FILES = {"bash": "gatectl.bash", "zsh": "_gatectl", "fish": "gatectl.fish"}  # as each shell looks for it
# Not pathlib, which costs as much as all the rest.
SCRIPTS = os.path.join(os.path.dirname(__file__), "scripts")  # noqa: PTH118, PTH120


def answer(shell: str, words: list[str]) -> None:
    """Write what completes the last of `words`, and exit. Whatever goes wrong, nothing is written or raised."""
    try:
        from gatectl.completion import shells

        text = shells.answer(shell, words)
        if text:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.flush()
    except BaseException:  # noqa: S110 (also Ctrl-C, and a shell that has gone: there is nobody to tell)
        pass
    # Past the interpreter's end, which would wait for a thread that is late, and complain of what was not written.
    os._exit(0)
