"""The guards: everything that may refuse a request, in one order, as plain functions.

A guard sees the facts of a request and the time. It answers None (pass), a Refusal, or NEED_KEY / NEED_LEASE: what it
must know is not here yet. The worker then fetches that and asks the same guard again; guards themselves never wait.
"""

from __future__ import annotations

import hmac
from functools import cache

from gatewayd.conf import KeyConf
from gatewayd.errors import (
    ADDRESS_NOT_ALLOWED,
    BODY_TOO_LARGE,
    DISABLED_KEY,
    EXPIRED_KEY,
    INVALID_KEY,
    KEY_NOT_ALLOWED,
    MISSING_KEY,
    OVERLOADED,
    RETRY_SOON,
    REVOKED_KEY,
    ROUTE_NOT_ALLOWED,
    TENANT_SUSPENDED,
    Refusal,
)
from gatewayd.keys import digest, may_be_foreign, name_of_digest, public_id_of
from gatewayd.policy.allowing import Allowed, Bounds
from gatewayd.policy.facts import NEED_ADDRESS, NEED_KEY, NEED_ROUTE, Answer, Facts, Fields, Guard, Route, Service
from gatewayd.policy.forwarding import Networks, is_trusted
from gatewayd.policy.limiting import key_has_tokens, limits_hold
from gatewayd.policy.routing import length_of_segments

_ASKED_FOR = ((b"WWW-Authenticate", b'Bearer realm="gatewayd"'),)
_CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="gatewayd", error="invalid_token"'),)
NO_SUCH_KEY = Refusal(INVALID_KEY, "this API key is not known here; check that it was copied whole", _CHALLENGE)
_REVOKED = Refusal(REVOKED_KEY, "this API key has been revoked", _CHALLENGE)
_DISABLED = Refusal(DISABLED_KEY, "this API key is disabled for the time being", _CHALLENGE)
_EXPIRED = Refusal(EXPIRED_KEY, "this API key has expired", _CHALLENGE)
_ROTATED = Refusal(EXPIRED_KEY, "this API key was replaced by a new one and has expired", _CHALLENGE)
_ENDED = Refusal(REVOKED_KEY, "this API key was replaced by a new one and has been revoked", _CHALLENGE)
_OTHER_SERVICE = Refusal(KEY_NOT_ALLOWED, "this API key is not for this service")
_NOT_ONE_SERVICE = Refusal(
    KEY_NOT_ALLOWED,
    "here the key's own service answers, and this API key is not for exactly one; call that by its address",
)
_SERVICE_GONE = Refusal(KEY_NOT_ALLOWED, "the service of this API key is no more")
_ADDRESS = Refusal(ADDRESS_NOT_ALLOWED, "this address may not be called from where you are")
_ADDRESS_OF_KEY = Refusal(ADDRESS_NOT_ALLOWED, "this API key may not be used from where you are")
_NOT_OF_TENANT = Refusal(ROUTE_NOT_ALLOWED, "this method and path are not open to callers")
_NOT_OF_KEY = Refusal(ROUTE_NOT_ALLOWED, "this API key may not be used for this method and path")
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


def address_is_allowed(facts: Facts, now: float, now_s: float) -> Answer:
    """Stands only on routes that name networks."""
    return _refusal_of_address(facts, facts.route.networks, _ADDRESS)


def route_is_allowed(facts: Facts, now: float, now_s: float) -> Answer:
    """Stands only before services of tenants that have a list."""
    allowed = facts.route.allowed
    assert allowed is not None
    return None if _allows(allowed, facts) else _NOT_OF_TENANT


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
        if public_id_of(credential) is not None:
            return NEED_KEY
        return _look_for_digest(facts, credential, now, now_s)
    conf = entry.conf
    proven = facts.fields.proven
    # The same fields on the same connection held the same key a moment ago: hashing it again would say nothing new.
    if proven is None or proven[1] is not conf or proven[0] != credential:
        shown = digest(credential)
        generation = _generation_of_digest(conf, shown)
        if generation is None:
            # What stands where a key of ours has its public id was that of another key.
            named = name_of_digest(shown) == facts.fields.public_id
            return NO_SUCH_KEY if named else _look_for_digest(facts, credential, now, now_s)
        facts.fields.proven = (credential, conf, generation)
    entry.recently_used = True
    facts.key = entry
    return None


def _generation_of_digest(conf: KeyConf, shown: bytes) -> int | None:
    if hmac.compare_digest(shown, conf.digest):
        return conf.generation
    for older in conf.older:
        if hmac.compare_digest(shown, older.digest):
            return older.number
    return None


def _look_for_digest(facts: Facts, credential: bytes, now: float, now_s: float) -> Answer:
    """A key that was imported has no public id in it: it is named by its digest. Only where there are such keys."""
    if not facts.service.imported_keys or not may_be_foreign(credential):
        return NO_SUCH_KEY
    facts.fields.public_id = name_of_digest(digest(credential))
    return key_is_known(facts, now, now_s) if facts.fields.public_id in facts.keys else NEED_KEY


def key_is_valid(facts: Facts, now: float, now_s: float) -> Answer:
    assert facts.key is not None  # key_is_known has passed
    if facts.key.is_unquestioned:
        return None
    conf = facts.key.conf
    if conf.revoked:
        return _REVOKED
    if conf.disabled:
        return _DISABLED
    if conf.expires_at is not None and now_s >= conf.expires_at:
        return _EXPIRED
    if conf.generation != 1:
        return _refusal_of_generation(conf, generation_of(facts), now_s)
    return None


