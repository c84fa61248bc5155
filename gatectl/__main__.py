"""The console script.

Answers completion and `--version` before anything is imported: typer alone costs 6 times `python -c pass`, and 7
where the interpreter also takes it apart again. Nor does the far side of an `ssh://` gateway need it (`relay`).
"""

import gc
import os
import sys

from gatectl import COMPLETE_VARIABLE, __version__

# Imports make some 20,000 objects that stay; to look through them 40 times is a fourteenth of `gatectl service list`.
_COLLECT_EVERY = 100_000


def main() -> None:
    """Run the command line of this process and exit with its code."""
    shell = os.environ.get(COMPLETE_VARIABLE)
    if shell:
        from gatectl.completion import answer

        answer(shell, sys.argv[1:])
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        sys.stdout.write(f"gatectl {__version__}\n")
        return
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

    threading = sys.modules.get("threading")
    if atexit._ncallbacks() or sys.getprofile() or sys.gettrace() or (threading and threading.active_count() > 1):
        sys.exit(code)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)  # and let the interpreter say what it has to say
    os._exit(code)


if __name__ == "__main__":
    main()
