"""Closing a cycle: everything of its invoice in one transaction, so a kill leaves all of it or nothing.

A cycle of 100,000 keys takes seconds to close, so it is done in a thread, on a connection of its own that has the
database's write lock meanwhile. Records stay in their journals for that long and changes wait, but leases are handed
out as ever. Nothing is ingested between what is summed and what is stored, because it is one transaction.

By the clock, what has been over for `invoice_after_s` is closed: by then the records of its last requests have come,
and those that come later are in the next bill. A cycle in which there is nothing to bill closes without an invoice, and
one that somebody closes by hand always has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, exists, insert, select
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.concurrency import run_in_threadpool

from gatewayd.control.admin.changes import Change, now_s
from gatewayd.control.admin.state import Plane
from gatewayd.control.billing import draft_of
from gatewayd.control.charging import subscriptions_of
from gatewayd.control.collector import without_collections
from gatewayd.control.cycles import CycleRow, cycle_by_id, end_now, mark_closed, open_after, open_at, open_for
from gatewayd.control.database import Database
from gatewayd.control.digests import day_digests
from gatewayd.control.ledger import append, append_close
from gatewayd.control.prices import all_terms
from gatewayd.control.tables import Cycle, Invoice, InvoiceDay, Tenant
from gatewayd.errors import CONFLICT, GatewayError
from gatewayd.policy.invoicing import Entry, Facts, Sum, bill_of, body_of, canonical, digest
from gatewayd.policy.money import format_nanos

ACTOR = "gatewayd"
PAUSE_S = 0.05  # between two of many that are due, for ingest and for changes that wait
_NUMBER = "INV-{:06}"

_cycle, _invoice, _invoice_day = Cycle.__table__, Invoice.__table__, InvoiceDay.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

T = TypeVar("T")


class Issued(NamedTuple):
    """An invoice that was just written."""

    id: int
    number: str
    sha256: str
    body: bytes


async def in_one_go(database: Database, actor: str, work: Callable[[Change], T], *, dry_run: bool = False) -> T:
    """`work` in a thread and one transaction, while the loop goes on. A dry run is rolled back."""
    await database.given_back()
    with database.lent():
        return await run_in_threadpool(_transact, database, actor, work, dry_run)


def _transact(database: Database, actor: str, work: Callable[[Change], T], dry_run: bool) -> T:
    with without_collections(), database.write_elsewhere() as session:
        done = work(Change(session, actor, now_s()))
        if dry_run:
            session.rollback()
    return done


def close(made: Change, cycle: CycleRow) -> Issued:
    """Close a cycle by an invoice. Journals must have been read up to now."""
    connection = made.session.connection()
    facts, entries = draft_of(connection, cycle, made.at)
    facts = _numbered(connection, facts)
    append(connection, cycle, (entry for entry in entries if not entry.id))
    append_close(connection, cycle, facts, made.actor)
    prices = all_terms(connection)
    bill = bill_of(entries, prices)
    body = canonical(body_of(facts, entries, bill, prices))
    issued = _store(connection, cycle, facts, body, bill.sum)
    mark_closed(connection, cycle.id, made.at)
    _carry_forward(connection, cycle, facts, bill.sum)
    total = format_nanos(bill.sum.total_nanos)
    after = {"period": cycle.period, "invoice": issued.number, "total": total, "sha256": issued.sha256}
    made.note("billing.close", facts.slug, issued.number, after=after)
    return issued


def reset(made: Change, tenant_id: int) -> Issued:
    """End the running cycle and close it; the rest of its month is a cycle of its own.

    It ends with the present second, so that no record of the new one can be on the rollups of the old one already.
    """
    connection = made.session.connection()
    made = replace(made, at=made.at + 1)
    cycle = open_for(connection, tenant_id, made.at - 1)
    if cycle.starts_at >= made.at:
        raise GatewayError(CONFLICT, f"cycle {cycle.period} has only just begun; there is nothing to bill in it yet")
    return close(made, end_now(connection, cycle, made.at))


async def close_due(database: Database, plane: Plane, now: int, invoice_after_s: int) -> None:
    """By the clock. What cannot be done now is tried again later."""
    try:
        due, unopened = await run_in_threadpool(_to_do, database, now, now - invoice_after_s)
        for tenant_id in unopened:
            await in_one_go(database, ACTOR, partial(_open, tenant_id, now))
        if due:
            await plane.catch_up()
        for cycle_id in due:
            await _close_one(database, cycle_id)
            await asyncio.sleep(PAUSE_S)
    except (GatewayError, DBAPIError) as error:
        log.warning("cycles that are over cannot be closed for the moment: %s", error)


async def _close_one(database: Database, cycle_id: int) -> None:
    """Whatever is wrong with one tenant's cycle, the others' are closed."""
    try:
        await in_one_go(database, ACTOR, partial(_close_or_drop, cycle_id))
    except (GatewayError, OperationalError):  # locked or full: so it is for all
        raise
    except Exception:
        log.exception("cycle %d cannot be closed", cycle_id)


def _to_do(database: Database, now: int, over_since: int) -> tuple[list[int], list[int]]:
    """Cycles to close, the oldest first, and tenants whose keys owe something in a cycle that no record has opened."""
    with database.read() as session:
        connection = session.connection()
        wanted = select(_cycle.c.id).where(_cycle.c.closed_at.is_(None), _cycle.c.ends_at <= over_since)
        due = list(connection.execute(wanted.order_by(_cycle.c.ends_at, _cycle.c.id)).scalars())
        running_now = (_cycle.c.tenant_id == _tenant.c.id, _cycle.c.starts_at <= now, _cycle.c.ends_at > now)
        without = select(_tenant.c.id).where(_tenant.c.removed_at.is_(None), ~exists().where(*running_now))
        return due, [
            tenant_id
            for tenant_id in connection.execute(without).scalars().all()
            if subscriptions_of(connection, CycleRow(0, tenant_id, "", now, now + 1, None), now)
        ]


def _open(tenant_id: int, now: int, made: Change) -> None:
    open_at(made.session.connection(), tenant_id, now)


def _close_or_drop(cycle_id: int, made: Change) -> None:
    connection = made.session.connection()
    cycle = cycle_by_id(connection, cycle_id)
    if cycle.closed_at is not None:  # by somebody, meanwhile
        return
    facts, entries = draft_of(connection, cycle, made.at)
    if entries:
        issued = close(made, cycle)
        log.info("cycle %s of tenant %s is closed by invoice %s", cycle.period, facts.slug, issued.number)
        return
    mark_closed(connection, cycle_id, made.at)
    made.note("billing.close", facts.slug, cycle.period, after={"period": cycle.period, "invoice": None})


def _numbered(connection: Connection, facts: Facts) -> Facts:
    """Numbers follow the last invoice, not a sequence: what was rolled back leaves no gap."""
    query = select(_invoice.c.number, _invoice.c.sha256).order_by(_invoice.c.id.desc()).limit(1)
    last = connection.execute(query).first()
    number = 1 if last is None else int(last.number.rpartition("-")[2]) + 1
    previous = None if last is None else last.sha256
    return msgspec.structs.replace(facts, number=_NUMBER.format(number), previous_sha256=previous)


def _store(connection: Connection, cycle: CycleRow, facts: Facts, body: bytes, come_to: Sum) -> Issued:
    assert facts.number is not None
    values = {
        "number": facts.number,
        "tenant_id": cycle.tenant_id,
        "cycle_id": cycle.id,
        "issued_at": facts.issued_at,
        "total": format_nanos(come_to.total_nanos),
        "body": body.decode(),
        "sha256": digest(body),
    }
    invoice_id = connection.execute(insert(_invoice).values(values)).inserted_primary_key[0]  # type: ignore[index]
    days = day_digests(connection, cycle)
    if days:
        rows = [{"invoice_id": invoice_id, "day": day, "sha256": sha256} for day, sha256 in days.items()]
        connection.execute(insert(_invoice_day), rows)
    return Issued(invoice_id, facts.number, digest(body), body)


def _carry_forward(connection: Connection, cycle: CycleRow, facts: Facts, come_to: Sum) -> None:
    """What of the credits is more than the bill comes off the next one. A tenant that is gone will have none."""
    gone = connection.execute(select(_tenant.c.removed_at).where(_tenant.c.id == cycle.tenant_id)).scalar()
    if come_to.carried_nanos and gone is None:
        reason = f"carried forward from {facts.number}"
        credit = Entry("credit", facts.issued_at, nanos=-come_to.carried_nanos, reason=reason, author=ACTOR)
        append(connection, open_after(connection, cycle.tenant_id, cycle.ends_at), [credit])
