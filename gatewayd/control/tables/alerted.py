"""Who is to be told of what, and what there was to tell."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Text
from sqlmodel import Field, SQLModel

from gatewayd.control.tables.columns import AUTOINCREMENT, count, flag


class QuotaAlert(SQLModel, table=True):
    """A key's quota passed a threshold of its plan. Once a month, unless a grant or a reset took it back."""

    __tablename__ = "quota_alert"

    key_id: int = Field(foreign_key="key.id", primary_key=True)
    month: int = Field(primary_key=True)
    percent: int = Field(primary_key=True)
    at: int


class Alert(SQLModel, table=True):
    """What somebody wants to be told of, and where: a webhook, whose deliveries are signed with `secret`.

    `kind` is quota (percent of a key's quota), spend (nanos in a cycle) or refusals (refused requests a minute);
    `threshold` counts in these. `key_id` null: for quota each key of the tenant on its own, else the tenant as a whole.
    `disabled_at`: the receiver said that it wants no more (410). The secret is as it is, since it is needed to sign,
    and goes with the alert: of a removed one it is empty. `bound` is as of a `Target`.
    """

    __tablename__ = "alert"
    __table_args__ = (Index("alert_by_tenant", "tenant_id", "id"), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    kind: str
    key_id: int | None = Field(default=None, foreign_key="key.id")
    threshold: int = count()
    url: str
    secret: str
    created_at: int
    disabled_at: int | None = None
    removed_at: int | None = None
    bound: bool = flag()


class AlertEvent(SQLModel, table=True):
    """Something that an alert has to tell, once for each `occasion` (key and month, cycle, minute), until delivered.

    `public_id` is the `webhook-id`: the same at every attempt, so that a receiver knows a repeated one. `error` is of
    the last attempt.
    """

    __tablename__ = "alert_event"
    __table_args__ = (
        Index("alert_event_once", "alert_id", "occasion", unique=True),
        Index("alert_event_due", "alert_id", "next_at"),
        Index("alert_event_by_age", "created_at"),
        AUTOINCREMENT,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    alert_id: int = Field(foreign_key="alert.id")
    occasion: str
    type: str
    body: str = Field(sa_column=Column(Text, nullable=False))
    created_at: int
    attempts: int = 0
    next_at: int | None = None  # null: delivered, or given up
    delivered_at: int | None = None
    error: str = ""


class RefusalMinute(SQLModel, table=True):
    """Refused requests that an alert counts, by minutes since 1970: in the transaction of the rollups, so exact."""

    __tablename__ = "refusal_minute"
    __table_args__ = ({"sqlite_with_rowid": False},)

    alert_id: int = Field(sa_column=Column(Integer, ForeignKey("alert.id"), primary_key=True))
    minute: int = Field(sa_column=Column(Integer, primary_key=True))
    requests: int = count()
