"""The console script.

Answers completion and `--version` before anything is imported: typer alone costs 4.5 times `python -c pass`. Nor does
the far side of an `ssh://` gateway need it (`relay`).
"""

import os
import sys

from gatectl import COMPLETE_VARIABLE, __version__


def main() -> None:
    """Run the command line of this process and exit with its code."""
    shell = os.environ.get(COMPLETE_VARIABLE)
    if shell:
        from gatectl.completion import answer

        answer(shell, sys.argv[1:])
        return
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        sys.stdout.write(f"gatectl {__version__}\n")
        return
    if sys.argv[1:2] == ["relay"] and sys.stdin is not None and sys.stdout is not None:
        from gatectl import relay

        sys.exit(relay.run(sys.argv[2:]))
    try:
        from gatectl.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while importing; `run` answers for the rest
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
