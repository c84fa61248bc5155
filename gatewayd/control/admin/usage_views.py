"""What the admin API shows of usage. Only described here: `control.usage` and its neighbours make it."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from gatewayd.control.heaviest import Measure


class UsageNumbers(msgspec.Struct, kw_only=True):
    """What requests come to. Quantiles are of the time until an answer was whole; null without any."""

    requests: int
    billable: int
    errors: int
    refused: int
    units: int
    bytes_in: int
    bytes_out: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    cost: str


class UsageItem(UsageNumbers, kw_only=True):
    """Of the dimensions it has those that were asked for; `time` where there is an interval."""

    time: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    service: str | UnsetType = UNSET
    route: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    status: str | UnsetType = UNSET


class UsageView(msgspec.Struct):
    """The range is half-open, in whole hours or days."""

    since: str
    until: str
    items: list[UsageItem]
    total: UsageNumbers


class TopNumbers(msgspec.Struct, kw_only=True):
    requests: int
    billable: int
    errors: int
    refused: int
    units: int
    bytes_in: int
    bytes_out: int
    bytes: int
    cost: str


class TopItem(TopNumbers, kw_only=True):
    """`share` of all, 0 to 1. It has the one dimension that was asked for."""

    share: float
    tenant: str | UnsetType = UNSET
    service: str | UnsetType = UNSET
    route: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    status: str | UnsetType = UNSET


class TopView(msgspec.Struct):
    """`count`: how many have any of it."""

    since: str
    until: str
    by: str
    of: Measure
    items: list[TopItem]
    count: int
    total: TopNumbers


class UsageDifference(msgspec.Struct):
    what: str
    where: str
    expected: int
    found: int
    detail: str


class UsageChecked(msgspec.Struct):
    """How many of each were compared."""

    segments: int
    days: int
    keys: int
    invoices: int


class UsageVerified(msgspec.Struct):
    ok: bool
    checked: UsageChecked
    differences: list[UsageDifference]


class ExportedRow(msgspec.Struct):
    """A row of usage. `price`: of one request or unit, where it is linear."""

    time: str
    period: str | None
    tenant: str
    service: str
    route: str
    key: str
    client: str
    status: str
    requests: int
    billable: int
    errors: int
    refused: int
    units: int
    bytes_in: int
    bytes_out: int
    billable_units: int
    billable_bytes: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    price: str | None
    cost: str


class TailedRequest(msgspec.Struct):
    """`code`: of the problem that the gateway itself answered with."""

    time: str
    tenant: str
    service: str
    route: str
    key: str
    client: str
    status: int
    code: str | None
    admitted: bool
    units: int
    bytes_in: int
    bytes_out: int
    gateway_ms: float
    upstream_ms: float
    total_ms: float
    request_id: str


class LostRequests(msgspec.Struct):
    """So many came faster than they were read."""

    lost: int
