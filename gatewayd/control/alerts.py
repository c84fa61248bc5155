"""Alerts: a key has used as much of its quota as its plan wants to be told of.

Ingest says how many units each key has gone on by; once a second those are looked at that may have passed a threshold.
For each key it is remembered how many units are left to the next one, so that a key is looked up when it is first used
and then when it gets there, not every second in between. What was told is a row, so it is told once a month, whatever
is restarted in between; it is also a line of the audit and one of the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gatewayd import keys
from gatewayd.control.admin.changes import Change
from gatewayd.control.compile import find_key_by_id
from gatewayd.control.database import Database
from gatewayd.control.quotas import KeyQuota, quota_of
from gatewayd.control.tables import Key, Plan, QuotaAlert, Tenant
from gatewayd.errors import GatewayError
from gatewayd.policy.amounts import period_of
from gatewayd.policy.buckets import month_of

ACTOR = "gatewayd"
NEVER = 1 << 62  # units until the next threshold, where there is none
_REMEMBERED = 1_000_000  # keys; beyond it all are looked up once more
# Of one step: keys of which it is asked whether they have alerts, and keys whose quota is read.
_ASKED_AT_ONCE = 2000
_READ_AT_ONCE = 100

_alert = QuotaAlert.__table__  # type: ignore[attr-defined]

log = logging.getLogger(__name__)


class _Watched(NamedTuple):
    """A key whose plan has alerts, as the database has it."""

    key_id: int
    public_id: str
    tenant: str
    percents: tuple[int, ...]


class _Passed(NamedTuple):
    """Thresholds that a key has passed and of which nothing was told yet."""

    key: _Watched
    quota: KeyQuota
    percents: list[int]


class _Looked(NamedTuple):
    """`left`: units to the next threshold, by key. `later`: keys that there was no time for."""

    passed: list[_Passed]
    left: dict[int, int]
    later: list[int]


class Alerts:
    """Lives on the event loop's thread, as ingest does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: dict[int, int] = {}  # units to the next threshold, by key
        self._due: dict[int, None] = {}  # a set that keeps its order
        self._month_ends_at = 0.0
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<Alerts {len(self._due)} keys due, {len(self._left)} known>"

    def recorded(self, key_id: int, units: int) -> None:
        """A key has gone on by so many units of its quota."""
        left = self._left.get(key_id, 0) - units
        if left <= 0:
            self._due[key_id] = None
        else:
            self._left[key_id] = left

    def forget(self) -> None:
        """Plans, quotas or keys have changed: each key is looked up anew when it is next used."""
        self._left.clear()
        self._forgotten += 1

    async def step(self, now: float) -> None:
        """Look at keys that may have passed a threshold, and tell. What fails is tried again."""
        if now >= self._month_ends_at:
            self._month_ends_at = month_of(now)[1]
            self._due.update(dict.fromkeys(self._left))  # what they have used of the new month was not counted from 0
            self.forget()
        if not self._due:
            return
        due = list(self._due)[:_ASKED_AT_ONCE]
        for key_id in due:  # one that goes on meanwhile is due again
            del self._due[key_id]
        forgotten = self._forgotten
        try:
            looked = await asyncio.to_thread(self._look, due, now)
            if looked.passed:
                self._tell(looked.passed, int(now))
        except (DBAPIError, GatewayError) as error:
            log.error("alerts cannot be stored for the moment: %s", error)
            self._due.update(dict.fromkeys(due))
            return
        self._due.update(dict.fromkeys(looked.later))
        if forgotten == self._forgotten:
            self._left.update(looked.left)
        if len(self._left) > _REMEMBERED:
            self.forget()

    def _look(self, due: list[int], now: float) -> _Looked:
        """In a thread: to add up a month of a key takes a millisecond or two, and leases do not wait so often."""
        with self._database.read() as session:
            connection = session.connection()
            watched = _watched(connection, due)
            left, passed = dict.fromkeys(due, NEVER), []
            for key in watched[:_READ_AT_ONCE]:
                conf = find_key_by_id(connection, key.key_id)
                quota = quota_of(connection, key.key_id, None if conf is None else conf.quota, now)
                if quota.limit is None:
                    continue
                reached = [percent for percent in key.percents if is_passed(quota, percent)]
                ahead = key.percents[len(reached) :]
                if ahead:
                    left[key.key_id] = -(-ahead[0] * quota.limit // 100) - quota.used
                told = set(told_of(connection, key.key_id, quota.starts_at)) if reached else set()
                if untold := [percent for percent in reached if percent not in told]:
                    passed.append(_Passed(key, quota, untold))
            later = [key.key_id for key in watched[_READ_AT_ONCE:]]
            for key_id in later:
                del left[key_id]
            return _Looked(passed, left, later)

    def _tell(self, passed: list[_Passed], now: int) -> None:
        with self._database.write() as session:
            change = Change(session, ACTOR, now)
            for watched, quota, percents in passed:
                period = period_of(quota.starts_at)
                for percent in percents:
                    session.add(QuotaAlert(key_id=watched.key_id, month=quota.starts_at, percent=percent, at=now))
                    after = {"percent": percent, "used": quota.used, "limit": quota.limit, "period": period}
                    change.note("quota.alert", watched.tenant, f"key_{watched.public_id}", after=after)
        for watched, quota, percents in passed:
            key = keys.PREFIX + watched.public_id
            used = f"{quota.used} of {quota.limit} units in {period_of(quota.starts_at)}"
            log.warning("key %s of %s has passed %d %% of its quota: %s", key, watched.tenant, percents[-1], used)


def is_passed(quota: KeyQuota, percent: int) -> bool:
    return quota.limit is not None and quota.used * 100 >= percent * quota.limit


def told_of(connection: Any, key_id: int, month: int) -> list[int]:
    """Thresholds of which was told, in their order."""
    rows = connection.execute(
        select(_alert.c.percent).where(_alert.c.key_id == key_id, _alert.c.month == month).order_by(_alert.c.percent)
    )
    return [row.percent for row in rows]


def take_back(session: Session, key_id: int, quota: KeyQuota) -> None:
    """After a grant or a reset: what is no longer passed is told again once it is."""
    untrue = [
        percent for percent in told_of(session.connection(), key_id, quota.starts_at) if not is_passed(quota, percent)
    ]
    session.execute(
        delete(_alert).where(_alert.c.key_id == key_id, _alert.c.month == quota.starts_at, _alert.c.percent.in_(untrue))
    )


def _watched(connection: Any, key_ids: Iterable[int]) -> list[_Watched]:
    key, plan, tenant = Key.__table__, Plan.__table__, Tenant.__table__  # type: ignore[attr-defined]
    query = (
        select(key.c.id, key.c.public_id, tenant.c.slug, plan.c.alerts)
        .join_from(key, plan, key.c.plan_id == plan.c.id)
        .join(tenant, key.c.tenant_id == tenant.c.id)
        .where(key.c.id.in_(list(key_ids)), func.length(plan.c.alerts) > len("[]"))
    )
    return [
        _Watched(row.id, row.public_id, row.slug, msgspec.json.decode(row.alerts, type=tuple[int, ...]))
        for row in connection.execute(query)
    ]
