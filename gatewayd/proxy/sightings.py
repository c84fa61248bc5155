"""What a worker tells control of the targets of its services: who is not well, since when, and what went wrong last.

Only services that something has happened to are looked at, once a second, and only what has changed is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from gatewayd.channel import FromWorker, TargetSeen, TargetsSeen
from gatewayd.policy.balancing import Member
from gatewayd.policy.facts import Service, Target
from gatewayd.policy.health import State


class Sightings:
    """Of the services in `noted`, by number."""

    def __init__(self, send: Callable[[FromWorker], None], load_of: Callable[[Target], int]) -> None:
        self._send = send
        self._load_of = load_of
        self._noted: set[int] = set()
        self._since: dict[tuple[int, str], tuple[State, int]] = {}
        self._told: tuple[TargetSeen, ...] = ()
        self._epoch_s = time.time_ns() / 1e9 - time.monotonic()

    def __repr__(self) -> str:
        return f"<Sightings of {len(self._noted)} services>"

    def note(self, service: Service) -> None:
        """Something has happened to a target of this service."""
        self._noted.add(service.id)

    def note_drained(self, services: Mapping[int, Service]) -> None:
        """The configuration is new."""
        for service in services.values():
            if any(target.drained for target in service.conf.targets):
                self._noted.add(service.id)

    def begin_anew(self) -> None:
        """Control is another, which has been told nothing."""
        self._told = ()

    def tell(self, services: Mapping[int, Service], now: float) -> None:
        """Called once a second."""
        if not self._noted and not self._told:
            return
        self._noted &= services.keys()
        seen = tuple(
            self._seen(service_id, member, now)
            for service_id in sorted(self._noted)
            for member in services[service_id].rotation.members
        )
        self._since = {(each.service_id, each.url): self._since[each.service_id, each.url] for each in seen}
        notable = tuple(each for each in seen if each.error or each.state != State.HEALTHY.value)
        self._noted = {each.service_id for each in notable}
        if notable != self._told:
            self._told = notable
            self._send(TargetsSeen(notable))

    def _seen(self, service_id: int, member: Member, now: float) -> TargetSeen:
        standing, url = member.standing, member.target.url
        state = standing.state(now)
        before = self._since.get((service_id, url))
        if before is None or before[0] is not state:
            self._since[service_id, url] = before = (state, int(self._epoch_s + now))
        return TargetSeen(
            service_id,
            url,
            state.value,
            before[1],
            standing.error,
            int(self._epoch_s + standing.error_at) if standing.error else 0,
            self._load_of(member.target) if state is State.DRAINED else 0,
        )
