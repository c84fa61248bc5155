"""Terms of prices, days, control totals, the ledger, invoices and alerts.

Revision ID: 0004
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SUMS = ("requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out")
# Rows that nobody may change or delete, whatever the code says.
APPEND_ONLY = ("price", "ledger", "invoice", "invoice_day")


def needed(name: str, kind: sa.types.TypeEngine[Any], *constraints: sa.ForeignKey) -> sa.Column[Any]:
    return sa.Column(name, kind, *constraints, nullable=False)


def zero(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def upgrade() -> None:
    _give_prices_terms()
    for name in ("billable_units", "billable_bytes"):
        op.add_column("rollup", zero(name))
    # Until now only requests cost; units and bytes of those that did were not kept apart from the rest of their row.
    op.execute("UPDATE rollup SET billable_units = units, billable_bytes = bytes_in + bytes_out WHERE billable > 0")
    for name in ("requests", "billable", "refused", "units"):
        op.add_column("segment", zero(name))
    _make_usage()
    _make_ledger()
    _make_alerts()
    for table in APPEND_ONLY:
        _forbid_changes(table)


def _give_prices_terms() -> None:
    """SQLite cannot drop a unique column, so the table is made anew; other tables refer to it by its name."""
    op.create_table(
        "price_with_terms",
        needed("id", sa.Integer()),
        needed("terms", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("terms"),
        sqlite_autoincrement=True,
    )
    as_terms = "CASE request_nanos WHEN 0 THEN '{}' ELSE '{\"request_nanos\":' || request_nanos || '}' END"
    op.execute(f"INSERT INTO price_with_terms (id, terms) SELECT id, {as_terms} FROM price ORDER BY id")  # noqa: S608
    op.drop_table("price")
    op.rename_table("price_with_terms", "price")


def _make_usage() -> None:
    op.create_table(
        "rollup_day",
        *(needed(name, sa.Integer()) for name in ("tenant_id", "day")),
        needed("cycle_id", sa.Integer(), sa.ForeignKey("cycle.id")),
        *(
            needed(name, sa.Integer())
            for name in ("service_id", "route_id", "key_id", "client_id", "price_id", "status_class")
        ),
        *(needed(name, sa.BigInteger()) for name in SUMS),
        needed("latency", sa.LargeBinary()),
        zero("billable_units"),
        zero("billable_bytes"),
        sa.PrimaryKeyConstraint(
            "tenant_id", "day", "cycle_id", "service_id", "route_id", "key_id", "client_id", "price_id", "status_class"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("rollup_day_by_cycle", "rollup_day", ["cycle_id"])
    op.create_index("rollup_day_by_key", "rollup_day", ["key_id", "day"])
    # A cycle is asked of the hours only for what is not rolled yet, by tenant and hour: 30 bytes a row for nothing.
    op.drop_index("rollup_by_cycle", "rollup")
    op.create_table(
        "tally",
        needed("cycle_id", sa.Integer(), sa.ForeignKey("cycle.id")),
        needed("day", sa.Integer()),
        *(needed(name, sa.BigInteger()) for name in SUMS if name != "errors"),
        sa.PrimaryKeyConstraint("cycle_id", "day"),
        sqlite_with_rowid=False,
    )
    # What was counted before there were control totals is taken as true: from here on it is watched.
    op.execute(
        "INSERT INTO tally (cycle_id, day, requests, billable, refused, units, bytes_in, bytes_out) "
        "SELECT cycle_id, hour - hour % 86400, SUM(requests), SUM(billable), SUM(refused), SUM(units), SUM(bytes_in), "
        "SUM(bytes_out) FROM rollup GROUP BY cycle_id, hour - hour % 86400"
    )
    op.create_table(
        "progress", needed("name", sa.String()), needed("value", sa.Integer()), sa.PrimaryKeyConstraint("name")
    )


def _make_ledger() -> None:
    op.create_table(
        "ledger",
        needed("id", sa.Integer()),
        needed("tenant_id", sa.Integer(), sa.ForeignKey("tenant.id")),
        needed("cycle_id", sa.Integer(), sa.ForeignKey("cycle.id")),
        needed("at", sa.Integer()),
        needed("kind", sa.String()),
        *(needed(name, sa.Integer()) for name in ("key_id", "service_id", "price_id", "first_day")),
        *(needed(name, sa.BigInteger()) for name in ("requests", "units", "size_bytes", "nanos")),
        needed("reason", sa.String()),
        needed("author", sa.String()),
        needed("facts", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ledger_by_cycle", "ledger", ["cycle_id", "id"])
    op.create_table(
        "invoice",
        needed("id", sa.Integer()),
        needed("number", sa.String()),
        needed("tenant_id", sa.Integer(), sa.ForeignKey("tenant.id")),
        needed("cycle_id", sa.Integer(), sa.ForeignKey("cycle.id")),
        needed("issued_at", sa.Integer()),
        needed("total", sa.String()),
        needed("body", sa.Text()),
        needed("sha256", sa.String()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
        sa.UniqueConstraint("cycle_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("invoice_by_tenant", "invoice", ["tenant_id", "id"])
    op.create_table(
        "invoice_day",
        needed("invoice_id", sa.Integer(), sa.ForeignKey("invoice.id")),
        needed("day", sa.Integer()),
        needed("sha256", sa.String()),
        sa.PrimaryKeyConstraint("invoice_id", "day"),
    )


def _make_alerts() -> None:
    op.create_table(
        "alert",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("tenant_id", sa.Integer(), sa.ForeignKey("tenant.id")),
        needed("kind", sa.String()),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("key.id"), nullable=True),
        needed("threshold", sa.BigInteger()),
        needed("url", sa.String()),
        needed("secret", sa.String()),
        needed("created_at", sa.Integer()),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in ("disabled_at", "removed_at")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_by_tenant", "alert", ["tenant_id", "id"])
    op.create_table(
        "alert_event",
        needed("id", sa.Integer()),
        needed("public_id", sa.String()),
        needed("alert_id", sa.Integer(), sa.ForeignKey("alert.id")),
        needed("occasion", sa.String()),
        needed("type", sa.String()),
        needed("body", sa.Text()),
        needed("created_at", sa.Integer()),
        needed("attempts", sa.Integer()),
        sa.Column("next_at", sa.Integer(), nullable=True),
        sa.Column("delivered_at", sa.Integer(), nullable=True),
        needed("error", sa.String()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_event_once", "alert_event", ["alert_id", "occasion"], unique=True)
    op.create_index("alert_event_due", "alert_event", ["alert_id", "next_at"])
    op.create_index("alert_event_by_age", "alert_event", ["created_at"])
    op.create_table(
        "refusal_minute",
        needed("alert_id", sa.Integer(), sa.ForeignKey("alert.id")),
        needed("minute", sa.Integer()),
        needed("requests", sa.BigInteger()),
        sa.PrimaryKeyConstraint("alert_id", "minute"),
        sqlite_with_rowid=False,
    )


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
