"""The worker's side of `explain`: what would become of a request, and what became of one.

A what-if goes the way of a request on the wire: its head through the same parser, its facts through the same compiled
guards. What it meets is not to be spent, so it meets copies: a key entry of its own, with a lease of its own, and a
service whose places in flight are counted in a copied set. Where a guard lacks a key or a token, control is asked the
very question that a request would ask, wrapped so that the answer charges nothing.

A judgement that waits for control is a generator, which holds what it knows; `Explainer` sends it the answer.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import httptools
from uvicorn.server import ServerState

from gatewayd.channel import (
    Explained,
    Finding,
    FindKey,
    ForwardTold,
    FromWorker,
    Inquiry,
    KeyFound,
    LeaseAsked,
    LeaseGranted,
    LimitTold,
    Recall,
    RequestTold,
    StepTold,
    Told,
    WhatIf,
)
from gatewayd.errors import NO_ROUTE, OVERLOADED, Refusal
from gatewayd.policy import explaining
from gatewayd.policy.amounts import format_time
from gatewayd.policy.explaining import ADDRESS, GATEWAY, HEAD, UPSTREAM, Seen
from gatewayd.policy.facts import NEED_KEY, NEED_LEASE, NEED_ROUTE, Facts, Guard, Need, Route, Service, Target
from gatewayd.policy.guards import NO_SUCH_KEY, credential_of
from gatewayd.policy.spending import KeyEntry
from gatewayd.proxy.client import ClientConnection
from gatewayd.proxy.exchange import BUSY, DISK_FULL, NO_ADDRESS, Exchange
from gatewayd.proxy.forward import choose_fields, request_bytes
from gatewayd.proxy.head import read_request
from gatewayd.proxy.judgement import NO_HEAD, judge_again, new_parser, refusal_of_length
from gatewayd.proxy.origin import Origin, origin_of
from gatewayd.proxy.recent import Kept
from gatewayd.records import CLIENT_LEFT, UPSTREAM_BROKE

if TYPE_CHECKING:
    from gatewayd.proxy.worker import Worker

Question = FindKey | LeaseAsked
Judgement = Generator[Question, KeyFound | LeaseGranted, Told]

_END = b"\r\n\r\n"

log = logging.getLogger(__name__)


class Explainer:
    """Answers WhatIf and Recall; holds the judgements that wait for control."""

    def __init__(self, worker: Worker, send: Callable[[FromWorker], None]) -> None:
        self._worker = worker
        self._send = send
        self._waiting: dict[int, Judgement] = {}

    def __repr__(self) -> str:
        return f"<Explainer {len(self._waiting)} waiting>"

    def asked(self, message: WhatIf) -> None:
        self._go_on(message.ask, judge(self._worker, message), None)

    def found(self, message: Finding) -> None:
        judgement = self._waiting.pop(message.ask, None)
        if judgement is not None:
            self._go_on(message.ask, judgement, message.answer)

    def recall(self, message: Recall) -> None:
        kept = self._worker.recent.find(message.request_id.encode("utf-8", "replace"))
        self._send(Explained(message.ask, None if kept is None else tell_kept(self._worker, kept)))

    def reconnected(self) -> None:
        """Whoever had asked is gone."""
        self._waiting.clear()

    def _go_on(self, ask: int, judgement: Judgement, answer: KeyFound | LeaseGranted | None) -> None:
        try:
            # Not `next` for the first step: send(None) is the same, and one call serves all.
            question = judgement.send(answer)  # type: ignore[arg-type]
        except StopIteration as ended:
            self._send(Explained(ask, ended.value))
        except Exception:  # a mistake in here must not cost the worker its link
            log.exception("a what-if could not be told")
            self._send(Explained(ask, None))
        else:
            self._waiting[ask] = judgement
            self._send(Inquiry(ask, question))


# A request that might be.


def judge(worker: Worker, asked: WhatIf) -> Judgement:
    """What would become of this request, as the guards have it."""
    now, now_s = time.monotonic(), time.time_ns() / 1e9
    origin = origin_of(asked.address.encode(), worker.settings.trusted_proxies)
    facts = read_head(worker, asked.head)
    if isinstance(facts, Refusal):
        return _Telling(worker, asked, origin, Seen(now_s)).refused(HEAD, facts)
    telling = _Telling(worker, asked, origin, Seen(now_s), facts)
    telling.passed(HEAD, f"{len(asked.head)} bytes, well-formed")
    route = worker.snapshot.router.match(facts.path, facts.fields.host, facts.method)
    if route is None:
        return telling.refused(ADDRESS, NO_ADDRESS)
    service = _untouched(route.service)
    services = worker.snapshot.services
    in_flight = None if service.in_flight is None else len(service.in_flight)
    length = facts.fields.body_length
    seen = telling.seen = Seen(now_s, route, services, body_length=length, in_flight=in_flight)
    telling.passed(ADDRESS, _address(route, facts.path))
    refusal = _refusal_of_gateway(worker)
    if refusal is not None:
        return telling.refused(GATEWAY, refusal)
    telling.passed(GATEWAY, _room(worker))
    facts.route, facts.service, facts.keys, facts.key = route, service, {}, None
    _read_credential(worker, facts, asked)
    seen = telling.seen = dataclasses.replace(
        seen,
        public_id=explaining.visible_id(facts.fields.credential or b""),
        taken_as_given=route.needs_key and asked.public_id is not None,
    )
    if seen.taken_as_given:  # its name has no checksum, so no guard would ask for it
        _keep_found(facts, asked, (yield FindKey(facts.fields.public_id)))
    limits: tuple[LimitTold, ...] = ()
    refused_by: Guard | None = None
    facts.address = origin.client_address(facts.fields)
    rest = iter(route.guards)
    while (guard := next(rest, None)) is not None:
        answer = guard(facts, now, now_s)
        if answer is NEED_KEY:
            found = yield FindKey(facts.fields.public_id)
            answer = _keep_found(facts, asked, found) or guard(facts, now, now_s)
        elif answer is NEED_LEASE:
            entry = facts.key
            assert entry is not None and entry.lease is not None
            granted = yield LeaseAsked(entry.conf.id, 1, 0)
            limits = _take_grant(worker, entry, granted, now, now_s)
            answer = guard(facts, now, now_s)
        if answer is NEED_ROUTE:  # the key has chosen its own service, whose guards are asked from their first
            route = facts.route
            facts.service = _untouched(route.service)
            seen = dataclasses.replace(seen, route=route, chosen_by_key=True)
            rest = iter(route.guards)
            continue
        assert not isinstance(answer, Need)  # all that it can need it has been given
        if answer is not None:
            refused_by, refusal = guard, answer
            break
    key = facts.key
    seen = telling.seen = dataclasses.replace(seen, key=key.conf if key is not None else None, limits=limits)
    telling.steps += explaining.tell_guards(seen, refused_by, refusal)
    if refusal is not None:
        return telling.told(refusal, [explaining.skipped(UPSTREAM)])
    exchange = _exchange(worker, origin, facts)
    target = route.service.rotation.peek(now, exchange)
    assert not isinstance(target, Refusal)  # a guard has looked
    forward = _forward(exchange, target)
    telling.passed(UPSTREAM, f"{target.url} has its turn")
    return telling.told(None, [], forward)


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


def _untouched(service: Service) -> Service:
    """The service with its places in flight as they are, none of which is taken."""
    if service.in_flight is None:
        return service
    return dataclasses.replace(service, in_flight=set(service.in_flight))


def _read_credential(worker: Worker, facts: Facts, asked: WhatIf) -> None:
    """As `Exchange.start` does, but for a key that is named or shown beside the head."""
    fields, route = facts.fields, facts.route
    fields.read_for = route
    fields.public_id, fields.credential = "", None
    if route.needs_key:
        fields.credential = asked.secret or credential_of(fields, route.service)
        if asked.public_id is not None:
            fields.credential = _named(asked.public_id)
        fields.public_id = fields.credential[3:11].decode("latin-1") if fields.credential else ""


def _named(public_id: str) -> bytes:
    """In place of the key. It looks like one; that it is the right one is believed (see `_keep_found`)."""
    return f"gw_{public_id}_".encode()


def _keep_found(facts: Facts, asked: WhatIf, found: KeyFound | LeaseGranted) -> Refusal | None:
    """Control has said what the key is: an entry of our own, which nobody else spends from."""
    assert isinstance(found, KeyFound)
    if found.key is None:
        return NO_SUCH_KEY
    facts.keys = {facts.fields.public_id: KeyEntry(found.key)}
    if asked.public_id is not None:
        assert facts.fields.credential is not None
        # By whoever may administer keys.
        facts.fields.proven = (facts.fields.credential, found.key, found.key.generation)
    return None


def _take_grant(
    worker: Worker, entry: KeyEntry, granted: KeyFound | LeaseGranted, now: float, now_s: float
) -> tuple[LimitTold, ...]:
    """What control would grant, and what this worker has in hand, which a request would spend first."""
    assert isinstance(granted, LeaseGranted) and entry.lease is not None
    in_hand = worker.keys.in_hand(entry.conf.id)
    entry.lease.granted(granted, now)
    entry.lease.surplus += in_hand
    if not granted.left:  # its limits have just been lifted
        return ()
    names, remaining, more_at, heard_at, _ = entry.lease.known()
    return explaining.tell_limits((names, remaining, more_at, heard_at, in_hand), entry.conf, now, now_s)


def _refusal_of_gateway(worker: Worker) -> Refusal | None:
    if len(worker.exchanges) >= worker.in_flight_limit:
        return BUSY
    return None if worker.has_journal_room() else DISK_FULL


def _room(worker: Worker) -> str:
    return f"{len(worker.exchanges)} of {worker.in_flight_limit} requests are in flight in this worker"


def _address(route: Route, path: bytes) -> str:
    service = route.service.conf
    taken = f"; {_text(path[: route.strip])} is taken off" if route.strip else ""
    return f"service {service.slug} of tenant {service.tenant}{taken}"


def _exchange(worker: Worker, origin: Origin, facts: Facts) -> Exchange:
    """One that is never begun: for what asks an exchange."""
    client = ClientConnection(worker, config=None, server_state=ServerState(), app_state={})
    client.origin = origin
    exchange = Exchange(worker, client, facts)
    exchange.route, exchange.service, exchange.entry = facts.route, facts.service, facts.key
    return exchange


def _forward(exchange: Exchange, target: Target) -> ForwardTold:
    """What the target would get, by the code that writes it."""
    facts = exchange.facts
    choose_fields(facts.fields, facts.route, exchange.worker.credential_headers)
    route = facts.route
    head = request_bytes(exchange, route, target)
    line, *after = head.split(b"\r\n")
    before = facts.fields.raw.split(b"\r\n")
    path = line.split(b" ")[1].decode("utf-8", "backslashreplace")
    base = target.url.rstrip("/").removesuffix(target.base.decode())
    return ForwardTold(
        target=target.url,
        url=base + path,
        headers_set=_names(after, before),
        headers_removed=tuple(name for name in _names(before, after) if name not in _names(after, before)),
        connect_timeout_s=route.service.connect_timeout_s,
        first_byte_timeout_s=route.first_byte_timeout_s,
        idle_timeout_s=route.service.idle_timeout_s,
        timeout_s=None if math.isinf(route.timeout_s) else route.timeout_s,
    )


def _names(lines: list[bytes], others: list[bytes]) -> tuple[str, ...]:
    """Of the header lines that the others lack, each name once."""
    lacking = (line.partition(b":")[0].decode("latin-1") for line in lines if line and line not in others)
    return tuple(dict.fromkeys(lacking))


class _Telling:
    """The steps of one request so far, and who asks for it."""

    def __init__(self, worker: Worker, asked: WhatIf, origin: Origin, seen: Seen, facts: Facts | None = None) -> None:
        self._worker = worker
        self._asked = asked
        self._origin = origin
        self._facts = facts
        self.seen = seen
        self.steps: list[StepTold] = []

    def passed(self, step: str, detail: str) -> None:
        self.steps.append(StepTold(step, "pass", detail))

    def refused(self, step: str, refusal: Refusal) -> Told:
        """At a step before the guards."""
        self.steps.append(explaining.tell_refusal(step, self.seen, refusal))
        return self.told(refusal, _rest_after(step))

    def told(self, refusal: Refusal | None, rest: list[StepTold], forward: ForwardTold | None = None) -> Told:
        facts, seen = self._facts, self.seen
        request = RequestTold(
            id=None,
            at=format_time(int(seen.at_s)),
            method=_text(facts.method if facts is not None else self._asked.head.split(b" ", 1)[0]),
            path=_text(facts.path) if facts is not None else "",
            host=_text(facts.fields.host) if facts is not None else "",
            address=_text(self._origin.client_address(facts.fields) if facts is not None else self._origin.address),
            key=seen.key_name if seen.public_id else f"gw_{self._asked.public_id}" if self._asked.public_id else None,
        )
        return Told(
            request=request,
            outcome="admitted" if refusal is None else "refused",
            status=None if refusal is None else refusal.problem.status,
            code=None if refusal is None else refusal.problem.code,
            steps=(*self.steps, *rest),
            would_pass=None if refusal is None else explaining.would_pass(seen, refusal),
            forward=forward,
            worker=self._worker.slot,
        )


def _rest_after(step: str) -> list[StepTold]:
    """The steps that a request which was refused before the guards has not reached."""
    before = [HEAD, ADDRESS, GATEWAY]
    skipped = [explaining.skipped(name) for name in before[before.index(step) + 1 :]]
    return [*skipped, *explaining.not_reached(), explaining.skipped(UPSTREAM)]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


# A request that has been.


def tell_kept(worker: Worker, kept: Kept) -> Told:
    """What became of it, from what was kept."""
    started_s = kept.started_ns / 1e9
    limits: tuple[LimitTold, ...] = ()
    if kept.known is not None and kept.key is not None:
        limits = explaining.tell_limits(kept.known, kept.key, kept.started_at, started_s)
    seen = Seen(
        at_s=started_s,
        route=kept.route,
        services=worker.snapshot.services,
        public_id=kept.public_id if kept.key is None else kept.key.public_id,
        key=kept.key,
        body_length=kept.body_length,
        limits=limits,
        has_been=True,
    )
    refusal = kept.refusal
    return Told(
        request=RequestTold(
            id=_text(kept.request_id),
            at=format_time(int(started_s)),
            method=_text(kept.method),
            path=_text(kept.path),
            host=_text(kept.host),
            address=_text(kept.address),
            key=seen.key_name if seen.public_id else None,
        ),
        outcome="admitted" if kept.admitted else "refused",
        status=kept.status,
        code=None if refusal is None else refusal.problem.code,
        steps=tuple(_kept_steps(kept, seen)),
        would_pass=None if refusal is None else explaining.would_pass(seen, refusal),
        worker=worker.slot,
    )


def _kept_steps(kept: Kept, seen: Seen) -> list[StepTold]:
    refusal = kept.refusal
    if not kept.method:
        assert refusal is not None
        if refusal.problem is OVERLOADED:  # a connection too many, of which nothing was read
            unread = [explaining.skipped(HEAD), explaining.skipped(ADDRESS)]
            return [*unread, explaining.tell_refusal(GATEWAY, seen, refusal), *_rest_after(GATEWAY)]
        return [explaining.tell_refusal(HEAD, seen, refusal), *_rest_after(HEAD)]
    steps = [StepTold(HEAD, "pass", "well-formed")]
    if kept.route is None:
        assert refusal is not None and refusal.problem is NO_ROUTE
        return [*steps, explaining.tell_refusal(ADDRESS, seen, refusal), *_rest_after(ADDRESS)]
    steps.append(StepTold(ADDRESS, "pass", _address(kept.route, kept.path)))
    if kept.refused_by is None and not kept.admitted and refusal is not None:
        return [*steps, explaining.tell_refusal(GATEWAY, seen, refusal), *_rest_after(GATEWAY)]
    steps.append(StepTold(GATEWAY, "pass", "it had room"))
    if kept.refused_by is None and not kept.admitted:
        left = StepTold(UPSTREAM, "fail", "the client left while its key or its limits were being looked up")
        return [*steps, *explaining.not_reached(), left]
    steps += explaining.tell_guards(seen, kept.refused_by, refusal)
    steps.append(_kept_upstream(kept))
    return steps


def _kept_upstream(kept: Kept) -> StepTold:
    if kept.refused_by is not None:
        return explaining.skipped(UPSTREAM)
    tried = f"; tried {', '.join(target.url for target in kept.tried)}" if kept.tried else ""
    if kept.refusal is not None:
        return StepTold(UPSTREAM, "fail", kept.refusal.detail + tried)
    if kept.flags & CLIENT_LEFT:
        return StepTold(UPSTREAM, "fail", "the client left before its answer was whole" + tried)
    if kept.flags & UPSTREAM_BROKE:
        return StepTold(UPSTREAM, "fail", f"it answered {kept.status}, and the answer was broken off{tried}")
    return StepTold(UPSTREAM, "pass", f"it answered {kept.status}")
