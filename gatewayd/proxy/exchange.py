"""One request and its response on their way through a worker.

An exchange is called from three sides: the client's connection (body, departure), the upstream's connection (response;
its death is `failover`'s) and the sweeper (time). There is no task; each call does what there is to do now. The steps:

    judged      guards in order; a guard that lacks a key or a token is asked again when it has come
    forwarded   a pooled connection, or a connect; the head goes out, then the body as it arrives
    answered    the response streams back; a whole one goes out in one write
    recorded    one record on the journal, before the response's last byte is written (`journal_sync = "record"`: on
                the disk, see `syncing`); then nothing more happens

`done` is set by the last step, and every entry point returns at once when it is set. Once a response has begun the
only answer to trouble is to abort: the client must see a broken message, never a short one that looks whole.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from gatewayd.errors import (
    BODY_TOO_LARGE,
    DRAINING,
    JOURNAL_FULL,
    NO_ROUTE,
    OVERLOADED,
    RETRY_SOON,
    Refusal,
)
from gatewayd.policy.facts import CHUNKED, Facts, Guard, Route, Service, Target
from gatewayd.policy.guards import credential_of
from gatewayd.proxy import chunked
from gatewayd.proxy.faring import FIRST_ERROR
from gatewayd.proxy.forward import choose_fields, limit_fields, request_bytes, response_bytes, switch_bytes
from gatewayd.proxy.head import NONE_NAMED, ResponseHead
from gatewayd.proxy.needs import heed
from gatewayd.proxy.patience import AT_NEXT_SWEEP, UNSEEN, end_overdue, is_overdue
from gatewayd.proxy.problems import render
from gatewayd.proxy.recording import SWITCHED, record_exchange
from gatewayd.proxy.targeting import attend_answer, hash_value
from gatewayd.proxy.trailers import passed_on
from gatewayd.proxy.tunnel import Tunnel, refusal_of_tunnel
from gatewayd.records import CLIENT_LEFT, UPSTREAM_BROKE

if TYPE_CHECKING:
    from gatewayd.policy.header_rules import HeaderRules
    from gatewayd.policy.spending import KeyEntry
    from gatewayd.proxy.client import ClientConnection
    from gatewayd.proxy.upstream import UpstreamConnection
    from gatewayd.proxy.worker import Worker

# Between the 4 KiB of a typical POST and what a caller may make us hold before it is admitted.
PENDING_LIMIT_BYTES = 65536
LOOKUP_TIMEOUT_S = 5.0  # control restarts within about a second
BUSY = Refusal(OVERLOADED, "the gateway has as many requests in flight as it may", RETRY_SOON)
DISK_FULL = Refusal(JOURNAL_FULL, "the gateway's disk is full", ((b"Retry-After", b"5"),))
NO_ADDRESS = Refusal(NO_ROUTE, "no service has this address")
NO_RESPONSE = 499  # nginx's number for "the client left before there was a response"


class Exchange:
    """The state of one exchange, made for each request. Times are monotonic seconds."""

    # How every exchange begins; kept on the class, so that making one sets only what differs.
    done = False
    admitted = False
    body_sent = False  # the whole request is with the upstream
    body_streamed = False  # some of the body has gone and cannot be sent again
    chunk_response = False
    continued = False  # the upstream has asked for the body, and its 100 was passed on
    promised_to_stay = False  # what the head of a response that streams has said of the connection
    bytes_in = 0
    bytes_out = 0
    status = 0  # of the response that has begun
    tried: tuple[Target, ...] = ()  # targets to which it needed a new connection
    repeated = False  # it was sent to a target that died with it, and to another since
    forwarded_at = 0.0
    asked_at = 0.0  # when all of it was with the target, or so much as there was: see `faring`
    moved = 0  # bytes, when the sweeper last looked (see `patience`)
    moved_at = 0.0  # when it last saw them move
    pending: list[bytes] | None = None  # body that came before there was a connection for it
    pending_bytes = 0
    trailers: tuple[bytes, ...] = ()  # of the request, once it has ended
    route: Route
    service: Service | None = None
    entry: KeyEntry | None = None
    refused_by: Guard | None = None
    upstream: UpstreamConnection | None = None

    def __init__(self, worker: Worker, client: ClientConnection, facts: Facts) -> None:
        self.worker = worker
        self.client = client
        self.facts = facts
        self.request_id = facts.fields.request_id or worker.new_request_id()
        self.started_at = time.monotonic()
        self.started_ns = time.time_ns()
        self.deadline = self.started_at + LOOKUP_TIMEOUT_S
        self.request_received = facts.fields.body_length == 0

    def __repr__(self) -> str:
        state = "done" if self.done else "answered" if self.status else "forwarded" if self.upstream else "judged"
        return f"<Exchange {self.request_id.decode()} {self.facts.method.decode()} {state}>"

    # Judged.

    def start(self) -> None:
        worker = self.worker
        facts = self.facts
        facts.key = facts.lease = None
        route = worker.snapshot.router.match(facts.path, facts.fields.host, facts.method)
        if route is None:
            self.refuse(NO_ADDRESS)
            return
        worker.exchanges.add(self)
        self.route = facts.route = route
        if worker.journal.spare is None and not worker.has_journal_room():
            worker.journal.lost_refusals += 1  # the slots that are left belong to those in flight
            self.refuse(DISK_FULL)  # without a service there is no record
            return
        self.service = facts.service = route.service
        if len(worker.exchanges) > worker.in_flight_limit:
            self.refuse(BUSY)
            return
        facts.keys = worker.keys.entries
        fields = facts.fields
        if fields.read_for is not route:
            fields.read_for = route
            credential = fields.credential = credential_of(fields, route.service) if route.needs_key else None
            fields.public_id = credential[3:11].decode("latin-1") if credential else ""
            choose_fields(fields, route, worker.credential_headers)
        self.judge(route.guards)

    def judge(self, guards: tuple[Guard, ...]) -> None:
        """Ask these guards, the route's or the rest of them; what passes them is admitted."""
        facts, now, now_s = self.facts, self.started_at, self.started_ns / 1e9
        for guard in guards:
            answer = guard(facts, now, now_s)
            if answer is not None:
                heed(self, guard, answer)
                return
        self.admitted = True
        entry = self.entry = facts.key
        if entry is not None:
            entry.in_flight += self.route.weight
        lease = facts.lease
        if lease is not None and lease.low and lease.surplus <= lease.low and not lease.asked:
            self.worker.keys.ask_ahead(lease)
        self.forward()

    # Forwarded.

    def forward(self, target: Target | None = None, *, fresh: bool = False) -> None:
        """To this target, or to whichever is chosen. `fresh`: over a connection that is made for it."""
        route = self.route
        if target is None:
            rotation = route.service.rotation
            target = rotation.only  # mostly
            if target is None:
                chosen = rotation.choose(time.monotonic(), self)
                if isinstance(chosen, Refusal):  # it was otherwise a moment ago
                    self.refuse(chosen)
                    return
                target = chosen
        pool = self.worker.pool_of(target)
        connection = None if fresh else pool.take()
        if connection is not None:
            self.connected(connection)
        else:
            self.tried += (target,)
            self.deadline = min(self.started_at + route.timeout_s, time.monotonic() + route.service.connect_timeout_s)
            if not pool.connect(self, fresh=fresh):
                self.refuse(Refusal(OVERLOADED, "too many connections to the upstream are being made", RETRY_SOON))

    def connected(self, connection: UpstreamConnection) -> None:
        """A connection is there: send the head and what there is of the body."""
        route = self.route
        now = self.forwarded_at = self.asked_at = time.monotonic()
        overall, first_byte = self.started_at + route.timeout_s, now + route.first_byte_timeout_s
        self.deadline = first_byte if first_byte < overall else overall
        self.upstream = connection
        head = request_bytes(self, route, connection.pool.target)
        if self.pending is not None:
            head += self._framed(b"".join(self.pending))
            self.pending = None
            self.pending_bytes = 0
            self.body_streamed = True
            self.deadline = AT_NEXT_SWEEP
            self.client.resume_reading()  # first: what is written now may be enough to pause it again
        connection.begin(self, head)
        if self.request_received:
            self._end_request_body()
        else:
            self.deadline = AT_NEXT_SWEEP

    def hash_value(self, on: str) -> bytes:
        return hash_value(self, on)

    def load_of(self, target: Target) -> int:
        return self.worker.load_of(target)

    def request_body(self, data: bytes) -> None:
        """Body data, unframed, as it came from the client."""
        self.bytes_in += len(data)
        if self.done:
            return
        limit = self.route.body_limit_bytes if self.service is not None else None
        if limit is not None and self.bytes_in > limit:  # a chunked body, whose length nobody declared
            self.give_up(Refusal(BODY_TOO_LARGE, f"the request body is longer than {limit} bytes"))
        elif self.upstream is not None:
            self.body_streamed = True
            self.upstream.transport.write(self._framed(data))
        else:
            if self.pending is None:
                self.pending = []
            self.pending.append(data)
            self.pending_bytes += len(data)
            if self.pending_bytes > PENDING_LIMIT_BYTES:
                self.client.pause_reading()

    def request_ended(self, trailers: tuple[bytes, ...] = ()) -> None:
        self.request_received = True
        self.trailers = trailers
        if not self.done and self.upstream is not None:
            self.asked_at = time.monotonic()
            self._end_request_body()

    @property
    def withholds_body(self) -> bool:
        """The client waits for a 100 that has not come; it may never send its body (RFC 9110 section 10.1.1)."""
        return self.facts.fields.expects_continue and not self.continued and not self.bytes_in

    def _framed(self, data: bytes) -> bytes:
        return chunked.encode(data) if self.facts.fields.body_length == CHUNKED else data

    def _end_request_body(self) -> None:
        assert self.upstream is not None
        self.body_sent = True
        fields = self.facts.fields
        if fields.body_length == CHUNKED:
            rules = self.route.service.request_rules
            self.upstream.transport.write(self._last_chunk(self.trailers, fields.connection_named, rules))

    def _last_chunk(self, trailers: tuple[bytes, ...], named: frozenset[bytes], rules: HeaderRules | None) -> bytes:
        if not trailers:
            return chunked.LAST_CHUNK
        ruled = () if rules is None else rules.dropped
        return chunked.encode_last(passed_on(trailers, named, self.worker.credential_headers, ruled))

    def pause_request(self) -> None:
        self.client.pause_reading()

    def resume_request(self) -> None:
        self.client.resume_reading()

    # Answered.

    def interim_answer(self, response: ResponseHead) -> None:
        """A 1xx other than 101 (RFC 9110 section 15.2): passed on as it comes, if the client can know what it is."""
        fields = self.facts.fields
        if self.done or fields.http_1_0:
            return
        if response.status == 100:
            if not fields.expects_continue or self.continued:
                return  # nobody waits for it
            self.continued = True
        rules = self.route.service.response_rules
        kept = response.kept if rules is None else rules.without(response.kept)  # what is added belongs to the answer
        self.client.write(kept + b"\r\n\r\n")

    def response_whole(self, response: ResponseHead, body: bytes) -> None:
        """Head and body together: the common case, one record and one write."""
        upstream, self.upstream = self.upstream, None
        if self.done:
            return
        assert upstream is not None  # which has answered
        if self.route.service.rotation.watched:
            response = attend_answer(self, upstream, response)
        status = self.status = response.status
        self.bytes_out = len(body)
        keep_alive = self.client.will_stay(self)
        data = response_bytes(self, response, keep_alive) + body
        ended_at = record_exchange(self, status, 0, 0)
        faring = upstream.pool.faring
        faring.new_times.append(ended_at - self.asked_at)
        if status >= FIRST_ERROR:
            faring.new_errors += 1
        self.client.end_answer(data, keep_alive, ended_at)

    def response_started(self, response: ResponseHead) -> None:
        if self.done:
            return
        assert self.upstream is not None  # which has answered
        self.upstream.pool.faring.answered(time.monotonic() - self.asked_at, response.status)
        if self.route.service.rotation.watched:
            response = attend_answer(self, self.upstream, response)
        self.status = response.status
        self.deadline, self.moved = AT_NEXT_SWEEP, UNSEEN
        # Without a length, HTTP/1.1 gets chunks; to HTTP/1.0 the end of the connection is the end of the body.
        unknown = response.body_length < 0
        self.chunk_response = unknown and not self.facts.fields.http_1_0
        if unknown and self.facts.fields.http_1_0:
            self.client.close_after(self)
        keep_alive = self.client.will_stay(self)
        if not keep_alive:
            self.client.close_after(self)  # as the head now says, however the connection stands when the body ends
        self.promised_to_stay = keep_alive
        self.client.write(response_bytes(self, response, keep_alive))

    def response_body(self, data: bytes) -> None:
        if self.done:
            return
        self.bytes_out += len(data)
        self.client.write(chunked.encode(data) if self.chunk_response else data)

    def response_ended(
        self, last: bytes = b"", trailers: tuple[bytes, ...] = (), named: frozenset[bytes] = NONE_NAMED
    ) -> None:
        """The upstream's message is whole. Its last bytes leave after the record is stored.

        `named`: by its Connection header.
        """
        self.upstream = None
        if self.done:
            return
        self.bytes_out += len(last)
        ended_at = record_exchange(self, self.status, 0, 0)
        if self.chunk_response:
            wanted = trailers if self.facts.fields.takes_trailers else ()
            rules = self.route.service.response_rules
            last = chunked.encode(last) + self._last_chunk(wanted, named, rules)
        self.client.end_answer(last, self.promised_to_stay, ended_at)

    def switched(self, upstream: UpstreamConnection, response: ResponseHead, rest: bytes) -> None:
        """A 101 that was asked for: its record is stored, then it goes out, then both connections are a tunnel's.

        `rest`: what came behind it.
        """
        if self.done:
            return
        # It may come to matter as long as the tunnel is open, and then there is no request to be asked.
        self.facts.address = self.client.origin.client_address(self.facts.fields)
        refusal = refusal_of_tunnel(self.worker, self.facts)
        if refusal is not None:  # things have changed since it was admitted
            self.give_up(refusal)
            return
        self.upstream = None
        upstream.pool.faring.answered(time.monotonic() - self.asked_at, SWITCHED)
        if self.route.service.rotation.watched:
            response = attend_answer(self, upstream, response)
        self.status = SWITCHED
        head = switch_bytes(self, response)
        record_exchange(self, SWITCHED, 0, 0)
        tunnel = Tunnel(self.worker, self.facts, self.request_id, self.client, upstream)
        if self.worker.hold is None:
            tunnel.open(self.client, head, rest)
        else:
            upstream.transport.pause_reading()  # what comes now is not for its protocol
            self.worker.hold(partial(tunnel.open_late, self.client, head, rest))

    def pause_response(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.pause_reading()

    def resume_response(self) -> None:
        if self.upstream is not None:
            self.upstream.transport.resume_reading()

    # Trouble.

    def client_left(self) -> None:
        if self.done:
            return
        if self.upstream is not None and self.body_sent and not self.status:
            self.upstream.pool.faring.given_up(time.monotonic() - self.asked_at)
        self._drop_upstream()
        status = self.status or NO_RESPONSE
        self.worker.recent.keep(self, status, None, CLIENT_LEFT)
        record_exchange(self, status, 0, CLIENT_LEFT)

    def check_time(self, now: float) -> None:
        """The sweeper's word that the deadline has passed."""
        if not self.done and is_overdue(self, now):
            end_overdue(self)

    def worker_ends(self) -> None:
        """The drain has taken as long as it may. What had begun is broken, not short."""
        if self.status:
            self.break_off(UPSTREAM_BROKE)
        else:
            self.give_up(Refusal(DRAINING, "this gateway ends before the upstream has answered; ask again", RETRY_SOON))

    def give_up(self, refusal: Refusal) -> None:
        """Cut the upstream off and refuse, or abort where a response has begun."""
        self._drop_upstream()
        if self.status:
            self.break_off(0)
        else:
            self.refuse(refusal)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.transport.abort()

    def break_off(self, flags: int) -> None:
        """The client is to see that what it has got of the response is not all."""
        self._drop_upstream()
        self.worker.recent.keep(self, self.status, None, flags or UPSTREAM_BROKE)
        record_exchange(self, self.status, 0, flags)
        self.client.abort()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a problem of our own: a guard's refusal, or what went wrong before a response began."""
        problem = refusal.problem
        self.status = problem.status
        self.worker.recent.keep(self, problem.status, refusal)
        if self.facts.fields.http_1_0:
            self.client.close_after(self)
        keep_alive = self.client.will_stay(self)
        data, self.bytes_out = render(
            refusal, self.request_id, limit_fields(self), head_only=self.facts.method == b"HEAD", close=not keep_alive
        )
        ended_at = record_exchange(self, problem.status, problem.number, 0)
        self.client.end_answer(data, keep_alive, ended_at)
