"""The guards: everything that may refuse a request, in one order, as plain functions.

A guard sees the facts of a request and the time. It answers None (pass), a Refusal, or NEED_KEY / NEED_LEASE: what it
must know is not here yet. The worker then fetches that and asks the same guard again; guards themselves never wait.
"""

from __future__ import annotations

import hmac

from gatewayd.errors import (
    BODY_TOO_LARGE,
    EXPIRED_KEY,
    INVALID_KEY,
    KEY_NOT_ALLOWED,
    MISSING_KEY,
    OVERLOADED,
    RETRY_SOON,
    REVOKED_KEY,
    TENANT_SUSPENDED,
    Refusal,
)
from gatewayd.keys import digest, public_id_of
from gatewayd.policy.facts import NEED_KEY, NEED_LEASE, Answer, Facts, Fields, Guard, Service
from gatewayd.policy.spending import ADMITTED

_ASKED_FOR = ((b"WWW-Authenticate", b'Bearer realm="gatewayd"'),)
_CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="gatewayd", error="invalid_token"'),)
NO_SUCH_KEY = Refusal(INVALID_KEY, "this API key is not known here; check that it was copied whole", _CHALLENGE)
_REVOKED = Refusal(REVOKED_KEY, "this API key has been revoked", _CHALLENGE)
_EXPIRED = Refusal(EXPIRED_KEY, "this API key has expired", _CHALLENGE)
_OTHER_SERVICE = Refusal(KEY_NOT_ALLOWED, "this API key is not for this service")
_SUSPENDED = Refusal(TENANT_SUSPENDED, "this API is suspended by its owner or the operator")
_BUSY = Refusal(OVERLOADED, "this API has as many requests in flight as it may", RETRY_SOON)


def credential_of(fields: Fields, service: Service) -> bytes | None:
    """The API key of a request: in the service's own header, else as a bearer token."""
    bearer = None
    for lower, _, value in fields.cut:
        if lower == service.key_header:
            return value.rstrip(b" \t")
        if lower == b"authorization" and bearer is None and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return bearer


def _missing(service: Service) -> Refusal:
    header = service.conf.key_header
    return Refusal(MISSING_KEY, f"send your API key in the {header} header or as Authorization: Bearer", _ASKED_FOR)


def tenant_is_active(facts: Facts, now: float, now_s: float) -> Answer:
    """Stands only before services of tenants that are not."""
    return _SUSPENDED


def service_is_not_full(facts: Facts, now: float, now_s: float) -> Answer:
    """No look-up of a key and no token is spent on what has no place."""
    service = facts.service
    assert service.in_flight is not None and service.in_flight_limit is not None  # else this guard does not stand here
    return _BUSY if len(service.in_flight) >= service.in_flight_limit else None


def body_fits(facts: Facts, now: float, now_s: float) -> Answer:
    """A declared length over the limit is refused before a byte of it is read; chunks are counted as they come."""
    limit = facts.route.body_limit_bytes
    assert limit is not None  # else this guard does not stand here
    if facts.fields.body_length > limit:
        return Refusal(BODY_TOO_LARGE, f"the request body is longer than {limit} bytes")
    return None


def key_is_known(facts: Facts, now: float, now_s: float) -> Answer:
    """The checksum refuses mistyped and made-up keys without a look-up; the digest decides."""
    credential = facts.fields.credential
    if not credential:
        return _missing(facts.service)
    # A key that is remembered is decided by its digest, whose cost hides that of the checksum.
    entry = facts.keys.get(facts.fields.public_id)
    if entry is None:
        return NO_SUCH_KEY if public_id_of(credential) is None else NEED_KEY
    conf = entry.conf
    proven = facts.fields.proven
    # The same fields on the same connection held the same key a moment ago: hashing it again would say nothing new.
    if proven is None or proven[1] is not conf or proven[0] != credential:
        if not hmac.compare_digest(digest(credential), conf.digest):
            return NO_SUCH_KEY
        facts.fields.proven = (credential, conf)
    entry.recently_used = True
    facts.key = entry
    return None


def key_is_valid(facts: Facts, now: float, now_s: float) -> Answer:
    assert facts.key is not None  # key_is_known has passed
    conf = facts.key.conf
    if conf.revoked:
        return _REVOKED
    if conf.expires_at is not None and now_s >= conf.expires_at:
        return _EXPIRED
    return None


def key_is_for_service(facts: Facts, now: float, now_s: float) -> Answer:
    assert facts.key is not None
    conf = facts.key.conf
    service = facts.service
    if conf.tenant_id != service.tenant_id:
        return _OTHER_SERVICE
    if conf.services is not None and service.id not in conf.services:
        return _OTHER_SERVICE
    return None


def service_has_place(facts: Facts, now: float, now_s: float) -> Answer:
    """Takes a place. The exchange gives it back with its record, however it ends."""
    if service_is_not_full(facts, now, now_s) is not None:
        return _BUSY
    assert facts.service.in_flight is not None
    facts.service.in_flight.add(facts)
    return None


def key_has_tokens(facts: Facts, now: float, now_s: float) -> Answer:
    assert facts.key is not None
    lease = facts.key.lease
    if lease is None:  # a plan without limits
        return None
    answer = lease.take(now)
    if answer is ADMITTED:
        return None
    return NEED_LEASE if answer is None else answer


# The order in which a request is judged. A tenant's suspension shows before its keys are looked at, so that a customer
# of a suspended tenant is not told that the key is wrong; size comes before the key because it is the cheaper test.
# A full service refuses before a key is looked up, but only a request with a valid key takes a place: callers without
# one must not be able to fill the service while their keys are looked up.
# Tokens come last: whatever is refused before them costs no quota.
ORDER: tuple[Guard, ...] = (
    tenant_is_active,
    service_is_not_full,
    body_fits,
    key_is_known,
    key_is_valid,
    key_is_for_service,
    service_has_place,
    key_has_tokens,
)


def guards_for(
    *, tenant_suspended: bool, has_body_limit: bool, has_in_flight_limit: bool, needs_key: bool
) -> tuple[Guard, ...]:
    """The guards that can refuse at all on a route of this kind, in their order. Chosen at load."""
    stands: dict[Guard, bool] = {
        tenant_is_active: tenant_suspended,
        service_is_not_full: has_in_flight_limit and needs_key,
        body_fits: has_body_limit,
        service_has_place: has_in_flight_limit,
    }
    return tuple(guard for guard in ORDER if stands.get(guard, needs_key))


# What must hold for as long as a tunnel does, not only when it was asked for.
_STANDING = frozenset({tenant_is_active, key_is_valid, key_is_for_service})


def refusal_of_standing(facts: Facts, now: float, now_s: float) -> Refusal | None:
    """Why what was admitted may not go on; None if it may. The key has been looked up again where it had changed."""
    route = facts.route
    if route.needs_key and facts.key is None:  # it was not asked for one at the time
        return _missing(route.service)
    for guard in route.guards:
        if guard in _STANDING:
            answer = guard(facts, now, now_s)
            if isinstance(answer, Refusal):
                return answer
    return None
