"""Services say more of time, load and TLS; an answer may take as long as it takes. Frozen.

Revision ID: 0002
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def column(name: str, kind: sa.types.TypeEngine[Any], default: str | None = None) -> sa.Column[Any]:
    """Nullable without a default. With one, it is what the services that are there get."""
    if default is None:
        return sa.Column(name, kind, nullable=True)
    return sa.Column(name, kind, nullable=False, server_default=sa.text(default))


NEW = (
    column("first_byte_timeout_s", sa.Float(), "30.0"),
    column("idle_timeout_s", sa.Float(), "300.0"),
    column("tunnel_lifetime_s", sa.Float()),
    column("in_flight_limit", sa.Integer()),
    column("tls_verify", sa.Boolean(), "TRUE"),
    column("tls_server_name", sa.String()),
    column("tls_ca_file", sa.String()),
    column("tls_cert_file", sa.String()),
    column("tls_key_file", sa.String()),
)


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _lift_not_null_of_timeout()
    else:
        op.alter_column("service", "timeout_s", existing_type=sa.Float(), nullable=True)
    for each in NEW:
        op.add_column("service", each)
    op.execute("UPDATE service SET tunnel_lifetime_s = 86400.0")


def _lift_not_null_of_timeout() -> None:
    """SQLite cannot alter a column. To copy the table would break the keys of others that point to it, which cannot be
    switched off within a transaction; a new column in place of the old one changes no row but in that field."""
    op.add_column("service", sa.Column("new_timeout_s", sa.Float(), nullable=True))
    op.execute("UPDATE service SET new_timeout_s = timeout_s")
    op.drop_column("service", "timeout_s")
    op.alter_column("service", "new_timeout_s", new_column_name="timeout_s")
