"""Which plan a line of a bill is of: the one that its key had when this was used, not the one that it has by now.

Usage names its price and not a plan. So of the plans that a key has had it is the one that had this price: that of the
cycle's end where it did, else the last one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from gatewayd.control.admin.plan_prices import terms_shown
from gatewayd.control.cycles import CycleRow
from gatewayd.control.database import DEFAULT_PRICE_ID
from gatewayd.control.key_past import BITE, KeyState, pasts_of, state_of
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Key, Plan, PlanVersion
from gatewayd.policy.invoicing import Entry

_key, _plan, _version = Key.__table__, Plan.__table__, PlanVersion.__table__  # type: ignore[attr-defined]


class PlanNames(NamedTuple):
    """Of keys that have been changed: the plan at the cycle's end, and by price the one that it was used at."""

    at_end: dict[int, str | None]
    by_price: dict[int, dict[int, str | None]]


class _Plans(NamedTuple):
    """What plans are called, and every price that each has had."""

    names: dict[int, str]
    prices: dict[int, set[int]]

    def may_charge(self, state: KeyState, price_id: int) -> bool:
        if state.price_id is not None:
            return state.price_id == price_id
        return price_id in ({DEFAULT_PRICE_ID} if state.plan_id is None else self.prices[state.plan_id])

    def name_of(self, state: KeyState) -> str | None:
        return None if state.plan_id is None else self.names[state.plan_id]


def plan_names(connection: Connection, cycle: CycleRow, entries: Iterable[Entry]) -> PlanNames:
    """Of the keys of these entries that have been something else than they are."""
    prices: dict[int, set[int]] = {}
    for entry in entries:
        if entry.key_id:
            prices.setdefault(entry.key_id, set()).add(entry.price_id)
    pasts = pasts_of(connection, prices)
    present = _present(connection, pasts)
    every = {key_id: [*(past.state for past in pasts[key_id]), present[key_id]] for key_id in pasts}
    plans = _plans(connection, {state.plan_id for states in every.values() for state in states} - {None})
    named = PlanNames({}, {})
    for key_id, states in every.items():
        end = next((n for n, past in enumerate(pasts[key_id]) if past.until >= cycle.ends_at), len(states) - 1)
        likeliest = [*states[end::-1], *states[end + 1 :]]
        named.at_end[key_id] = plans.name_of(states[end])
        named.by_price[key_id] = {
            price_id: plans.name_of(next((s for s in likeliest if plans.may_charge(s, price_id)), states[end]))
            for price_id in prices[key_id]
        }
    return named


def _present(connection: Connection, ids: Iterable[int]) -> dict[int, KeyState]:
    wanted, found = list(ids), dict[int, KeyState]()
    columns = (_key.c.id, _key.c.plan_id, _key.c.overrides, _key.c.disabled_at, _key.c.expires_at)
    for start in range(0, len(wanted), BITE):
        for row in connection.execute(select(*columns).where(_key.c.id.in_(wanted[start : start + BITE]))):
            found[row.id] = state_of(dict(row._mapping))
    return found


def _plans(connection: Connection, ids: Iterable[int | None]) -> _Plans:
    found, wanted = _Plans({}, {}), list(ids)
    if not wanted:
        return found
    price_ids: Mapping[object, int] = {terms: price_id for price_id, terms in all_terms(connection).items()}
    for start in range(0, len(wanted), BITE):
        some = wanted[start : start + BITE]
        for row in connection.execute(select(_plan.c.id, _plan.c.name, _plan.c.price_id).where(_plan.c.id.in_(some))):
            found.names[row.id], found.prices[row.id] = row.name, {row.price_id}
        for row in connection.execute(select(_version.c.plan_id, _version.c.terms).where(_version.c.plan_id.in_(some))):
            if (price_id := price_ids.get(terms_shown(row.terms))) is not None:
                found.prices[row.plan_id].add(price_id)
    return found
