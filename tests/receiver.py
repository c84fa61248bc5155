"""A receiver of webhooks over real HTTP: it answers what it is told to, and keeps what it got."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks import Webhook


class Delivery(NamedTuple):
    """One attempt, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The event, if its signature is good by the library of Standard Webhooks; else it raises."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver(ThreadingHTTPServer):
    """`answers` are statuses, the last of which stays; or functions of the handler, which do what they like."""

    daemon_threads = True

    def __init__(self, answers: Sequence[int | Callable[[Any], None]] = (204,)) -> None:
        self.answers = list(answers)
        self.got: list[Delivery] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks"

    def handle_error(self, *_: Any) -> None:
        """Who sent it has gone: some tests mean that."""

    def wait_for(self, count: int, within_s: float = 20.0) -> list[Delivery]:
        deadline = time.monotonic() + within_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} deliveries within {within_s} s"
            time.sleep(0.01)
        return self.got


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            return  # who sent it was killed in the middle
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append(Delivery(self.path, headers, body))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer(self)
            return
        self.send_response(answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's word)
        pass


@contextmanager
def receiver(*answers: int | Callable[[Any], None]) -> Iterator[Receiver]:
    server = Receiver(answers or (204,))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
