"""HTTP over the admin socket.

A blocking client of our own, because start-up is what a terminal waits for: in units of `python -c pass` (CPU),
importing httpx costs 12, http.client 3.7, this file's `socket` and httptools 1.1 on top of typer; the bar for all of
`gatectl service list` is 12. There is little to write: one request a connection (a connect to a Unix socket takes
50 µs, and a connection kept while a person thinks about a confirmation would have been closed by the other side),
never a redirect, never a proxy; httptools knows how an answer ends.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode

import httptools

from gatectl.errors import GatectlError, MisuseError, NotPermittedError, UnreachableError, from_problem

# Longer than control may take to catch up with the journals of a busy gateway, shorter than a person's patience.
ANSWER_TIMEOUT_S = 30.0
_READ_BYTES = 65536


def default_socket() -> str:
    """/run/gatewayd/admin.sock for root, else below $XDG_RUNTIME_DIR, else in the default state folder.

    gatewayd's `settings.default_admin_socket` says the same; a test compares the two.
    """
    if os.geteuid() == 0:
        return "/run/gatewayd/admin.sock"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/gatewayd/admin.sock"
    if given := os.environ.get("STATE_DIRECTORY"):
        return f"{given.split(':')[0]}/admin.sock"
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 (a str is all)
    return f"{state_home}/gatewayd/admin.sock"


def path_of(*parts: str) -> str:
    """`/v1/services/orders` from its parts, each escaped: a name is never a path."""
    if not all(parts):
        raise MisuseError("a name is empty")
    # A byte of argv that is no UTF-8 arrives as a surrogate, and leaves as the byte it was.
    return "/v1/" + "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def without_secret(reference: str) -> str:
    """A whole key in place of its name would end up in logs and histories: only what is visible of it goes out."""
    if reference.startswith("gw_") and reference.count("_") >= 2:
        reference = "_".join(reference.split("_")[:2])
    return reference


class Gateway:
    """The gateway behind a socket: each method one request, each answer decoded JSON or a GatectlError."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._date = b""  # of the last answer

    @property
    def clock(self) -> int | None:
        """Seconds since 1970 on the gateway's clock when it last answered; None before, or where it did not say."""
        return _seconds_of(self._date)

    def __repr__(self) -> str:
        return f"<Gateway {self.socket_path}>"

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._ask("GET", path, query)

    def fetch(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """GET whose answer is wanted byte for byte."""
        reply = self._exchange(_request("GET", path, query, None), (), ANSWER_TIMEOUT_S)
        if reply.status >= 400:
            self._answer(reply)
        return bytes(reply.body)

    def post(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> Any:
        return self._ask("POST", path, query, body)

    def patch(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> Any:
        return self._ask("PATCH", path, query, body)

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._ask("DELETE", path, query)

    def upload(
        self, path: str, chunks: Iterable[bytes], content_type: str, query: Mapping[str, Any], timeout_s: float
    ) -> Any:
        """POST what comes, in chunks, and wait that long for the answer."""
        return self._answer(self._exchange(_upload_head(path, query, content_type), _framed(chunks), timeout_s))

    def blocks(self, path: str, query: Mapping[str, Any], patience_s: float | None) -> Iterator[bytes]:
        """GET an answer that goes on: whole lines, as they come, until its end. A refusal is raised at once.

        `patience_s`: how long nothing may come once it has begun; None: for ever. An answer that breaks off is an
        UnreachableError.
        """
        connection, reply = self._connect(), _Reply()
        parser = httptools.HttpResponseParser(reply)
        try:
            connection.sendall(_request("GET", path, query, None))
            while not reply.headed:
                self._take(connection, parser)
            self._date = reply.date
            if parser.get_status_code() >= 400:
                while not reply.complete:
                    self._take(connection, parser)
                reply.status = parser.get_status_code()
                self._answer(reply)
        except BaseException:
            connection.close()
            raise
        connection.settimeout(patience_s)
        return self._rest(connection, reply, parser)

    def _rest(self, connection: socket.socket, reply: _Reply, parser: httptools.HttpResponseParser) -> Iterator[bytes]:
        with connection:
            while not reply.complete:
                if lines := reply.whole_lines():
                    yield lines
                self._take(connection, parser)
        if reply.body:
            yield bytes(reply.body)

    def _take(self, connection: socket.socket, parser: httptools.HttpResponseParser) -> None:
        try:
            self._feed(parser, connection.recv(_READ_BYTES))
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise UnreachableError("the gateway went away in the middle of its answer", _WENT) from None

    def _feed(self, parser: httptools.HttpResponseParser, received: bytes) -> None:
        if not received:
            raise ConnectionResetError
        try:
            parser.feed_data(received)
        except httptools.HttpParserError:
            raise UnreachableError(f"what listens at {self.socket_path} is no gateway", _NAME_SOCKET) from None

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any = None) -> Any:
        return self._answer(self._exchange(_request(method, path, query, body), (), ANSWER_TIMEOUT_S))

    def _answer(self, reply: _Reply) -> Any:
        try:
            answer = json.loads(reply.body) if reply.body else None
        except ValueError:
            answer = None
        if reply.status >= 400:
            raise from_problem(reply.status, answer)
        if answer is None and reply.status != 204:
            raise GatectlError(f"what answers at {self.socket_path} does not speak the admin API")
        return answer

    def _exchange(self, request: bytes, more: Iterable[bytes], timeout_s: float) -> _Reply:
        deadline = monotonic() + timeout_s
        with self._connect() as connection:
            connection.settimeout(timeout_s)
            try:
                connection.sendall(request)
                for part in more:
                    connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have answered before it read everything: a refusal is worth reading
            except TimeoutError:
                raise self._silent() from None
            return self._read(connection, deadline)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(self.socket_path)
        except (OSError, ValueError) as error:
            connection.close()
            raise self._unconnected(error) from None
        return connection

    def _read(self, connection: socket.socket, deadline: float) -> _Reply:
        reply = _Reply()
        parser = httptools.HttpResponseParser(reply)
        try:
            while not reply.complete:
                connection.settimeout(max(deadline - monotonic(), 0.001))
                self._feed(parser, connection.recv(_READ_BYTES))
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            hint = "see what it says on stderr; a change may or may not have been made"
            raise UnreachableError("the gateway closed the connection before it had answered", hint) from None
        reply.status, self._date = parser.get_status_code(), reply.date
        return reply

    def _silent(self) -> UnreachableError:
        return UnreachableError(
            f"the gateway did not answer within {ANSWER_TIMEOUT_S:g} s",
            "is it stopped or overloaded? a change may or may not have been made",
        )

    def _unconnected(self, error: OSError | ValueError) -> GatectlError:
        path = self.socket_path
        match error:
            case FileNotFoundError() | NotADirectoryError():
                return UnreachableError(f"no gateway at {path}", f"start gatewayd or {_NAME_SOCKET}")
            case ConnectionRefusedError():
                return UnreachableError(f"nothing listens at {path}", f"start gatewayd or {_NAME_SOCKET}")
            case PermissionError():
                hint = "run it as root, as the user of gatewayd, or as a member of the socket's group"
                return NotPermittedError(f"no permission to use {path}", hint)
            case TimeoutError() | BlockingIOError():
                return UnreachableError(f"the gateway at {path} takes no connections", "try again in a moment")
            case OSError(strerror=str(reason)):
                return UnreachableError(f"cannot connect to {path}: {reason}", _NAME_SOCKET)
        # Too long, or with a NUL: the interpreter refuses before the system is asked.
        return MisuseError(f"{path!r} cannot be the path of a socket: {error}", _NAME_SOCKET)


_WENT = "'gatectl status' tells whether it is back"
_NAME_SOCKET = "name its socket with --socket or GATECTL_SOCKET"


class _Reply:
    """Collects an answer; httptools calls it."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()  # an invoice of 100,000 keys is 30 MB: not copied for each part
        self.date = b""
        self.headed = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"date":
            self.date = value

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True

    def whole_lines(self) -> bytes:
        """What came of the body up to the last line's end, and take it out."""
        lines, newline, self.body = self.body.rpartition(b"\n")
        return bytes(lines + newline)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _seconds_of(date: bytes) -> int | None:
    """RFC 9110 section 5.6.7, the one form that is sent: `Sat, 21 Nov 2026 02:00:00 GMT`.

    `email.utils`, which knows it too, costs another `python -c pass` to import.
    """
    from datetime import UTC, datetime  # only for who asks

    try:
        _, day, month, year, clock, zone = date.decode("ascii").split()
        hour, minute, second = map(int, clock.split(":"))
        moment = datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) if zone == "GMT" else None


def _upload_head(path: str, query: Mapping[str, Any], content_type: str) -> bytes:
    head = [f"POST {_target(path, query)} HTTP/1.1", "Host: gatewayd", "Accept: application/json", "Connection: close",
            f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]  # fmt: skip
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


def _framed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """RFC 9112 section 7.1."""
    for chunk in chunks:
        if chunk:
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def _request(method: str, path: str, query: Mapping[str, Any] | None, body: Any) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = [
        f"{method} {_target(path, query)} HTTP/1.1",
        "Host: gatewayd",
        "Accept: application/json",
        "Connection: close",
    ]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii") + content
