"""Rows of usage as a stream of lines, as `usage export` asks for them."""

from __future__ import annotations

from collections.abc import Generator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control import exporting
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import NDJSON, documented
from gatewayd.control.admin.inputs import InTenant, checked, read_query
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.spelling import Moment
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.admin.streams import BlockStream, threaded
from gatewayd.control.admin.usage_views import ExportedRow
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.amounts import parse_time

EXPORTS = 2  # at once: each holds a view of the database, whose log grows meanwhile
PATIENCE_S = 30.0  # with a client that does not read
_DEFAULT_RANGE_S = 24 * 3600

_encoder = msgspec.json.Encoder()


class Asked(InTenant, frozen=True):
    since: Moment | None = None
    until: Moment | None = None
    granularity: exporting.Granularity = "hour"


@documented("Export usage", query=Asked, lines=(ExportedRow,), media=NDJSON, rules="since is before until")
async def export(request: Request) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    until = now_s() if asked.until is None else checked("until", parse_time, asked.until)
    since = until - _DEFAULT_RANGE_S if asked.since is None else checked("since", parse_time, asked.since)
    if since >= until:
        raise invalid("since", "since is not before until")
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
    assert tenant.id is not None
    await control.plane.catch_up()
    step = {"hour": 3600, "day": 86400}[asked.granularity]
    if control.exports.running >= EXPORTS:
        raise GatewayError(UNAVAILABLE, f"{EXPORTS} exports are under way, which is the most; wait for one to end")
    control.exports.running += 1
    encoded = _encoded(control, tenant.id, since - since % step, until + -until % step, asked.granularity)
    return BlockStream(threaded(encoded, encoded.close), control.exports.ended, PATIENCE_S)


def _encoded(
    control: ControlState, tenant_id: int, since: int, until: int, granularity: exporting.Granularity
) -> Generator[bytes, None, None]:
    with control.database.read() as session:
        for page in exporting.pages(session.connection(), tenant_id, since, until, granularity):
            yield _encoder.encode_lines(page)
