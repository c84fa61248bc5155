"""`python -m tests.examples orders|products [--host 127.0.0.1] [--port 0]`: prints its port once it listens."""

from __future__ import annotations

import argparse
import os
import socket
import sys

import uvicorn

from tests.examples import orders, products

APPS = {"orders": orders.app, "products": products.app}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.examples", description="Run one of the example APIs.")
    parser.add_argument("name", choices=sorted(APPS))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    try:
        listener = socket.create_server((options.host, options.port), backlog=1024)
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    # The socket listens already: whoever reads this line can connect, and waits until the app is up.
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(APPS[options.name](), log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
