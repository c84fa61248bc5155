"""A guard has refused, or lacks something: where that comes from, and who asks the guard again.

What comes from control is waited for, without a task: `keys` calls back. The client's address and the route that a key
has chosen are here already; they are worked out only where a guard wants them.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from gatewayd.errors import BODY_TOO_LARGE, Refusal
from gatewayd.policy.facts import NEED_ADDRESS, NEED_CLIENT, NEED_KEY, NEED_LEASE, NEED_ROUTE, Guard, Need, Route
from gatewayd.policy.guards import body_fits
from gatewayd.proxy.forward import choose_fields

if TYPE_CHECKING:
    from gatewayd.proxy.exchange import Exchange


def heed(exchange: Exchange, guard: Guard, answer: Refusal | Need) -> None:
    """Refuse the exchange, or get what the guard lacks and have it asked again, with the rest."""
    facts = exchange.facts
    if not isinstance(answer, Refusal):
        if answer is NEED_ROUTE:
            _take_route(exchange, facts.route)
            return
        guards = exchange.route.guards
        rest = guards[guards.index(guard) :]
        if answer is NEED_ADDRESS:
            facts.address = exchange.client.origin.client_address(facts.fields)
            exchange.judge(rest)
            return
        refusal = _wait(exchange, answer, rest)
        if refusal is None:
            return
        answer = refusal
    exchange.entry = facts.key
    exchange.refused_by = guard
    exchange.refuse(answer)


def _wait(exchange: Exchange, need: Need, rest: tuple[Guard, ...]) -> Refusal | None:
    """For control to say it; a refusal where that is known already, or cannot be waited for."""
    facts, keys = exchange.facts, exchange.worker.keys
    ask_again = partial(_ask_again, exchange, rest)
    if need is NEED_KEY:
        return keys.look_ups.wait(facts.fields.public_id, ask_again, time.monotonic())
    exchange.entry = facts.key  # whose it is, should it end before it is admitted
    if need is NEED_LEASE:
        return keys.when_leased(facts, ask_again)
    if need is NEED_CLIENT:
        return keys.when_client_known(facts, ask_again)
    assert facts.key is not None
    return keys.when_slotted(facts.key, ask_again)


def _ask_again(exchange: Exchange, guards: tuple[Guard, ...]) -> None:
    if not exchange.done:
        exchange.judge(guards)


def _take_route(exchange: Exchange, route: Route) -> None:
    """The key has chosen its own service: what the request has met so far stood for that."""
    facts = exchange.facts
    exchange.route, exchange.service = route, route.service
    choose_fields(facts.fields, route, exchange.worker.credential_headers)
    limit = route.body_limit_bytes
    if limit is not None and exchange.bytes_in > limit:  # chunks that came while the key was looked up
        exchange.entry = facts.key
        exchange.refused_by = body_fits  # for `explain`: not the gateway
        exchange.refuse(Refusal(BODY_TOO_LARGE, f"the request body is longer than {limit} bytes"))
    else:
        exchange.judge(route.guards)
