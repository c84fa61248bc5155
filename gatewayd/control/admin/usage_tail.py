"""Usage as it comes, one line a request: `usage tail`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.inputs import checked, read_query
from gatewayd.control.admin.refs import key_by, service_by, tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.streams import BlockStream
from gatewayd.control.tailing import REMEMBERED, Describer, Listener, Wanted
from gatewayd.policy.addresses import DEFAULT_TENANT
from gatewayd.records import Record

# No more than these lines in each turn: they are made on control's loop, where leases wait (3 ms, measured). 5,000 a
# second are more than anybody reads; of more, the listener is told how many it lost.
_TURN_LINES = 500
_TURN_S = 0.1

_STATUS = re.compile(r"([1-5])(xx|\d\d)", re.ASCII)
_encoder = msgspec.json.Encoder()


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str = DEFAULT_TENANT
    everyone: bool = False  # all tenants
    service: str | None = None
    key: str | None = None
    client: str | None = None
    status: str | None = None
    refused: bool = False
    errors: bool = False
    lines: Annotated[int, msgspec.Meta(ge=0, le=REMEMBERED)] = 0  # of those that have been


async def tail(request: Request) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    listener, recent = control.tails.listen(_wanted(control, asked))
    lines = _lines(control, listener, recent, asked)
    return BlockStream(lines, lambda: control.tails.leave(listener))


def _wanted(control: ControlState, asked: Asked) -> Wanted:
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
        return Wanted(
            tenant_id=None if asked.everyone else tenant.id,
            service_id=None if asked.service is None else service_by(session, tenant, asked.service, gone_too=True).id,
            key_id=None if asked.key is None else key_by(session, tenant, asked.key).id,
            status=None if asked.status is None else checked("status", _status, asked.status),
            refused=asked.refused,
            errors=asked.errors,
        )


def _status(text: str) -> int:
    """`4xx` as 4, `404` as itself."""
    if not (match := _STATUS.fullmatch(text)):
        raise ValueError(f"{text[:40]!r} is not a status such as 404, nor a class such as 4xx")
    return int(match[1]) if match[2] == "xx" else int(text)


async def _lines(
    control: ControlState, listener: Listener, recent: list[Record], asked: Asked
) -> AsyncGenerator[bytes, None]:
    describer = Describer(control.database.lookup)

    def described(records: list[Record]) -> list[dict[str, Any]]:
        # A client may be accepted later, so by its name and not, as others, by its number.
        lines = describer.describe(records)
        return lines if asked.client is None else [line for line in lines if line["client"] == asked.client]

    if asked.lines and (before := described(recent)[-asked.lines :]):
        yield _encoder.encode_lines(before)
    while (heard := await listener.next(_TURN_LINES)) is not None:
        records, lost = heard
        lines = described(records)
        if lost:
            lines.append({"lost": lost})
        if lines:
            yield _encoder.encode_lines(lines)
        await asyncio.sleep(_TURN_S)
