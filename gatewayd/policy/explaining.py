"""What happened to a request, or would: every step in its order, in words, with the arithmetic of its limits.

Nothing is decided here. The guards have answered (`guards`); this module knows what each answer means. A guard has its
line in STEPS, a problem its line in REMEDIES. Both are read when somebody asks, never for a request on its way.

    head        the bytes are a request
    address     a service answers at this path
    gateway     this worker has room for one more, and for its record
    ...         the guards, as `guards.ORDER` has them
    upstream    a target gets it, and answers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, isinf
from typing import Final, NamedTuple

from gatewayd import errors
from gatewayd.conf import KeyConf
from gatewayd.errors import Problem, Refusal
from gatewayd.policy import guards, limiting
from gatewayd.policy.addresses import DEFAULT_TENANT
from gatewayd.policy.amounts import format_time
from gatewayd.policy.facts import CHUNKED, Guard, Route, Service
from gatewayd.policy.spending import Known
from gatewayd.told import LimitTold, StepTold

HEAD: Final = "head"
ADDRESS: Final = "address"
GATEWAY: Final = "gateway"
UPSTREAM: Final = "upstream"
_NOT_REACHED = "not reached"
_IT_DEPENDS = "it depends on the key"  # and the step comes again when the key has chosen its service
_EXACT_BELOW_S = 10.0  # tenths of a second are of interest below


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the sentences see it, whether it has been or only might be."""

    at_s: float  # since 1970
    route: Route | None = None
    services: Mapping[int, Service] = field(default_factory=dict)  # for their names
    public_id: str = ""  # of the key, "" without one
    key: KeyConf | None = None  # once it has been found
    taken_as_given: bool = False  # nobody has shown the key
    chosen_by_key: bool = False  # the route is the key's own service's
    body_length: int = 0
    in_flight: int | None = None  # requests at its service, in this worker; None: not remembered
    limits: tuple[LimitTold, ...] = ()
    has_been: bool = False  # its limits are as they were when it was answered

    @property
    def service(self) -> str:
        """NAME stands for one that nobody can know, such as the key's own without a key."""
        return (self.route.service.conf.slug if self.route is not None else "") or "NAME"

    @property
    def units(self) -> int:
        return self.route.weight if self.route is not None else 1

    @property
    def tenant(self) -> str:
        return self.route.service.conf.tenant if self.route is not None else DEFAULT_TENANT

    @property
    def key_name(self) -> str:
        return f"gw_{self.public_id}"

    def command(self, words: str) -> str:
        """A command to type, in the tenant that this is about."""
        return f"gatectl {words}" + (f" -t {self.tenant}" if self.tenant != DEFAULT_TENANT else "")


class Step(NamedTuple):
    """What to say of a guard: when it has passed, and on a route on which it does not stand."""

    name: str
    passed: Callable[[Seen], str]
    absent: Callable[[Seen], str]
    absent_passes: bool = False  # it stands only where it refuses
    why: Callable[[Seen, Refusal], str] = lambda seen, refusal: ""  # facts behind what the caller was told
    has_limits: bool = False


def tell_guards(seen: Seen, refused_by: Guard | None, refusal: Refusal | None) -> list[StepTold]:
    """One step for each guard there is; `refused_by` is the one that has, None if all have passed."""
    assert seen.route is not None
    told, reached = [], True
    for guard in guards.ORDER:
        step = STEPS[guard]
        if not reached:
            told.append(StepTold(step.name, "skip", _NOT_REACHED))
        elif guard is refused_by:
            assert refusal is not None
            told.append(tell_refusal(step.name, seen, refusal, step.why(seen, refusal), step.has_limits))
            reached = False
        elif guard in seen.route.guards:
            told.append(StepTold(step.name, "pass", step.passed(seen), seen.limits if step.has_limits else ()))
        else:
            told.append(StepTold(step.name, "pass" if step.absent_passes else "skip", step.absent(seen)))
    return told


def tell_refusal(step: str, seen: Seen, refusal: Refusal, why: str = "", with_limits: bool = False) -> StepTold:
    """A step that has refused: what the caller was told, and the facts behind it."""
    detail = f"{refusal.detail}: {why}" if why else refusal.detail
    return StepTold(step, "refuse", detail, seen.limits if with_limits else ())


def not_reached() -> list[StepTold]:
    """All guards, of a request that did not come so far."""
    return [skipped(STEPS[guard].name) for guard in guards.ORDER]


