"""Every table of the database, and why it is shaped so.

Rows that usage or a bill may name (tenants, services, plans, prices, keys) are never deleted: `removed_at` hides them,
so a bill of last year still shows a name. A slug or name is unique among those that are not removed. Row numbers
(`id`) stand in journal records and are never used again (AUTOINCREMENT); what a person or a script sees is `public_id`.
Money is integer nanos: 10⁻⁹ of the tenant's currency. Times are whole seconds since 1970 UTC, except where a name ends
in `_ns`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

_AUTOINCREMENT = {"sqlite_autoincrement": True}


def _json_list() -> Any:
    return Field(default="[]", sa_column_kwargs={"server_default": text("'[]'")})


def _json_object() -> Any:
    return Field(default="{}", sa_column_kwargs={"server_default": text("'{}'")})


def _flag() -> Any:
    return Field(default=False, sa_column_kwargs={"server_default": text("FALSE")})


def _count(default: int | None = None) -> Any:
    """64 bits. With a default, rows that were there when the column came have it."""
    if default is None:
        return Field(sa_type=BigInteger)
    return Field(default=default, sa_type=BigInteger, sa_column_kwargs={"server_default": text(str(default))})


def _live_unique(name: str, *columns: str) -> Index:
    """Unique among the rows that are not removed."""
    live = text("removed_at IS NULL")
    return Index(name, *columns, unique=True, sqlite_where=live, postgresql_where=live)


class Tenant(SQLModel, table=True):
    """An organisation. `default` is row 1 and cannot be removed."""

    __tablename__ = "tenant"
    __table_args__ = (_live_unique("tenant_slug_live", "slug"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    slug: str
    name: str = ""
    currency: str = "USD"
    suspended: bool = False
    created_at: int
    removed_at: int | None = None
    contact: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    time_zone: str = Field(default="UTC", sa_column_kwargs={"server_default": text("'UTC'")})
    default_plan_id: int | None = None
    rates: str = _json_list()
    allow: str = _json_list()
    imported_keys: bool = _flag()  # there are some


class Service(SQLModel, table=True):
    """An upstream API. `paths` is a JSON array of prefixes beside the built-in addresses.

    Of a client certificate the paths are here, never the key. A timeout or limit that is null does not apply; those
    that may be null have no default here, since SQLAlchemy would put it in the place of a null.
    """

    __tablename__ = "service"
    __table_args__ = (_live_unique("service_slug_live", "tenant_id", "slug"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    slug: str
    auth: str = "key"
    paths: str = "[]"
    preserve_host: bool = False
    connect_timeout_s: float = 10.0
    body_limit_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    key_header: str = "X-API-Key"
    created_at: int
    removed_at: int | None = None
    timeout_s: float | None = None
    first_byte_timeout_s: float = Field(default=30.0, sa_column_kwargs={"server_default": text("30.0")})
    idle_timeout_s: float = Field(default=300.0, sa_column_kwargs={"server_default": text("300.0")})
    tunnel_lifetime_s: float | None = None
    in_flight_limit: int | None = None
    tls_verify: bool = Field(default=True, sa_column_kwargs={"server_default": text("TRUE")})
    tls_server_name: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    balance: str = Field(default="round-robin", sa_column_kwargs={"server_default": text("'round-robin'")})
    hash_on: str = Field(default="address", sa_column_kwargs={"server_default": text("'address'")})
    health: str = _json_object()  # a `HealthConf`
    breaker: str = _json_object()  # a `BreakerConf`
    header_rules: str = _json_list()  # of `HeaderRuleConf`


class Target(SQLModel, table=True):
    """One upstream base URL of a service."""

    __tablename__ = "target"

    id: int | None = Field(default=None, primary_key=True)
    service_id: int = Field(foreign_key="service.id", index=True)
    position: int
    url: str
    weight: int = 1
    drained: bool = _flag()


class Route(SQLModel, table=True):
    """A route of an operator's own. Columns are those of `channel.RouteConf`, lists as JSON; null is the service's."""

    __tablename__ = "route"
    __table_args__ = (Index("route_by_tenant", "tenant_id", "id"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    service_id: int | None = Field(default=None, foreign_key="service.id", index=True)
    name: str = ""
    host: str | None = None
    path: str
    exact: bool = False
    methods: str | None = None
    prefix: str = "strip"
    auth: str | None = None
    rates: str = "[]"
    weight: int = 1
    timeout_s: float | None = None
    first_byte_timeout_s: float | None = None
    body_limit_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    networks: str = "[]"
    created_at: int
    removed_at: int | None = None


class Price(SQLModel, table=True):
    """What usage costs: `terms` is JSON of `policy.pricing.Terms`, each once.

    Never changed or deleted, which triggers see to: records and the ledger name it, so old usage keeps the price it was
    made at.
    """

    __tablename__ = "price"
    __table_args__ = (_AUTOINCREMENT,)

    id: int | None = Field(default=None, primary_key=True)
    terms: str = Field(sa_column=Column(Text, nullable=False, unique=True))


class Plan(SQLModel, table=True):
    """Limits and a price under one name. `rates` is a JSON array of `RateConf`: [name, limit, window_s, burst]."""

    __tablename__ = "plan"
    __table_args__ = (_live_unique("plan_name_live", "tenant_id", "name"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    name: str
    rates: str
    quota: int | None = Field(default=None, sa_column=Column(BigInteger))
    price_id: int = Field(foreign_key="price.id")
    created_at: int
    removed_at: int | None = None
    version: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    in_flight_limit: int | None = None
    quota_soft: bool = _flag()
    shadow: bool = _flag()
    clients_limit: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    alerts: str = _json_list()  # percent of the quota


class PlanVersion(SQLModel, table=True):
    """What a plan was, from `created_at` on; the newest is what it is. `terms` is JSON, as the API shows a plan."""

    __tablename__ = "plan_version"

    plan_id: int = Field(foreign_key="plan.id", primary_key=True)
    version: int = Field(primary_key=True)
    created_at: int
    terms: str = Field(sa_column=Column(Text, nullable=False))


class Key(SQLModel, table=True):
    """An API key. The key itself is not here: `digest` is its SHA-256. `service_ids` is a JSON array, null for all."""

    __tablename__ = "key"
    __table_args__ = (
        Index("key_by_tenant", "tenant_id", "id"),
        Index("key_by_name", "tenant_id", "name"),
        _AUTOINCREMENT,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    tenant_id: int = Field(foreign_key="tenant.id")
    name: str = ""
    service_ids: str | None = None
    plan_id: int | None = Field(default=None, foreign_key="plan.id", index=True)
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    disabled_at: int | None = None
    generation: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    generation_at: int | None = None  # when this generation was made; null: with the key
    first_used_at: int | None = None  # of this generation, to the minute
    last_used_at: int | None = None
    allow: str = _json_list()
    networks: str = _json_list()
    overrides: str = _json_object()  # rates, quota, in_flight_limit, price_id: in place of the plan's
    labels: str = _json_object()  # the operator's own words
    imported: bool = _flag()  # the secret is of the user's own making: it is found by its digest alone


class KeyGeneration(SQLModel, table=True):
    """A generation of a key that was rotated away. It works until `until`, unless `ended_at` says that it was ended.

    It is ended once nobody has used it for `retire_after_s`, if that is set, while a newer one is in use.
    """

    __tablename__ = "key_generation"

    key_id: int = Field(foreign_key="key.id", primary_key=True)
    number: int = Field(primary_key=True)
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    created_at: int
    until: int | None = None
    last_used_at: int | None = None
    ended_at: int | None = None
    retire_after_s: int | None = None


class Client(SQLModel, table=True):
    """Who stands behind X-Client-ID. Registered for a tenant (`key_id` null), or accepted within one key."""

    __tablename__ = "client"
    __table_args__ = (Index("client_by_name", "tenant_id", "name", "key_id"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    key_id: int | None = Field(default=None, foreign_key="key.id", index=True)
    name: str
    rates: str | None = None  # null: the plan's
    created_at: int
    removed_at: int | None = None


class QuotaGrant(SQLModel, table=True):
    """More of a key's quota in one month (`units` > 0), or a reset: what was used by then is forgiven."""

    __tablename__ = "quota_grant"
    __table_args__ = (Index("quota_grant_by_key", "key_id", "month"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    key_id: int = Field(foreign_key="key.id")
    month: int  # its start
    units: int = Field(sa_column=Column(BigInteger, nullable=False))
    is_reset: bool = False
    until: int | None = None  # null: the month's end
    created_at: int
    reason: str = ""


class QuotaAlert(SQLModel, table=True):
    """A key's quota passed a threshold of its plan. Once a month, unless a grant or a reset took it back."""

    __tablename__ = "quota_alert"

    key_id: int = Field(foreign_key="key.id", primary_key=True)
    month: int = Field(primary_key=True)
    percent: int = Field(primary_key=True)
    at: int


class Cycle(SQLModel, table=True):
    """A billing period of a tenant, half-open; open while `closed_at` is null. `period` is its name, e.g. 2026-09.

    A calendar month in the tenant's time zone (`policy.cycles`), or the rest of one that was closed by hand: 2026-09.2.
    """

    __tablename__ = "cycle"
    __table_args__ = (Index("cycle_period", "tenant_id", "period", unique=True), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    period: str
    starts_at: int
    ends_at: int
    closed_at: int | None = None


class Rollup(SQLModel, table=True):
    """Usage of one hour and one combination of dimensions: what usage and every bill are summed from.

    `hour` is seconds since 1970 of the hour's start. `requests` were admitted, `billable` those that cost, with
    `billable_units` and the `billable_bytes` in and out; `refused` are beside them, counted in neither. 0 stands for
    "none" in a dimension. `latency` is a packed histogram (`policy.histogram`) of gateway and upstream time together,
    of admitted requests. The primary key's order serves "this tenant since then", which every view asks; rows lie in
    that order (WITHOUT ROWID), so an hour is read at once.
    """

    __tablename__ = "rollup"
    __table_args__ = (
        Index("rollup_by_key", "key_id", "hour"),
        {"sqlite_with_rowid": False},
    )

    tenant_id: int = Field(primary_key=True)
    hour: int = Field(sa_column=Column(Integer, primary_key=True))
    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    service_id: int = Field(primary_key=True)
    route_id: int = Field(primary_key=True)
    key_id: int = Field(primary_key=True)
    client_id: int = Field(primary_key=True)
    price_id: int = Field(primary_key=True)
    status_class: int = Field(primary_key=True)  # 2 for 2xx and so on
    requests: int = _count()
    billable: int = _count()
    errors: int = _count()
    refused: int = _count()
    units: int = _count()
    bytes_in: int = _count()
    bytes_out: int = _count()
    latency: bytes = Field(sa_type=LargeBinary)
    billable_units: int = _count(0)
    billable_bytes: int = _count(0)


class RollupDay(SQLModel, table=True):
    """The same of a UTC day that is over: the sums of its hours, which may be gone (`Progress` says how far)."""

    __tablename__ = "rollup_day"
    __table_args__ = (
        Index("rollup_day_by_cycle", "cycle_id"),
        Index("rollup_day_by_key", "key_id", "day"),
        {"sqlite_with_rowid": False},
    )

    tenant_id: int = Field(primary_key=True)
    day: int = Field(sa_column=Column(Integer, primary_key=True))
    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    service_id: int = Field(primary_key=True)
    route_id: int = Field(primary_key=True)
    key_id: int = Field(primary_key=True)
    client_id: int = Field(primary_key=True)
    price_id: int = Field(primary_key=True)
    status_class: int = Field(primary_key=True)
    requests: int = _count()
    billable: int = _count()
    errors: int = _count()
    refused: int = _count()
    units: int = _count()
    bytes_in: int = _count()
    bytes_out: int = _count()
    latency: bytes = Field(sa_type=LargeBinary)
    billable_units: int = _count(0)
    billable_bytes: int = _count(0)


class Tally(SQLModel, table=True):
    """Control totals: what each UTC day added to a cycle, counted from the records beside the rollups, never from them.

    Written in the transaction of the rollups and never changed by anything else, so a rollup that was lost or altered
    is found by `usage verify` without the journal, which does not last as long.
    """

    __tablename__ = "tally"
    __table_args__ = ({"sqlite_with_rowid": False},)

    cycle_id: int = Field(sa_column=Column(Integer, ForeignKey("cycle.id"), primary_key=True))
    day: int = Field(sa_column=Column(Integer, primary_key=True))
    requests: int = _count()
    billable: int = _count()
    refused: int = _count()
    units: int = _count()
    bytes_in: int = _count()
    bytes_out: int = _count()


class Segment(SQLModel, table=True):
    """How far each journal segment has been ingested. Moves in the same transaction as the rollups it fed.

    `requests` and the numbers after it are what was taken from it so far, to be counted again while the file is there.
    """

    __tablename__ = "segment"

    name: str = Field(primary_key=True)
    position_bytes: int
    torn: int = 0  # slots dropped because their checksum was wrong after their writer had died
    requests: int = _count(0)
    billable: int = _count(0)
    refused: int = _count(0)
    units: int = _count(0)


class Progress(SQLModel, table=True):
    """How far what goes on in the background has come.

    `rolled_until`: days before it are rolled. `hours_from`, `days_from`: rows before these may have been removed.
    """

    __tablename__ = "progress"

    name: str = Field(primary_key=True)
    value: int


class LedgerEntry(SQLModel, table=True):
    """One line of everything that changes a bill. Append-only: triggers refuse UPDATE and DELETE.

    By `kind`:
      usage         what a key used of a service at a price in the cycle, written when it closes: `requests`, `units`
                    and `size_bytes` are billable ones, `first_day` is the first UTC day of it
      subscription  a key that owes the base fee or the minimum of a price for the cycle, written when it closes
      credit        `nanos` (negative) off the cycle's bill, with `reason` and `author`; adjustment: of either sign
      close         the cycle is closed by the invoice that `facts` tells of: JSON with all that its text needs, names
                    as they were
    """

    __tablename__ = "ledger"
    __table_args__ = (Index("ledger_by_cycle", "cycle_id", "id"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    cycle_id: int = Field(foreign_key="cycle.id")
    at: int
    kind: str
    key_id: int = 0
    service_id: int = 0
    price_id: int = 0
    first_day: int = 0
    requests: int = Field(default=0, sa_type=BigInteger)
    units: int = Field(default=0, sa_type=BigInteger)
    size_bytes: int = Field(default=0, sa_type=BigInteger)
    nanos: int = Field(default=0, sa_type=BigInteger)
    reason: str = ""
    author: str = ""
    facts: str = Field(default="{}", sa_column=Column(Text, nullable=False))


class Invoice(SQLModel, table=True):
    """A closed cycle's bill, immutable (triggers). `body` is its canonical JSON, `sha256` that of the body's UTF-8.

    `total` is the decimal string of the body, since 64 bits do not hold every sum of prices.
    Numbers are of the gateway, whose operator issues the invoices, without a gap: INV-000001.
    """

    __tablename__ = "invoice"
    __table_args__ = (Index("invoice_by_tenant", "tenant_id", "id"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    number: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    cycle_id: int = Field(foreign_key="cycle.id", unique=True)
    issued_at: int
    total: str
    body: str = Field(sa_column=Column(Text, nullable=False))
    sha256: str


class InvoiceDay(SQLModel, table=True):
    """The SHA-256 of one UTC day's usage in a closed cycle, so that an altered rollup is found to the day."""

    __tablename__ = "invoice_day"

    invoice_id: int = Field(foreign_key="invoice.id", primary_key=True)
    day: int = Field(primary_key=True)
    sha256: str


class Alert(SQLModel, table=True):
    """What somebody wants to be told of, and where: a webhook, whose deliveries are signed with `secret`.

    `kind` is quota (percent of a key's quota), spend (nanos in a cycle) or refusals (refused requests a minute);
    `threshold` counts in these. `key_id` null: for quota each key of the tenant on its own, else the tenant as a whole.
    `disabled_at`: the receiver said that it wants no more (410). The secret is as it is, since it is needed to sign,
    and goes with the alert: of a removed one it is empty.
    """

    __tablename__ = "alert"
    __table_args__ = (Index("alert_by_tenant", "tenant_id", "id"), _AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant_id: int = Field(foreign_key="tenant.id")
    kind: str
    key_id: int | None = Field(default=None, foreign_key="key.id")
    threshold: int = _count()
    url: str
    secret: str
    created_at: int
    disabled_at: int | None = None
    removed_at: int | None = None


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
        _AUTOINCREMENT,
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
    requests: int = _count()


class Audit(SQLModel, table=True):
    """Every change: who, when, what it was before and what it is after. Written in the change's own transaction.

    Append-only (triggers), and a chain: `sha256` is of the line and of the line before it (`policy.audit_chain`), so
    one that was altered or taken out by whoever can write the file is found by `audit verify`.
    """

    __tablename__ = "audit"
    __table_args__ = (_AUTOINCREMENT,)

    id: int | None = Field(default=None, primary_key=True)
    at: int
    actor: str
    action: str  # "service.add", "key.revoke", ...
    tenant: str
    subject: str  # public id
    before: str | None = Field(default=None, sa_column=Column(Text))  # JSON
    after: str | None = Field(default=None, sa_column=Column(Text))
    sha256: str = Field(sa_column_kwargs={"server_default": text("''")})


class Token(SQLModel, table=True):
    """A token of the admin API on TCP. The token itself is not here: `digest` is its SHA-256.

    `role` is one of `operations.Role`; `tenant_id`: all that it may see and do is in this tenant.
    """

    __tablename__ = "token"
    __table_args__ = (_AUTOINCREMENT,)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    name: str
    role: str
    tenant_id: int | None = Field(default=None, foreign_key="tenant.id")
    created_at: int
    created_by: str
    expires_at: int | None = None
    last_used_at: int | None = None  # to the minute
    revoked_at: int | None = None


class ConfigRevision(SQLModel, table=True):
    """The configuration as it was after an apply or a rollback, or as it was found before one: by number, from 1.

    `document` is what `config dump` shows, as JSON compressed with zlib: ten thousand objects are megabytes without it.
    `kind` is apply, rollback (to `restored`), or found: changes that were made by other commands since the last one.
    """

    __tablename__ = "config_revision"
    __table_args__ = (_AUTOINCREMENT,)

    id: int | None = Field(default=None, primary_key=True)
    at: int
    actor: str
    kind: str
    message: str = ""
    restored: int | None = None
    added: int = 0
    changed: int = 0
    removed: int = 0
    document: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
