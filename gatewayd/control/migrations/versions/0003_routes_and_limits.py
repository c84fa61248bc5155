"""Routes, clients, generations of keys, grants and versions of plans; health and balance of targets.

Revision ID: 0003
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def column(name: str, kind: sa.types.TypeEngine[Any], default: str | None = None) -> sa.Column[Any]:
    """Nullable without a default. With one, it is what the rows that are there get."""
    if default is None:
        return sa.Column(name, kind, nullable=True)
    return sa.Column(name, kind, nullable=False, server_default=sa.text(default))


def needed(name: str, kind: sa.types.TypeEngine[Any], *constraints: sa.ForeignKey) -> sa.Column[Any]:
    return sa.Column(name, kind, *constraints, nullable=False)


NEW = {
    "tenant": (
        column("contact", sa.String(), "''"),
        column("time_zone", sa.String(), "'UTC'"),
        column("default_plan_id", sa.Integer()),
        column("rates", sa.String(), "'[]'"),
        column("allow", sa.String(), "'[]'"),
        column("imported_keys", sa.Boolean(), "FALSE"),
    ),
    "service": (
        column("balance", sa.String(), "'round-robin'"),
        column("hash_on", sa.String(), "'address'"),
        column("health", sa.String(), "'{}'"),
        column("breaker", sa.String(), "'{}'"),
        column("header_rules", sa.String(), "'[]'"),
    ),
    "target": (column("drained", sa.Boolean(), "FALSE"),),
    "plan": (
        column("version", sa.Integer(), "1"),
        column("in_flight_limit", sa.Integer()),
        column("quota_soft", sa.Boolean(), "FALSE"),
        column("shadow", sa.Boolean(), "FALSE"),
        column("clients_limit", sa.Integer(), "0"),
        column("alerts", sa.String(), "'[]'"),
    ),
    "key": (
        column("disabled_at", sa.Integer()),
        column("generation", sa.Integer(), "1"),
        column("generation_at", sa.Integer()),
        column("first_used_at", sa.Integer()),
        column("last_used_at", sa.Integer()),
        column("allow", sa.String(), "'[]'"),
        column("networks", sa.String(), "'[]'"),
        column("overrides", sa.String(), "'{}'"),
        column("labels", sa.String(), "'{}'"),
        column("imported", sa.Boolean(), "FALSE"),
    ),
}


def upgrade() -> None:
    for table, columns in NEW.items():
        for each in columns:
            op.add_column(table, each)
    _make_route()
    _make_key_generation()
    _make_client()
    op.create_table(
        "plan_version",
        needed("plan_id", sa.Integer(), sa.ForeignKey("plan.id")),
        needed("version", sa.Integer()),
        needed("created_at", sa.Integer()),
        needed("terms", sa.Text()),
        sa.PrimaryKeyConstraint("plan_id", "version"),
    )
    _keep_plans()
    op.create_table(
        "quota_grant",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("key_id", sa.Integer(), sa.ForeignKey("key.id")),
        needed("month", sa.Integer()),
        needed("units", sa.BigInteger()),
        needed("is_reset", sa.Boolean()),
        column("until", sa.Integer()),
        needed("created_at", sa.Integer()),
        needed("reason", sa.String()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("quota_grant_by_key", "quota_grant", ["key_id", "month"])
    op.create_table(
        "quota_alert",
        needed("key_id", sa.Integer(), sa.ForeignKey("key.id")),
        needed("month", sa.Integer()),
        needed("percent", sa.Integer()),
        needed("at", sa.Integer()),
        sa.PrimaryKeyConstraint("key_id", "month", "percent"),
    )


def _keep_plans() -> None:
    """What each plan is becomes its version 1, written as the API of this schema shows a plan."""
    connection = op.get_bind()
    plans = connection.execute(
        sa.text(
            "SELECT plan.id, plan.public_id, plan.name, tenant.slug, plan.rates, plan.quota, price.request_nanos, "
            "plan.created_at FROM plan JOIN tenant ON tenant.id = plan.tenant_id JOIN price ON price.id = plan.price_id"
        )
    ).all()
    keep = sa.text("INSERT INTO plan_version (plan_id, version, created_at, terms) VALUES (:id, 1, :at, :terms)")
    for plan_id, public_id, name, tenant, rates, quota, nanos, created_at in plans:
        units, rest = divmod(nanos, 1_000_000_000)
        terms = {
            "id": public_id,
            "name": name,
            "tenant": tenant,
            "version": 1,
            "rates": [
                dict(zip(("name", "limit", "window_s", "burst"), rate, strict=True)) for rate in json.loads(rates)
            ],
            "quota": quota,
            "quota_mode": "hard",
            "in_flight_limit": None,
            "shadow": False,
            "alerts": [],
            "clients_limit": 0,
            "price": f"{units}.{rest:09}".rstrip("0").rstrip("."),
            "created_at": datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        written = json.dumps(terms, separators=(",", ":"), ensure_ascii=False)
        connection.execute(keep, {"id": plan_id, "at": created_at, "terms": written})


def _make_route() -> None:
    op.create_table(
        "route",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("tenant_id", sa.Integer(), sa.ForeignKey("tenant.id")),
        sa.Column("service_id", sa.Integer(), sa.ForeignKey("service.id"), nullable=True),
        needed("name", sa.String()),
        column("host", sa.String()),
        needed("path", sa.String()),
        needed("exact", sa.Boolean()),
        column("methods", sa.String()),
        needed("prefix", sa.String()),
        column("auth", sa.String()),
        needed("rates", sa.String()),
        needed("weight", sa.Integer()),
        column("timeout_s", sa.Float()),
        column("first_byte_timeout_s", sa.Float()),
        column("body_limit_bytes", sa.BigInteger()),
        needed("networks", sa.String()),
        needed("created_at", sa.Integer()),
        column("removed_at", sa.Integer()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("route_by_tenant", "route", ["tenant_id", "id"])
    op.create_index("ix_route_service_id", "route", ["service_id"])


def _make_key_generation() -> None:
    op.create_table(
        "key_generation",
        needed("key_id", sa.Integer(), sa.ForeignKey("key.id")),
        needed("number", sa.Integer()),
        needed("digest", sa.LargeBinary()),
        needed("created_at", sa.Integer()),
        column("until", sa.Integer()),
        column("last_used_at", sa.Integer()),
        column("ended_at", sa.Integer()),
        column("retire_after_s", sa.Integer()),
        sa.PrimaryKeyConstraint("key_id", "number"),
        sa.UniqueConstraint("digest"),
    )


def _make_client() -> None:
    op.create_table(
        "client",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("tenant_id", sa.Integer(), sa.ForeignKey("tenant.id")),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("key.id"), nullable=True),
        needed("name", sa.String()),
        column("rates", sa.String()),
        needed("created_at", sa.Integer()),
        column("removed_at", sa.Integer()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("client_by_name", "client", ["tenant_id", "name", "key_id"])
    op.create_index("ix_client_key_id", "client", ["key_id"])
