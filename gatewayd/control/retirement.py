"""The end of a generation that nobody uses any more.

A key that was rotated works with its old secret until the overlap has passed. It needs to no longer once everybody has
the new one: an old generation is ended when a newer one is in use, and the old one has not been used for
`retire_after_s` since the newer one was first, or since its own last use. An old secret that lies about somewhere is
then worth nothing to whoever finds it.
"""

from __future__ import annotations

import logging

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from gatewayd.control.admin.changes import Change, now_s
from gatewayd.control.admin.state import Plane
from gatewayd.control.database import Database
from gatewayd.control.last_used import MINUTE_S
from gatewayd.control.tables import Key, KeyGeneration, Tenant
from gatewayd.errors import GatewayError
from gatewayd.policy.amounts import format_time

ACTOR = "gatewayd"

log = logging.getLogger(__name__)

_key, _generation, _tenant = Key.__table__, KeyGeneration.__table__, Tenant.__table__  # type: ignore[attr-defined]


def retire(database: Database, now: int) -> list[str]:
    """End what has been quiet for long enough; the public ids of the keys that have changed.

    Journals must have been read up to now. Uses are known to the minute, so that one may be nearly a minute later.
    """
    # A scalar `max` of SQLite's: no row has a null here, for without a newer generation in use there is no end.
    quiet_since = func.max(_key.c.first_used_at, func.coalesce(_generation.c.last_used_at, 0)) + MINUTE_S
    wanted = (
        select(_generation, _key.c.public_id, _tenant.c.slug)
        .join_from(_generation, _key, _generation.c.key_id == _key.c.id)
        .join(_tenant, _key.c.tenant_id == _tenant.c.id)
        .where(
            _generation.c.ended_at.is_(None),
            _generation.c.until > now,
            _key.c.first_used_at.is_not(None),
            quiet_since + _generation.c.retire_after_s <= now,
        )
    )
    if database.lookup.execute(wanted).first() is None:  # mostly: no lock is taken for nothing
        return []
    changed = []
    with database.write() as session:
        change = Change(session, ACTOR, now)
        for row in session.execute(wanted).all():
            generation = session.get(KeyGeneration, (row.key_id, row.number))
            assert generation is not None
            generation.ended_at = now
            session.add(generation)
            used = None if row.last_used_at is None else format_time(row.last_used_at)
            after = {"generation": row.number, "last_used_at": used, "ended_at": format_time(now)}
            change.note("key.retire", row.slug, f"key_{row.public_id}", after=after)
            changed.append(row.public_id)
    return sorted(set(changed))


async def retire_quiet(database: Database, plane: Plane) -> None:
    """As of now, on every worker. What cannot be done now is tried again later."""
    try:
        await plane.catch_up()
        await database.given_back()
        changed = retire(database, now_s())
    except (GatewayError, DBAPIError) as error:
        log.warning("generations of keys that are out of use cannot be ended for the moment: %s", error)
        return
    if changed:
        await plane.publish_keys(changed)
