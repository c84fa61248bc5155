"""How long an exchange may take, and how it ends when it takes longer; looked at by the sweeper.

An exchange has one deadline: the next time at which there may be something to do about it. Nothing on its way notes
when a byte came. When the deadline is there, what has moved by then is compared with what had moved at the last look,
and either its time is up or there is a later deadline. The rules, once the key is known and the connection is made:

    overall     from the request's head to the response's last byte
    first byte  from when the request went out, or from the last progress of its body, to the response's head
    idle        between two signs of progress of a response that streams

Progress of a body is seen by looking about once a second, so an end may come so much late, never early.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gatewayd.errors import OVERLOADED, REQUEST_TIMEOUT, RETRY_SOON, UPSTREAM_TIMEOUT, Refusal
from gatewayd.proxy.failover import forward_elsewhere
from gatewayd.proxy.targeting import tell_failed
from gatewayd.records import CLIENT_LEFT, UPSTREAM_BROKE

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange

LOOK_AGAIN_S = 1.0
AT_NEXT_SWEEP = 0.0  # a deadline that has passed already: bodies are watched from there on
UNSEEN = -1  # in place of what had moved: what comes next is progress


def is_overdue(exchange: Exchange, now: float) -> bool:
    """Whether its time is up. If not, its deadline has been set anew."""
    service = exchange.service
    if service is None or exchange.upstream is None:
        return True  # a look-up or a connect, whose deadlines are what they are
    route = exchange.route
    overall = exchange.started_at + route.timeout_s
    if now >= overall:
        return True
    patience_s = service.idle_timeout_s if exchange.status else route.first_byte_timeout_s
    moved = _moved(exchange)
    if moved != exchange.moved:
        exchange.moved, exchange.moved_at = moved, now
    ends_at = max(exchange.moved_at, exchange.forwarded_at) + patience_s
    exchange.deadline = min(overall, ends_at, now + min(LOOK_AGAIN_S, patience_s / 4))
    return now >= ends_at


def _moved(exchange: Exchange) -> int:
    """Bytes of the bodies that have come and gone: what one side does not take is no progress of the other's."""
    assert exchange.upstream is not None
    moved = exchange.bytes_in - exchange.upstream.transport.get_write_buffer_size()
    if exchange.status:
        moved += exchange.bytes_out - exchange.client.transport.get_write_buffer_size()
    return moved


def end_overdue(exchange: Exchange) -> None:
    """Who kept whom waiting decides the answer."""
    client = exchange.client
    if exchange.status and client.writing_paused:
        exchange.break_off(CLIENT_LEFT)
    elif exchange.status:
        if exchange.upstream is not None:
            exchange.upstream.pool.faring.broke_off(exchange.status)
        exchange.break_off(UPSTREAM_BROKE)
    elif not exchange.admitted:
        exchange.give_up(Refusal(OVERLOADED, "the gateway could not look up the key in time", RETRY_SOON))
    elif exchange.upstream is None:
        _end_connecting(exchange)
    elif not exchange.request_received and not client.reading_paused and not exchange.withholds_body:
        client.close_after(exchange)
        exchange.give_up(Refusal(REQUEST_TIMEOUT, "the request body did not arrive in time"))
    else:
        tell_failed(exchange, "it did not answer in time", exchange.upstream)
        exchange.give_up(Refusal(UPSTREAM_TIMEOUT, "the upstream did not answer in time"))


def _end_connecting(exchange: Exchange) -> None:
    """Nothing was sent, so nothing can happen twice: another target may have the time that is left."""
    tell_failed(exchange, "it did not accept the connection in time")
    exchange.worker.pool_of(exchange.tried[-1]).forget(exchange)
    in_time = time.monotonic() < exchange.started_at + exchange.route.timeout_s
    if not in_time or not forward_elsewhere(exchange):
        exchange.give_up(Refusal(UPSTREAM_TIMEOUT, "the upstream did not accept the connection in time"))
