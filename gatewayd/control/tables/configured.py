"""What operators set up: tenants, their services, routes, plans, keys and clients."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

from gatewayd.control.tables.columns import AUTOINCREMENT, flag, json_list, json_object, live_unique


class Tenant(SQLModel, table=True):
    """An organisation. `default` is row 1 and cannot be removed."""

    __tablename__ = "tenant"
    __table_args__ = (live_unique("tenant_slug_live", "slug"), AUTOINCREMENT)

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
    rates: str = json_list()
    allow: str = json_list()
    imported_keys: bool = flag()  # there are some


class Service(SQLModel, table=True):
    """An upstream API. `paths` is a JSON array of prefixes beside the built-in addresses.

    Of a client certificate the paths are here, never the key. A timeout or limit that is null does not apply; those
    that may be null have no default here, since SQLAlchemy would put it in the place of a null.
    """

    __tablename__ = "service"
    __table_args__ = (live_unique("service_slug_live", "tenant_id", "slug"), AUTOINCREMENT)

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
    health: str = json_object()  # a `HealthConf`
    breaker: str = json_object()  # a `BreakerConf`
    header_rules: str = json_list()  # of `HeaderRuleConf`


class Target(SQLModel, table=True):
    """One upstream base URL of a service.

    `bound`: who named it is bound to a tenant, so it may lead nowhere on the gateway's own machine, whatever DNS says.
    """

    __tablename__ = "target"

    id: int | None = Field(default=None, primary_key=True)
    service_id: int = Field(foreign_key="service.id", index=True)
    position: int
    url: str
    weight: int = 1
    drained: bool = flag()
    bound: bool = flag()


class Route(SQLModel, table=True):
    """A route of an operator's own. Columns are those of `conf.RouteConf`, lists as JSON; null is the service's."""

    __tablename__ = "route"
    __table_args__ = (Index("route_by_tenant", "tenant_id", "id"), AUTOINCREMENT)

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
    __table_args__ = (AUTOINCREMENT,)

    id: int | None = Field(default=None, primary_key=True)
    terms: str = Field(sa_column=Column(Text, nullable=False, unique=True))


class Plan(SQLModel, table=True):
    """Limits and a price under one name. `rates` is a JSON array of `RateConf`: [name, limit, window_s, burst]."""

    __tablename__ = "plan"
    __table_args__ = (live_unique("plan_name_live", "tenant_id", "name"), AUTOINCREMENT)

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
    quota_soft: bool = flag()
    shadow: bool = flag()
    clients_limit: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    alerts: str = json_list()  # percent of the quota


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
        AUTOINCREMENT,
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
    allow: str = json_list()
    networks: str = json_list()
    overrides: str = json_object()  # rates, quota, in_flight_limit, price_id: in place of the plan's
    labels: str = json_object()  # the operator's own words
    imported: bool = flag()  # the secret is of the user's own making: it is found by its digest alone


class KeyWas(SQLModel, table=True):
    """What a key was until `until`, where that is more than its present row says. Columns are those of the key.

    Written when one of them changes, since a cycle is closed after it is over. `price_id` is that of its overrides.
    """

    __tablename__ = "key_was"
    __table_args__ = (Index("key_was_by_key", "key_id", "id"), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    key_id: int = Field(foreign_key="key.id")
    until: int
    plan_id: int | None = None
    price_id: int | None = None
    disabled_at: int | None = None
    expires_at: int | None = None


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
    __table_args__ = (Index("client_by_name", "tenant_id", "name", "key_id"), AUTOINCREMENT)

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
    __table_args__ = (Index("quota_grant_by_key", "key_id", "month"), AUTOINCREMENT)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    key_id: int = Field(foreign_key="key.id")
    month: int  # its start
    units: int = Field(sa_column=Column(BigInteger, nullable=False))
    is_reset: bool = False
    until: int | None = None  # null: the month's end
    created_at: int
    reason: str = ""
