"""Asking a gateway: each method one request, each answer decoded JSON or a GatectlError.

A blocking client of our own, because start-up is what a terminal waits for: in units of `python -c pass` (CPU),
importing httpx costs 12, http.client 3.7, `socket` and httptools 1.1 on top of typer; the bar for all of
`gatectl service list` is 12. There is little to write: never a redirect, never a proxy. A connection that is dear, with
its TLS handshake or its login, is kept from one request to the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from select import select
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

import httptools

from gatectl.errors import GatectlError, MisuseError, UnreachableError, from_problem
from gatectl.transports import Connection, Transport
from gatectl.transports.unix import UnixSocket
from gatectl.wire import Manner, Reply, framed, seconds_of

# Longer than control may take to catch up with the journals of a busy gateway, shorter than a person's patience.
ANSWER_TIMEOUT_S = 30.0
_READ_BYTES = 65536
# A connection that has rested longer is not trusted with a change: the other side may be closing it just now (uvicorn
# does after 5 s), and whether the change was made would be unknown.
_FRESH_S = 2.0
_STREAMS = (b"application/x-ndjson", b"application/x-tar")
# POST for its body's sake: nothing changes. No other method: a key or a plan may be called like the end of one.
_ONLY_ASKED = ("/v1/explain", "/v1/keys/verify", "/v1/config/diff", "/v1/backup")


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


class RawAnswer(NamedTuple):
    """An answer as it came; its body in parts, as they come."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    parts: Iterator[bytes]


