"""The console script.

Answers completion and `--version` before anything is imported: typer alone costs 6 times `python -c pass`, and 7
where the interpreter also takes it apart again. Nor does the far side of an `ssh://` gateway need it (`relay`).
"""

import gc
import os
import sys

from gatectl import COMPLETE_VARIABLE, __version__

TYPE_CHECKING = False  # `typing` costs 0.4 `python -c pass`
if TYPE_CHECKING:
    from typing import TextIO

# Imports make some 20,000 objects that stay; to look through them 40 times is a fourteenth of `gatectl service list`.
_COLLECT_EVERY = 100_000


def main() -> None:
    """Run the command line of this process and exit with its code."""
    shell = os.environ.get(COMPLETE_VARIABLE)
    if shell:
        from gatectl.completion import answer

        answer(shell, sys.argv[1:])
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        try:
            sys.stdout.write(f"gatectl {__version__}\n")
            sys.stdout.flush()
            return
        except OSError:
            pass  # `run` comes to the same, and says what it is
    if sys.argv[1:2] == ["relay"] and sys.stdin is not None and sys.stdout is not None:
        from gatectl import relay

        sys.exit(relay.run(sys.argv[2:]))
    gc.set_threshold(_COLLECT_EVERY)
    try:
        from gatectl.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while importing; `run` answers for the rest
        code = 130
    _end(code)


def _end(code: int) -> None:
    """Exit at once. To take 400 modules apart one by one is a fourth of `gatectl service list`, and nobody needs it.

    What still has something to do at the end gets the usual one: other threads, exit handlers, profilers.
    """
    import atexit

    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except KeyboardInterrupt:  # whoever was to read it does not
            os._exit(130)
        except (OSError, ValueError):
            _let_go(stream)
    threading = sys.modules.get("threading")
    if atexit._ncallbacks() or sys.getprofile() or sys.gettrace() or (threading and threading.active_count() > 1):
        sys.exit(code)
    os._exit(code)


def _let_go(stream: "TextIO") -> None:
    """What cannot be written has been told. The interpreter would try once more, complain, and exit with 120."""
    from contextlib import suppress

    with suppress(OSError, ValueError):  # it is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
