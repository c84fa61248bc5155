"""Which target of a service a request goes to.

The rotation holds the targets that get requests now. It changes when a target does, and looks at the clock only when
something is due: `only` is the one target of most services, and such a request is not held up by any of this.

    out     drained by an operator, unhealthy by control's probes, circuit open, or half-open while one request tries it
    passed  ejected, for what callers met: but where nobody else is left, requests go to the ejected after all, since
    over    a target that may fail is better than a refusal that is sure

So a service refuses where an operator, the probes or circuits have taken out all of its targets, and an ejection alone
never makes it refuse. With one target an ejection means nothing.

Round robin is nginx's smooth weighted one: each turn adds to every target's credit its share, and the richest goes and
pays the sum of all. Targets alternate rather than come in runs, and over a whole cycle each has had exactly its share.
Least outstanding takes the fewest requests in flight per share. Hash is weighted rendezvous hashing: every target draws
a number for each value, and the best wins; so a target that goes moves only what it had, and one that comes takes only
what it gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from gatewayd.conf import ServiceConf, TargetConf
from gatewayd.errors import CIRCUIT_OPEN, NO_HEALTHY_TARGET, RETRY_SOON, Refusal
from gatewayd.policy.health import Standing, State

if TYPE_CHECKING:
    from gatewayd.policy.facts import Target

_LOOK_FOR_TRIAL_S = 0.1  # whether one has ended without an outcome, whose target may be tried again
_NONE_HEALTHY = Refusal(NO_HEALTHY_TARGET, "no target of this API is in service", RETRY_SOON)


class Asker(Protocol):
    """The request that a target is chosen for."""

    done: bool

    def hash_value(self, on: str) -> bytes: ...

    def load_of(self, target: Target) -> int:
        """Requests that this worker has in flight there."""


class Member:
    """A target within a service."""

    __slots__ = ("credit", "seed", "share", "standing", "target", "weight")

    def __init__(self, target: Target, weight: int, standing: Standing) -> None:
        self.target = target
        self.weight = weight
        self.standing = standing
        self.share = float(weight)
        self.credit = 0.0
        # By its URL, so that all workers draw the same.
        self.seed = int.from_bytes(blake2b(target.url.encode(), digest_size=8).digest())

    def __repr__(self) -> str:
        return f"<Member {self.target.url} {self.standing}>"


class Rotation:
    """The targets of one service. One object for all snapshots that have the service: a reload forgets nothing."""

    def __init__(self) -> None:
        self.only: Target | None = None  # where every request goes; None: `choose`
        self.watched = True  # answers are to be told
        self.members: tuple[Member, ...] = ()
        self._watches_all = False
        self._serving: list[Member] = []
        self._even = True  # their shares are the same
        self._turn = 0
        self._changes_at = -math.inf
        # Not bound to this: a cycle, and what a removed service had would wait for the collector (`proxy.installing`).
        self._pick: Callable[[Rotation, list[Member], Asker], Member] = Rotation._by_turn
        self._hash_on = ""
        self.window_s = 0.0  # over which failures are weighed

    def __repr__(self) -> str:
        return f"<Rotation {len(self._serving)} of {len(self.members)} targets>"

    def configure(self, conf: ServiceConf, targets: Sequence[tuple[TargetConf, Target]]) -> None:
        """Targets that were there keep how they stand."""
        before = {member.target.identity: member.standing for member in self.members}
        # Probes go by the URL, and tell only of changes. However TLS is spoken now, what they said last still holds.
        told = {member.target.url: member.standing.healthy for member in self.members}
        members = []
        for target_conf, target in targets:
            standing = before.get(target.identity)
            if standing is None:
                standing = Standing(conf.health, conf.breaker)
                standing.healthy = told.get(target.url, True)
            standing.configure(conf.health, conf.breaker, target_conf.drained)
            members.append(Member(target, target_conf.weight, standing))
        self.members = tuple(members)
        self._watches_all = conf.health.eject_after is not None or any(r.side == "response" for r in conf.header_rules)
        self._pick = _PICKS.get(conf.balance, Rotation._by_turn)
        self._hash_on = conf.hash_on
        self.window_s = conf.breaker.window_s
        self._changed()

    def _changed(self) -> None:
        """Look anew before the next request."""
        self.only, self.watched, self._changes_at = None, True, -math.inf

    def _look(self, now: float) -> None:
        serving, passed_over = [], []
        changes_at = math.inf
        for member in self.members:
            standing = member.standing
            standing.come_back(now)
            state = standing.state(now)
            member.share = standing.share(member.weight, now)
            changes_at = min(changes_at, standing.changes_at(now))
            if state is State.HALF_OPEN and standing.breaker.is_tried:
                changes_at = min(changes_at, now + _LOOK_FOR_TRIAL_S)
            elif state is State.HEALTHY or state is State.HALF_OPEN:
                serving.append(member)
            elif state is State.EJECTED:
                passed_over.append(member)
        serving = serving or passed_over
        if serving != self._serving:  # credits were among others
            for member in self.members:
                member.credit = 0.0
        self._serving = serving
        self._even = len({member.share for member in self._serving}) == 1
        self._changes_at = changes_at
        in_trouble = any(member.standing.breaker.open_until for member in self.members)
        self.watched = self._watches_all or in_trouble
        plain = len(self._serving) == 1 and changes_at == math.inf and not in_trouble
        self.only = self._serving[0].target if plain else None

    # Choice.

    def choose(self, now: float, asker: Asker, tried: Container[Target] = ()) -> Target | Refusal:
        """Where this request goes, other than to those that it has `tried` in vain."""
        if now >= self._changes_at:
            self._look(now)
        serving = self._serving
        if tried:
            serving = [member for member in serving if member.target not in tried] or self._ejected(now, tried)
        if not serving:
            return self._refusal(now)
        member = serving[0] if len(serving) == 1 else self._pick(self, serving, asker)
        if member.standing.breaker.open_until:  # it is half-open: this is its trial
            member.standing.breaker.try_with(asker)
            self._changed()
        return member.target

    def refusal(self, now: float) -> Refusal | None:
        """Why no request can be served, before one is charged for it; None where one can."""
        if now >= self._changes_at:
            self._look(now)
        return None if self._serving else self._refusal(now)

    def peek(self, now: float, asker: Asker) -> Target | Refusal:
        """Where the next request would go. It moves nobody's turn."""
        refusal = self.refusal(now)
        if refusal is not None:
            return refusal
        turn, before = self._turn, [member.credit for member in self.members]
        target = self._pick(self, self._serving, asker).target
        self._turn = turn
        for member, credit in zip(self.members, before, strict=True):
            member.credit = credit
        return target

    def _ejected(self, now: float, tried: Container[Target]) -> list[Member]:
        """Those that may still be tried when the others were, in vain."""
        return [
            member
            for member in self.members
            if member.target not in tried and member.standing.state(now) is State.EJECTED
        ]

    def _refusal(self, now: float) -> Refusal:
        waits = [
            max(member.standing.breaker.open_until - now, 0.0)
            for member in self.members
            if member.standing.state(now) in (State.OPEN, State.HALF_OPEN)
        ]
        if not waits:
            return _NONE_HEALTHY
        retry_after = (b"Retry-After", b"%d" % max(math.ceil(min(waits)), 1))
        return Refusal(CIRCUIT_OPEN, "this API has failed too often; it will be tried again soon", (retry_after,))

    def _by_turn(self, serving: list[Member], asker: Asker) -> Member:
        if self._even:
            self._turn += 1
            return serving[self._turn % len(serving)]
        total = 0.0
        richest = serving[0]
        for member in serving:
            member.credit += member.share
            total += member.share
            if member.credit > richest.credit:
                richest = member
        richest.credit -= total
        return richest

    def _by_load(self, serving: list[Member], asker: Asker) -> Member:
        self._turn += 1
        begin = self._turn % len(serving)  # who is first among equals changes, or an idle service had one target
        return min(serving[begin:] + serving[:begin], key=lambda m: (asker.load_of(m.target) + 1) / m.share)

    def _by_hash(self, serving: list[Member], asker: Asker) -> Member:
        value = int.from_bytes(blake2b(asker.hash_value(self._hash_on), digest_size=8).digest())
        return max(serving, key=lambda member: _draw(value, member))

    # Outcomes.

    def answered(self, identity: str, asker: Asker, status: int, now: float) -> bool:
        """By the target of this identity. Only where answers are `watched`. Whether its state has changed."""
        standing = self._standing(identity)
        if standing is None or not standing.answered(asker, status, now):
            return False
        self._changed()
        return True

    def failed(self, identity: str, asker: Asker, why: str, now: float, requests: int) -> None:
        """No answer came. `requests`: how many the target got within `window_s`."""
        standing = self._standing(identity)
        if standing is not None and standing.failed(asker, why, now, requests):
            self._changed()

    def told(self, url: str, healthy: bool, now: float) -> None:
        """By control."""
        for member in self.members:
            if member.target.url == url and member.standing.told(healthy, now):
                self._changed()

    def _standing(self, identity: str) -> Standing | None:
        for member in self.members:
            if member.target.identity == identity:
                return member.standing
        return None  # it has gone, while its last requests were on their way


_PICKS = {"least-outstanding": Rotation._by_load, "hash": Rotation._by_hash}


def _draw(value: int, member: Member) -> float:
    """What the member draws for this value: -share / ln(u), u evenly spread in (0, 1).

    So it wins in proportion to its share: weighted rendezvous hashing. The mixing is splitmix64's.
    """
    mixed = value ^ member.seed
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    mixed ^= mixed >> 31
    # 52 bits: with 53 the greatest would be rounded to 1, whose logarithm is 0.
    return -member.share / math.log(((mixed >> 12) + 0.5) / 4503599627370496)
