"""An upstream with something for every client: an echo, a file, events, a package index, git over HTTP by its CGI.

It runs in threads of the tests' own process, so that a test can look at it while it serves.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILE = bytes(range(256)) * 64
EVENTS = 5
PATIENCE_S = 5.0


class Site(ThreadingHTTPServer):
    """Listens on a free port; `folder` holds `git/` (bare repositories) and `index/` (a package index)."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.event_seen = threading.Semaphore(0)  # a test says that its client has the event
        self.events_in_time = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client or gateway that leaves is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: object) -> None:
        """The tests look at answers."""

    def answer(self, body: bytes, *fields: tuple[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self) -> None:
        body = self.body()
        match self.path.partition("?")[0].split("/")[1]:
            case "echo":
                self.echo(body)
            case "gzip":
                self.answer(gzip.compress(FILE), ("Content-Encoding", "gzip"))
            case "file":
                self.file()
            case "events":
                self.events()
            case "index":
                self.index()
            case "git":
                self.git(body)
            case _:
                self.answer(b"", status=404)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve  # noqa: N815

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def echo(self, body: bytes) -> None:
        said = {
            "method": self.command,
            "target": self.path,
            "headers": self.headers.items(),
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        self.answer(json.dumps(said).encode(), ("Content-Type", "application/json"))

    def file(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return self.answer(FILE, ("Accept-Ranges", "bytes"))
        first, last = int(wanted[1]), int(wanted[2])
        return self.answer(
            FILE[first : last + 1], ("Content-Range", f"bytes {first}-{last}/{len(FILE)}"), status=206
        )  # fmt: skip

    def events(self) -> None:
        """Each event goes out only when the client is known to have the one before."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            event = b"id: %d\ndata: event %d\n\n" % (number, number)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            if not self.server.event_seen.acquire(timeout=PATIENCE_S):
                break
            self.server.events_in_time += 1
        self.wfile.write(b"0\r\n\r\n")

    def index(self) -> None:
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if path.is_dir():
            links = "".join(f'<a href="{each.name}">{each.name}</a>\n' for each in sorted(path.iterdir()))
            return self.answer(f"<!DOCTYPE html>\n{links}".encode(), ("Content-Type", "text/html"))
        if path.is_file():
            return self.answer(path.read_bytes(), ("Content-Type", "application/octet-stream"))
        return self.answer(b"", status=404)

    def git(self, body: bytes) -> None:
        """git-http-backend(1): a CGI, to be told of the request in its environment."""
        path, _, query = self.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.folder / "git"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path.removeprefix("/git"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        run = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, timeout=30)
        head, _, content = run.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200 OK").split(" ")[0])
        self.answer(content, *fields.items(), status=status)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
