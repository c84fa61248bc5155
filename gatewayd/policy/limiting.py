"""The guards of limits, which come last: whatever is refused before them costs no quota.

`key_has_tokens` is for the plain case, a request that takes one unit of its key's limits and of no others. Everything
else is in `limits_hold`: clients within a key, slots of requests in flight, limits of routes and tenants, requests that
weigh more, plans that only watch.
"""

from __future__ import annotations

import re

from gatewayd.channel import LeaseId
from gatewayd.conf import ClientConf
from gatewayd.errors import Refusal
from gatewayd.policy.facts import NEED_CLIENT, NEED_LEASE, NEED_SLOT, Answer, Facts, Fields
from gatewayd.policy.spending import ADMITTED, Admission, KeyEntry, KeyMore, Lease

_CLIENT = re.compile(rb"\r\nx-client-id:[ \t]*([^\r]*)", re.IGNORECASE)
# It becomes a name in the database and in lists. What is not of this form counts as if it had not been sent.
_CLIENT_NAME = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")


def key_has_tokens(facts: Facts, now: float, now_s: float) -> Answer:
    """A unit of the limits of its key."""
    key = facts.key
    assert key is not None
    lease = key.lease
    if lease is None:  # a plan without limits, or with rarer ones
        return None if key.more is None else limits_hold(facts, now, now_s)
    facts.lease = lease
    answer = lease.take(now)
    if answer is ADMITTED:
        return None
    return NEED_LEASE if answer is None else answer


def limits_hold(facts: Facts, now: float, now_s: float) -> Answer:
    """Whatever limits there are. A slot that was taken goes back with the request's record, however it ends."""
    key = facts.key
    more = None if key is None else key.more
    if key is not None and more is not None:
        answer = _client_and_slot(facts, key, more, now)
        if answer is not None:
            return answer
    id_ = lease_id_of(facts)
    if id_ is None:
        return None
    verdict = _take(facts, id_, now)
    if isinstance(verdict, Refusal) and key is not None and more is not None and key.conf.shadow:
        return _let_pass(facts, more, verdict, now)
    return _answer(verdict)


def lease_id_of(facts: Facts) -> LeaseId | None:
    """What this request is charged to; None: to nothing. Its client is known by now."""
    key, shared = facts.key, facts.route.shared
    key_id = client_id = 0
    if key is not None:
        client = client_of(facts, key)
        if client is not None and client.limited:
            client_id = client.id
        if client_id or key.is_limited:
            key_id = key.conf.id
    if shared is not None:
        return LeaseId(key_id, client_id, shared.route_id, shared.tenant_id)
    return LeaseId(key_id, client_id) if key_id else None


def leases_of(facts: Facts) -> dict[LeaseId, Lease]:
    """Where the leases of such requests are remembered."""
    if facts.key is not None:
        return facts.key.leases
    assert facts.route.shared is not None  # else there is no limit
    return facts.route.shared.leases


def client_of(facts: Facts, key: KeyEntry) -> ClientConf | None:
    """The client that the request is of, if its key has clients, as far as it is known."""
    if key.more is None or not key.conf.has_clients:
        return None
    return key.more.clients.get(client_name(facts.fields))


def client_name(fields: Fields) -> str:
    """The X-Client-ID; empty where there is none, more than one, or one that is no name."""
    name = fields.client
    if name is None:
        found = _CLIENT.findall(fields.kept)
        value = found[0].rstrip(b" \t") if len(found) == 1 else b""
        name = fields.client = value.decode() if _CLIENT_NAME.fullmatch(value) else ""
    return name


def _client_and_slot(facts: Facts, key: KeyEntry, more: KeyMore, now: float) -> Answer:
    facts.client_id = 0
    if key.conf.has_clients and (name := client_name(facts.fields)):
        if name in more.clients:
            client = more.clients[name]
            facts.client_id = 0 if client is None else client.id
        elif now >= more.no_look_ups_until:
            return NEED_CLIENT
    if key.conf.in_flight_limit is not None:
        verdict = more.slots.take(facts, now)
        if isinstance(verdict, Refusal) and key.conf.shadow:
            more.let_pass.add(facts)
        elif verdict is not ADMITTED:
            return NEED_SLOT if verdict is None else verdict
    return None


def _let_pass(facts: Facts, more: KeyMore, refusal: Refusal, now: float) -> Answer:
    """A plan that only watches: what its own limits would have refused passes, but not what others' limits refuse."""
    lease, shared = facts.lease, facts.route.shared
    assert lease is not None
    if lease.is_blocked_by_others:
        return refusal
    if shared is not None:
        answer = _answer(_take(facts, LeaseId(0, 0, shared.route_id, shared.tenant_id), now))
        if answer is not None:
            return answer
        facts.lease = lease  # that headers speak of: nothing is left of it
    more.let_pass.add(facts)
    return None


def _take(facts: Facts, id_: LeaseId, now: float) -> Admission | Refusal | None:
    key = facts.key
    if key is not None and key.lease is not None and key.lease.id == id_:
        lease = key.lease
    else:
        leases = leases_of(facts)
        known = leases.get(id_)
        if known is None:
            known = leases[id_] = Lease(id_)
        lease = known
    facts.lease = lease
    return lease.take_units(now, facts.route.weight)


def _answer(verdict: Admission | Refusal | None) -> Answer:
    if verdict is None:
        return NEED_LEASE
    return verdict if isinstance(verdict, Refusal) else None
