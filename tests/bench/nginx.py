"""nginx twice: as the upstream of everything measured, and as the gateway that ours is compared with."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import cpu
from tests.daemons import READY_WITHIN_S, DaemonError, Started, started

# Everything that nginx would write elsewhere goes below its own prefix; it needs no root and leaves nothing behind.
# keepalive_requests: at the default of 1000 wrk would have to reconnect all the time.
_CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {prefix}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    access_log {access_log};
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    tcp_nodelay on;
    sendfile on;
{http}
}}
"""

# Small answers come from memory: the upstream must not be what is measured.
_UPSTREAM = """
    default_type application/json;
    open_file_cache max=16;
    open_file_cache_valid 1h;
    root {prefix}/files;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = /1k {{ return 200 "{kib}"; }}
        location = /1k-varied {{ add_header X-Served $request_id; return 200 "{kib}"; }}
    }}
"""

# Bare: what a key, a rate limit and a proxy cost at the least. No header is added, the key is hidden.
_GATEWAY = """
    map $http_x_api_key $caller {{ default ""; "{key}" "bench"; "{limited_key}" "limited"; }}
    map $caller $limited {{ default ""; "limited" "limited"; }}
    limit_req_zone $caller zone=callers:1m rate=1000000r/s;
    limit_req_zone $limited zone=limited:1m rate=1r/m;
    upstream api {{
        server {upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /bench/ {{
            if ($caller = "") {{ return 401; }}
            limit_req zone=callers burst=1000000 nodelay;
            limit_req zone=limited;
            limit_req_status 429;
            proxy_pass http://api/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-API-Key "";
        }}
        location /bench/echo {{
            if ($caller = "") {{ return 401; }}
            limit_req zone=callers burst=1000000 nodelay;
            limit_req_status 429;
            proxy_pass http://{echo};
            proxy_http_version 1.1;
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-API-Key "";
        }}
    }}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx: where it listens, and its worker."""

    port: int
    worker: int


@contextmanager
def upstream(folder: Path, core: int) -> Iterator[Nginx]:
    """An API that answers /1k, /16k and /1m with that many bytes, to any method where it is 1k."""
    prefix = folder / "upstream"
    (prefix / "files").mkdir(parents=True)
    for name, size in (("16k", 16 << 10), ("1m", 1 << 20)):
        (prefix / "files" / name).write_bytes(b"x" * size)
    port = _free_port()
    http = _UPSTREAM.format(prefix=prefix, port=port, kib="x" * 1024)
    with _nginx("upstream", prefix, http, port, core, "off") as running:
        yield running


@contextmanager
def gateway(
    folder: Path, upstream_port: int, echo_port: int, keys: tuple[str, str], core: int, *, log: bool
) -> Iterator[Nginx]:
    """nginx as a gateway to both upstreams, below /bench/, for the two keys it knows: a good and a limited one."""
    prefix = folder / "nginx"
    prefix.mkdir()
    port = _free_port()
    key, limited_key = keys
    upstream, echo = f"127.0.0.1:{upstream_port}", f"127.0.0.1:{echo_port}"
    http = _GATEWAY.format(key=key, limited_key=limited_key, upstream=upstream, echo=echo, port=port)
    access_log = f"{prefix}/access.log combined buffer=64k flush=1s" if log else "off"
    with _nginx("nginx", prefix, http, port, core, access_log) as running:
        yield running


@contextmanager
def _nginx(name: str, prefix: Path, http: str, port: int, core: int, access_log: str) -> Iterator[Nginx]:
    # Started by root, workers would become `nobody`, who cannot enter our private folder.
    user = "user root;" if os.geteuid() == 0 else ""
    config = prefix / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, prefix=prefix, access_log=access_log, http=http))
    argv = ["nginx", "-p", str(prefix), "-c", str(config)]
    with started(name, argv, prefix, cores={core}) as daemon:
        yield Nginx(port, _worker_of(daemon, port))


def _worker_of(master: Started, port: int) -> int:
    """The worker's pid, once nginx listens and has one."""
    deadline = time.monotonic() + READY_WITHIN_S
    while master.process.poll() is None and time.monotonic() < deadline:
        workers = cpu.children(master.process.pid)
        if workers and _accepts(port):
            return workers[0]
        time.sleep(0.02)
    raise DaemonError(f"{master.name} does not listen: {master.last_words()}")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    """A port that is free now: nginx can neither take one by itself nor say which."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
