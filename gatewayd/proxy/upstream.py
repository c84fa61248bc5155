"""The upstream side of the wire: one connection to one target.

A connection serves one exchange at a time. It goes back to the pool only after an unambiguous end of a response: whole
body read, nothing after it, both sides willing. In every other case it is closed, so that one caller's bytes can never
become the next caller's answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from gatewayd.policy.facts import CHUNKED, UNTIL_CLOSE
from gatewayd.proxy.chunked import ChunkedReader, InvalidChunkError
from gatewayd.proxy.failover import upstream_broke, upstream_died, upstream_invalid
from gatewayd.proxy.head import ResponseHead, read_response

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange
    from gatewayd.proxy.pool import Pool

_NO_CALLBACKS = object()  # llhttp judges; what there is to know is read from the bytes (see `head`)
INTERIM_LIMIT = 32  # 1xx answers to one request: more are no hints but a way to keep us busy
HEAD_LIMIT_BYTES = 65536  # of a response; larger than a request's because upstreams set cookies


class UpstreamConnection(asyncio.Protocol):
    """One TCP connection to a target. While `exchange` is set, everything read belongs to its response."""

    __slots__ = (
        "_body_left", "_buffer", "_chunks", "_head", "_interim", "_last_head", "_last_response",
        "_last_to_head", "_parser", "address", "ended", "exchange", "expires_at", "idle_since", "pool", "served",
        "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self.served = 0  # requests sent on this connection: the first one finds it fresh, the others may find it stale
        self.idle_since = 0.0
        self.expires_at = 0.0  # loop time from which on it serves no further exchange
        self.address = ""  # that it is to, of the target's
        self.ended = False  # the upstream has said that it sends no more
        self.exchange: Exchange | None = None
        self._parser: httptools.HttpResponseParser | None = None  # one that stands at the start of a message
        self._buffer = b""
        self._interim = 0  # 1xx answers to this request so far
        # The last head and what it said. An upstream repeats itself within a second, while its Date stands.
        self._last_head = b""
        self._last_to_head = False
        self._last_response: ResponseHead | None = None
        self._head: ResponseHead | None = None  # while the body is read
        self._body_left = 0
        self._chunks: ChunkedReader | None = None

    def __repr__(self) -> str:
        return (
            f"<UpstreamConnection {self.pool.target.url} {'busy' if self.exchange else 'idle'}, {self.served} served>"
        )

    def begin(self, exchange: Exchange, data: bytes) -> None:
        """Send a request's head (and what there is of its body); the response will go to this exchange."""
        self.exchange = exchange
        self.served += 1
        self.transport.write(data)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.pool.opened(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # nobody asked: whatever it is, it must not become the next response
            self.transport.abort()
            return
        if self._head is None:
            self._read_head(exchange, self._buffer + data if self._buffer else data)
        else:
            self._read_body(exchange, data)

    def eof_received(self) -> bool:
        self.ended = True
        return False  # the transport closes; connection_lost decides what it meant

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.lost(self)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        # Only an end that the upstream has declared ends a body: by FIN, in TLS by close_notify (RFC 9112 section 9.8;
        # uvloop calls eof_received for no less). What we closed ourselves, or somebody cut off, is not whole.
        if self._head is not None and self._body_left == UNTIL_CLOSE and self.ended and exc is None:
            exchange.response_ended()
        elif self._head is None and not self._buffer and not self._interim:
            upstream_died(exchange, self.served > 1)
        else:
            upstream_broke(exchange)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_request()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume_request()

    # The response.

    def _read_head(self, exchange: Exchange, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_LIMIT_BYTES:
            self._buffer = data
            if len(data) > HEAD_LIMIT_BYTES:
                self._fail(exchange, "its response head is too large")
            return None
        self._buffer = b""
        head, to_head = data[:end], exchange.facts.method == b"HEAD"
        parser = None
        response = self._last_response  # what was judged and read once says the same again
        if response is None or head != self._last_head or to_head is not self._last_to_head:
            parser, self._parser = self._parser or httptools.HttpResponseParser(_NO_CALLBACKS), None
            try:
                parser.feed_data(data[: end + 4])
            except httptools.HttpParserUpgrade:  # a 101 with all that belongs to it
                return self._switch(exchange, head, data[end + 4 :])
            except httptools.HttpParserError as error:
                return self._fail(exchange, f"its response head is malformed ({error})")
            read = read_response(head, to_head)
            if isinstance(read, str):
                return self._fail(exchange, read)
            response = read
            self._last_head, self._last_to_head, self._last_response = head, to_head, response
        rest = data[end + 4 :]
        if response.status < 200:
            self._interim += 1
            if response.status == 101 or self._interim > INTERIM_LIMIT:
                return self._fail(exchange, "it switched protocols or sent hints without end")
            exchange.interim_answer(response)
            if rest and self.exchange is exchange:
                self._read_head(exchange, rest)
            return None
        length = response.body_length
        if length == len(rest):  # the whole response is here: one record, one write
            if length and parser is not None:
                # Fed the body too, the parser stands at the start of a message again; a new one would cost 1 µs.
                parser.feed_data(rest)
                self._parser = parser
            self._release(exchange, response)
            exchange.response_whole(response, rest)
            return None
        self._head = response
        self._body_left = length
        self._chunks = ChunkedReader() if length == CHUNKED else None
        exchange.response_started(response)
        if rest and self.exchange is exchange:
            self._read_body(exchange, rest)
        return None

    def _switch(self, exchange: Exchange, head: bytes, rest: bytes) -> None:
        """From here on the connection is no longer HTTP's, if this was asked for (RFC 9110 section 7.8)."""
        response = read_response(head, False)
        if isinstance(response, str):
            return self._fail(exchange, response)
        asked = exchange.facts.fields.upgrade
        chosen = [protocol.strip() for protocol in response.upgrade.lower().split(b",")]
        if head[:8] != b"HTTP/1.1" or not all(protocol in asked for protocol in chosen):
            return self._fail(exchange, "it switched to a protocol that was not asked for")
        self.exchange = None
        exchange.switched(self, response, rest)
        return None

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        response = self._head
        assert response is not None
        if self._chunks is not None:
            try:
                piece = self._chunks.feed(data)
            except InvalidChunkError as error:
                return self._fail(exchange, str(error))
            if self._chunks.done:
                return self._finish(exchange, response, piece, clean=not self._chunks.rest)
            if piece:
                exchange.response_body(piece)
        elif self._body_left == UNTIL_CLOSE:
            exchange.response_body(data)
        elif len(data) < self._body_left:
            self._body_left -= len(data)
            exchange.response_body(data)
        else:
            left = self._body_left
            self._finish(exchange, response, data[:left], clean=len(data) == left)
        return None

    def _finish(self, exchange: Exchange, response: ResponseHead, last: bytes, *, clean: bool) -> None:
        """The response has ended. `clean`: nothing came after it, so the connection may serve again."""
        trailers = self._chunks.trailers if self._chunks is not None else ()
        self._head = self._chunks = None
        self._body_left = 0
        if clean:
            self._release(exchange, response)
        else:
            self.exchange = None
            self.transport.close()
        exchange.response_ended(last, trailers, response.connection_named)

    def _release(self, exchange: Exchange, response: ResponseHead) -> None:
        """Back to the pool, if both sides are willing and no half of the request is still to come."""
        self.exchange = None
        self._interim = 0
        # An upstream that has not taken all of a body may never do so, and what comes next would wait behind it.
        untaken = exchange.body_streamed and self.transport.get_write_buffer_size() > 0
        if response.keep_alive and exchange.body_sent and not untaken:
            if exchange.client.writing_paused:
                self.transport.resume_reading()  # it was paused for this client; the next one may be quick
            self.pool.give_back(self)
        else:
            self.transport.close()

    def _fail(self, exchange: Exchange, why: str) -> None:
        self.exchange = None
        self.transport.abort()
        upstream_invalid(exchange, why)
