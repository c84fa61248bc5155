"""Which keys owe a fee: the database's answer, and that of going through each key's seconds one by one."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytest
from sqlalchemy import insert

from gatewayd.control.charging import subscriptions_of
from gatewayd.control.cycles import CycleRow
from gatewayd.control.database import Database
from gatewayd.control.key_past import KeyState, keep
from gatewayd.control.prices import price_id_of
from gatewayd.control.tables import Key, Plan
from gatewayd.policy.pricing import Terms

STARTS_AT, ENDS_AT, NEVER = 100, 120, 1 << 40
_key, _plan = Key.__table__, Plan.__table__  # type: ignore[attr-defined]


class Life(NamedTuple):
    """A key: what it was from when on, and when it was revoked."""

    states: list[tuple[int, KeyState]]
    revoked_at: int | None

    def owes(self, prices: dict[int | None, int]) -> int | None:
        if not any(self.works(second) for second in range(STARTS_AT, ENDS_AT)):
            return None
        state = [state for began, state in self.states if began < ENDS_AT][-1]
        return state.price_id or prices[state.plan_id]

    def works(self, second: int) -> bool:
        """At any time of it: of a second in which the key was changed, it was both."""
        if self.revoked_at is not None and second > self.revoked_at:
            return False
        ends = [began for began, _ in self.states[1:]] + [NEVER]
        return any(
            began <= second <= until
            and (state.disabled_at is None or second <= state.disabled_at)
            and (state.expires_at is None or second < state.expires_at)
            for (began, state), until in zip(self.states, ends, strict=True)
        )


def a_life(random: Random, plans: list[int], prices: list[int]) -> Life:
    """Times are near the cycle's edges, and an expiry may be past when it is set, as a configuration may have it."""
    time = random.choice([80, 99, 100, 110, 119, 120])
    expiries = [None, *range(90, 131, 5)]
    state = KeyState(random.choice(plans), random.choice([None, *prices]), None, random.choice(expiries))
    states = [(time, state)]
    for _ in range(random.randrange(5)):
        time = random.choice([time, time + random.randrange(15), max(time, STARTS_AT), max(time, ENDS_AT)])
        changed = random.choice([
            state._replace(plan_id=random.choice(plans)),
            state._replace(price_id=random.choice([None, *prices])),
            state._replace(disabled_at=state.disabled_at or time),
            state._replace(disabled_at=None),
            state._replace(expires_at=random.choice(expiries)),
        ])  # fmt: skip
        if changed != state:
            state = changed
            states.append((time, state))
    return Life(states, random.choice([None, None, time + random.randrange(15)]))


@pytest.mark.parametrize("seed", range(3))
def test_a_fee_is_owed_by_what_has_worked_and_as_it_was_at_the_end(database: Database, seed: int) -> None:
    random = Random(seed)
    with database.write() as session:
        connection = session.connection()
        fees = [price_id_of(session, Terms(base_nanos=nanos)) for nanos in (1, 2, 3, 4)]
        price_of = dict[int | None, int](zip((1, 2), fees, strict=False))
        for plan_id, price_id in price_of.items():
            row = {"id": plan_id, "public_id": f"pln_{plan_id}", "name": f"plan {plan_id}", "price_id": price_id}
            connection.execute(insert(_plan), [{**row, "tenant_id": 1, "rates": "[]", "created_at": 0}])
        lives = {number: a_life(random, [1, 2], fees[2:]) for number in range(1, 301)}
        for number, (states, revoked_at) in lives.items():
            last = states[-1][1]
            values: dict[str, Any] = {
                "id": number, "public_id": f"key{number}", "digest": b"%d" % number, "tenant_id": 1, "name": "",
                "plan_id": last.plan_id, "created_at": states[0][0], "expires_at": last.expires_at,
                "disabled_at": last.disabled_at, "revoked_at": revoked_at,
                "overrides": "{}" if last.price_id is None else f'{{"price_id":{last.price_id}}}',
            }  # fmt: skip
            connection.execute(insert(_key), [values])
            for (_, state), (until, _) in pairwise(states):
                keep(connection, [(number, state)], until)
    cycle = CycleRow(1, 1, "", STARTS_AT, ENDS_AT, None)
    with database.read() as session:
        owed = dict(subscriptions_of(session.connection(), cycle, NEVER))
    expected = {number: owes for number, life in lives.items() if (owes := life.owes(price_of)) is not None}
    assert 50 < len(expected) < 250
    assert owed == expected, [lives[number] for number, _ in owed.items() ^ expected.items()]
