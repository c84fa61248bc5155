"""Errors as problem+json. The one place where an exception becomes an answer; no traceback ever reaches a client."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatewayd.control.admin.callers import caller_of
from gatewayd.errors import (
    CONFLICT,
    INTERNAL,
    INVALID,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UNAVAILABLE,
    GatewayError,
    Problem,
)

_log = logging.getLogger(__name__)
_LONGEST_REF = 100  # shown, and compared with names


class AdminError(GatewayError):
    """A GatewayError with members of its own: `field` of what is invalid, `did_you_mean` for what is not found."""

    def __init__(self, problem: Problem, detail: str, **members: Any) -> None:
        super().__init__(problem, detail)
        self.members = members


class TakenError(AdminError):
    """A conflict with something of the tenant `owner`, which one who is bound to another does not get to know."""

    def __init__(self, detail: str, owner: str) -> None:
        super().__init__(CONFLICT, detail)
        self.owner = owner


def invalid(field: str, detail: str) -> AdminError:
    """`field` as the client spelled it; the detail names it too, since a person reads only that."""
    return AdminError(INVALID, detail if field in detail else f"{field}: {detail}", field=field)


def conflict(detail: str) -> AdminError:
    return AdminError(CONFLICT, detail)


def not_found(noun: str, ref: str, names: Iterable[str]) -> AdminError:
    ref = ref[:_LONGEST_REF]
    near = difflib.get_close_matches(ref, names, n=1)
    members = {"did_you_mean": near[0]} if near else {}
    return AdminError(NOT_FOUND, f"there is no {noun} {ref!r}", **members)


def problem_response(
    problem: Problem, detail: str, members: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": problem.code,
        **(members or {}),
    }
    return Response(msgspec.json.encode(body), problem.status, headers, "application/problem+json")


async def answer_gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    members = error.members if isinstance(error, AdminError) else None
    detail = error.detail
    if isinstance(error, TakenError) and caller_of(request).tenant not in (None, error.owner):
        detail = "that address is another tenant's already"
    return problem_response(error.problem, detail, members)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such address, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == METHOD_NOT_ALLOWED.status:
        detail = f"{request.url.path} does not answer {request.method}"
        return problem_response(METHOD_NOT_ALLOWED, detail, headers=error.headers)
    if error.status_code == NOT_FOUND.status:
        return problem_response(NOT_FOUND, f"{request.url.path} is not an address of the admin API")
    return problem_response(MALFORMED, error.detail)


async def answer_database_error(_: Request, error: Exception) -> Response:
    """A full disk or a lock that somebody else holds: not the caller's fault, and over by and by."""
    assert isinstance(error, OperationalError)
    _log.error("the database refused a change: %s", error.orig)
    return problem_response(UNAVAILABLE, f"the database refused the change: {error.orig}; nothing was changed")


class NoTraceback:
    """The outermost layer: whatever else is raised is logged here and answered as `internal`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except Exception:
            _log.exception("the admin API failed on %s %r", scope.get("method"), scope.get("path"))
            if started:
                raise  # too late for an answer; the server cuts the connection
            response = problem_response(INTERNAL, "gatewayd failed to answer this; its log says more")
            await response(scope, receive, send)
