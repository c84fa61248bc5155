"""What must hold whatever comes, in the judgement of h11, which shares no line with us.

Of requests: nothing that h11 finds malformed reaches the upstream; no more begin there than were admitted, as many end
there as were answered; each is one that h11 reads in what the client sent, in the same order, with the same body. Of
answers: the client gets one that h11 reads too, or an end that is no answer; and the next callers get their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import h11

from gatewayd.errors import UPSTREAM_TIMEOUT, Refusal
from gatewayd.records import ADMITTED
from tests.fuzz.memory import Gateway, MemoryTransport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
PROBES = 3
_AS_ASCII = bytes(byte if byte < 0x80 else ord("x") for byte in range(256))


@dataclass
class Request:
    """As h11 has read it; `whole` when its end was seen."""

    method: bytes
    target: bytes
    body: bytes = b""
    whole: bool = False


def read_requests(data: bytes) -> tuple[list[Request], bool]:
    """The requests in these bytes, and whether all of them were well-formed (though the last may be cut short)."""
    found: list[Request] = []
    while data:
        while data.startswith(b"\r\n"):  # RFC 9112 section 2.2: to be ignored, and h11 takes offence at a second
            data = data[2:]
        line, mark, rest = data.partition(b"\r\n")
        if not line:
            break
        data = line.translate(_AS_ASCII) + mark + rest  # h11 takes no byte above 0x7F in a target; we do
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(data)
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                return found, False
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return found, True
            if isinstance(event, h11.Request):
                found.append(Request(event.method, event.target))
            elif isinstance(event, h11.Data):
                found[-1].body += bytes(event.data)
            else:
                found[-1].whole = True
                break
        data = reader.trailing_data[0]
    return found, True


def read_answer(data: bytes, method: bytes = b"GET") -> tuple[int, bytes, bytes] | None:
    """Status, body and what follows the first whole answer in these bytes; None if there is none."""
    if not data:  # to h11 that would be the end of the connection
        return None
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "api")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    status, body = 0, b""
    while True:
        event = reader.next_event()  # raises on malformed bytes: those would be ours
        if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return None
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body, reader.trailing_data[0]


def read_whole_answer(data: bytes, method: bytes) -> tuple[int, bytes, bytes] | None:
    """As `read_answer`, of bytes that may be malformed."""
    try:
        return read_answer(data, method)
    except h11.RemoteProtocolError:
        return None


class Echo:
    """An upstream connection that answers every whole request with its target, and keeps what it read."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.answered = 0
        transport.on_write = self.look

    def look(self, _: bytes) -> None:
        requests, fine = read_requests(bytes(self.transport.written))
        assert fine, bytes(self.transport.written)
        for request in requests[self.answered :]:
            if request.whole:
                self.answered += 1
                body = request.target if request.method != b"HEAD" else b""
                self.transport.feed(ANSWER % (len(request.target), body))


def check_nothing_wrong(gateway: Gateway) -> None:
    assert not gateway.loop.errors, gateway.loop.errors
    assert not gateway.worker.exchanges


def fuzz_requests(gateway: Gateway, pieces: list[bytes]) -> None:
    """What a client may send, in these pieces; then it closes its side."""
    gateway.fresh()
    gateway.loop.on_dialled = Echo  # type: ignore[assignment]
    client = gateway.client()
    for piece in pieces:
        client.feed(piece)
        gateway.settle()
    client.feed_eof()
    gateway.settle()
    check_nothing_wrong(gateway)
    assert client.gone or client.wrote_eof, "neither answered nor ended"

    received: list[Request] = []
    for transport in gateway.loop.dialled:
        requests, fine = read_requests(bytes(transport.written))
        assert fine, bytes(transport.written)
        received += requests
    records = gateway.records()
    # An admitted one whose body breaks at once is gone before there is a connection for it.
    assert len(received) <= sum(bool(record.flags & ADMITTED) for record in records)
    assert sum(request.whole for request in received) == sum(record.status == 200 for record in records)

    sent, all_fine = read_requests(b"".join(pieces))
    position = 0
    for request in sorted(received, key=lambda request: not request.whole):  # a cut one is the last, wherever it went
        while position < len(sent) and not _same(sent[position], request):
            position += 1
        assert position < len(sent) or not (request.whole or all_fine), (request, sent)
        position += 1


def _same(sent: Request, received: Request) -> bool:
    path = received.target.partition(b"?")[0].lstrip(b"/")
    alike = sent.method == received.method and sent.target.partition(b"?")[0].endswith(path)
    return alike and (sent.body == received.body if received.whole else sent.body.startswith(received.body))


def fuzz_answer(gateway: Gateway, pieces: list[bytes], method: bytes, *, closes: bool) -> None:
    """What an upstream may answer, in these pieces, to the first request on its first connection."""
    gateway.fresh()
    gateway.loop.on_dialled = lambda transport: None
    client = gateway.client()
    client.feed(b"%b /open/victim HTTP/1.1\r\nHost: api\r\n\r\n" % method)
    gateway.settle()
    (upstream,) = gateway.loop.dialled
    asked = len(upstream.written)
    for piece in pieces:
        upstream.feed(piece)
        gateway.settle()
    gateway.loop.on_dialled = Echo  # type: ignore[assignment]
    if closes:
        upstream.feed_eof()
        gateway.settle()
    answer = read_answer(bytes(client.written), method)
    if answer is not None:
        assert answer[2] == b"", "more than one answer to one request"
        check_nothing_wrong(gateway)
    elif not client.closing:  # it waits for more of the answer, and in time is told so
        for exchange in list(gateway.worker.exchanges):
            exchange.give_up(Refusal(UPSTREAM_TIMEOUT, "the upstream did not answer in time"))
        gateway.settle()
        answer = read_answer(bytes(client.written), method)
        assert answer is not None or client.aborted
    whole = read_whole_answer(b"".join(pieces), method)
    assert upstream.closing or not (whole and whole[2]), "used again though more came than its answer"
    if not upstream.closing:
        upstream.on_write = partial(_answer_next, upstream, asked)
    for number in range(PROBES):
        probe = gateway.client()
        probe.feed(b"GET /open/probe-%d HTTP/1.1\r\nHost: api\r\n\r\n" % number)
        gateway.settle()
        assert read_answer(bytes(probe.written)) == (200, b"/probe-%d" % number, b""), bytes(probe.written)
    check_nothing_wrong(gateway)


def _answer_next(upstream: MemoryTransport, asked: int, _: bytes) -> None:
    """The connection is used again: from here on it answers well."""
    requests, fine = read_requests(bytes(upstream.written[asked:]))
    assert fine
    if requests and requests[-1].whole:
        upstream.feed(ANSWER % (len(requests[-1].target), requests[-1].target))
