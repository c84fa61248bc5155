"""Requests, one line each: the newest that match, and those to come. For `logs` and `usage tail`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import msgspec
from sqlmodel import select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import NDJSON, documented
from gatewayd.control.admin.inputs import InTenant, checked, read_query
from gatewayd.control.admin.problems import invalid, not_found
from gatewayd.control.admin.refs import key_by, route_by, service_by, tenant_by
from gatewayd.control.admin.spelling import KeyRef, Moment, StatusTexts
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.streams import BlockStream
from gatewayd.control.admin.usage_views import LostRequests, TailedRequest
from gatewayd.control.looking_back import EndedBy, newest
from gatewayd.control.tables import Client
from gatewayd.control.tailing import Describer, Listener, Wanted
from gatewayd.errors import CONFLICT
from gatewayd.policy.amounts import format_time, parse_time

MOST_LINES = 10_000
# No more than these lines in each turn: they are made on control's loop, where leases wait (3 ms, measured). 5,000 a
# second are more than anybody reads; of more, the listener is told how many it lost.
_TURN_LINES = 500
_TURN_S = 0.1
_NEVER_NS = 1 << 63
_MOST_NAMES = 1000  # searched for a near one

_STATUS = re.compile(r"([1-5])(xx|\d\d)", re.ASCII)
_encoder = msgspec.json.Encoder()


class Chosen(InTenant, frozen=True, kw_only=True):
    """Which requests. `everyone`: of all tenants."""

    everyone: bool = False
    service: str | None = None
    route: str | None = None
    key: KeyRef | None = None
    client: str | None = None
    status: StatusTexts | None = None
    refused: bool = False
    errors: bool = False
    since: Moment | None = None


class AskedLogs(Chosen, frozen=True, kw_only=True):
    until: Moment | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LINES)] = 100


class AskedTail(Chosen, frozen=True, kw_only=True):
    """`lines`: of those that have been."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=MOST_LINES)] = 0


class LogsView(msgspec.Struct):
    """`looked_back_to`: all that match and came since are there. `ended_by`: why it is no more."""

    at: str
    items: list[TailedRequest]
    looked_back_to: str
    ended_by: EndedBy


class Looked(NamedTuple):
    lines: list[dict[str, Any]]
    looked_back_to: str
    ended_by: EndedBy


@documented(
    "Show the newest requests", query=AskedLogs, answer=LogsView, rules="since is before until", also=(CONFLICT,)
)
async def list_(request: Request) -> Response:
    """All that match and came since `looked_back_to` are there."""
    asked, control = read_query(request, AskedLogs), control_of(request)
    since, until = _moment_ns("since", asked.since), _moment_ns("until", asked.until) or _NEVER_NS
    if since >= until:
        raise invalid("since", "since is not before until")
    wanted, clients = _wanted(control, asked), _clients(control, asked)
    if asked.client is not None and not clients:
        raise not_found("client", asked.client, _client_names(control))
    ends = control.plane.positions(to_the_end=True)
    looked = await _look_back(control, ends, replace(wanted, client_ids=clients), asked.limit, since, until)
    at = format_time(now_s())
    return answer(
        {"at": at, "items": looked.lines, "looked_back_to": looked.looked_back_to, "ended_by": looked.ended_by}
    )


@documented(
    "Follow usage as it comes", query=AskedTail, lines=(TailedRequest, LostRequests), media=NDJSON, also=(CONFLICT,)
)
async def tail(request: Request) -> Response:
    asked, control = read_query(request, AskedTail), control_of(request)
    wanted, since = _wanted(control, asked), _moment_ns("since", asked.since)
    # In one go: what was taken before is in the journals up to these positions, and all that follows is heard.
    listener, ends = control.tails.listen(wanted), control.plane.positions()
    lines = _lines(control, listener, ends, wanted, asked, since)
    return BlockStream(lines, lambda: control.tails.leave(listener))


def _wanted(control: ControlState, asked: Chosen) -> Wanted:
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
        return Wanted(
            tenant_id=None if asked.everyone else tenant.id,
            service_id=None if asked.service is None else service_by(session, tenant, asked.service, gone_too=True).id,
            route_id=None if asked.route is None else route_by(session, tenant, asked.route).id,
            key_id=None if asked.key is None else key_by(session, tenant, asked.key).id,
            statuses=frozenset() if asked.status is None else checked("status", _statuses, asked.status),
            refused=asked.refused,
            errors=asked.errors,
        )


def _clients(control: ControlState, asked: Chosen) -> frozenset[int] | None:
    """Of that name: each key may have one of its own."""
    if asked.client is None:
        return None
    with control.database.read() as session:
        query = select(Client.id).where(Client.name == asked.client)
        if not asked.everyone:
            query = query.where(Client.tenant_id == tenant_by(session, asked.tenant, gone_too=True).id)
        return frozenset(number for number in session.exec(query) if number is not None)


def _client_names(control: ControlState) -> list[str]:
    with control.database.read() as session:
        return list(session.exec(select(Client.name).limit(_MOST_NAMES)))


def _statuses(text: str) -> frozenset[int]:
    """`4xx,502` as 4 and 502."""
    return frozenset(_status(part.strip()) for part in text.split(","))


def _status(text: str) -> int:
    if not (match := _STATUS.fullmatch(text)):
        raise ValueError(f"{text[:40]!r} is not a status such as 404, nor a class such as 4xx")
    return int(match[1]) if match[2] == "xx" else int(text)


def _moment_ns(field: str, text: str | None) -> int:
    return 0 if text is None else checked(field, parse_time, text) * 1_000_000_000


async def _look_back(
    control: ControlState, ends: dict[str, int], wanted: Wanted, limit: int, since_ns: int, until_ns: int
) -> Looked:
    async with control.looking_back:
        return await asyncio.to_thread(_looked_back, control, ends, wanted, limit, since_ns, until_ns)


def _looked_back(
    control: ControlState, ends: dict[str, int], wanted: Wanted, limit: int, since_ns: int, until_ns: int
) -> Looked:
    past = newest(control.settings.state_dir / "journal", ends, wanted, limit, since_ns, until_ns)
    with control.database.read() as session:
        lines = Describer(session.connection()).describe(past.records)
    return Looked(lines, format_time(past.looked_back_to_ns // 1_000_000_000), past.ended_by)


async def _lines(
    control: ControlState, listener: Listener, ends: dict[str, int], wanted: Wanted, asked: AskedTail, since_ns: int
) -> AsyncGenerator[bytes, None]:
    if limit := asked.lines or (MOST_LINES if asked.since else 0):
        past = replace(wanted, client_ids=_clients(control, asked))
        looked = await _look_back(control, ends, past, limit, since_ns, _NEVER_NS)
        if looked.lines:
            yield _encoder.encode_lines(looked.lines)
    describer = Describer(control.database.lookup)
    while (heard := await listener.next(_TURN_LINES)) is not None:
        records, lost = heard
        lines = describer.describe(records)
        if asked.client is not None:  # who may be accepted later, so by its name and not, as others, by its number
            lines = [line for line in lines if line["client"] == asked.client]
        if lost:
            lines.append({"lost": lost})
        if lines:
            yield _encoder.encode_lines(lines)
        await asyncio.sleep(_TURN_S)
