"""The ledger, and what somebody may add to it: credits and adjustments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer, created
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.documented import Page, documented
from gatewayd.control.admin.inputs import InTenant, check_display_name, checked, read_body, read_query
from gatewayd.control.admin.pages import PagedInTenantByNumber, page
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.spelling import Amount, Period
from gatewayd.control.admin.state import control_of
from gatewayd.control.cycles import open_for, period_meant
from gatewayd.control.ledger import entries_of
from gatewayd.control.tables import Cycle, LedgerEntry
from gatewayd.control.usage import key_names, name_of, service_names
from gatewayd.policy.amounts import format_time
from gatewayd.policy.cycles import check_period
from gatewayd.policy.invoicing import CREDITS
from gatewayd.policy.money import NANOS, format_nanos, parse_amount

# Of one cycle: ten times that is what 64 bits of nanos hold, and is carried forward in one entry.
_LARGEST_NANOS = 900_000_000 * NANOS


class NewCredit(msgspec.Struct, forbid_unknown_fields=True):
    """`amount` of a credit comes off the bill; an adjustment adds to it, or comes off where it is negative."""

    amount: Amount
    reason: Annotated[str, msgspec.Meta(min_length=1, extra_json_schema={"maxLength": 200})]
    kind: Literal["credit", "adjustment"] = "credit"


class Trying(InTenant, frozen=True, kw_only=True):
    dry_run: bool = False


class Listed(PagedInTenantByNumber, frozen=True, kw_only=True):
    period: Period | None = None


class EntryView(msgspec.Struct):
    """`amount` is what it adds to the bill; null where price and quantity decide."""

    id: int
    at: str
    period: str
    kind: str
    key: str | None
    service: str | None
    requests: int
    units: int
    bytes: int
    amount: str | None
    reason: str
    author: str


@documented(
    "Add a credit or an adjustment",
    query=Trying,
    body=NewCredit,
    answer=EntryView,
    status=201,
    rules="an amount is not 0, and a credit not negative; reasons are printable",
)
async def add_credit(request: Request) -> Response:
    asked, new = read_query(request, Trying), await read_body(request, NewCredit)
    amount = checked("amount", parse_amount, new.amount)
    reason = checked("reason", check_display_name, new.reason)
    if not amount and new.kind == "adjustment":
        raise invalid("amount", f"{new.amount!r} changes no bill; write one such as 12.50 or -12.50")
    if not amount or (amount < 0 and new.kind == "credit"):
        raise invalid("amount", f"{new.amount!r} is nothing that comes off a bill; write one such as 12.50")
    if not reason:
        raise invalid("reason", "reason must not be empty: the invoice shows it")
    with change(request, dry_run=asked.dry_run) as made:
        tenant = tenant_by(made.session, asked.tenant)
        assert tenant.id is not None
        connection = made.session.connection()
        cycle = open_for(connection, tenant.id, made.at)
        nanos = -amount if new.kind == "credit" else amount
        if sum(abs(entry.nanos) for entry in entries_of(connection, cycle.id, *CREDITS)) + abs(nanos) > _LARGEST_NANOS:
            raise conflict(f"credits of cycle {cycle.period} come to more than {format_nanos(_LARGEST_NANOS)}")
        entry = LedgerEntry(
            tenant_id=tenant.id,
            cycle_id=cycle.id,
            at=made.at,
            kind=new.kind,
            nanos=nanos,
            reason=reason,
            author=made.actor,
        )
        made.session.add(entry)
        made.session.flush()
        shown = _show_all(made.session, [entry])[0]
        made.note("credit.add", tenant.slug, str(entry.id), after=shown)
    return created(shown)


@documented("List the ledger", query=Listed, answer=Page[EntryView])
def list_(request: Request) -> Response:
    asked = read_query(request, Listed)
    with control_of(request).database.read() as session:
        tenant = tenant_by(session, asked.tenant, gone_too=True)
        query = select(LedgerEntry).where(LedgerEntry.tenant_id == tenant.id)
        if asked.period is not None:
            checked("period", check_period, asked.period)
            assert tenant.id is not None
            period = period_meant(session.connection(), tenant.id, asked.period, now_s())
            own = select(Cycle.id).where(Cycle.tenant_id == tenant.id, Cycle.period == period)
            query = query.where(col(LedgerEntry.cycle_id).in_(own))
        query = query.options(defer(LedgerEntry.facts))  # type: ignore[arg-type]
        return answer(page(session, query, col(LedgerEntry.id), asked, lambda found: _show_all(session, found)))


def _show_all(session: Session, entries: Sequence[LedgerEntry]) -> list[EntryView]:
    connection = session.connection()
    services = service_names(connection, (entry.service_id for entry in entries))
    keys = key_names(connection, (entry.key_id for entry in entries))
    of = col(Cycle.id).in_({entry.cycle_id for entry in entries})
    periods = dict(session.exec(select(Cycle.id, Cycle.period).where(of)).all())
    return [
        EntryView(
            id=entry.id or 0,
            at=format_time(entry.at),
            period=periods[entry.cycle_id],
            kind=entry.kind,
            key=name_of(keys, entry.key_id) if entry.key_id else None,
            service=name_of(services, entry.service_id) if entry.service_id else None,
            requests=entry.requests,
            units=entry.units,
            bytes=entry.size_bytes,
            amount=format_nanos(entry.nanos) if entry.kind in CREDITS else None,
            reason=entry.reason,
            author=entry.author,
        )
        for entry in entries
    ]
