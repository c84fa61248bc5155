"""Kinds of columns and indexes that more than one table has."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

AUTOINCREMENT = {"sqlite_autoincrement": True}


def json_list() -> Any:
    return Field(default="[]", sa_column_kwargs={"server_default": text("'[]'")})


def json_object() -> Any:
    return Field(default="{}", sa_column_kwargs={"server_default": text("'{}'")})


def flag() -> Any:
    return Field(default=False, sa_column_kwargs={"server_default": text("FALSE")})


def count(default: int | None = None) -> Any:
    """64 bits. With a default, rows that were there when the column came have it."""
    if default is None:
        return Field(sa_type=BigInteger)
    return Field(default=default, sa_type=BigInteger, sa_column_kwargs={"server_default": text(str(default))})


def live_unique(name: str, *columns: str) -> Index:
    """Unique among the rows that are not removed."""
    live = text("removed_at IS NULL")
    return Index(name, *columns, unique=True, sqlite_where=live, postgresql_where=live)
