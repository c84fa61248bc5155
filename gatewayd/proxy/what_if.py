"""What would become of a request: it is judged as one on the wire would be, and nothing is spent by it.

Its head goes through the same parser, its facts through the same compiled guards. What it meets is not to be spent, so
it meets copies: a key entry of its own, with a lease of its own, and a service whose places in flight are counted in a
copied set. Where a guard lacks a key or a token, control is asked the very question that a request would ask, wrapped
so that the answer charges nothing, and the guard is asked again.

A judgement is a generator of such questions: between two of them it waits without a task.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Final

import httptools
from uvicorn.server import ServerState

from gatewayd.channel import (
    ClientFound,
    FindClient,
    FindKey,
    Found,
    KeyFound,
    LeaseAsked,
    LeaseGranted,
    Question,
    SlotsAsked,
    SlotsGranted,
    WhatIf,
)
from gatewayd.errors import Refusal
from gatewayd.keys import visible_id
from gatewayd.policy import explaining
from gatewayd.policy.amounts import format_time
from gatewayd.policy.explaining import ADDRESS, GATEWAY, HEAD, UPSTREAM, Seen, text
from gatewayd.policy.facts import (
    NEED_ADDRESS,
    NEED_CLIENT,
    NEED_KEY,
    NEED_LEASE,
    NEED_ROUTE,
    NEED_SLOT,
    Facts,
    Guard,
    Need,
    Route,
    Service,
    Target,
)
from gatewayd.policy.guards import NO_SUCH_KEY, credential_of
from gatewayd.policy.limiting import client_name
from gatewayd.policy.spending import KeyEntry
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.exchange import BUSY, DISK_FULL, NO_ADDRESS, Exchange
from gatewayd.proxy.forward import choose_fields, request_bytes
from gatewayd.proxy.head import read_request
from gatewayd.proxy.judgement import NO_HEAD, judge_again, new_parser, refusal_of_length
from gatewayd.proxy.origin import origin_of
from gatewayd.told import ForwardTold, RequestTold, StepTold, Told

if TYPE_CHECKING:
    from gatewayd.proxy.worker import Worker

Judgement = Generator[Question, Found, Told]
Asked = Generator[Question, Found, None]
Met = Generator[Question, Found, Refusal | None]
_END = b"\r\n\r\n"
_MOST_NEEDS: Final = 16  # of a request; a guard that lacks the same for ever is a mistake of ours


class Trial:
    """One request that might be."""

    def __init__(self, worker: Worker, asked: WhatIf) -> None:
        self.worker = worker
        self.asked = asked
        self.now = time.monotonic()
        self.now_s = time.time_ns() / 1e9
        self.origin = origin_of(asked.address.encode(), worker.settings.trusted_proxies)
        self.facts: Facts | None = None
        self.seen = Seen(self.now_s)
        self.steps: list[StepTold] = []

    def __repr__(self) -> str:
        return f"<Trial {len(self.steps)} steps>"

    def judge(self) -> Judgement:
        """What would become of it, as the guards have it."""
        worker, asked = self.worker, self.asked
        facts = read_head(worker, asked.head)
        if isinstance(facts, Refusal):
            return self._refused(HEAD, facts)
        self.facts = facts
        self._passed(HEAD, f"{len(asked.head)} bytes, well-formed")
        route = worker.snapshot.router.match(facts.path, facts.fields.host, facts.method)
        if route is None:
            return self._refused(ADDRESS, NO_ADDRESS)
        self._meet(facts, route)
        self._passed(ADDRESS, explaining.address(route, facts.path))
        if len(worker.exchanges) >= worker.in_flight_limit:
            return self._refused(GATEWAY, BUSY)
        if not worker.has_journal_room():
            return self._refused(GATEWAY, DISK_FULL)
        in_flight, limit = len(worker.exchanges), worker.in_flight_limit
        self._passed(GATEWAY, f"{in_flight} of {limit} requests are in flight in this worker")
        if self.seen.taken_as_given:  # its name has no checksum, so no guard would ask for it
            yield from self._find_key(facts)
        refused_by, refusal = yield from self._ask_guards(facts)
        self._see(facts)
        self.steps += explaining.tell_guards(self.seen, refused_by, refusal)
        if refusal is not None:
            return self._told(refusal, [explaining.skipped(UPSTREAM)])
        exchange = self._exchange(facts)
        target = facts.route.service.rotation.peek(self.now, exchange)
        if isinstance(target, Refusal):  # it was otherwise when its guard looked, before control was asked
            return self._told(target, [explaining.tell_refusal(UPSTREAM, self.seen, target)])
        outside = ", where it leads outside of the gateway's own machine" if target.bound else ""
        self._passed(UPSTREAM, f"{target.url} has its turn{outside}")
        return self._told(None, [], forward(exchange, target))

    def _ask_guards(self, facts: Facts) -> Generator[Question, Found, tuple[Guard | None, Refusal | None]]:
        """Each in its order, and again when it has got what it lacked. The one that refuses, and its refusal."""
        position = needs = 0
        while position < len(facts.route.guards):
            guard = facts.route.guards[position]
            answer = guard(facts, self.now, self.now_s)
            if answer is None:
                position += 1
            elif answer is NEED_ROUTE:  # the key has chosen its own service, whose guards are asked from their first
                position = 0
                facts.route = _unshared(facts.route)
                facts.service = self._untouched(facts.route.service)
                self.seen = dataclasses.replace(self.seen, route=facts.route, chosen_by_key=True)
            elif isinstance(answer, Refusal):
                return guard, answer
            else:
                needs += 1
                assert needs <= _MOST_NEEDS, f"{guard} still lacks its {answer.value}"
                refusal = yield from self._get(answer, facts)
                if refusal is not None:
                    return guard, refusal
        return None, None

    def _get(self, need: Need, facts: Facts) -> Met:
        """What a guard lacks, or a refusal where that is not to be had."""
        if need is NEED_KEY:
            return (yield from self._find_key(facts))
        if need is NEED_ADDRESS:
            facts.address = self.origin.client_address(facts.fields)
            return None
        if need is NEED_LEASE:
            yield from self._peek(facts)
        elif need is NEED_CLIENT:
            yield from self._find_client(facts)
        else:
            assert need is NEED_SLOT
            yield from self._look_for_slot(facts)
        return None

    # What it meets.

    def _meet(self, facts: Facts, route: Route) -> None:
        """As in `Exchange.start`, but for the copies, and a key that is named or shown beside the head."""
        asked, fields = self.asked, facts.fields
        route = _unshared(route)
        facts.route, facts.keys, facts.key, facts.lease = route, {}, None, None
        facts.service = self._untouched(route.service)
        fields.read_for = route
        fields.public_id, fields.credential = "", None
        if route.needs_key:
            fields.credential = asked.secret or credential_of(fields, route.service)
            if asked.public_id is not None:  # in place of the key, which is believed to be the right one
                fields.credential = f"gw_{asked.public_id}_".encode()
            fields.public_id = fields.credential[3:11].decode("latin-1") if fields.credential else ""
        self.seen = dataclasses.replace(
            self.seen,
            route=route,
            services=self.worker.snapshot.services,
            public_id=visible_id(fields.credential or b""),
            taken_as_given=route.needs_key and asked.public_id is not None,
            body_length=fields.body_length,
        )

    def _untouched(self, service: Service) -> Service:
        """The service with its places in flight as they are, none of which is taken."""
        if service.in_flight is None:
            return service
        self.seen = dataclasses.replace(self.seen, in_flight=len(service.in_flight))
        return dataclasses.replace(service, in_flight=set(service.in_flight))

    def _exchange(self, facts: Facts) -> Exchange:
        """One that is never begun, for what asks an exchange."""
        client = ClientConnection(self.worker, config=None, server_state=ServerState(), app_state={})
        client.origin = self.origin
        exchange = Exchange(self.worker, client, facts)
        exchange.route, exchange.service, exchange.entry = facts.route, facts.service, facts.key
        return exchange

    def _see(self, facts: Facts) -> None:
        """What the guards have found."""
        if facts.key is not None:
            conf = facts.key.conf
            self.seen = dataclasses.replace(self.seen, route=facts.route, key=conf, public_id=conf.public_id)

    def _find_key(self, facts: Facts) -> Met:
        """An entry of its own, which nobody else spends from."""
        fields = facts.fields
        found = yield FindKey(fields.public_id)
        assert isinstance(found, KeyFound)
        if found.key is None:
            return NO_SUCH_KEY
        facts.keys[fields.public_id] = KeyEntry(found.key)
        if self.asked.public_id is not None:
            assert fields.credential is not None
            # By whoever may administer keys.
            fields.proven = (fields.credential, found.key, found.key.generation)
        return None

    def _find_client(self, facts: Facts) -> Asked:
        key = facts.key
        assert key is not None and key.more is not None
        name = client_name(facts.fields)
        found = yield FindClient(key.conf.id, name)
        assert isinstance(found, ClientFound)
        key.more.clients[name] = found.client

    def _look_for_slot(self, facts: Facts) -> Asked:
        """One is free over all workers, or none is."""
        key = facts.key
        assert key is not None and key.more is not None
        found = yield SlotsAsked(key.conf.id, 1)
        assert isinstance(found, SlotsGranted)
        if found.granted:
            key.more.slots.free = 1
        else:
            key.more.slots.denied_at = self.now

    def _peek(self, facts: Facts) -> Asked:
        """What control would grant, beside what this worker has in hand, which a request would spend first."""
        lease = facts.lease
        assert lease is not None
        units = facts.route.weight
        granted = yield LeaseAsked(lease.id, units, 0, units)
        assert isinstance(granted, LeaseGranted)
        in_hand = self.worker.keys.in_hand(lease.id)
        lease.granted(granted, self.now)
        lease.surplus += in_hand
        if granted.left:  # else its limits have just been lifted
            known = (*lease.known()[:-1], in_hand)
            self.seen = dataclasses.replace(self.seen, limits=explaining.tell_limits(known, self.now, self.now_s))

    # What is told of it.

    def _passed(self, step: str, detail: str) -> None:
        self.steps.append(StepTold(step, "pass", detail))

    def _refused(self, step: str, refusal: Refusal) -> Told:
        """At a step before the guards."""
        self.steps.append(explaining.tell_refusal(step, self.seen, refusal))
        return self._told(refusal, explaining.rest_after(step))

    def _told(self, refusal: Refusal | None, rest: list[StepTold], forwarded: ForwardTold | None = None) -> Told:
        problem = None if refusal is None else refusal.problem
        return Told(
            request=self._request(),
            outcome="admitted" if refusal is None else "refused",
            status=None if problem is None else problem.status,
            code=None if problem is None else problem.code,
            steps=(*self.steps, *rest),
            would_pass=None if refusal is None else explaining.would_pass(self.seen, refusal),
            forward=forwarded,
            worker=self.worker.slot,
        )

    def _request(self) -> RequestTold:
        facts, public_id = self.facts, self.seen.public_id or self.asked.public_id
        fields = None if facts is None else facts.fields
        return RequestTold(
            id=None,
            at=format_time(int(self.now_s)),
            method=text(self.asked.head.split(b" ", 1)[0] if facts is None else facts.method),
            path="" if facts is None else text(facts.path),
            host="" if fields is None else text(fields.host),
            address=text(self.origin.address if fields is None else self.origin.client_address(fields)),
            key=f"gw_{public_id}" if public_id else None,
        )


def _unshared(route: Route) -> Route:
    """The route with leases of its own: those of requests without a key stand there, and are spent by real ones."""
    if route.shared is None:
        return route
    return dataclasses.replace(route, shared=dataclasses.replace(route.shared, leases={}))


def read_head(worker: Worker, head: bytes) -> Facts | Refusal:
    """A head that came in one piece, as `ClientConnection` reads it."""
    settings = worker.settings
    if not head.endswith(_END) or head.find(_END) != len(head) - len(_END):
        return NO_HEAD
    if len(head) > settings.head_limit_bytes and head.find(b"\r\n") <= settings.target_limit_bytes:
        return refusal_of_length(settings)
    try:
        new_parser().feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        refusal = judge_again(head, error)
        if refusal is not None:
            return refusal
    return read_request(head, worker.head_pattern, settings.target_limit_bytes)


def forward(exchange: Exchange, target: Target) -> ForwardTold:
    """What the target would get, by the code that writes it."""
    facts, route = exchange.facts, exchange.route
    choose_fields(facts.fields, route, exchange.worker.credential_headers)
    head = request_bytes(exchange, route, target)
    line, *after = head.split(b"\r\n")
    before = facts.fields.raw.split(b"\r\n")
    new = _names(after, before)
    base = target.url.rstrip("/").removesuffix(target.base.decode())
    return ForwardTold(
        target=target.url,
        url=base + text(line.split(b" ")[1]),
        headers_set=tuple(new.values()),
        headers_removed=tuple(name for lower, name in _names(before, after).items() if lower not in new),
        connect_timeout_s=route.service.connect_timeout_s,
        first_byte_timeout_s=route.first_byte_timeout_s,
        idle_timeout_s=route.service.idle_timeout_s,
        timeout_s=None if math.isinf(route.timeout_s) else route.timeout_s,
    )


def _names(lines: list[bytes], others: list[bytes]) -> Mapping[str, str]:
    """Of the header lines that the others lack, each name once, by its lower case."""
    lacking = [text(line.partition(b":")[0]) for line in lines if line and line not in others]
    return {name.lower(): name for name in lacking}