def skipped(step: str) -> StepTold:
    return StepTold(step, "skip", _NOT_REACHED)


def rest_after(step: str) -> list[StepTold]:
    """The steps that a request which was refused before the guards has not reached."""
    before = [HEAD, ADDRESS, GATEWAY]
    return [*(skipped(name) for name in before[before.index(step) + 1 :]), *not_reached(), skipped(UPSTREAM)]


def address(route: Route, path: bytes) -> str:
    """Who answers there, and under which path it gets the request, below the base of its target."""
    service = route.service.conf
    answers = f"service {service.slug}" if route.of_service is None else "the key's own service"
    within = guards.path_within(route, path)
    known_as = "" if within == path else f", as {text(within)}"
    return f"{answers} of tenant {service.tenant}{known_as}"


def text(data: bytes) -> str:
    """Bytes of a caller's, as far as they are text."""
    return data.decode("utf-8", "backslashreplace")


def would_pass(seen: Seen, refusal: Refusal) -> str:
    """What would have let it pass: what to wait for, to send, or to type."""
    remedy = REMEDIES.get(refusal.problem)
    return remedy(seen, refusal) if remedy is not None else ""


# The arithmetic of limits.


def tell_limits(known: Known, now: float, now_s: float) -> tuple[LimitTold, ...]:
    """What a lease knew of each limit at `now`. What is in hand at the worker is left, as the header has it."""
    limits, remaining, more_at, heard_at, in_hand = known
    now = max(now, heard_at)  # a request that waited for a grant is older than the news it brought
    told = []
    for limit, of_limit, at in zip(limits, remaining, more_at, strict=False):  # what is left may not be known yet
        left, more_in_s, burst = of_limit + in_hand, max(0.0, at - now), limit.burst if limit.window_s else None
        if limit.window_s:
            words = f"{limit.limit} per {limit.window_s} s, burst {burst}; {left} left{_more(left, burst, more_in_s)}"
        else:
            words = _in_month(limit.limit, left, now_s + more_in_s)
        told.append(
            LimitTold(
                of=limit.scope or "key",
                name=limit.name,
                limit=limit.limit,
                window_s=limit.window_s or None,
                burst=burst,
                remaining=left,
                more_in_s=round(more_in_s, 3),
                detail=f"{limit.name}: {words}",
            )
        )
    return tuple(told)


def _in_month(limit: int, left: int, ends_s: float) -> str:
    # The month ends on a whole second, and the way here went through an interval in floating point.
    return f"{limit}, {limit - left} used of it, {left} left; resets {format_time(round(ends_s))}"


def _more(left: int, burst: int | None, more_in_s: float) -> str:
    return ", full" if burst is not None and left >= burst else f", one more in {span(more_in_s)}"


def span(seconds: float) -> str:
    """`0.8 s`, `23 s`, `2 h 5 min`; rounded up, since whoever comes earlier comes in vain."""
    if isinf(seconds):
        return "for ever"
    if seconds < _EXACT_BELOW_S:
        return f"{ceil(seconds * 10) / 10:g} s"
    whole = ceil(seconds)
    if whole < 600:
        return f"{whole} s"
    days, hours, minutes = whole // 86400, whole // 3600 % 24, ceil(whole % 3600 / 60)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


# What the guards' answers mean.


def _places(seen: Seen) -> str:
    assert seen.route is not None
    limit = seen.route.service.in_flight_limit
    if seen.in_flight is None:
        return f"at most {limit} requests at once, in each worker"
    return f"{seen.in_flight} of {limit} requests at once are in flight in this worker"


def _no_places(seen: Seen) -> str:
    if seen.route is not None and not seen.route.service.conf.slug:
        return _IT_DEPENDS
    return f"service {seen.service} has no limit of requests in flight"


def _body(seen: Seen) -> str:
    assert seen.route is not None
    limit = seen.route.body_limit_bytes
    if seen.body_length == CHUNKED:
        return f"it comes in chunks; they are counted, and refused beyond {limit} bytes"
    return f"{seen.body_length} bytes of at most {limit}"


def _known(seen: Seen) -> str:
    return f"taken as given: --key names {seen.key_name}" if seen.taken_as_given else f"{seen.key_name} is known"


def _no_key(seen: Seen) -> str:
    return f"service {seen.service} asks for no key"


def _valid(seen: Seen) -> str:
    expires_at = seen.key.expires_at if seen.key is not None else None
    return "not revoked, " + ("never expires" if expires_at is None else f"expires {format_time(int(expires_at))}")


