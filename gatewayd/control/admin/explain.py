"""What would become of a request, and what became of one: asked of the workers, which alone know."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, checked, read_body, read_query
from gatewayd.control.admin.problems import AdminError, invalid
from gatewayd.control.admin.refs import key_by, tenant_by
from gatewayd.control.admin.spelling import KeyRef
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.errors import NOT_FOUND, UNAVAILABLE
from gatewayd.told import KEPT, Told

_Line = Annotated[str, Meta(max_length=65536)]
_BROKEN = re.compile(r"[\r\n\0]")
_DEFAULT_ADDRESS = "127.0.0.1"


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A request that has not been sent. `key` names one that its caller is believed to hold; `secret` is a whole one.

    `headers` are lines, `Name: value`.
    """

    method: Annotated[str, Meta(min_length=1, max_length=64)]
    path: Annotated[_Line, Meta(min_length=1)]
    host: _Line | None = None  # None: that of the data plane
    headers: Annotated[tuple[_Line, ...], Meta(max_length=200)] = ()
    address: str = _DEFAULT_ADDRESS
    body_bytes: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    key: KeyRef | None = None
    secret: _Line | None = None

    def __repr__(self) -> str:
        return "<Asked of a request>"  # the secret must not stand in a traceback


@documented(
    "Tell what would become of a request",
    query=InTenant,
    body=Asked,
    answer=Told,
    rules="`address` is an IP address, lines have no breaks, one of key and secret",
)
async def what_if(request: Request) -> Response:
    """Nothing is sent, and nothing is spent."""
    in_tenant, control = read_query(request, InTenant), control_of(request)
    asked = await read_body(request, Asked)
    if asked.key is not None and asked.secret is not None:
        raise invalid("secret", "key and secret name a key each; give one of them")
    address = checked("address", lambda text: str(ip_address(text)), asked.address)
    public_id = None
    if asked.key is not None:
        public_id = await run_in_threadpool(_public_id, control, in_tenant.tenant, asked.key)
    secret = None if asked.secret is None else asked.secret.strip().encode()
    told = await control.plane.what_if(_head(asked, control.listen), address, public_id, secret)
    if told is None:
        raise AdminError(UNAVAILABLE, "the worker that was asked could not tell; its log may say why")
    return answer(told)


@documented("Tell what became of a request", query=InTenant, answer=Told)
async def recall(request: Request) -> Response:
    """Of a request that has been, by the X-Request-Id of its answer."""
    read_query(request, InTenant)
    request_id = request.path_params["request_id"]
    told = await control_of(request).plane.recall(request_id)
    if told is None:
        raise AdminError(NOT_FOUND, f"no worker remembers request {request_id[:130]!r}: {KEPT}")
    return answer(told)


def _public_id(control: ControlState, tenant: str, ref: str) -> str:
    with control.database.read() as session:
        return key_by(session, tenant_by(session, tenant), ref).public_id


def _head(asked: Asked, listen: str) -> bytes:
    """The head as a client would send it. Whether it is one is for the worker's parser to say."""
    lines = [f"{asked.method} {asked.path} HTTP/1.1", f"Host: {asked.host or listen}", *asked.headers]
    if asked.body_bytes:
        lines.append(f"Content-Length: {asked.body_bytes}")
    for field, text in (("method", asked.method), ("path", asked.path), ("host", asked.host or "")):
        if _BROKEN.search(text):
            raise invalid(field, "holds a line break")
    for line in asked.headers:
        if _BROKEN.search(line) or ":" not in line:
            raise invalid("headers", "write each header as Name: value, in one line")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")
