"""Tokens of the admin API on TCP, and what a caller is told of itself.

A token comes once, in the answer to the request that made it; stored is its SHA-256, and neither it nor that is ever in
a view or in the audit. A token cannot be changed: one with another role is another token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import msgspec
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import keys
from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.callers import caller_of
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import Nothing, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedByNumber, page
from gatewayd.control.admin.problems import conflict, invalid, not_found
from gatewayd.control.admin.refs import new_public_id, tenant_by
from gatewayd.control.admin.spelling import Expiry
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.tables import Tenant, Token
from gatewayd.errors import CONFLICT, NOT_FOUND
from gatewayd.policy.amounts import format_time, parse_expiry

_MOST_NAMES = 1000  # searched for a near one


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """`tenant`: all that the token may see and do is in this one. `expires_at`: a time, or a span such as 90d."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    role: Literal["viewer", "operator", "admin"]
    tenant: str | None = None
    expires_at: Expiry | None = None


class TokenView(msgspec.Struct):
    id: str
    name: str
    role: str
    tenant: str | None
    created_at: str
    created_by: str
    expires_at: str | None
    last_used_at: str | None  # to the minute
    status: str  # "active", "expired" or "revoked"


class MadeToken(TokenView):
    """`token` is in no other answer."""

    token: str


class Whoami(msgspec.Struct):
    actor: str
    role: str
    tenant: str | None
    via: str  # "socket" or "token"
    expires_at: str | None


class Revocation(Nothing, frozen=True):
    dry_run: bool = False


@documented("Tell who is asking", query=Nothing, answer=Whoami)
def whoami(request: Request) -> Response:
    read_query(request, Nothing)
    caller = caller_of(request)
    expires_at = None if caller.expires_at is None else format_time(caller.expires_at)
    return answer(Whoami(caller.actor, caller.role, caller.tenant, caller.via, expires_at))


@documented("List tokens, newest first", query=PagedByNumber, answer=Page[TokenView])
def list_(request: Request) -> Response:
    asked, control = read_query(request, PagedByNumber), control_of(request)
    with control.database.read() as session:
        show = partial(_show_all, session, control, now_s())
        return answer(page(session, select(Token), col(Token.id), asked, show, newest_first=True))


@documented(
    "Create a token",
    query=Nothing,
    body=NewToken,
    answer=MadeToken,
    status=201,
    rules="a name is visible and short, an expiry is to come",
    also=(NOT_FOUND,),
)
async def create(request: Request) -> Response:
    read_query(request, Nothing)
    new, control = await read_body(request, NewToken), control_of(request)
    name = checked("name", _check_name, new.name)
    with change(request) as made:
        expires_at = None
        if new.expires_at is not None:
            expires_at = checked("expires_at", lambda text: parse_expiry(text, made.at), new.expires_at)
        tenant = None if new.tenant is None else tenant_by(made.session, new.tenant)
        if _live(made.session, name, made.at) is not None:
            raise conflict(f"token {name!r} exists already; revoke it, or choose another name")
        public_id = new_public_id(made.session, Token, "tok_")
        token = keys.new_token(public_id.removeprefix("tok_"))
        row = Token(
            public_id=public_id,
            digest=keys.digest(token.encode()),
            name=name,
            role=new.role,
            tenant_id=None if tenant is None else tenant.id,
            created_at=made.at,
            created_by=made.actor,
            expires_at=expires_at,
        )
        made.session.add(row)
        (shown,) = _show_all(made.session, control, made.at, [row])
        made.note("token.create", shown.tenant or "", public_id, after=shown)
    return created(MadeToken(**msgspec.structs.asdict(shown), token=token))


@documented("Revoke a token", query=Revocation, answer=TokenView, also=(CONFLICT,))
async def revoke(request: Request) -> Response:
    """It bites at the next request, and ends what is under way with it, such as a stream."""
    asked, control = read_query(request, Revocation), control_of(request)
    with change(request, dry_run=asked.dry_run) as made:
        row = _token_by(made.session, request.path_params["ref"], made.at)
        if row.revoked_at is not None:
            raise conflict(f"token {row.name!r} was revoked at {format_time(row.revoked_at)}")
        (before,) = _show_all(made.session, control, made.at, [row])
        row.revoked_at = made.at
        made.session.add(row)
        (shown,) = _show_all(made.session, control, made.at, [row])
        made.note("token.revoke", shown.tenant or "", row.public_id, before, shown)
    if not asked.dry_run:
        control.bearers.end_visits(now_s(), but=request.scope["state"].get("hang_up"))
    return answer(shown)


def _show_all(session: Session, control: ControlState, now: int, rows: Sequence[Token]) -> list[TokenView]:
    wanted = {row.tenant_id for row in rows} - {None}
    slugs = dict(session.exec(select(Tenant.id, Tenant.slug).where(col(Tenant.id).in_(wanted))).all()) if wanted else {}
    views = []
    for row in rows:
        used = control.bearers.last_used(row.id, row.last_used_at)
        expired = row.expires_at is not None and row.expires_at <= now
        views.append(
            TokenView(
                id=row.public_id,
                name=row.name,
                role=row.role,
                tenant=None if row.tenant_id is None else slugs[row.tenant_id],
                created_at=format_time(row.created_at),
                created_by=row.created_by,
                expires_at=None if row.expires_at is None else format_time(row.expires_at),
                last_used_at=None if used is None else format_time(used),
                status="revoked" if row.revoked_at is not None else "expired" if expired else "active",
            )
        )
    return views


def _check_name(name: str) -> str:
    name = check_display_name(name)
    if not name:
        raise ValueError("must not be empty: the audit calls whoever uses the token by it")
    if keys.looks_like_token(name):
        raise ValueError("looks like a token, and a name is no secret")
    return name


def _live(session: Session, name: str, now: int) -> Token | None:
    """The one that has this name and still opens something. Names of others are free again."""
    lasts = col(Token.expires_at).is_(None) | (col(Token.expires_at) > now)
    return session.exec(select(Token).where(Token.name == name, col(Token.revoked_at).is_(None), lasts)).first()


def _token_by(session: Session, ref: str, now: int) -> Token:
    """By id, or by name: the live one first, then the latest."""
    if keys.looks_like_token(ref):
        raise invalid("token", "that is a token itself, which is a secret; call it by its name or id")
    found = session.exec(select(Token).where(Token.public_id == ref)).first() or _live(session, ref, now)
    if found is None:
        found = session.exec(select(Token).where(Token.name == ref).order_by(col(Token.id).desc())).first()
    if found is None:
        names = session.exec(select(Token.name).where(col(Token.revoked_at).is_(None)).limit(_MOST_NAMES))
        raise not_found("token", ref, names)
    return found
