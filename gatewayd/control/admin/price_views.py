"""What the admin API shows of prices. `policy.invoicing.show_terms` makes it: the text of invoices is what it is."""

from __future__ import annotations

import msgspec

from gatewayd.control.admin.plan_prices import TierMode
from gatewayd.policy.pricing import Counted, Outcome


class TierView(msgspec.Struct):
    """`price` of each up to `up_to`; null: all the rest."""

    up_to: int | None
    price: str


class PackageView(msgspec.Struct):
    """`price` of each begun package of `size`."""

    size: int
    price: str


class PriceView(msgspec.Struct, kw_only=True):
    """Amounts are decimal strings of the tenant's currency."""

    price: str
    unit_price: str
    mib_price: str
    base_fee: str
    minimum: str
    included: int
    tiers: list[TierView]
    tier_mode: TierMode | None
    package: PackageView | None
    counts: Counted
    billable: list[Outcome]
