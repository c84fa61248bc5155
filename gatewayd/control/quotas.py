"""A key's quota of one month: what the plan gives, what was granted on top, what is used.

One count everywhere: `recorded` is the units of admitted requests on the rollups, the same that `usage show` and the
bill read; the lessor adds to it what is on its way. A reset is no change of that count: it is a row that says how much
of it was forgiven, so usage and the bill stay what they are.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from gatewayd.control.tables import QuotaGrant, Rollup
from gatewayd.policy.buckets import month_of

_rollup, _grant = Rollup.__table__, QuotaGrant.__table__  # type: ignore[attr-defined]
_RECORDED = select(func.coalesce(func.sum(_rollup.c.units), 0)).where(
    _rollup.c.key_id == bindparam("key_id"), _rollup.c.hour >= bindparam("start"), _rollup.c.hour < bindparam("end")
)
_GRANTS = (
    select(_grant.c.units, _grant.c.is_reset, _grant.c.until)
    .where(_grant.c.key_id == bindparam("key_id"), _grant.c.month == bindparam("start"))
    .order_by(_grant.c.id)
)


class KeyQuota(NamedTuple):
    """The quota of one key in the month from `starts_at` up to `ends_at`, in units."""

    planned: int | None  # the plan's, or the key's own in its place; None: no quota
    granted: int  # by grants that count now
    recorded: int  # admitted this month and on the rollups
    forgiven: int  # of these, by the last reset
    starts_at: int
    ends_at: int
    changes_at: int  # when this may not be so any more: a grant ends, or the month

    @property
    def limit(self) -> int | None:
        return None if self.planned is None else self.planned + self.granted

    @property
    def used(self) -> int:
        return self.recorded - self.forgiven

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


def quota_of(connection: Connection, key_id: int, planned: int | None, now: float) -> KeyQuota:
    """`planned`: the quota of the key's plan or its own, `KeyConf.quota`. `now`: seconds since 1970.

    A grant counts in its month, up to its `until`; a reset row holds what was recorded when it was made.
    """
    start, end = month_of(now)
    asked = {"key_id": key_id, "start": start, "end": end}
    recorded = int(connection.execute(_RECORDED, asked).scalar_one())
    granted = forgiven = 0
    changes_at = end
    for units, is_reset, until in connection.execute(_GRANTS, asked):
        if is_reset:
            forgiven = min(units, recorded)
        elif until is None or until > now:
            granted += units
            changes_at = min(changes_at, until or end)
    return KeyQuota(planned, granted, recorded, forgiven, start, end, changes_at)
