"""Targets and alerts keep whether somebody bound to a tenant has named them.

Those that are there already count as named by somebody who is not.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("target", "alert"):
        op.add_column(table, sa.Column("bound", sa.Boolean(), nullable=False, server_default=sa.text("FALSE")))
    op.add_column("config_revision", sa.Column("bound", sa.String(), nullable=False, server_default=sa.text("'[]'")))