def _why_invalid(seen: Seen, refusal: Refusal) -> str:
    if refusal.problem is errors.EXPIRED_KEY and seen.key is not None and seen.key.expires_at is not None:
        return f"at {format_time(int(seen.key.expires_at))}"
    return ""


def _scope(seen: Seen) -> str:
    if seen.key is None or seen.key.services is None:
        return f"it is for all services of tenant {seen.tenant}"
    return f"it is for {', '.join(_slugs(seen, seen.key.services))}"


def _why_not_for_service(seen: Seen, refusal: Refusal) -> str:
    if seen.key is None or seen.route is None:
        return ""
    if seen.key.tenant_id != seen.route.service.tenant_id:
        return f"it is another tenant's, and {seen.service} is of tenant {seen.tenant}"
    return f"it is for {', '.join(_slugs(seen, seen.key.services or ()))}"


def _slugs(seen: Seen, ids: frozenset[int] | tuple[int, ...]) -> list[str]:
    return sorted(seen.services[id_].conf.slug for id_ in ids if id_ in seen.services) or ["no service that there is"]


def _networks(seen: Seen) -> str:
    assert seen.route is not None
    return f"it is called from one of {', '.join(str(network) for network in seen.route.networks)}"


def _allowed(seen: Seen) -> str:
    return f"tenant {seen.tenant} allows this method and path"


def _choice(seen: Seen) -> str:
    return f"the key's own service, {seen.service}" if seen.chosen_by_key else "the address names the service"


def _no_key_limits(seen: Seen) -> str:
    if seen.route is not None and limiting.limits_hold in seen.route.guards:
        return "those of the key are looked at with the others"
    return _no_key(seen)


def _limits(seen: Seen) -> str:
    if not seen.limits:
        return "its plan has no limits"
    many, each = seen.units > 1, len(seen.limits) > 1
    units = str(seen.units) if many else "one"
    was = "were" if many else "was"
    if seen.has_been:
        return f"{units} {was} taken of each" if each else f"{units} {was} taken"
    return f"each has {units} left" if each else f"{units} {'are' if many else 'is'} left"


# One line for each guard of `guards.ORDER`; a test holds that none is missing.
STEPS: dict[Guard, Step] = {
    guards.tenant_is_active: Step(
        "tenant", lambda seen: "", lambda seen: f"tenant {seen.tenant} is active", absent_passes=True
    ),
    guards.address_is_allowed: Step("address-list", _networks, lambda seen: "it may be called from everywhere"),
    guards.route_is_allowed: Step("allow-list", _allowed, lambda seen: f"tenant {seen.tenant} allows everything"),
    guards.service_is_not_full: Step("room", _places, _no_places, why=lambda seen, refusal: _places(seen)),
    guards.body_fits: Step("body", _body, lambda seen: "no limit of bodies"),
    guards.key_is_known: Step("key", _known, _no_key),
    guards.key_is_valid: Step("validity", _valid, _no_key, why=_why_invalid),
    guards.key_chooses_service: Step("choice", lambda seen: "the key names no service", _choice),
    guards.key_is_for_service: Step("scope", _scope, _no_key, why=_why_not_for_service),
    guards.service_has_target: Step("target", lambda seen: "one can be asked", lambda seen: _IT_DEPENDS),
    guards.service_has_place: Step("place", _places, _no_places, why=lambda seen, refusal: _places(seen)),
    limiting.key_has_tokens: Step("limits", _limits, _no_key_limits, has_limits=True),
    limiting.limits_hold: Step(
        "all-limits", _limits, lambda seen: "nothing but the key's own limits counts", has_limits=True
    ),
}


# What would have helped.


def _widened(seen: Seen, refusal: Refusal) -> str:
    """To set a scope replaces it, so the command has to name what is there."""
    if seen.key is None or seen.route is None or seen.key.tenant_id != seen.route.service.tenant_id:
        return f"a key of tenant {seen.tenant}: {seen.command(f'key create --service {seen.service}')}"
    there = [slug for slug in _slugs(seen, seen.key.services or ()) if " " not in slug]
    options = " ".join(f"--service {slug}" for slug in (*there, seen.service))
    return f"the service in the key's scope: {seen.command(f'key set {seen.key_name} {options}')}"


