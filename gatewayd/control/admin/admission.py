"""The one place where it is decided whether a caller may ask what it asks, before any handler sees it.

On the Unix socket the kernel says who is there (`peer`), on TCP a token does (`bearers`). The operation that the
request is for says what role it takes and how far it reaches. One who is bound to a tenant works in that one: the query
that a handler reads names it, whatever the caller has written or left out.

Of a request that is not admitted nothing is read but its head.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatewayd.control.admin import browsers
from gatewayd.control.admin.callers import Caller
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.operations import Operation
from gatewayd.control.admin.peer import Peer, role_of
from gatewayd.control.admin.problems import problem_response
from gatewayd.control.admin.state import ControlState
from gatewayd.control.bearers import UNKNOWN
from gatewayd.errors import NOT_PERMITTED, RATE_LIMITED, UNAUTHENTICATED
from gatewayd.policy.strangers import Strangers

_COMPLAINT_EVERY_S = 60.0
_NO_TOKEN = "the admin API on TCP takes a token: Authorization: Bearer gwt_..."  # noqa: S105  # what it looks like
_INVALID = ' error="invalid_token"'
_TWO_TOKENS = "the request shows two different tokens; show one"

log = logging.getLogger(__name__)


class Admission:
    """Lets a request through with its `Caller` as `request.state.caller`, or answers it."""

    def __init__(self, app: ASGIApp, control: ControlState, operations: Sequence[Operation]) -> None:
        self.app = app
        self._control = control
        self._operation_of = _finder(operations)
        self._strangers = Strangers()
        self._silent_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        operation, params = self._operation_of(scope)
        scope.setdefault("state", {})["operation"] = operation  # no other will be reached
        if operation is not None and operation.role == "anyone":
            # On TCP once a connection: of those so many come in a second, and of requests on one a stranger's would
            # be as many as control can answer.
            await self.app(scope, receive, send if "peer" in scope["state"] else _closing(send))
            return
        caller = self._caller_of(scope)
        if isinstance(caller, Response):
            await caller(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        if operation is not None:  # else it is an address of nothing, which the router says
            refused = _refusal(operation, caller) or _confine(scope, operation, caller, params)
            if refused is not None:
                await problem_response(NOT_PERMITTED, refused)(scope, receive, send)
                return
        hang_up = scope["state"].get("hang_up")
        visit = hang_up and caller.token_id is not None
        with self._control.bearers.visit(caller.token_id or 0, hang_up) if visit else nullcontext():
            await self.app(scope, receive, send)

    def _caller_of(self, scope: Scope) -> Caller | Response:
        peer: Peer | None = scope["state"].get("peer")
        if peer is None:
            return self._bearer(scope)
        foreign = browsers.refusal(Headers(scope=scope))
        if foreign is not None:
            return problem_response(NOT_PERMITTED, foreign)
        role = role_of(peer, self._control.settings.admin_socket)
        if role is not None:
            return Caller(peer.name, role, "socket")
        detail = f"user {peer.name} is neither root nor the user of gatewayd, nor in the group of its socket"
        return problem_response(NOT_PERMITTED, detail)

    def _bearer(self, scope: Scope) -> Caller | Response:
        shown = _tokens_of(Headers(scope=scope))
        if len(shown) != 1:
            return _unauthenticated(_TWO_TOKENS if shown else _NO_TOKEN)
        found = self._control.bearers.find(shown.pop(), now_s())
        if isinstance(found, Caller):
            return found
        if found != UNKNOWN:  # whoever holds one that has ended is no stranger, and hears why
            return _unauthenticated(found, _INVALID)
        return self._count(str((scope.get("client") or ("",))[0]))

    def _count(self, address: str) -> Response:
        now = time.monotonic()
        wait_s = self._strangers.failed(address, now)
        if now >= self._silent_until:  # one line a minute, however many come
            self._silent_until = now + _COMPLAINT_EVERY_S
            log.warning("the admin API refused a token that came from %s: %s", address or "somewhere", UNKNOWN)
        if not wait_s:
            return _unauthenticated(UNKNOWN, _INVALID)
        headers = {"Retry-After": str(math.ceil(wait_s)), "Connection": "close"}
        return problem_response(RATE_LIMITED, "too many wrong tokens came from this address", headers=headers)


def _closing(send: Send) -> Send:
    async def closing_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return closing_send


def _finder(operations: Sequence[Operation]) -> Callable[[Scope], tuple[Operation | None, dict[str, str]]]:
    """What finds the operation of a request by routes like those that lead to the handlers, in their order.

    Only those of the same noun are tried, and an address without names in it is known: all of them take 100 us.
    """
    routes: dict[str, list[tuple[Route, Operation]]] = {}
    for each in operations:
        routes.setdefault(_noun_of(each.path), []).append((Route(each.path, each.handler, methods=[each.method]), each))

    def search(scope: Scope) -> tuple[Operation | None, dict[str, str]]:
        for route, operation in routes.get(_noun_of(scope["path"]), ()):
            match, child = route.matches(scope)
            if match is Match.FULL:
                return operation, child["path_params"]
        return None, {}

    plain = {
        (method, each.path): search({"type": "http", "method": method, "path": each.path})
        for each in operations
        if "{" not in each.path
        for method in ([each.method, "HEAD"] if each.method == "GET" else [each.method])
    }

    def find(scope: Scope) -> tuple[Operation | None, dict[str, str]]:
        return plain.get((scope["method"], scope["path"])) or search(scope)

    return find


def _noun_of(path: str) -> str:
    """`/v1/keys` of `/v1/keys/{ref}/rotate`. No operation has a name in it."""
    return "/".join(path.split("/", 3)[:3])


def _refusal(operation: Operation, caller: Caller) -> str | None:
    if not caller.may(operation.role):
        return f"this takes the role {operation.role}, and {caller}"
    if operation.reach == "gateway" and caller.tenant is not None:
        return f"this concerns the whole gateway, and {caller}"
    return None


def _confine(scope: Scope, operation: Operation, caller: Caller, params: dict[str, str]) -> str | None:
    """Keep one who is bound to a tenant in it, or say why not."""
    own = (caller.tenant, caller.tenant_public_id)
    if caller.tenant is None or operation.reach == "caller":
        return None
    if operation.reach == "itself":
        return None if params.get("ref") in own else f"that is not for {caller}"
    asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    for name, value in asked:
        if name == "tenant" and value not in own:
            return f"that is another tenant's, and {caller}"
        if name == "everyone" and value.lower() not in ("false", "0"):
            return f"that is of every tenant, and {caller}"
    kept = [pair for pair in asked if pair[0] != "tenant"]
    scope["query_string"] = urlencode([*kept, ("tenant", caller.tenant)]).encode()
    return None


def _tokens_of(headers: Headers) -> set[bytes]:
    shown = {value.strip().encode("latin-1") for value in headers.getlist("x-admin-token")}
    for value in headers.getlist("authorization"):
        scheme, _, credential = value.partition(" ")
        shown.add(credential.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
    return shown


def _unauthenticated(detail: str, error: str = "") -> Response:
    # Closed: whatever else is on its way, such as a body, would be read for nothing.
    headers = {"WWW-Authenticate": f"Bearer{error}", "Connection": "close"}
    return problem_response(UNAUTHENTICATED, detail, headers=headers)
