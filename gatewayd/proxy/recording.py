"""What a worker puts on its journal: one record for each request, and what a tunnel has carried since."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gatewayd.policy.guards import generation_of
from gatewayd.proxy.recent import SAMPLE_MASK
from gatewayd.records import ADMITTED, MORE_BYTES, WOULD_REFUSE, pack_record

if TYPE_CHECKING:
    from gatewayd.policy.facts import Facts
    from gatewayd.policy.spending import KeyEntry, KeyMore
    from gatewayd.proxy.exchange import Exchange
    from gatewayd.proxy.journal import Journal

_LONGEST_US = 0xFFFFFFFF  # what a record holds: 71 minutes
SWITCHED = 101  # the status of a request that became a tunnel


def record_exchange(exchange: Exchange, status: int, problem: int, flags: int) -> float:
    """Store the one record of this exchange; from here on it is done. Returns the time."""
    exchange.done = True
    now = time.monotonic()
    worker = exchange.worker
    worker.exchanges.discard(exchange)
    requests = worker.requests = worker.requests + 1
    service = exchange.service
    if service is None:
        return now  # no address of anybody's: nobody's usage
    if service.in_flight is not None and status != SWITCHED:  # a tunnel keeps its place
        service.in_flight.discard(exchange.facts)
    if not requests & SAMPLE_MASK and not problem:  # a refusal is kept by who refuses
        worker.recent.keep(exchange, status, None)
    gateway_us = int((now - exchange.started_at) * 1e6)
    upstream_us = 0
    if exchange.forwarded_at:
        upstream_us = int((now - exchange.forwarded_at) * 1e6)
        gateway_us -= upstream_us
        if upstream_us > _LONGEST_US:
            upstream_us = _LONGEST_US
    if gateway_us > _LONGEST_US:
        gateway_us = _LONGEST_US
    key_id = price_id = client_id = generation = 0
    route = exchange.route
    weight = route.weight
    entry = exchange.entry
    if exchange.admitted:
        flags |= ADMITTED
    if entry is not None:
        conf = entry.conf
        key_id, price_id, generation = conf.id, conf.price_id, conf.generation
        if generation != 1:
            generation = generation_of(exchange.facts)
        if exchange.admitted:
            entry.in_flight -= weight
        if entry.more is not None:
            client_id = client_id_of(exchange.facts)
            flags |= _leave(exchange, entry, entry.more, status)
    worker.journal.append(
        pack_record(
            flags, exchange.started_ns, service.tenant_id, service.id, route.id, key_id, client_id, 0, price_id, status,
            problem, weight, exchange.bytes_in, exchange.bytes_out, gateway_us, upstream_us,
            exchange.request_id[:16], generation,
        )
    )  # fmt: skip
    return now


def client_id_of(facts: Facts) -> int:
    """The client that this request of a key with clients is of; 0 where none counts or it was not looked at."""
    return getattr(facts, "client_id", 0)


def _leave(exchange: Exchange, entry: KeyEntry, more: KeyMore, status: int) -> int:
    """Give back what the rarer plans give out. Returns the flags that follow."""
    facts = exchange.facts
    if status != SWITCHED:  # a tunnel keeps its slot
        exchange.worker.keys.leave_slot(entry, facts)
    if facts not in more.let_pass:
        return 0
    more.let_pass.discard(facts)
    return WOULD_REFUSE if exchange.admitted else 0


def record_more_bytes(journal: Journal, facts: Facts, request_id: bytes, bytes_in: int, bytes_out: int) -> None:
    """Bytes that a tunnel has carried, counted for the time at which they are recorded; its request stands already."""
    service, entry = facts.service, facts.key
    key_id = price_id = client_id = generation = 0
    if entry is not None:
        key_id, price_id, generation = entry.conf.id, entry.conf.price_id, generation_of(facts)
        if entry.more is not None:
            client_id = client_id_of(facts)
    journal.append(
        pack_record(
            MORE_BYTES, time.time_ns(), service.tenant_id, service.id, facts.route.id, key_id, client_id, 0, price_id,
            SWITCHED, 0, 0, bytes_in, bytes_out, 0, 0, request_id[:16], generation,
        )
    )  # fmt: skip
