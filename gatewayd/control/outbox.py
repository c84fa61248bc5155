"""What alerts have to tell: written down in the transaction that found it out, delivered later by `webhooks`.

An event is a row with an occasion (a key's month, a cycle, a minute), unique for its alert: whatever is looked at twice
is told once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from gatewayd import keys
from gatewayd.control.tables import Alert, AlertEvent, Key, RefusalMinute, Tenant
from gatewayd.policy.alerting import EVENT_TYPES, Kind, event_body

_alert, _event, _key, _tenant = (table.__table__ for table in (Alert, AlertEvent, Key, Tenant))  # type: ignore[union-attr]
_minute = RefusalMinute.__table__  # type: ignore[attr-defined]

# Longer than any occasion can come again: a quota's month, a cycle.
EVENTS_KEPT_S = 90 * 86400
MINUTES_KEPT = 2 * 1440
_PRUNED_AT_ONCE = 5000


class Wanted(NamedTuple):
    """An alert that is neither removed nor disabled, with the names that its events hold."""

    id: int
    public_id: str
    tenant_id: int
    tenant: str
    currency: str
    key_id: int | None
    key_public_id: str | None
    key_name: str | None
    threshold: int

    @property
    def named(self) -> dict[str, Any]:
        """What every event says of its alert."""
        key = None if self.key_public_id is None else keys.PREFIX + self.key_public_id
        return {"alert": self.public_id, "tenant": self.tenant, "key": key, "key_name": self.key_name}


def wanted(connection: Connection, kind: Kind, tenant_ids: Iterable[int] | None = None) -> list[Wanted]:
    """The alerts of a kind, of these tenants or of all."""
    query = (
        select(
            _alert.c.id,
            _alert.c.public_id,
            _alert.c.tenant_id,
            _tenant.c.slug,
            _tenant.c.currency,
            _alert.c.key_id,
            _key.c.public_id,
            _key.c.name,
            _alert.c.threshold,
        )
        .join_from(_alert, _tenant, _alert.c.tenant_id == _tenant.c.id)
        .join(_key, _alert.c.key_id == _key.c.id, isouter=True)
        .where(
            _alert.c.kind == kind,
            _alert.c.removed_at.is_(None),
            _alert.c.disabled_at.is_(None),
            _tenant.c.removed_at.is_(None),
        )
        .order_by(_alert.c.id)
    )
    if tenant_ids is not None:
        query = query.where(_alert.c.tenant_id.in_(sorted(set(tenant_ids))))
    return [Wanted(*row) for row in connection.execute(query)]


def put(
    connection: Connection, alert: Wanted, kind: Kind, occasion: str, now_s: int, data: dict[str, Any] | None = None
) -> bool:
    """Tell this, unless it was told. True if it is new."""
    body = event_body(EVENT_TYPES[kind], now_s, {**alert.named, **(data or {})})
    row = {
        "public_id": new_event_id(), "alert_id": alert.id, "occasion": occasion, "type": EVENT_TYPES[kind],
        "body": body, "created_at": now_s, "attempts": 0, "next_at": now_s, "error": "",
    }  # fmt: skip
    return connection.execute(insert(_event).values(row).on_conflict_do_nothing()).rowcount > 0


def told(connection: Connection, occasion: str, alert_ids: Iterable[int]) -> set[int]:
    """Those of the alerts that have told of this occasion."""
    query = select(_event.c.alert_id).where(_event.c.alert_id.in_(list(alert_ids)), _event.c.occasion == occasion)
    return {row.alert_id for row in connection.execute(query)}


def free_occasions(connection: Connection, event_ids: Iterable[int]) -> None:
    """What these events told of is not so any more, and is told again once it is."""
    for event_id in event_ids:
        connection.execute(
            update(_event).where(_event.c.id == event_id).values(occasion=_event.c.occasion + f"#{event_id}")
        )


def give_up(connection: Connection, alert_id: int, why: str) -> None:
    """None of what this alert has yet to tell is sent."""
    waiting = (_event.c.alert_id == alert_id, _event.c.next_at.is_not(None))
    connection.execute(update(_event).where(*waiting).values(next_at=None, error=why))


def prune(connection: Connection, now_s: int) -> None:
    """Forget what nobody asks for any more."""
    old = (
        select(_event.c.id)
        .where(_event.c.created_at < now_s - EVENTS_KEPT_S, _event.c.next_at.is_(None))
        .limit(_PRUNED_AT_ONCE)
    )
    connection.execute(delete(_event).where(_event.c.id.in_(old)))
    connection.execute(delete(_minute).where(_minute.c.minute < now_s // 60 - MINUTES_KEPT))


def new_event_id() -> str:
    """A `webhook-id`, which must not hold a full stop: it is signed with one behind it."""
    return f"evt_{secrets.token_hex(12)}"