class Gateway:
    """A gateway, by the way to it; a path is that of its socket. `before_change` is called before the first of them."""

    def __init__(self, way: Transport | str, token: str = "", before_change: Callable[[], None] | None = None) -> None:
        self.transport = UnixSocket(way) if isinstance(way, str) else way
        self._manner = Manner(self.transport.host, self.transport.base, token, self.transport.kept)
        self._before_change = before_change
        self._kept: list[tuple[Connection, float]] = []  # and since when they rest
        self._date = b""  # of the last answer

    @property
    def clock(self) -> int | None:
        """Seconds since 1970 on the gateway's clock when it last answered; None before, or where it did not say."""
        return seconds_of(self._date)

    def __repr__(self) -> str:
        return f"<Gateway {self.transport.place}>"

    def close(self) -> None:
        """Let go of what was kept; ssh would outlive us for a moment, and still write to the terminal."""
        while self._kept:
            self._kept.pop()[0].close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._ask("GET", path, query)

    def fetch(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """GET whose answer is wanted byte for byte."""
        reply = self._exchange(self._manner.request("GET", path, query, None), (), ANSWER_TIMEOUT_S, again=True)
        if reply.status >= 300:
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
        self._warn_of_change("POST", path, query)
        head = self._manner.upload(path, query, content_type)
        return self._answer(self._exchange(head, framed(chunks), timeout_s))

    def blocks(
        self,
        path: str,
        query: Mapping[str, Any],
        patience_s: float | None,
        *,
        method: str = "GET",
        begins_s: float = ANSWER_TIMEOUT_S,
        lines: bool = True,
    ) -> Iterator[bytes]:
        """An answer that goes on: whole lines, or any bytes, as they come, until its end. A refusal is raised at once.

        `begins_s`: how long its head may take. `patience_s`: how long nothing may come once it has begun; None: for
        ever. An answer that breaks off is an UnreachableError.
        """
        connection, _ = self._connected(changes=True)
        reply = Reply()
        try:
            self._sent(connection, self._manner.request(method, path, query, None))
            connection.settimeout(begins_s)
            while not reply.headed:
                self._take(connection, reply)
            self._date = reply.date
            if reply.status >= 300:
                while not reply.complete:
                    self._take(connection, reply)
                self._answer(reply)
            if reply.media_type not in _STREAMS:
                raise self._no_gateway()
        except BaseException:
            connection.close()
            raise
        connection.settimeout(patience_s)
        return self._rest(connection, reply, lines)

    def raw(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Sequence[tuple[str, str]],
        content: bytes | None,
    ) -> RawAnswer:
        """Any request, and its answer as it comes, whatever its status."""
        self._warn_of_change("GET" if method in ("HEAD", "OPTIONS") else method, path.partition("?")[0], dict(query))
        connection, reply = self.transport.connect(ANSWER_TIMEOUT_S), Reply()
        try:
            self._sent(connection, self._manner.raw(method, path, query, headers, content))
            while not reply.headed:
                self._take(connection, reply)
        except BaseException:
            connection.close()
            raise
        self._date = reply.date
        connection.settimeout(None)  # it may be one that goes on until Ctrl-C
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers]
        parts = iter(()) if method == "HEAD" else self._parts(connection, reply)
        return RawAnswer(reply.status, reply.reason.decode("latin-1"), told, parts)

    def _parts(self, connection: Connection, reply: Reply) -> Iterator[bytes]:
        try:
            while True:
                if reply.body:
                    yield bytes(reply.body)
                    reply.body.clear()
                if reply.complete:
                    return
                self._take(connection, reply)
        finally:
            connection.close()

    def _rest(self, connection: Connection, reply: Reply, lines: bool) -> Iterator[bytes]:
        try:
            while not reply.complete:
                if block := reply.whole_lines() if lines else reply.taken():
                    yield block
                self._take(connection, reply)
        finally:
            connection.close()
        if reply.body:
            yield bytes(reply.body)

    def _take(self, connection: Connection, reply: Reply) -> None:
        try:
            self._feed(reply, connection.recv(_READ_BYTES))
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise UnreachableError("the gateway went away in the middle of its answer", _WENT) from None

    def _feed(self, reply: Reply, received: bytes) -> None:
        if not received:
            raise ConnectionResetError
        try:
            reply.feed(received)
        except httptools.HttpParserError:
            raise self._no_gateway() from None

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any = None) -> Any:
        self._warn_of_change(method, path, query)
        request = self._manner.request(method, path, query, body)
        return self._answer(self._exchange(request, (), ANSWER_TIMEOUT_S, again=method == "GET"))

    def _warn_of_change(self, method: str, path: str, query: Mapping[str, Any] | None) -> None:
        asks = method == "POST" and (path in _ONLY_ASKED or path.endswith("/simulate"))
        asks = asks or (query or {}).get("dry_run") in ("true", True)
        if self._before_change is not None and method != "GET" and not asks:
            self._before_change()

    def _answer(self, reply: Reply) -> Any:
        try:
            answer = json.loads(reply.body) if reply.body else None
        except ValueError:
            answer = None
        if reply.status >= 300:
            raise self._refused(reply, answer)
        if answer is None and reply.status != 204:
            raise self._no_gateway()
        return answer

    def _refused(self, reply: Reply, answer: Any) -> GatectlError:
        place, status = self.transport.place, reply.status
        if isinstance(answer, dict) and "code" in answer:
            error = from_problem(status, answer)
            error.hint = self.transport.refused.get(error.code, error.hint)
            return error
        if reply.location:
            where = reply.location.decode("utf-8", "replace")
            return GatectlError(f"{place} answered {status} and sends one on to {where}", "name the gateway itself")
        if status in (502, 503, 504) and self.transport.kept:
            hint = "a proxy stands before it: is the gateway behind that up?"
            return UnreachableError(f"{place} answered {status}, and not as a gateway does", hint)
        # What fails in a gateway may say no more than that; what it refuses, it refuses with a problem.
        return from_problem(status, answer) if status >= 500 else self._no_gateway()

    def _no_gateway(self) -> UnreachableError:
        return UnreachableError(f"what listens at {self.transport.place} is no gateway", self.transport.mend)

    def _exchange(self, request: bytes, more: Iterable[bytes], timeout_s: float, again: bool = False) -> Reply:
        """One request and its answer. `again`: it may be sent twice, where a kept connection turns out to be closed."""
        deadline = monotonic() + timeout_s
        connection, new = self._connected(changes=not again)
        reply = Reply()
        try:
            connection.settimeout(timeout_s)
            self._send(connection, request, more)
            self._read(connection, reply, deadline)
        except _ClosedError:
            connection.close()
            if again and not new and not reply.begun:
                return self._exchange(request, more, timeout_s, again)
            hint = "see what it says on stderr; a change may or may not have been made"
            raise UnreachableError("the gateway closed the connection before it had answered", hint) from None
        except BaseException:
            connection.close()
            raise
        self._date = reply.date
        if self._manner.kept and reply.goes_on:
            self._kept.append((connection, monotonic()))
        else:
            connection.close()
        return reply

    def _connected(self, changes: bool) -> tuple[Connection, bool]:
        """A connection, and whether it is new."""
        while self._kept:
            connection, since = self._kept.pop()
            ended, _, _ = select([connection], [], [], 0)  # nobody says anything unasked but that it closes
            if not ended and not (changes and monotonic() - since > _FRESH_S):
                return connection, False
            connection.close()
        return self.transport.connect(ANSWER_TIMEOUT_S), True

    def _send(self, connection: Connection, request: bytes, more: Iterable[bytes]) -> None:
        if self._sent(connection, request):
            for part in more:
                if not self._sent(connection, part):
                    return

    def _sent(self, connection: Connection, part: bytes) -> bool:
        try:
            connection.sendall(part)
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            return False  # it may have answered before it read everything: a refusal is worth reading
        return True

    def _read(self, connection: Connection, reply: Reply, deadline: float) -> None:
        try:
            while not reply.complete:
                connection.settimeout(max(deadline - monotonic(), 0.001))
                self._feed(reply, connection.recv(_READ_BYTES))
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise _ClosedError from None

    def _silent(self) -> UnreachableError:
        return UnreachableError(
            f"the gateway did not answer within {ANSWER_TIMEOUT_S:g} s",
            "is it stopped or overloaded? a change may or may not have been made",
        )


class _ClosedError(Exception):
    """The other side closed the connection before its answer was whole."""


_WENT = "'gatectl status' tells whether it is back"