def _refusal_of_generation(conf: KeyConf, shown: int, now_s: float) -> Refusal | None:
    """Why the generation that was shown works no more, of a key that was rotated."""
    if shown == conf.generation:
        return None
    for older in conf.older:
        if older.number == shown and (older.until is None or now_s < older.until):
            return _ENDED if older.ended else None
    return _ROTATED


def generation_of(facts: Facts) -> int:
    """Of the key that was shown; key_is_known has passed."""
    assert facts.fields.proven is not None
    return facts.fields.proven[2]


def key_is_for_service(facts: Facts, now: float, now_s: float) -> Answer:
    assert facts.key is not None
    conf = facts.key.conf
    service = facts.service
    if conf.tenant_id != service.tenant_id:
        return _OTHER_SERVICE
    if conf.services is not None and service.id not in conf.services:
        return _OTHER_SERVICE
    bounds = facts.key.bounds
    return None if bounds is None else _refusal_of_bounds(facts, bounds)


def key_chooses_service(facts: Facts, now: float, now_s: float) -> Answer:
    """Stands where the key's own service answers, as the last: the rest is judged on the route that it has chosen."""
    assert facts.key is not None
    route = route_of_key(facts.route, facts.key.conf)
    if isinstance(route, Refusal):
        return route
    facts.route, facts.service = route, route.service
    return NEED_ROUTE


def service_has_target(facts: Facts, now: float, now_s: float) -> Answer:
    """Before a place or a token is spent on what nobody could answer."""
    rotation = facts.service.rotation
    return None if rotation.only is not None else rotation.refusal(now)  # mostly one target, which is well


def service_has_place(facts: Facts, now: float, now_s: float) -> Answer:
    """Takes a place. The exchange gives it back with its record, however it ends."""
    if service_is_not_full(facts, now, now_s) is not None:
        return _BUSY
    assert facts.service.in_flight is not None
    facts.service.in_flight.add(facts)
    return None


# The order in which a request is judged. A tenant's suspension shows before its keys are looked at, so that a customer
# of a suspended tenant is not told that the key is wrong; what is closed to everybody, from there or at all, is so
# before anyone is asked for a key; size comes before the key because it is the cheaper test.
# A full service refuses before a key is looked up, but only a request with a valid key takes a place: callers without
# one must not be able to fill the service while their keys are looked up.
# A target that could answer is looked for before places and tokens, so that nothing is spent on a refusal that is sure.
# Tokens come last: whatever is refused before them costs no quota.
ORDER: tuple[Guard, ...] = (
    tenant_is_active,
    address_is_allowed,
    route_is_allowed,
    service_is_not_full,
    body_fits,
    key_is_known,
    key_is_valid,
    key_chooses_service,
    key_is_for_service,
    service_has_target,
    service_has_place,
    key_has_tokens,
    limits_hold,
)


@cache  # there are few kinds and may be many routes, for each of which it would take half of compiling it
def guards_for(
    *,
    tenant_suspended: bool,
    has_body_limit: bool,
    has_in_flight_limit: bool,
    needs_key: bool,
    has_networks: bool = False,
    has_allow_list: bool = False,
    key_chooses: bool = False,
    has_shared_limits: bool = False,
    weight: int = 1,
) -> tuple[Guard, ...]:
    """The guards that can refuse at all on a route of this kind, in their order. Chosen at load."""
    key_alone = needs_key and weight == 1 and not has_shared_limits
    stands: dict[Guard, bool] = {
        tenant_is_active: tenant_suspended,
        address_is_allowed: has_networks,
        route_is_allowed: has_allow_list,
        service_is_not_full: has_in_flight_limit and needs_key,
        body_fits: has_body_limit,
        key_chooses_service: key_chooses,
        key_is_for_service: needs_key and not key_chooses,
        service_has_target: not key_chooses,
        service_has_place: has_in_flight_limit,
        key_has_tokens: key_alone and not key_chooses,
        limits_hold: (has_shared_limits or (needs_key and not key_alone)) and not key_chooses,
    }
    return tuple(guard for guard in ORDER if stands.get(guard, needs_key))


# What must hold for as long as a tunnel does, not only when it was asked for.
_STANDING = frozenset({tenant_is_active, address_is_allowed, route_is_allowed, key_is_valid, key_is_for_service})


def route_of_key(route: Route, conf: KeyConf) -> Route | Refusal:
    """Where the key's own service answers: the route that this key takes."""
    assert route.of_service is not None
    if conf.tenant_id != route.service.tenant_id:
        return _OTHER_SERVICE
    if conf.services is None or len(conf.services) != 1:
        return _NOT_ONE_SERVICE
    return route.of_service(next(iter(conf.services))) or _SERVICE_GONE


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


def path_within(route: Route, path: bytes) -> bytes:
    """The path as the service gets it, below the base of its target."""
    strip = route.strip
    rest = path[strip:] if strip >= 0 else path[length_of_segments(path, -strip) :]
    within = route.rewrite + rest
    return within if within[:1] == b"/" else b"/" + within


def _allows(allowed: Allowed, facts: Facts) -> bool:
    return allowed.fullmatch(b"%b %b" % (facts.method, path_within(facts.route, facts.path))) is not None


def _refusal_of_bounds(facts: Facts, bounds: Bounds) -> Answer:
    if bounds.networks:
        answer = _refusal_of_address(facts, bounds.networks, _ADDRESS_OF_KEY)
        if answer is not None:
            return answer
    return None if bounds.allowed is None or _allows(bounds.allowed, facts) else _NOT_OF_KEY


def _refusal_of_address(facts: Facts, networks: Networks, refusal: Refusal) -> Answer:
    try:
        address = facts.address
    except AttributeError:  # nobody has asked for it yet
        return NEED_ADDRESS
    return None if is_trusted(address, networks) else refusal
