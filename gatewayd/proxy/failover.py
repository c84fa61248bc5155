"""A target that fails an exchange: what it is told, and whether the request may go to another, or once more.

Called by the pool (a connect that failed) and by the upstream's connection (its death, an answer that is none). Nothing
is sent again where it could happen twice: `may_repeat` says of what has gone out already.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gatewayd.errors import OVERLOADED, RETRY_SOON, UPSTREAM_INVALID, UPSTREAM_RESET, UPSTREAM_UNREACHABLE, Refusal
from gatewayd.policy.retry import may_repeat
from gatewayd.proxy.targeting import tell_failed
from gatewayd.records import UPSTREAM_BROKE

if TYPE_CHECKING:
    from gatewayd.proxy.dial import DialError
    from gatewayd.proxy.exchange import Exchange


def connect_failed(exchange: Exchange, error: DialError) -> None:
    """Failed before a byte was sent: another target may be tried, nothing can happen twice."""
    if exchange.done or exchange.upstream is not None:
        return
    if error.out_of_descriptors:
        exchange.worker.shed_idle_upstreams()
        exchange.refuse(Refusal(OVERLOADED, str(error), RETRY_SOON))
        return
    tell_failed(exchange, str(error))
    if not forward_elsewhere(exchange):
        exchange.refuse(Refusal(UPSTREAM_UNREACHABLE, str(error)))


def forward_elsewhere(exchange: Exchange) -> bool:
    """To a target that has not been tried, if there is one."""
    target = exchange.route.service.rotation.choose(time.monotonic(), exchange, exchange.tried)
    if isinstance(target, Refusal):
        return False
    exchange.forward(target, fresh=exchange.forwarded_at > 0)  # sent before: see `upstream_died`
    return True


def _repeat_elsewhere(exchange: Exchange) -> bool:
    exchange.repeated = True
    return forward_elsewhere(exchange)


def upstream_died(exchange: Exchange, stale: bool) -> None:
    """Closed without a byte of a response. `stale`: the connection had served before, so it may have been dying."""
    upstream, exchange.upstream = exchange.upstream, None
    if exchange.done:
        return
    repeats = may_repeat(exchange.facts.method, exchange.body_streamed)
    if stale and repeats:
        exchange.forward(fresh=True)  # once: another pooled one might be as stale
        return
    tell_failed(exchange, "it closed the connection without an answer", upstream)
    if upstream is not None and upstream.pool.target not in exchange.tried:
        exchange.tried += (upstream.pool.target,)
    if not repeats or exchange.repeated or not _repeat_elsewhere(exchange):
        exchange.refuse(Refusal(UPSTREAM_RESET, "the upstream closed the connection without an answer"))


def upstream_broke(exchange: Exchange) -> None:
    """Closed half-way through a response."""
    upstream, exchange.upstream = exchange.upstream, None
    if exchange.done:
        return
    tell_failed(exchange, "it closed the connection in the middle of an answer", upstream)
    if exchange.status:
        exchange.break_off(UPSTREAM_BROKE)
    else:
        exchange.refuse(
            Refusal(UPSTREAM_RESET, "the upstream closed the connection in the middle of its answer's head")
        )


def upstream_invalid(exchange: Exchange, why: str) -> None:
    """What it sends is no response that could be passed on."""
    upstream, exchange.upstream = exchange.upstream, None
    if exchange.done:
        return
    tell_failed(exchange, f"its answer was invalid: {why}", upstream)
    if exchange.status:
        exchange.break_off(UPSTREAM_BROKE)
    else:
        exchange.refuse(Refusal(UPSTREAM_INVALID, f"the upstream's answer cannot be passed on: {why}"))
