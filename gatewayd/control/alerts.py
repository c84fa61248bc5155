"""Alerts of quotas: a key has used as much of its quota as its plan, or a webhook, wants to be told of.

Ingest says how many units each key has gone on by; once a second those are looked at that may have passed a threshold.
For each key it is remembered how many units are left to the next one, so that a key is looked up when it is first used
and then when it gets there, not every second in between. What was told is a row, so it is told once a month, whatever
is restarted in between. What a plan wants to be told of is also a line of the audit and one of the log; webhooks have
percentages of their own, and their rows are in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gatewayd import keys
from gatewayd.control import outbox
from gatewayd.control.admin.changes import Change
from gatewayd.control.compile import find_key_by_id
from gatewayd.control.database import Database
from gatewayd.control.quotas import KeyQuota, quota_of
from gatewayd.control.tables import Alert, AlertEvent, Key, Plan, QuotaAlert, Rollup, Tenant
from gatewayd.errors import GatewayError
from gatewayd.policy.alerting import Kind
from gatewayd.policy.amounts import format_time, period_of
from gatewayd.policy.buckets import month_of

ACTOR = "gatewayd"
NEVER = 1 << 62  # units until the next threshold, where there is none
_REMEMBERED = 1_000_000  # keys; beyond it all are looked up once more
# Of one step: keys of which it is asked whether they have alerts, and keys whose quota is read.
_ASKED_AT_ONCE = 2000
_READ_AT_ONCE = 100

# Looked at once after a start, and when an alert is new: keys that were used since then. What was stored just before
# control was killed may have passed a threshold that nobody looked at.
_RECENT_S = 86400
KIND: Kind = "quota"

_alert = QuotaAlert.__table__  # type: ignore[attr-defined]
_key, _plan, _tenant, _rollup, _webhook, _event = (
    table.__table__  # type: ignore[union-attr]
    for table in (Key, Plan, Tenant, Rollup, Alert, AlertEvent)
)

log = logging.getLogger(__name__)


class _Watched(NamedTuple):
    """A key whose plan has alerts, or for which there are webhooks, as the database has it."""

    key_id: int
    public_id: str
    name: str
    tenant: str
    percents: tuple[int, ...]  # of the plan
    webhooks: tuple[outbox.Wanted, ...]

    @property
    def thresholds(self) -> list[int]:
        """In their order."""
        return sorted({*self.percents, *(webhook.threshold for webhook in self.webhooks)})


class _Passed(NamedTuple):
    """Thresholds that a key has passed and of which nothing was told yet."""

    key: _Watched
    quota: KeyQuota
    percents: list[int]
    webhooks: list[outbox.Wanted]


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
        self._looks_at_recent = True

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

    def look_at_recent(self) -> None:
        """Look once more at every key that was used lately."""
        self._looks_at_recent = True

    async def step(self, now: float) -> None:
        """Look at keys that may have passed a threshold, and tell. What fails is tried again."""
        if self._looks_at_recent:
            self._looks_at_recent = False
            try:
                recent = await asyncio.to_thread(self._recent, int(now))
            except DBAPIError as error:
                log.error("alerts cannot be looked at for the moment: %s", error)
                self._looks_at_recent = True
                return
            self._due.update(dict.fromkeys(recent))
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

    def _recent(self, now: int) -> list[int]:
        """Keys that were used lately, of tenants that have alerts of quotas."""
        with self._database.read() as session:
            connection = session.connection()
            hooked = {webhook.tenant_id for webhook in outbox.wanted(connection, KIND)}
            planned = connection.execute(select(_plan.c.tenant_id).where(_has_alerts()).distinct()).scalars()
            found: dict[int, None] = {}
            for tenant_id in sorted(hooked | set(planned)):
                used = select(_rollup.c.key_id).where(
                    _rollup.c.tenant_id == tenant_id, _rollup.c.hour >= now - _RECENT_S, _rollup.c.key_id > 0
                )
                found.update(dict.fromkeys(connection.execute(used.distinct()).scalars()))
            return list(found)

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
                ahead = [percent for percent in key.thresholds if not is_passed(quota, percent)]
                if ahead:
                    left[key.key_id] = -(-ahead[0] * quota.limit // 100) - quota.used
                if len(ahead) == len(key.thresholds):
                    continue
                told = set(told_of(connection, key.key_id, quota.starts_at))
                percents = [each for each in key.percents if is_passed(quota, each) and each not in told]
                reached = [each for each in key.webhooks if is_passed(quota, each.threshold)]
                done = outbox.told(connection, _occasion(key.key_id, quota), [each.id for each in reached])
                webhooks = [each for each in reached if each.id not in done]
                if percents or webhooks:
                    passed.append(_Passed(key, quota, percents, webhooks))
            later = [key.key_id for key in watched[_READ_AT_ONCE:]]
            for key_id in later:
                del left[key_id]
            return _Looked(passed, left, later)

    def _tell(self, passed: list[_Passed], now: int) -> None:
        with self._database.write() as session:
            change = Change(session, ACTOR, now)
            for watched, quota, percents, webhooks in passed:
                period = period_of(quota.starts_at)
                for percent in percents:
                    session.add(QuotaAlert(key_id=watched.key_id, month=quota.starts_at, percent=percent, at=now))
                    after = {"percent": percent, "used": quota.used, "limit": quota.limit, "period": period}
                    change.note("quota.alert", watched.tenant, f"key_{watched.public_id}", after=after)
                for webhook in webhooks:
                    data = {
                        "key": keys.PREFIX + watched.public_id, "key_name": watched.name, "period": period,
                        "threshold_percent": webhook.threshold, "used": quota.used, "limit": quota.limit,
                        "resets_at": format_time(quota.ends_at),
                    }  # fmt: skip
                    outbox.put(session.connection(), webhook, KIND, _occasion(watched.key_id, quota), now, data)
        for watched, quota, percents, _ in passed:
            if not percents:
                continue
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
    events = (
        select(_event.c.id, _webhook.c.threshold)
        .join_from(_webhook, _event, _event.c.alert_id == _webhook.c.id)
        .where(
            _webhook.c.tenant_id == select(_key.c.tenant_id).where(_key.c.id == key_id).scalar_subquery(),
            _webhook.c.kind == KIND,
            _event.c.occasion == _occasion(key_id, quota),
        )
    )
    connection = session.connection()
    told = [row.id for row in connection.execute(events) if not is_passed(quota, row.threshold)]
    outbox.free_occasions(connection, told)


def _occasion(key_id: int, quota: KeyQuota) -> str:
    return f"quota:{key_id}:{quota.starts_at}"


def _has_alerts() -> Any:
    return func.length(_plan.c.alerts) > len("[]")


def _watched(connection: Connection, key_ids: Iterable[int]) -> list[_Watched]:
    hooked: dict[int, list[outbox.Wanted]] = {}
    for webhook in outbox.wanted(connection, KIND):
        hooked.setdefault(webhook.tenant_id, []).append(webhook)
    query = (
        select(_key.c.id, _key.c.public_id, _key.c.name, _key.c.tenant_id, _tenant.c.slug, _plan.c.alerts)
        .join_from(_key, _plan, _key.c.plan_id == _plan.c.id, isouter=True)
        .join(_tenant, _key.c.tenant_id == _tenant.c.id)
        .where(_key.c.id.in_(list(key_ids)), _has_alerts() | _key.c.tenant_id.in_(sorted(hooked)))
    )
    found = []
    for row in connection.execute(query):
        percents = msgspec.json.decode(row.alerts or "[]", type=tuple[int, ...])
        webhooks = tuple(each for each in hooked.get(row.tenant_id, ()) if each.key_id in (None, row.id))
        if percents or webhooks:
            found.append(_Watched(row.id, row.public_id, row.name, row.slug, percents, webhooks))
    return found
