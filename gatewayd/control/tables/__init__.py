"""Every table of the database, and why it is shaped so.

Rows that usage or a bill may name (tenants, services, plans, prices, keys) are never deleted: `removed_at` hides them,
so a bill of last year still shows a name. A slug or name is unique among those that are not removed. Row numbers
(`id`) stand in journal records and are never used again (AUTOINCREMENT); what a person or a script sees is `public_id`.
Money is integer nanos: 10⁻⁹ of the tenant's currency. Times are whole seconds since 1970 UTC, except where a name ends
in `_ns`.
"""

from __future__ import annotations

from gatewayd.control.tables.administered import Acknowledgement, Audit, ConfigRevision, Token
from gatewayd.control.tables.alerted import Alert, AlertEvent, QuotaAlert, RefusalMinute
from gatewayd.control.tables.billed import Cycle, Invoice, InvoiceDay, LedgerEntry
from gatewayd.control.tables.configured import (
    Client,
    Key,
    KeyGeneration,
    KeyWas,
    Plan,
    PlanVersion,
    Price,
    QuotaGrant,
    Route,
    Service,
    Target,
    Tenant,
)
from gatewayd.control.tables.used import JournalLoss, Progress, Rollup, RollupDay, Segment, Tally

__all__ = [
    "Tenant",
    "Service",
    "Target",
    "Route",
    "Price",
    "Plan",
    "PlanVersion",
    "Key",
    "KeyWas",
    "KeyGeneration",
    "Client",
    "QuotaGrant",
    "Rollup",
    "RollupDay",
    "Tally",
    "Segment",
    "JournalLoss",
    "Progress",
    "Cycle",
    "LedgerEntry",
    "Invoice",
    "InvoiceDay",
    "QuotaAlert",
    "Alert",
    "AlertEvent",
    "RefusalMinute",
    "Audit",
    "Token",
    "ConfigRevision",
    "Acknowledgement",
]
