"""`gatewayd` and `python -m gatewayd`."""

import sys


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # without importing what serves
        from gatewayd import __version__

        print(f"gatewayd {__version__}")  # noqa: T201
        return
    from gatewayd.cli import main as run

    run()


if __name__ == "__main__":
    main()
