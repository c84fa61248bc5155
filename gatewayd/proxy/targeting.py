"""An exchange and the targets of its service: what a choice among them rests on, and what they are told of its end."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from gatewayd.proxy.dating import is_dated
from gatewayd.proxy.head import ResponseHead

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange
    from gatewayd.proxy.upstream import UpstreamConnection


def hash_value(exchange: Exchange, on: str) -> bytes:
    """What a service that balances by hash goes by. What a request lacks is replaced by who sent it."""
    fields = exchange.facts.fields
    if on == "client" and (found := _field("X-Client-ID").search(fields.raw)) is not None:
        return found[1]
    if on in ("client", "key") and exchange.entry is not None:
        return exchange.entry.conf.public_id.encode()
    if on.startswith("header:") and (found := _field(on[7:]).search(fields.raw)) is not None:
        return found[1]
    return exchange.client.origin.client_address(fields)


@lru_cache(256)
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n%b:[ \t]*([^\r]*)" % re.escape(name.encode()), re.IGNORECASE)


def tell_failed(exchange: Exchange, why: str, upstream: UpstreamConnection | None = None) -> None:
    """The target has not answered, or not in a way that can be passed on. Without `upstream`: the last one tried."""
    worker, rotation = exchange.worker, exchange.route.service.rotation
    identity = exchange.tried[-1].identity if upstream is None else upstream.pool.target.identity
    now = time.monotonic()
    rotation.failed(identity, exchange, why, now, worker.requests_within(identity, rotation.window_s, now))
    worker.sightings.note(exchange.route.service)
    faring = worker.faring_of(identity)
    if faring is None:
        return
    if upstream is None:
        faring.unreached()
    elif exchange.status:
        faring.broke_off(exchange.status)
    else:
        faring.failed(now - exchange.asked_at)


def attend_answer(exchange: Exchange, upstream: UpstreamConnection | None, response: ResponseHead) -> ResponseHead:
    """Where answers are watched: tell how it went, and the head as the service's rules have it."""
    assert upstream is not None  # which has answered
    service = exchange.route.service
    if service.rotation.answered(upstream.pool.target.identity, exchange, response.status, time.monotonic()):
        exchange.worker.sightings.note(service)
    rules = service.response_rules
    if rules is None:
        return response
    end = response.kept.find(b"\r\n")  # of the status line, which may be all there is
    line, fields = (response.kept, b"") if end < 0 else (response.kept[:end], response.kept[end:])
    ruled = response.with_kept(line + rules.applied(fields))
    ruled.dated = b"date" in rules.dropped or is_dated(ruled.kept)  # who removes it wants none
    return ruled
