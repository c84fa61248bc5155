"""Days that are over are rolled: the hours of each tenant's day are summed into `rollup_day`. Old rows are removed.

A day is summed in a thread, tenant by tenant, and written on the loop in short transactions. Nobody reads it there
before all of it is written, which one row of `progress` says: so a crash in between is harmless, and the day is rolled
again over what was written. A tenant of which records came in the meantime is summed once more. Once a day is rolled,
ingest adds what comes late for it to both tables.

Then what is older than its retention goes, in small bites: hours only of days that are rolled and before the present
month of quotas, and nothing that an open cycle will bill.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from gatewayd.control.batches import DAY_S
from gatewayd.control.collector import without_collections
from gatewayd.control.database import Database
from gatewayd.control.history import DAYS_FROM, HOURS_FROM, ROLLED_UNTIL, progress
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Rollup, RollupDay
from gatewayd.errors import GatewayError
from gatewayd.policy.buckets import month_of

# A day is rolled so long after its end: most of its records have come by then, and each that has not is written twice.
GRACE_S = 900
LOOK_S = 60.0
# Rows of one transaction: about 3 ms, in which the loop does nothing else.
BITE = 500
BREATH_S = 0.005

_hours, _days = Rollup.__table__, RollupDay.__table__  # type: ignore[attr-defined]
_KEYS = [column.name for column in _days.primary_key.columns]
_SAME = ", ".join(_KEYS[2:])
_SUMMED = ", ".join(
    f"{'sum_histograms' if column.name == 'latency' else 'sum'}({column.name})"
    for column in _days.columns
    if column.name not in _KEYS
)
_SUM = (
    f"SELECT tenant_id, hour - hour % {DAY_S}, {_SAME}, {_SUMMED} FROM rollup "  # noqa: S608  # names of columns
    f"WHERE tenant_id = ? AND hour >= ? AND hour < ? GROUP BY {_SAME}"
)
_WRITE = f"INSERT OR REPLACE INTO rollup_day VALUES ({', '.join('?' * len(_days.columns))})"  # noqa: S608
_TENANTS = (
    "SELECT id FROM tenant WHERE EXISTS (SELECT 1 FROM rollup WHERE tenant_id = tenant.id AND hour >= ? AND hour < ?)"
)
_FIRST = (
    "SELECT min(first) FROM (SELECT (SELECT min(hour) FROM rollup WHERE tenant_id = tenant.id) AS first FROM tenant)"
)
_OPEN_SINCE = "SELECT min(starts_at) FROM cycle WHERE tenant_id = ? AND closed_at IS NULL"
_SET = "INSERT INTO progress (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, ?)"

log = logging.getLogger(__name__)


class Days:
    """Lives on the event loop's thread, as ingest does, whose `rollups` say what they have touched."""

    def __init__(self, database: Database, rollups: Rollups, hours_days: int, days_days: int) -> None:
        self._database = database
        self._rollups = rollups
        self._hours_days = hours_days
        self._days_days = days_days
        self._tidied_day = -1

    async def run(self) -> None:
        """Until cancelled. It sleeps first: a control that has just begun has workers to answer."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.step(time.time_ns() // 1_000_000_000)

    async def step(self, now: int) -> None:
        """Roll every day that is over, then remove what is old, once a day. What fails is tried again."""
        try:
            while await self._roll_next(now):
                pass
            if now // DAY_S != self._tidied_day:
                await self._tidy(now)
                self._tidied_day = now // DAY_S
        except (DBAPIError, GatewayError) as error:
            log.error("days cannot be rolled for the moment: %s", error)
        except Exception:  # ended for good, nothing would be rolled any more, and nobody would know
            log.exception("days could not be rolled")
        finally:
            self._rollups.watched_day = -1

    async def _roll_next(self, now: int) -> bool:
        """False when there is none to roll."""
        with self._database.read() as session:
            day = _next_day(session.connection(), now)
        if day + DAY_S + GRACE_S > now:
            return False
        self._rollups.watched_day = day
        self._rollups.touched.clear()
        found = await asyncio.to_thread(self._tenants, day)
        tenants = sorted({*found, *self._rollups.touched})  # of some the first records have come since
        while tenants:
            for tenant_id in tenants:
                self._rollups.touched.discard(tenant_id)
                await self._roll(tenant_id, day)
            await self._database.given_back()
            tenants = sorted(self._rollups.touched)
        with self._database.write() as session:
            connection = session.connection()
            if _next_day(connection, now) == day:  # else records of a day before the very first have come: that first
                connection.exec_driver_sql(_SET, (ROLLED_UNTIL, day + DAY_S, day + DAY_S))
        return True

    def _tenants(self, day: int) -> list[int]:
        with self._database.read() as session:
            return list(session.connection().exec_driver_sql(_TENANTS, (day, day + DAY_S)).scalars())

    async def _roll(self, tenant_id: int, day: int) -> None:
        rows = await asyncio.to_thread(self._summed, tenant_id, day)
        for start in range(0, len(rows), BITE):
            await self._database.given_back()
            with self._database.write() as session:
                session.connection().exec_driver_sql(_WRITE, rows[start : start + BITE])
            await asyncio.sleep(0)

    def _summed(self, tenant_id: int, day: int) -> list[tuple[Any, ...]]:
        with without_collections(), self._database.read() as session:
            rows = session.connection().exec_driver_sql(_SUM, (tenant_id, day, day + DAY_S))
            return [tuple(row) for row in rows]

    # What is old.

    async def _tidy(self, now: int) -> None:
        today = now - now % DAY_S
        rolled_until, open_since = await asyncio.to_thread(self._to_keep)
        hours_until = min(today - self._hours_days * DAY_S, month_of(now)[0], rolled_until)
        days_until = min(today - self._days_days * DAY_S, hours_until)
        for tenant_id, since in open_since.items():
            limit = now if since is None else since - since % DAY_S
            await self._remove(_hours, HOURS_FROM, tenant_id, min(hours_until, limit))
            await self._remove(_days, DAYS_FROM, tenant_id, min(days_until, limit))

    def _to_keep(self) -> tuple[int, dict[int, int | None]]:
        """Up to where days are rolled, and by tenant since when it has an open cycle."""
        with self._database.read() as session:
            connection = session.connection()
            rolled_until = progress(connection).get(ROLLED_UNTIL, 0)
            tenants = list(connection.exec_driver_sql("SELECT id FROM tenant").scalars())
            return rolled_until, {id_: connection.exec_driver_sql(_OPEN_SINCE, (id_,)).scalar() for id_ in tenants}

    async def _remove(self, table: Table, name: str, tenant_id: int, until: int) -> None:
        statement = _removing(table)
        while True:
            await asyncio.sleep(0)  # there may be thousands of tenants with nothing to remove
            await self._database.given_back()
            with self._database.write() as session:
                connection = session.connection()
                removed = connection.exec_driver_sql(statement, (tenant_id, until, tenant_id)).rowcount
                if not removed:
                    return
                connection.exec_driver_sql(_SET, (name, until, until))
            await asyncio.sleep(BREATH_S)


def _removing(table: Table) -> str:
    keys = ", ".join(column.name for column in table.primary_key.columns)
    moment = "hour" if table is _hours else "day"
    return (
        f"DELETE FROM {table.name} WHERE ({keys}) IN (SELECT {keys} FROM {table.name} "  # noqa: S608  # our own names
        f"WHERE tenant_id = ? AND {moment} < ? AND cycle_id NOT IN "
        f"(SELECT id FROM cycle WHERE tenant_id = ? AND closed_at IS NULL) LIMIT {BITE})"
    )


def _next_day(connection: Connection, now: int) -> int:
    """The first day that is not rolled. Before any is, that of the oldest hour; today where there is none."""
    rolled_until = progress(connection).get(ROLLED_UNTIL)
    if rolled_until is not None:
        return rolled_until
    first = connection.exec_driver_sql(_FIRST).scalar()
    first = now if first is None else int(first)
    return first - first % DAY_S
