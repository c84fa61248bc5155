"""Tunnels: what two connections become after an admitted upgrade, and what ends them.

After a 101 (RFC 9110 section 7.8) neither side speaks HTTP any more. Each transport gets a small protocol of its own
that writes across what it reads; nothing else happens to a message. Reading stops while the other side does not take
what was written to it. A side that closes half is closed half on the other side too, where the transport can (TLS
cannot); one that ends ends the other, after what is unsent has gone.

    opened      its request is on the journal: admitted, counted once, status 101
    judged      again whenever its key, its service or its tenant may have changed, by the same guards
    recorded    every few seconds, and at the end: what it has carried since, in records that count no request
    over        both sides are closing; what a peer does not take is dropped after a while

A change of a key says only that it changed. Nothing passes from that moment until the key has been looked up again, so
when `gatectl key revoke` returns no byte of that key's passes any more, though its end comes a moment later.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from gatewayd.errors import DRAINING, NO_ROUTE, RETRY_SOON, Refusal
from gatewayd.policy.guards import refusal_of_standing, route_of_key
from gatewayd.proxy.recording import record_more_bytes

if TYPE_CHECKING:
    from collections.abc import Container

    from gatewayd.policy.facts import Facts
    from gatewayd.proxy.client import ClientConnection
    from gatewayd.proxy.keybook import KeyBook
    from gatewayd.proxy.upstream import UpstreamConnection
    from gatewayd.proxy.worker import Worker

REPORT_S = 5.0  # how old the figures of a tunnel that is open may be
_NOW_DRAINING = Refusal(DRAINING, "this gateway is about to end; ask again", RETRY_SOON)
_NO_SERVICE = Refusal(NO_ROUTE, "this address leads to the service no more")


class _End(asyncio.Protocol):
    """One side. `before` is the protocol that it takes over from, which still keeps account of its connection."""

    __slots__ = ("_before", "_write", "ended", "lost", "other", "received", "transport", "tunnel", "writing_paused")

    other: _End

    def __init__(self, tunnel: Tunnel, before: ClientConnection | UpstreamConnection) -> None:
        self.tunnel = tunnel
        self.transport = before.transport
        self.received = 0  # bytes, all of them written to the other side
        self.ended = False  # it has closed its side: nothing more comes
        self.lost = False
        self.writing_paused = False  # it takes more slowly than it is written to
        self._before = before

    def __repr__(self) -> str:
        return f"<_End {self.received} bytes{', ended' if self.ended else ''}>"

    def join(self, other: _End) -> None:
        self.other = other
        self._write = other.transport.write

    # A message is these two lines: the path is as short as it can be.
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._write(data)

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.other.resume_reading()

    def pause_reading(self) -> None:
        if not self.ended and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not (self.ended or self.other.writing_paused or self.tunnel.held or self.transport.is_closing()):
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other.transport
        if self.other.ended or not (other.can_write_eof() and self.transport.can_write_eof()):
            self.tunnel.end()
            return False
        if not other.is_closing():
            other.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._before.connection_lost(exc)
        self.tunnel.side_lost()


class Tunnel:
    """Both sides and what they stand on. It is among the server's connections in place of the client's."""

    __slots__ = (
        "_active_at", "_asking", "_client", "_digest", "_opened_at", "_over", "_public_id", "_recorded_at",
        "_recorded_in", "_recorded_out", "_seen", "_upstream", "_worker", "facts", "held", "request_id",
    )  # fmt: skip

    def __init__(
        self, worker: Worker, facts: Facts, request_id: bytes, client: ClientConnection, upstream: UpstreamConnection
    ) -> None:
        self._worker = worker
        self.facts = facts
        self.request_id = request_id
        self.held = False  # nothing is read while its key is looked up again
        self._asking = False
        self._over = False
        self._public_id, self._digest = "", b""
        if facts.key is not None:  # what it says now: a key that changes does so in place
            self._public_id, self._digest = facts.key.conf.public_id, facts.key.conf.digest
        self._opened_at = self._active_at = self._recorded_at = worker.now()
        self._recorded_in = self._recorded_out = 0
        self._seen = 0  # bytes either way, or bytes unsent once it is over, when last looked at
        self._client = _End(self, client)
        self._upstream = _End(self, upstream)
        self._client.join(self._upstream)
        self._upstream.join(self._client)

    def __repr__(self) -> str:
        state = "over" if self._over else "held" if self.held else "open"
        service = self.facts.service
        return f"<Tunnel {service!r} {self._client.received} in, {self._upstream.received} out, {state}>"

    def open(self, client: ClientConnection, head: bytes, rest: bytes) -> None:
        """Answer, and take both transports over. `rest`: what the upstream has sent since its answer."""
        client.write(head)
        self._client.writing_paused = client.writing_paused
        worker = self._worker
        worker.tunnels.add(self)
        self._client.transport.set_protocol(self._client)
        self._upstream.transport.set_protocol(self._upstream)
        sent_ahead, half_closed = client.hand_over()
        if rest:
            self._upstream.data_received(rest)
        if sent_ahead:
            self._client.data_received(sent_ahead)
        if half_closed:
            self._client.eof_received()
        if self._client.writing_paused:
            self._upstream.pause_reading()
        self._client.resume_reading()
        # Forgotten since it was admitted: it may have changed, and the news has gone by.
        if self._public_id and worker.keys.entries.get(self._public_id) is not self.facts.key:
            self.look_up(hold=True)

    def open_late(self, client: ClientConnection, head: bytes, rest: bytes, on_disk: bool) -> None:
        """The same once its record is on the disk, for which reading from the upstream was paused."""
        ends = (self._client, self._upstream)
        fails = not on_disk or any(end.transport.is_closing() for end in ends)
        if fails or _refusal_of_standing(self._worker, self.facts) is not None:  # the news of that has gone by
            client.abort()
            self._upstream.transport.abort()
            self._worker.tunnels.lost(self)  # it has had its place and its slot since it was admitted
            return
        self._upstream.transport.resume_reading()
        self.open(client, head, rest)
        if self._worker.draining:  # since then
            self.shutdown()

    # Judged.

    def look_up(self, *, hold: bool) -> None:
        """Its key may have changed. `hold`: it has, so nothing passes before it is known how."""
        if self._over:
            return
        if hold:
            self.held = True
            self._client.pause_reading()
            self._upstream.pause_reading()
        if not self._asking:
            self._asking = True
            self._worker.keys.look_ups.wait_for_known(self._public_id, self._key_known)

    def _key_known(self) -> None:
        self._asking = False
        if self._over:
            return
        entry = self._worker.keys.entries.get(self._public_id)
        # A key that was rotated has that digest as an older one; whether it still works is for the guards to say.
        if entry is None or self._digest not in [entry.conf.digest] + [older.digest for older in entry.conf.older]:
            self.cut()
            return
        self.facts.key = entry
        self.judge()
        self._release()

    def _release(self) -> None:
        if self.held:
            self.held = False
            self._client.resume_reading()
            self._upstream.resume_reading()

    def judge(self) -> None:
        """By what is known now."""
        if not self._over and _refusal_of_standing(self._worker, self.facts) is not None:
            self.cut()

    def is_of(self, public_ids: Container[str] | None) -> bool:
        """Whether it stands on one of these keys; None: on any."""
        return self._public_id != "" and (public_ids is None or self._public_id in public_ids)

    # Ended.

    def shutdown(self) -> None:
        """uvicorn drains. At once: its client connects again to a worker that goes on."""
        self.end()

    def end(self) -> None:
        """Close both sides, each after what is unsent to it has gone."""
        if not self._over:
            self._over = True
            self._seen, self._active_at = -1, self._worker.now()
        self._client.transport.close()
        self._upstream.transport.close()

    def cut(self) -> None:
        """End it now; what is unsent is dropped."""
        self._over = True
        self._client.transport.abort()
        self._upstream.transport.abort()

    def side_lost(self) -> None:
        if not (self._client.lost and self._upstream.lost):
            self.end()
        else:
            self._worker.tunnels.lost(self)

    # Looked at.

    def check_time(self, now: float) -> None:
        """Called about once a second."""
        if self._over:
            return self._check_unsent(now)
        carried = self._client.received + self._upstream.received
        conf = self.facts.service.conf
        if carried != self._seen:
            self._seen, self._active_at = carried, now
        elif now - self._active_at > conf.idle_timeout_s:
            return self.end()
        if conf.tunnel_lifetime_s is not None and now - self._opened_at > conf.tunnel_lifetime_s:
            return self.end()
        if now - self._recorded_at >= REPORT_S:
            self._recorded_at = now
            self.record()
        return self.judge()  # a key expires without news

    def _check_unsent(self, now: float) -> None:
        unsent = sum(end.transport.get_write_buffer_size() for end in (self._client, self._upstream) if not end.lost)
        if unsent != self._seen:
            self._seen, self._active_at = unsent, now
        elif now - self._active_at > self._worker.settings.keep_alive_s:
            self.cut()

    def record(self, *, though_full: bool = False) -> bool:
        """Put what it has carried since the last time on the journal. False: there is no room for the moment.

        `though_full`: there will be no other time; the journal counts what it loses.
        """
        bytes_in = self._client.received - self._recorded_in
        bytes_out = self._upstream.received - self._recorded_out
        if not bytes_in and not bytes_out:
            return True
        worker = self._worker
        if not though_full and not worker.journal.has_room(len(worker.exchanges)):
            return False  # what is in flight comes first
        self._recorded_in += bytes_in
        self._recorded_out += bytes_out
        record_more_bytes(worker.journal, self.facts, self.request_id, bytes_in, bytes_out)
        return True


class Tunnels:
    """Those of one worker."""

    def __init__(self, connections: set[Any], keys: KeyBook) -> None:
        self._connections = connections  # of the server, which waits for them when it drains
        self._keys = keys
        self._open: set[Tunnel] = set()
        self._unrecorded: list[Tunnel] = []  # ended, with bytes for which the journal had no room

    def __repr__(self) -> str:
        return f"<Tunnels {len(self._open)} open, {len(self._unrecorded)} to be recorded>"

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tunnel: Tunnel) -> None:
        self._open.add(tunnel)
        self._connections.add(tunnel)

    def lost(self, tunnel: Tunnel) -> None:
        self._open.discard(tunnel)
        self._connections.discard(tunnel)
        places = tunnel.facts.service.in_flight
        if places is not None:
            places.discard(tunnel.facts)
        key = tunnel.facts.key
        if key is not None and key.more is not None:
            self._keys.leave_slot(key, tunnel.facts)
        if not tunnel.record():
            self._unrecorded.append(tunnel)

    def keys_changed(self, public_ids: tuple[str, ...] | None) -> None:
        """The key book has forgotten these keys. Called before control is told so."""
        for tunnel in list(self._open):
            if tunnel.is_of(public_ids):
                tunnel.look_up(hold=True)

    def snapshot_changed(self) -> None:
        for tunnel in list(self._open):
            tunnel.judge()

    def control_returned(self) -> None:
        """News of any key may have been missed. They are carried on meanwhile, as new requests would be."""
        for tunnel in list(self._open):
            if tunnel.is_of(None):
                tunnel.look_up(hold=False)

    def sweep(self) -> None:
        self._unrecorded = [tunnel for tunnel in self._unrecorded if not tunnel.record()]

    def close(self) -> None:
        """The worker ends, whether or not they have."""
        for tunnel in (*self._open, *self._unrecorded):
            tunnel.cut()
            tunnel.record(though_full=True)


def refusal_of_tunnel(worker: Worker, facts: Facts) -> Refusal | None:
    """Why a tunnel may not begin for this request, as things stand now; None if it may."""
    return _NOW_DRAINING if worker.draining else _refusal_of_standing(worker, facts)


def _refusal_of_standing(worker: Worker, facts: Facts) -> Refusal | None:
    route = worker.snapshot.router.match(facts.path, facts.fields.host, facts.method)
    if route is not None and route.of_service is not None:
        if facts.key is None:
            return _NO_SERVICE
        chosen = route_of_key(route, facts.key.conf)
        if isinstance(chosen, Refusal):
            return chosen
        route = chosen
    if route is None or route.service.id != facts.service.id:
        return _NO_SERVICE
    facts.route, facts.service = route, route.service
    return refusal_of_standing(facts, worker.now(), time.time_ns() / 1e9)
