"""Gateways whose listener is more than a socket: TLS, trusted proxies, PROXY headers; real daemons, real clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import trustme

from tests.daemons import Gateway, gateway

MIB = 1 << 20


class Telling(BaseHTTPRequestHandler):
    """Tells what it was sent: a GET its headers, a POST its body; /big is a mebibyte, /slow takes a second."""

    protocol_version = "HTTP/1.1"
    slow_began: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.slow_began.set()
            time.sleep(1)
        body = b"x" * MIB if self.path == "/big" else json.dumps(list(self.headers.items())).encode()
        self.answer(body)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Telling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Pki:
    """An authority with a certificate for the gateway, and one for a client."""

    folder: Path
    authority: trustme.CA
    clients: trustme.CA

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.clients = trustme.CA(), trustme.CA()
        self.cert, self.key, self.client_ca = folder / "cert.pem", folder / "key.pem", folder / "clients.pem"
        self.client_pair, self.stranger_pair = folder / "client.pem", folder / "stranger.pem"
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.clients.cert_pem.write_to_path(str(self.client_ca))
        self.clients.issue_cert("client@example").private_key_and_cert_chain_pem.write_to_path(str(self.client_pair))
        trustme.CA().issue_cert("x@example").private_key_and_cert_chain_pem.write_to_path(str(self.stranger_pair))
        self.renew()

    def renew(self) -> None:
        issued = self.authority.issue_cert("localhost", "127.0.0.1", "::1")
        issued.private_key_pem.write_to_path(str(self.key))
        issued.cert_chain_pems[0].write_to_path(str(self.cert))

    @property
    def options(self) -> list[str]:
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]

    def context(self, pair: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair is not None:
            context.load_cert_chain(pair)
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    folder = tmp_path / "pki"
    folder.mkdir()
    return Pki(folder)


class Door:
    """A gateway with the telling upstream as service `api`, open to all."""

    def __init__(self, running: Gateway, pki: Pki) -> None:
        self.gateway = running
        self.pki = pki
        self.url = running.url

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def log(self) -> str:
        return self.gateway.daemon.output()

    def curl(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ["curl", "-sS", "--max-time", "10", "--cacert", str(self.pki.ca), *options, f"{self.url}{path}"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30)

    def told(self, *options: str) -> dict[str, str]:
        """The headers that the upstream got, names in lower case. None of ours comes twice."""
        run = self.curl("/api/", *options)
        assert run.returncode == 0, run.stderr
        names = [name.lower() for name, _ in json.loads(run.stdout)]
        assert len(names) == len(set(names))
        return {name.lower(): value for name, value in json.loads(run.stdout)}

    def connect(self, before: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
        connection = socket.create_connection((host, self.port), timeout=10)
        connection.sendall(before)
        return connection

    def encrypted(self, before: bytes = b"", pair: Path | None = None) -> ssl.SSLSocket:
        return self.pki.context(pair).wrap_socket(self.connect(before), server_hostname="localhost")

    def terminate(self) -> None:
        os.kill(self.gateway.daemon.process.pid, signal.SIGTERM)

    def roll(self) -> None:
        before = self.log.count("workers were replaced")
        os.kill(self.gateway.daemon.process.pid, signal.SIGHUP)
        wait_until(lambda: self.log.count("workers were replaced") > before)


NewDoor = Callable[..., Door]


@pytest.fixture
def new_door(tmp_path: Path, pki: Pki, upstream: str) -> Iterator[NewDoor]:
    with doors(tmp_path, pki, upstream) as start:
        yield start


@contextmanager
def doors(folder: Path, pki: Pki, upstream: str) -> Iterator[NewDoor]:
    """Starts gateways. At their end no process of theirs may have written a traceback, or a private key."""
    with ExitStack() as stack:

        def start(*options: str, settings: str = "", **other: Any) -> Door:
            file = folder / "gatewayd.toml"
            file.write_text(settings)
            options = (*options, "--config", str(file))
            running = stack.enter_context(_watched(folder, pki, options, other))
            running.gatectl.do("service", "add", "api", upstream, "--auth", "none")
            running.gatectl.do("service", "add", "small", upstream, "--auth", "none", "--body-limit", "1000")
            return Door(running, pki)

        yield start


@contextmanager
def _watched(folder: Path, pki: Pki, options: tuple[str, ...], other: dict[str, Any]) -> Iterator[Gateway]:
    secret = pki.key.read_text().splitlines()[1]  # now: a test may spoil the file
    with gateway(folder, options=options, workers=other.pop("workers", 1), **other) as running:
        yield running
    log = running.daemon.output()
    assert "Traceback" not in log, log
    assert "returning true from eof_received" not in log
    assert "PRIVATE" not in log
    assert secret not in log


def wait_until(condition: Callable[[], bool], patience_s: float = 15.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer that says its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    while len(body) < length:
        piece = connection.recv(65536)
        assert piece, "cut short"
        body += piece
    assert len(body) == length
    return int(head.split(b" ")[1]), body
