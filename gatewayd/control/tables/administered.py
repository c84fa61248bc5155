"""Who may change the configuration, and who has."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

from gatewayd.control.tables.columns import AUTOINCREMENT, count, json_list


class Audit(SQLModel, table=True):
    """Every change: who, when, what it was before and what it is after. Written in the change's own transaction.

    Append-only (triggers), and a chain: `sha256` is of the line and of the line before it (`policy.audit_chain`), so
    one that was altered or taken out by whoever can write the file is found by `audit verify`.
    """

    __tablename__ = "audit"
    __table_args__ = (AUTOINCREMENT,)

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
    __table_args__ = (AUTOINCREMENT,)

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
    `bound` is a JSON array of the targets that are `Target.bound`, as tenant, service and URL: to bring one back is not
    to answer for it.
    """

    __tablename__ = "config_revision"
    __table_args__ = (AUTOINCREMENT,)

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
    bound: str = json_list()


class Acknowledgement(SQLModel, table=True):
    """An accident of the past that an operator has taken note of, so that it degrades the gateway no more.

    `subject` is `torn` or `lost`, noted up to this `count`, or `damaged:FILE`. The audit has those of before.
    """

    __tablename__ = "acknowledgement"

    subject: str = Field(primary_key=True)
    count: int = count()
    at: int
    actor: str
