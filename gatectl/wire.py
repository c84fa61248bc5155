"""HTTP/1.1 as bytes: requests as they are sent, answers as they come. httptools knows how an answer ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import httptools

_TARGET = "/?&=%:@!$'()*+,;~-._[]"  # of RFC 3986, so that what is escaped already stays as it is
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Manner(NamedTuple):
    """What is the same in every request to a gateway: its host, what comes before its paths, what to show it."""

    host: str
    base: str
    token: str
    kept: bool  # the connection, after the answer

    def request(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any) -> bytes:
        """A whole request; `body` as JSON."""
        if body is None:
            return self._head(method, path, query)
        content = json.dumps(body).encode()
        return self._head(method, path, query, "application/json", f"Content-Length: {len(content)}") + content

    def raw(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Sequence[tuple[str, str]],
        content: bytes | None,
    ) -> bytes:
        """A whole request as somebody else words it; only what ends it and who asks is ours."""
        target = self.base + path
        if query:
            target += ("&" if "?" in path else "?") + urlencode(query, errors="surrogateescape")
        own = {"Host": self.host, "Accept": "application/json", "Connection": "close"}
        own |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        own |= {"Content-Length": str(len(content))} if content is not None else {}
        given = {name.lower() for name, _ in headers}
        lines = [f"{method} {quote(target, safe=_TARGET, errors='surrogateescape')} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in own.items() if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (content or b"")

    def upload(self, path: str, query: Mapping[str, Any], content_type: str) -> bytes:
        """The head of a POST whose body comes in chunks (`framed`)."""
        return self._head("POST", path, query, content_type, "Transfer-Encoding: chunked")

    def _head(
        self, method: str, path: str, query: Mapping[str, Any] | None, content_type: str = "", framing: str = ""
    ) -> bytes:
        head = [
            f"{method} {self.base}{_target(path, query)} HTTP/1.1",
            f"Host: {self.host}",
            "Accept: application/json",
        ]
        if not self.kept:
            head.append("Connection: close")
        if self.token:
            head.append(f"Authorization: Bearer {self.token}")
        if content_type:
            head += [f"Content-Type: {content_type}", framing]
        return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


class Reply:
    """Collects an answer from what is fed to it; httptools calls the rest."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.body = bytearray()  # an invoice of 100,000 keys is 30 MB: not copied for each part
        self.date = self.location = self.media_type = b""
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        self.headed = False
        self.complete = False
        self.goes_on = False  # the connection, for another request

    def feed(self, received: bytes) -> None:
        """Raises httptools.HttpParserError where it is no HTTP."""
        self._parser.feed_data(received)

    def on_message_begin(self) -> None:
        self.begun = True

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        name = name.lower()
        if name == b"date":
            self.date = value
        elif name == b"location":
            self.location = value
        elif name == b"content-type":
            self.media_type = value.partition(b";")[0].strip().lower()

    def on_headers_complete(self) -> None:
        self.headed = True
        self.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True
        self.goes_on = self._parser.should_keep_alive()  # after this callback it no longer knows

    def taken(self) -> bytes:
        """What came of the body, and take it out."""
        body, self.body = bytes(self.body), bytearray()
        return body

    def whole_lines(self) -> bytes:
        """What came of the body up to the last line's end, and take it out."""
        lines, newline, self.body = self.body.rpartition(b"\n")
        return bytes(lines + newline)


def framed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """RFC 9112 section 7.1."""
    for chunk in chunks:
        if chunk:
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def seconds_of(date: bytes) -> int | None:
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


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path