def _refilled(seen: Seen, refusal: Refusal) -> str:
    empty = [limit.more_in_s for limit in seen.limits if limit.window_s is not None and limit.remaining <= 0]
    wait = f"wait {span(max(empty))}" if empty else "wait as long as Retry-After says"
    retry_after = dict(refusal.headers).get(b"Retry-After")
    if seen.units > 1 and retry_after is not None:  # when one more comes says little to who needs several
        wait = f"wait {span(int(retry_after))}"
    return f"{wait}, or take a plan with a higher rate or burst"


def _next_month(seen: Seen, refusal: Refusal) -> str:
    ends = [limit.more_in_s for limit in seen.limits if limit.window_s is None]
    wait = f"wait until {format_time(round(seen.at_s + ends[0]))}" if ends else "wait until the month ends"
    return f"{wait}, or take a plan with a larger quota"


def _later(seen: Seen, refusal: Refusal) -> str:
    if seen.route is not None and seen.route.service.in_flight_limit is not None:
        more = seen.command(f"service set {seen.service} --max-in-flight N")
        return f"wait until one of those in flight has ended, or more at once: {more}"
    return "ask again in a second"


def _says(words: str, command: str = "") -> Callable[[Seen, Refusal], str]:
    """The same words for all; {service} and {key} stand in the command for what it is about."""

    def remedy(seen: Seen, refusal: Refusal) -> str:
        typed = command.format(service=seen.service, key=seen.key_name, tenant=seen.tenant)
        return f"{words}: {seen.command(typed)}" if typed else words

    return remedy


# One line for each problem of the data plane; a test holds that none is missing.
REMEDIES: Mapping[Problem, Callable[[Seen, Refusal], str]] = {
    errors.BAD_REQUEST: _says("a request that is well-formed"),
    errors.MISSING_KEY: _says("an API key; this makes one", "key create --service {service}"),
    errors.INVALID_KEY: _says("the whole key, as it was shown when it was made; these there are", "key list"),
    errors.EXPIRED_KEY: _says("a later expiry", "key set {key} --expires 90d"),
    errors.REVOKED_KEY: _says("another key, for a revoked one stays so", "key create --service {service}"),
    errors.KEY_NOT_ALLOWED: _widened,
    errors.TENANT_SUSPENDED: lambda seen, refusal: (
        f"the tenant must be resumed: gatectl tenant set {seen.tenant} --resume"
    ),
    errors.NO_ROUTE: _says("an address that a service has; these there are", "service list"),
    errors.REQUEST_TIMEOUT: _says("a request that arrives in time"),
    errors.BODY_TOO_LARGE: _says("a shorter body, or a higher limit", "service set {service} --body-limit SIZE"),
    errors.TARGET_TOO_LONG: _says("a shorter URL, or a higher target_limit_bytes in the settings"),
    errors.HEAD_TOO_LARGE: _says("fewer or shorter headers, or a higher head_limit_bytes in the settings"),
    errors.RATE_LIMITED: _refilled,
    errors.QUOTA_EXCEEDED: _next_month,
    errors.UPSTREAM_UNREACHABLE: _says("a target that runs; these are tried", "service show {service}"),
    errors.UPSTREAM_RESET: _says("a target that answers; its own log may say why it did not"),
    errors.UPSTREAM_INVALID: _says("an answer that is HTTP; the target's own log may say more"),
    errors.NO_HEALTHY_TARGET: _says("a target that is healthy", "service health {service}"),
    errors.OVERLOADED: _later,
    errors.DRAINING: _says("ask again: another worker serves"),
    errors.JOURNAL_FULL: _says('room on the disk of the state folder, or on_full = "serve" in the settings'),
    errors.UPSTREAM_TIMEOUT: _says(
        "a faster answer, or more time", "service set {service} --first-byte-timeout TIME --timeout TIME"
    ),
    errors.NOT_IMPLEMENTED: _says("a method that is served"),
    errors.VERSION_NOT_SUPPORTED: _says("HTTP/1.1"),
    errors.ROUTE_NOT_ALLOWED: _says("a method and path that the key's allow-list has", "key show {key}"),
    errors.ADDRESS_NOT_ALLOWED: _says("an address from which it may be called"),
    errors.TOO_MANY_IN_FLIGHT: _says("wait until one of those in flight has ended, or take a plan that allows more"),
    errors.DISABLED_KEY: _says("the key must be enabled", "key enable {key}"),
    errors.CIRCUIT_OPEN: _says("a target that answers; the circuit tries again by itself", "service health {service}"),
}
