"""The first schema. Frozen: `tables` may move on, this file may not.

Revision ID: 0001
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def column(name: str, kind: sa.types.TypeEngine[Any], nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def upgrade() -> None:
    live = sa.text("removed_at IS NULL")
    op.create_table(
        "audit",
        column("id", sa.Integer()),
        column("at", sa.Integer()),
        column("actor", sa.String()),
        column("action", sa.String()),
        column("tenant", sa.String()),
        column("subject", sa.String()),
        column("before", sa.Text(), nullable=True),
        column("after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "price",
        column("id", sa.Integer()),
        column("request_nanos", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("request_nanos"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "segment",
        column("name", sa.String()),
        column("position_bytes", sa.Integer()),
        column("torn", sa.Integer()),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tenant",
        column("id", sa.Integer()),
        column("public_id", sa.String()),
        column("slug", sa.String()),
        column("name", sa.String()),
        column("currency", sa.String()),
        column("suspended", sa.Boolean()),
        column("created_at", sa.Integer()),
        column("removed_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("tenant_slug_live", "tenant", ["slug"], unique=True, sqlite_where=live, postgresql_where=live)
    op.create_table(
        "cycle",
        column("id", sa.Integer()),
        column("tenant_id", sa.Integer()),
        column("period", sa.String()),
        column("starts_at", sa.Integer()),
        column("ends_at", sa.Integer()),
        column("closed_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("cycle_period", "cycle", ["tenant_id", "period"], unique=True)
    op.create_table(
        "plan",
        column("id", sa.Integer()),
        column("public_id", sa.String()),
        column("tenant_id", sa.Integer()),
        column("name", sa.String()),
        column("rates", sa.String()),
        column("quota", sa.BigInteger(), nullable=True),
        column("price_id", sa.Integer()),
        column("created_at", sa.Integer()),
        column("removed_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["price_id"], ["price.id"]),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "plan_name_live", "plan", ["tenant_id", "name"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "service",
        column("id", sa.Integer()),
        column("public_id", sa.String()),
        column("tenant_id", sa.Integer()),
        column("slug", sa.String()),
        column("auth", sa.String()),
        column("paths", sa.String()),
        column("preserve_host", sa.Boolean()),
        column("timeout_s", sa.Float()),
        column("connect_timeout_s", sa.Float()),
        column("body_limit_bytes", sa.BigInteger(), nullable=True),
        column("key_header", sa.String()),
        column("created_at", sa.Integer()),
        column("removed_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "service_slug_live", "service", ["tenant_id", "slug"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "key",
        column("id", sa.Integer()),
        column("public_id", sa.String()),
        column("digest", sa.LargeBinary()),
        column("tenant_id", sa.Integer()),
        column("name", sa.String()),
        column("service_ids", sa.String(), nullable=True),
        column("plan_id", sa.Integer(), nullable=True),
        column("created_at", sa.Integer()),
        column("expires_at", sa.Integer(), nullable=True),
        column("revoked_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"]),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_key_plan_id", "key", ["plan_id"])
    op.create_index("key_by_name", "key", ["tenant_id", "name"])
    op.create_index("key_by_tenant", "key", ["tenant_id", "id"])
    op.create_table(
        "rollup",
        column("tenant_id", sa.Integer()),
        column("hour", sa.Integer()),
        column("cycle_id", sa.Integer()),
        column("service_id", sa.Integer()),
        column("route_id", sa.Integer()),
        column("key_id", sa.Integer()),
        column("client_id", sa.Integer()),
        column("price_id", sa.Integer()),
        column("status_class", sa.Integer()),
        column("requests", sa.BigInteger()),
        column("billable", sa.BigInteger()),
        column("errors", sa.BigInteger()),
        column("refused", sa.BigInteger()),
        column("units", sa.BigInteger()),
        column("bytes_in", sa.BigInteger()),
        column("bytes_out", sa.BigInteger()),
        column("latency", sa.LargeBinary()),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycle.id"]),
        sa.PrimaryKeyConstraint(
            "tenant_id", "hour", "cycle_id", "service_id", "route_id", "key_id", "client_id", "price_id", "status_class"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("rollup_by_cycle", "rollup", ["cycle_id"])
    op.create_index("rollup_by_key", "rollup", ["key_id", "hour"])
    op.create_table(
        "target",
        column("id", sa.Integer()),
        column("service_id", sa.Integer()),
        column("position", sa.Integer()),
        column("url", sa.String()),
        column("weight", sa.Integer()),
        sa.ForeignKeyConstraint(["service_id"], ["service.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_target_service_id", "target", ["service_id"])
    seed()


def seed() -> None:
    """The tenant that exists from the start (row 1), and what a request costs without a plan (price row 1)."""
    now = time.time_ns() // 1_000_000_000
    public_id = "ten_" + "".join(secrets.choice("23456789bcdfghjkmnpqrstvwxyz") for _ in range(8))
    op.execute(
        sa.text(
            "INSERT INTO tenant (id, public_id, slug, name, currency, suspended, created_at) "
            "VALUES (1, :public_id, 'default', '', 'USD', FALSE, :now)"
        ).bindparams(public_id=public_id, now=now)
    )
    op.execute("INSERT INTO price (id, request_nanos) VALUES (1, 1000000)")
