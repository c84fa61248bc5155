"""`make run`: a gateway on 127.0.0.1:8080 in front of the example APIs, its state kept in .demo/, until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.daemons import ROOT, DaemonError, Gatectl, Gateway, ends_on_signals, example, gateway

LISTEN = "127.0.0.1:8080"
FOLDER = ROOT / ".demo"
_NOT_FOUND = 3  # gatectl's exit code


def _register(gatectl: Gatectl, name: str, url: str) -> None:
    """The example listens on a new port each time: add the service, or tell it where its API is now."""
    known = gatectl.run("service", "show", name).returncode != _NOT_FOUND
    gatectl.do("service", *(["set", name, "--target", url] if known else ["add", name, url]))


def _key(gatectl: Gatectl, file: Path) -> None:
    """A key to play with, made once and kept beside the state."""
    if not file.exists():
        gatectl.do("key", "create", "--name", "playground", "--out", str(file))


def _invite(running: Gateway, folder: Path) -> None:
    print(
        f"gatewayd serves {running.url}/orders/ and {running.url}/products/, its state is in {folder}. Ctrl-C ends it.",
        "In another terminal:",
        "",
        f"  export GATECTL_SOCKET={folder}/admin.sock",
        f'  curl -i -H "X-API-Key: $(cat {folder}/key)" {running.url}/orders/42',
        f"  {ROOT}/.venv/bin/gatectl usage show",
        "",
        sep="\n",
        flush=True,
    )


def main() -> int:
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with (
            ends_on_signals(),
            example("orders", FOLDER) as orders,
            example("products", FOLDER) as products,
            gateway(FOLDER, listen=LISTEN) as running,
        ):
            _register(running.gatectl, "orders", orders)
            _register(running.gatectl, "products", products)
            _key(running.gatectl, FOLDER / "key")
            _invite(running, FOLDER)
            running.daemon.process.wait()
            raise DaemonError(f"gatewayd ended: {running.daemon.last_words()}")
    except (DaemonError, OSError) as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
