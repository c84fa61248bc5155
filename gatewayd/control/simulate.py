"""Recorded usage of keys, replayed against the terms of a plan. Reads only.

The replay begins with the month in which the range begins: what was used before the range is missing from the quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from gatewayd.control.compile import Overrides
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Key, QuotaGrant, Rollup
from gatewayd.keys import PREFIX
from gatewayd.policy.buckets import month_of
from gatewayd.policy.money import format_nanos
from gatewayd.policy.simulation import Hour, Outcome, Terms, simulate

_rollup = Rollup.__table__  # type: ignore[attr-defined]
_key, _grant = Key.__table__, QuotaGrant.__table__  # type: ignore[attr-defined]
_overrides = msgspec.json.Decoder(Overrides)


@dataclass(frozen=True, slots=True)
class Trial:
    """Which keys' usage of which whole hours, half-open, against what. A quota that is not enforced is None."""

    since: int
    until: int
    terms: Terms
    quota_refuses: bool
    shadow: bool


def replay(connection: Connection, keys: ColumnElement[bool], trial: Trial) -> dict[str, Any]:
    """`items` and `total` of a simulation: keys that had usage, in the order in which they were made."""
    rows = connection.execute(
        select(_key.c.id, _key.c.public_id, _key.c.name, _key.c.overrides).where(keys).order_by(_key.c.id)
    ).all()
    known = {row.id: row for row in rows}
    prices = {price_id: terms.request_nanos for price_id, terms in all_terms(connection).items()}
    granted = _granted(connection, keys, trial)
    total, items = Outcome(), []
    for key_id, hours in _usage(connection, keys, trial, prices):
        key = known[key_id]
        terms = _terms_of(_overrides.decode(key.overrides), trial, prices)
        outcome = simulate(hours, terms, trial.since, granted.get(key_id, {}))
        if outcome.requests:
            total.add(outcome)
            items.append({"key": PREFIX + key.public_id, "name": key.name, **_shown(outcome)})
    return {"items": items, "total": _shown(total)}


def _terms_of(own: Overrides, trial: Trial, prices: Mapping[int, int]) -> Terms:
    """A key keeps what it has in place of its plan's."""
    quota = trial.terms.quota if own.quota is None else own.quota
    nanos = trial.terms.request_nanos if own.price_id is None else prices[own.price_id]
    if trial.shadow:
        return Terms((), None, nanos)
    return Terms(own.rates or trial.terms.rates, quota if trial.quota_refuses else None, nanos)


def _usage(
    connection: Connection, keys: ColumnElement[bool], trial: Trial, prices: Mapping[int, int]
) -> Iterator[tuple[int, Iterator[Hour]]]:
    """The hours of each key, read as they are replayed: a plan may have a hundred thousand keys."""
    numbers = (func.sum(_rollup.c.requests), func.sum(_rollup.c.units), func.sum(_rollup.c.billable))
    query = (
        select(_rollup.c.key_id, _rollup.c.hour, _rollup.c.price_id, *numbers)
        .join_from(_rollup, _key, _rollup.c.key_id == _key.c.id)
        .where(keys, _rollup.c.hour >= month_of(trial.since)[0], _rollup.c.hour < trial.until)
        .group_by(_rollup.c.key_id, _rollup.c.hour, _rollup.c.price_id)
        .order_by(_rollup.c.key_id, _rollup.c.hour)
    )
    for key_id, rows in groupby(connection.execute(query), key=lambda row: int(row[0])):
        by_hour = groupby(rows, key=lambda row: int(row[1]))
        yield key_id, (_hour(starts_at, same_hour, prices) for starts_at, same_hour in by_hour)


def _hour(starts_at: int, rows: Iterable[Sequence[Any]], prices: Mapping[int, int]) -> Hour:
    """The hour of a key; one in which its price changed has a row for each price."""
    requests = units = billable = nanos = 0
    for _, _, price_id, *sums in rows:
        requests += sums[0]
        units += sums[1]
        billable += sums[2]
        nanos += sums[2] * prices.get(price_id, 0)
    return Hour(starts_at, requests, units, billable, nanos)


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
