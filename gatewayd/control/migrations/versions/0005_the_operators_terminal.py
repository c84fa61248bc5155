"""Tokens of the admin API, revisions of the configuration, and the audit as a chain.

Revision ID: 0005
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from gatewayd.policy.audit_chain import GENESIS, Line, link

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def needed(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def optional(name: str, *constraints: sa.ForeignKey) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), *constraints, nullable=True)


def upgrade() -> None:
    op.create_table(
        "token",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("digest", sa.LargeBinary()),
        needed("name", sa.String()),
        needed("role", sa.String()),
        optional("tenant_id", sa.ForeignKey("tenant.id")),
        needed("created_at", sa.Integer()),
        needed("created_by", sa.String()),
        *(optional(name) for name in ("expires_at", "last_used_at", "revoked_at")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sa.UniqueConstraint("digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "config_revision",
        needed("id", sa.Integer()),
        needed("at", sa.Integer()),
        *(needed(name, sa.String()) for name in ("actor", "kind", "message")),
        optional("restored"),
        *(needed(name, sa.Integer()) for name in ("added", "changed", "removed")),
        needed("document", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.add_column("audit", sa.Column("sha256", sa.String(), nullable=False, server_default=sa.text("''")))
    _chain()
    _forbid_changes("audit")


def _chain() -> None:
    """What was written before there was a chain is taken as true: from here on it is watched."""
    bind, previous = op.get_bind(), GENESIS
    rows = bind.execute(
        sa.text("SELECT id, at, actor, action, tenant, subject, before, after FROM audit ORDER BY id")
    ).all()
    for id_, *fields in rows:
        previous = link(previous, Line(*fields))
        bind.execute(sa.text("UPDATE audit SET sha256 = :sha256 WHERE id = :id"), {"sha256": previous, "id": id_})


def _forbid_changes(table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_is_append_only BEFORE UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {table}_is_append_only()"
        )
        return
    for change in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change} BEFORE {change.upper()} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
