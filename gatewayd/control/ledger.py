"""The ledger: everything that changes a bill, one line each, only ever added to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from gatewayd.control.charging import BITE, in_bites
from gatewayd.control.cycles import CycleRow
from gatewayd.control.tables import LedgerEntry
from gatewayd.policy.invoicing import Entry, Facts

_ledger = LedgerEntry.__table__  # type: ignore[attr-defined]
_ENTRY = [_ledger.c[name] for name in Entry._fields]
_facts = msgspec.json.Decoder(Facts)


def entries_of(connection: Connection, cycle_id: int, *kinds: str) -> list[Entry]:
    """A cycle's, in the order in which they were made; all kinds, or these."""
    query = select(*_ENTRY).where(_ledger.c.cycle_id == cycle_id).order_by(_ledger.c.id)
    if kinds:
        query = query.where(_ledger.c.kind.in_(kinds))
    return [Entry(*row) for row in in_bites(connection, query)]


def facts_of(connection: Connection, cycle_id: int) -> Facts | None:
    """What was frozen when the cycle closed; None where it is open, or closed without an invoice."""
    query = select(_ledger.c.facts).where(_ledger.c.cycle_id == cycle_id, _ledger.c.kind == "close")
    text = connection.execute(query.limit(1)).scalar()
    return None if text is None else _facts.decode(text)


def append(connection: Connection, cycle: CycleRow, entries: Iterable[Entry]) -> None:
    rows = (_row(cycle, entry) for entry in entries)
    while bite := list(islice(rows, BITE)):
        connection.execute(insert(_ledger), bite)


def append_close(connection: Connection, cycle: CycleRow, facts: Facts, author: str) -> None:
    row = _row(cycle, Entry("close", facts.issued_at, author=author))
    connection.execute(insert(_ledger), row | {"facts": msgspec.json.encode(facts).decode()})


def _row(cycle: CycleRow, entry: Entry) -> dict[str, Any]:
    row = entry._asdict() | {"tenant_id": cycle.tenant_id, "cycle_id": cycle.id, "facts": "{}"}
    del row["id"]
    return row
