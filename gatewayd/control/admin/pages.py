"""Lists by cursor: `?limit=100&after=CURSOR`.

The cursor is the last item's place in the order, so a page costs the same wherever it is, and what is added or removed
meanwhile makes no item appear twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from sqlalchemy import Integer, Select
from sqlalchemy.orm import Mapped, QueryableAttribute
from sqlmodel import Session

from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.spelling import Cursor
from gatewayd.policy.addresses import DEFAULT_TENANT

LARGEST_PAGE = 1000
_LARGEST_ID = (1 << 63) - 1

Row = TypeVar("Row")


class Paged(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The query of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PAGE)] = 100
    after: str | None = None


class PagedInTenant(Paged, frozen=True, kw_only=True):
    """The query of a list of what lives in a tenant."""

    tenant: str = DEFAULT_TENANT


class PagedInTenantByNumber(PagedInTenant, frozen=True, kw_only=True):
    """Of a list whose cursor is a number."""

    after: Cursor | None = None


class PagedByNumber(Paged, frozen=True, kw_only=True):
    after: Cursor | None = None


def page(
    session: Session,
    query: Select[Any],
    order: Mapped[Any],
    asked: Paged,
    show: Callable[[Sequence[Any]], list[Any]],
    newest_first: bool = False,
) -> dict[str, Any]:
    """One page of `query`, ordered by the unique column `order`.

    `show` makes a page's rows presentable all at once, so that it can look up what they refer to in one go.
    """
    assert isinstance(order, QueryableAttribute)
    if asked.after is not None:
        place = _place(asked.after, order)
        query = query.where(order < place if newest_first else order > place)
    query = query.order_by(order.desc() if newest_first else order).limit(asked.limit + 1)
    rows = session.execute(query).scalars().all()
    shown = rows[: asked.limit]
    more = len(rows) > asked.limit
    return {"items": show(shown), "next": str(getattr(shown[-1], order.key)) if more else None}


def _place(cursor: str, order: QueryableAttribute[Any]) -> str | int:
    """A cursor in the type of its column."""
    if not isinstance(order.type, Integer):
        return cursor
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) <= _LARGEST_ID):
        raise invalid("after", f"{cursor[:40]!r} is not a cursor that a list gave")
    return int(cursor)
