"""What became of a request, told from what a worker has kept of it (see `recent`)."""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.errors import NO_ROUTE, OVERLOADED
from gatewayd.policy import explaining
from gatewayd.policy.amounts import format_time
from gatewayd.policy.explaining import ADDRESS, GATEWAY, HEAD, UPSTREAM, Seen, text
from gatewayd.policy.facts import Service
from gatewayd.proxy.recent import Kept
from gatewayd.records import CLIENT_LEFT, UPSTREAM_BROKE
from gatewayd.told import LimitTold, RequestTold, StepTold, Told


def tell_kept(kept: Kept, services: Mapping[int, Service], slot: int) -> Told:
    """`services`: those that there are now, for their names; `slot`: who tells."""
    started_s = kept.started_ns / 1e9
    limits: tuple[LimitTold, ...] = ()
    if kept.known is not None and kept.key is not None:
        limits = explaining.tell_limits(kept.known, kept.started_at, started_s)
    seen = Seen(
        at_s=started_s,
        route=kept.route,
        services=services,
        public_id=kept.public_id if kept.key is None else kept.key.public_id,
        key=kept.key,
        body_length=kept.body_length,
        limits=limits,
        has_been=True,
    )
    refusal = kept.refusal
    return Told(
        request=RequestTold(
            id=text(kept.request_id),
            at=format_time(int(started_s)),
            method=text(kept.method),
            path=text(kept.path),
            host=text(kept.host),
            address=text(kept.address),
            key=seen.key_name if seen.public_id else None,
        ),
        outcome="admitted" if kept.admitted else "refused",
        status=kept.status,
        code=None if refusal is None else refusal.problem.code,
        steps=tuple(_kept_steps(kept, seen)),
        would_pass=None if refusal is None else explaining.would_pass(seen, refusal),
        worker=slot,
    )


def _kept_steps(kept: Kept, seen: Seen) -> list[StepTold]:
    refusal = kept.refusal
    if not kept.method:
        assert refusal is not None
        if refusal.problem is OVERLOADED:  # a connection too many, of which nothing was read
            unread = [explaining.skipped(HEAD), explaining.skipped(ADDRESS)]
            return [*unread, explaining.tell_refusal(GATEWAY, seen, refusal), *explaining.rest_after(GATEWAY)]
        return [explaining.tell_refusal(HEAD, seen, refusal), *explaining.rest_after(HEAD)]
    steps = [StepTold(HEAD, "pass", "well-formed")]
    if kept.route is None:
        assert refusal is not None and refusal.problem is NO_ROUTE
        return [*steps, explaining.tell_refusal(ADDRESS, seen, refusal), *explaining.rest_after(ADDRESS)]
    steps.append(StepTold(ADDRESS, "pass", explaining.address(kept.route, kept.path)))
    if kept.refused_by is None and not kept.admitted and refusal is not None:
        return [*steps, explaining.tell_refusal(GATEWAY, seen, refusal), *explaining.rest_after(GATEWAY)]
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
