"""What keys were before they were changed, for bills of times that are over.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Empty: of changes until now nothing but the audit knows, and keys are taken for what they are."""
    op.create_table(
        "key_was",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("key.id"), nullable=False),
        sa.Column("until", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=True)
            for name in ("plan_id", "price_id", "disabled_at", "expires_at")
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("key_was_by_key", "key_was", ["key_id", "id"])
