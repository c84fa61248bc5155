"""Recorded usage of keys, replayed against the terms of a plan. Reads only.

The replay begins with the month in which the range begins: what was used before the range is missing from the quota,
and from what its price includes. Hours that are no longer kept are not replayed: whoever asks must see to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from gatewayd.control.compile import Overrides
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Key, QuotaGrant, Rollup
from gatewayd.keys import PREFIX
from gatewayd.policy import pricing
from gatewayd.policy.buckets import month_of
from gatewayd.policy.cycles import month_at
from gatewayd.policy.money import format_nanos
from gatewayd.policy.simulation import Billed, Hour, Outcome, Terms, simulate

_rollup = Rollup.__table__  # type: ignore[attr-defined]
_key, _grant = Key.__table__, QuotaGrant.__table__  # type: ignore[attr-defined]
_overrides = msgspec.json.Decoder(Overrides)
_NUMBERS = ("requests", "units", "billable", "billable_units", "billable_bytes")


@dataclass(frozen=True, slots=True)
class Trial:
    """Which keys' usage of which whole hours, half-open, against what. A quota that is not enforced is None."""

    since: int
    until: int
    terms: Terms
    quota_refuses: bool
    shadow: bool
    zone: ZoneInfo

    @property
    def replayed_from(self) -> int:
        """What came before in the months in which the range begins, of quotas and of bills."""
        return min(month_of(self.since)[0], month_at(self.since, self.zone).starts_at)

    def month_of(self, time_s: int) -> tuple[int, int]:
        """The billing month."""
        _, starts_at, ends_at = month_at(time_s, self.zone)
        return starts_at, ends_at


def replay(connection: Connection, keys: ColumnElement[bool], trial: Trial) -> dict[str, Any]:
    """`items` and `total` of a simulation: keys that had usage, in the order in which they were made."""
    rows = connection.execute(
        select(_key.c.id, _key.c.public_id, _key.c.name, _key.c.overrides).where(keys).order_by(_key.c.id)
    ).all()
    known = {row.id: row for row in rows}
    prices = all_terms(connection)
    granted = _granted(connection, keys, trial)
    total, items = Outcome(), []
    for key_id, hours in _usage(connection, keys, trial):
        key = known[key_id]
        terms = _terms_of(_overrides.decode(key.overrides), trial, prices)
        outcome = simulate(hours, terms, trial.since, granted.get(key_id, {}), prices, trial.month_of)
        if outcome.requests:
            total.add(outcome)
            items.append({"key": PREFIX + key.public_id, "name": key.name, **_shown(outcome)})
    return {"items": items, "total": _shown(total)}


def _terms_of(own: Overrides, trial: Trial, prices: Mapping[int, pricing.Terms]) -> Terms:
    """A key keeps what it has in place of its plan's."""
    quota = trial.terms.quota if own.quota is None else own.quota
    price = trial.terms.price if own.price_id is None else prices[own.price_id]
    if trial.shadow:
        return Terms((), None, price)
    return Terms(own.rates or trial.terms.rates, quota if trial.quota_refuses else None, price)


def _usage(connection: Connection, keys: ColumnElement[bool], trial: Trial) -> Iterator[tuple[int, Iterator[Hour]]]:
    """The hours of each key, read as they are replayed: a plan may have a hundred thousand keys."""
    numbers = (func.sum(_rollup.c[name]) for name in _NUMBERS)
    query = (
        select(_rollup.c.key_id, _rollup.c.hour, _rollup.c.price_id, *numbers)
        .join_from(_rollup, _key, _rollup.c.key_id == _key.c.id)
        .where(keys, _rollup.c.hour >= trial.replayed_from, _rollup.c.hour < trial.until)
        .group_by(_rollup.c.key_id, _rollup.c.hour, _rollup.c.price_id)
        .order_by(_rollup.c.key_id, _rollup.c.hour, _rollup.c.price_id)
    )
    for key_id, rows in groupby(connection.execute(query), key=lambda row: int(row[0])):
        by_hour = groupby(rows, key=lambda row: int(row[1]))
        yield key_id, (_hour(starts_at, same_hour) for starts_at, same_hour in by_hour)


def _hour(starts_at: int, rows: Iterable[Sequence[Any]]) -> Hour:
    """The hour of a key; one in which its price changed has a row for each price."""
    requests = units = 0
    billed = []
    for _, _, price_id, *sums in rows:
        requests += sums[0]
        units += sums[1]
        if sums[2]:
            billed.append(Billed(price_id, *sums[2:]))
    return Hour(starts_at, requests, units, tuple(billed))


def _granted(connection: Connection, keys: ColumnElement[bool], trial: Trial) -> dict[int, dict[int, int]]:
    """What each key had on top of its quota, by month: grants, and what the last reset forgave."""
    query = (
        select(_grant.c.key_id, _grant.c.month, _grant.c.is_reset, _grant.c.units)
        .join_from(_grant, _key, _grant.c.key_id == _key.c.id)
        .where(keys, _grant.c.month >= month_of(trial.since)[0], _grant.c.month < trial.until)
        .order_by(_grant.c.id)
    )
    grants: dict[int, dict[int, int]] = {}
    forgiven: dict[tuple[int, int], int] = {}
    for key_id, month, is_reset, units in connection.execute(query):
        months = grants.setdefault(key_id, {})
        more = units - forgiven.get((key_id, month), 0) if is_reset else units
        months[month] = months.get(month, 0) + more
        if is_reset:
            forgiven[key_id, month] = units
    return grants


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "requests": outcome.requests,
        "units": outcome.units,
        "would_refuse": outcome.refused,
        "earned": format_nanos(outcome.earned_nanos),
        "would_earn": format_nanos(outcome.would_earn_nanos),
    }
