"""The client side of the wire: the protocol class that uvicorn runs for every connection to the data plane.

Bytes are gathered until a head is whole, judged by llhttp, read by `head`, and become an exchange. Only the head goes
to llhttp: a body is framed by the length or the chunked coding that the head has declared, and what follows belongs to
the next request, which waits until this one is answered. So there is one exchange at a time, pipelined requests are
answered in their order, and a message's end is never a matter of opinion.

After a response that ends before its request has, the rest of the request is read and dropped if it is short, else the
connection is closed in two steps (write side first), since closing it at once could destroy the response on its way
(RFC 9112 section 9.6).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

import httptools

from gatewayd.errors import BAD_REQUEST, REQUEST_TIMEOUT, Refusal
from gatewayd.policy.facts import CHUNKED, Fields
from gatewayd.proxy.chunked import ChunkedReader, InvalidChunkError
from gatewayd.proxy.exchange import PENDING_LIMIT_BYTES, Exchange
from gatewayd.proxy.head import read_request
from gatewayd.proxy.judgement import (
    BESIDE_TARGET_BYTES,
    NO_HEAD,
    judge_again,
    new_parser,
    refusal_of_length,
    refusal_of_start,
    without_empty_lines,
)
from gatewayd.proxy.origin import Origin, origin_of, peer_address

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from gatewayd.proxy.worker import Worker

# A request body of up to this much is read to its end after an early answer, to keep the connection.
DROPPED_BODY_BYTES = 65536
LINGER_S = 2.0
SLOWEST_READ_BYTES = 16384  # in `keep_alive_s`, of answers that are over: slower clients would hold memory for hours
LAST_REQUEST_S = 0.3  # on draining, for a request that is on its way; beyond the round trips of most callers
_CR = ord("\r")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: closing drops what is unsent and sends RST


class _State(Enum):
    """Where a connection is; also module names, since the hot path asks for them ten times a request."""

    HEAD = auto()  # between messages or in a head
    BODY = auto()  # a request's body is still coming
    ANSWERING = auto()  # the request is whole, its response is not
    LINGERING = auto()  # answered and closed for writing; what comes is dropped


_HEAD, _BODY, _ANSWERING, _LINGERING = _State


class ClientConnection(asyncio.Protocol):
    """One client connection."""

    def __init__(
        self,
        worker: Worker,
        *,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # Global state.
        self.worker = worker
        self._connections: set[Any] = server_state.connections
        # Per connection.
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self.reading_paused = False
        self.writing_paused = False  # the client reads more slowly than it is written to
        self._ended = False  # the client has closed its side: there will be no more requests than have come
        self.origin: Origin = None  # type: ignore[assignment]  # known before the transport or asked of it
        self._keep_alive = True
        self._fields: Fields | None = None  # of the last request: the next one's are mostly the same
        self._parser = new_parser()
        self._buffer = b""  # bytes of a message that has not begun to be an exchange
        self._begun_head = b""  # the same object, once it is known to be a part of a head
        self._waits_since = worker.now()  # for the client to do what is its turn
        self._unsent = 0  # bytes that the client had not taken when it was last looked at
        # Per request.
        self._state = _HEAD
        self.exchange: Exchange | None = None
        self._body_left = 0
        self._chunks: ChunkedReader | None = None

    def __repr__(self) -> str:
        return f"<ClientConnection {self.origin} {self._state.name.lower()}>"

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._connections.add(self)
        if self.origin is None:
            self.origin = origin_of(peer_address(transport), self.worker.settings.trusted_proxies)
        if self.worker.draining:  # it came with the last that were accepted, and uvicorn has told the others already
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def eof_received(self) -> bool:
        """A client may close its side once its requests are whole and still gets the answers (RFC 9112 section 9.6)."""
        self._ended = True
        if self._state is _ANSWERING:
            return True
        if self._state is _BODY and self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.client_left()
        return self._state is _HEAD and b"\r\n\r\n" in self._buffer  # it is about to be read

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None:
            self.exchange.pause_response()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.exchange is not None:
            self.exchange.resume_response()
        elif self._state is _ANSWERING:
            self.resume_reading()
            self._waits_since = self.worker.now()
            self._next_message()

    def data_received(self, data: bytes) -> None:
        if self._state is _HEAD:
            if self._buffer:
                self._read_more(data)
            else:
                self._read_messages(data)
        elif self._state is _BODY:
            self._read_body(data)
        elif self._state is _ANSWERING:
            self._buffer += data
            if len(self._buffer) > PENDING_LIMIT_BYTES:
                self.pause_reading()

    def shutdown(self) -> None:
        """uvicorn drains: finish what is being answered, then close.

        A connection between two requests is kept a little longer: the next one may be on its way already, and closing
        on it would be a reset, of a request that its caller cannot know to be unheard.
        """
        self._keep_alive = False
        if self._state is _HEAD and not self._buffer:
            self.worker.loop.call_later(LAST_REQUEST_S, self._close_idle)

    def _close_idle(self) -> None:
        if self._state is _HEAD and not self._buffer:
            self.transport.close()

    # Requests.

    def _read_messages(self, data: bytes) -> None:
        """Begin every request that these bytes hold the head of, as long as each is answered at once."""
        while data and self._state is _HEAD:
            if data[0] <= _CR:  # no method begins so low
                if data.startswith(b"\r\n"):
                    data = without_empty_lines(data)
                    if self._ended and not data:
                        self.transport.close()
                    continue
                if data != b"\r":
                    # llhttp overlooks any CR and LF before a method; to us `\nHEAD` would be a method of its own.
                    self._reject(NO_HEAD)
                    return
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._await_rest_of_head(data)
                return
            self._buffer = b""
            end += 4
            if end == len(data):
                self._begin(data, b"")
            else:
                self._begin(data[:end], data[end:])
            data, self._buffer = self._buffer, b""
        self._buffer = data

    def _read_more(self, data: bytes) -> None:
        """Bytes after those that wait. Where these are a part of a head, its end can be in the new ones only.

        Else a head that comes byte by byte would be searched again for each: 12 µs a byte at 32 KiB, now 2.
        """
        begun = self._buffer
        if begun is self._begun_head and begun[:1] != b"\r" and b"\r\n\r\n" not in begun[-3:] + data:
            self._await_rest_of_head(begun + data)
            return
        self._begun_head = b""
        self._read_messages(begun + data)

    def _await_rest_of_head(self, data: bytes) -> None:
        judged = max(0, len(self._buffer) - 1)
        if not judged:
            self._waits_since = self.worker.now()
        self._buffer = self._begun_head = data
        if self._ended:
            self.transport.close()
            return
        refusal = refusal_of_start(data, judged, self.worker.settings)
        if refusal is not None:
            self._reject(refusal)

    def _begin(self, head: bytes, rest: bytes) -> None:
        """Judge a whole head; `rest` is what followed it and goes to the body, or back to the buffer."""
        worker = self.worker
        settings = worker.settings
        target_limit_bytes = settings.target_limit_bytes
        # Where the line alone is too long it is 414, found out below.
        if len(head) > settings.head_limit_bytes and head.find(b"\r\n") <= target_limit_bytes + BESIDE_TARGET_BYTES:
            return self._reject(refusal_of_length(settings))
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._parser = new_parser()
            refusal = judge_again(head, error)
            if refusal is not None:
                return self._reject(refusal)
        facts = read_request(head, worker.head_pattern, target_limit_bytes, self._fields)
        if isinstance(facts, Refusal):
            return self._reject(facts)
        fields = self._fields = facts.fields
        if not fields.keep_alive:
            self._keep_alive = False
        exchange = self.exchange = Exchange(worker, self, facts)
        if fields.body_length == 0:
            self._state = _ANSWERING
            self._buffer = rest
            exchange.start()
            return None
        # llhttp waits for the body that it will not be shown: the next head needs a parser at its start.
        self._parser = new_parser()
        self._state = _BODY
        self._body_left = fields.body_length
        self._chunks = ChunkedReader() if fields.body_length == CHUNKED else None
        exchange.start()
        if rest and self._state is _BODY:
            self._read_body(rest)
        return None

    def _read_body(self, data: bytes) -> None:
        exchange = self.exchange
        chunks = self._chunks
        rest = b""
        if chunks is not None:
            try:
                data = chunks.feed(data)
            except InvalidChunkError as error:
                self._broken_body(str(error))
                return
            ended, rest = chunks.done, chunks.rest
        elif len(data) < self._body_left:
            self._body_left -= len(data)
            ended = False
        else:
            data, rest = data[: self._body_left], data[self._body_left :]
            ended = True
        if data and exchange is not None:
            exchange.request_body(data)
            if self._state is not _BODY:
                return
        if ended:
            trailers = chunks.trailers if chunks is not None else ()
            self._chunks = None
            self._body_left = 0
            self._buffer = rest
            if exchange is not None and self.exchange is exchange:
                self._state = _ANSWERING
                exchange.request_ended(trailers)
            else:  # answered before its body had ended, and the body has now been dropped
                self._waits_since = self.worker.now()
                self._next_message()

    def _broken_body(self, why: str) -> None:
        """The framing of the body is broken: nothing after it can be trusted, and the upstream's half is cut off."""
        self._keep_alive = False
        exchange = self.exchange
        if exchange is None:
            self.transport.close()
        elif not exchange.done:  # else its answer waits for the disk
            exchange.give_up(Refusal(BAD_REQUEST, why))

    def _reject(self, refusal: Refusal) -> None:
        """Answer a head that is no request. It belongs to no service, so there is nothing to record."""
        self._keep_alive = False
        self.write(self.worker.render_rejection(refusal))
        self._linger()

    # Responses.

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def will_stay(self, exchange: Exchange) -> bool:
        """Whether the connection lives on after this exchange; what its response says in `Connection`."""
        if not self._keep_alive or (self._ended and not self._buffer):
            return False
        if self._state is not _BODY:
            return True
        # A client that waits for 100 Continue and gets its answer may never send the body, and a body that is dropped
        # and one that does not come look the same until a request is taken for it (RFC 9110 section 10.1.1). Some of it
        # may have come without waiting: whether the rest does is still a guess.
        withheld = exchange.facts.fields.expects_continue and not exchange.continued
        return 0 < self._body_left <= DROPPED_BODY_BYTES and not withheld

    def close_after(self, exchange: Exchange) -> None:
        self._keep_alive = False

    def end_answer(self, data: bytes, keep_alive: bool, now: float, on_disk: bool = False) -> None:
        """Write what is left of a response that is recorded, and be free for the next request.

        With `journal_sync = "record"` that waits until the record is `on_disk`; till then the exchange stays, done.
        """
        hold = self.worker.hold
        if hold is not None and not on_disk:
            if self._state is _BODY:
                self.pause_reading()  # what breaks or ends the request now would close on an answer that waits
            hold(partial(self._answer_may_leave, data, keep_alive))
            return
        if data:
            self.transport.write(data)
        self.exchange = None
        self._waits_since = now
        if self.reading_paused:
            self.resume_reading()
        if not keep_alive:
            if self._state is _BODY or self._buffer:
                self._linger()
            else:
                self.transport.close()
        elif self._state is not _BODY:  # what is left of a body is dropped as it comes
            self._next_message()

    def _answer_may_leave(self, data: bytes, keep_alive: bool, on_disk: bool) -> None:
        if self.transport.is_closing():
            self.exchange = None
        elif on_disk:
            self.end_answer(data, keep_alive, self.worker.now(), True)
        else:
            self.abort()

    def _next_message(self) -> None:
        """The connection is free. Bytes of a next request that wait are read from the loop, not from this stack."""
        if self.writing_paused:  # until the client has taken its answers, it gets no more of them
            self._state = _ANSWERING
            return
        self._state = _HEAD
        if self._buffer:
            self.worker.loop.call_soon(self._read_waiting)
        elif self._ended:
            self.transport.close()
        elif not self._keep_alive:  # draining began after this response's head had promised to stay
            self.worker.loop.call_later(LAST_REQUEST_S, self._close_idle)

    def _read_waiting(self) -> None:
        if self._state is _HEAD and self._buffer and not self.transport.is_closing():
            data, self._buffer = self._buffer, b""  # none of it has been judged
            self._read_messages(data)

    def abort(self) -> None:
        """End the connection so that the client cannot take what it has for a whole response.

        By a reset: where the end of the connection is the end of the body, a plain close would look like one.
        """
        self.exchange = None
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def hand_over(self) -> tuple[bytes, bool]:
        """The connection is a tunnel's from now on. What was sent ahead, and whether the client has closed its side."""
        self.exchange = None
        self._connections.discard(self)
        sent_ahead, self._buffer = self._buffer, b""
        return sent_ahead, self._ended

    def _linger(self) -> None:
        self._state = _LINGERING
        self._buffer = self._begun_head = b""
        self._waits_since = self.worker.now()
        self.resume_reading()
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    # Flow and time.

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            # uvloop would tell a second time of an end that it has told of.
            if not self._ended and not self.transport.is_closing():
                self.transport.resume_reading()

    def check_time(self, now: float) -> None:
        """Called about once a second: close what has waited too long for the client to do its part."""
        if self.exchange is not None:
            return  # it has a deadline of its own
        waited_s = now - self._waits_since
        settings = self.worker.settings
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            if unsent > self._unsent or self._unsent - unsent >= SLOWEST_READ_BYTES:  # it reads, if slowly
                self._unsent, self._waits_since = unsent, now
            elif waited_s > settings.keep_alive_s:
                self.abort()
        elif self._state is _LINGERING:
            if waited_s > LINGER_S:
                self.transport.abort()
        elif self._state is _HEAD:
            if self._buffer and waited_s > settings.head_timeout_s:
                self._reject(Refusal(REQUEST_TIMEOUT, "the request head did not arrive in time"))
            elif not self._buffer and waited_s > settings.keep_alive_s:
                self.transport.close()
        elif self._state is _BODY and waited_s > settings.head_timeout_s:
            self.transport.abort()  # it trickles a body that nobody reads
