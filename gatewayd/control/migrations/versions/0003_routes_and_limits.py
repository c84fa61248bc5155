"""Routes, clients, generations of keys, grants and versions of plans; health and balance of targets.

Revision ID: 0003
"""

from __future__ import annotations

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
