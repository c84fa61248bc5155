"""The price of a plan as the admin API has it: fields of a body made into `Terms`, and back.

One thing may be priced in one way. Where two fields say what the same thing costs, neither wins quietly: the body is
refused with the field that is too many. The exception is the way up from a plain price: tiers or a package that are
given take its place, since every plan has one from the start.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gatewayd.control.admin.inputs import checked
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.spelling import CountText, Price
from gatewayd.policy.amounts import parse_count
from gatewayd.policy.money import parse_price
from gatewayd.policy.pricing import DEFAULT_PRICE_NANOS, OUTCOMES, Counted, Mode, Outcome, Terms, Tier

TierMode = Literal["graduated", "volume"]
_MONEY = {
    "price": "request_nanos",
    "unit_price": "unit_nanos",
    "mib_price": "mib_nanos",
    "base_fee": "base_nanos",
    "minimum": "minimum_nanos",
}
_ONE = {"requests": "request", "units": "unit"}


class AskedTier(msgspec.Struct, forbid_unknown_fields=True):
    """`price` of each up to `up_to`, null for all the rest."""

    up_to: int | CountText | None
    price: Price


class AskedPackage(msgspec.Struct, forbid_unknown_fields=True):
    """`price` of each begun package of `size`."""

    size: int | CountText
    price: Price


class AskedPrice(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What of a price is another. Null takes away."""

    price: Price | UnsetType = UNSET
    unit_price: Price | UnsetType = UNSET
    mib_price: Price | UnsetType = UNSET
    base_fee: Price | UnsetType = UNSET
    minimum: Price | UnsetType = UNSET
    included: int | CountText | UnsetType | None = UNSET
    tiers: Annotated[tuple[AskedTier, ...], msgspec.Meta(max_length=50)] | UnsetType | None = UNSET
    tier_mode: TierMode | UnsetType | None = UNSET
    package: AskedPackage | UnsetType | None = UNSET
    counts: Counted | UnsetType = UNSET
    billable: Annotated[tuple[Outcome, ...], msgspec.Meta(min_length=1)] | UnsetType = UNSET

    @property
    def prices_usage(self) -> bool:
        """It says what something costs that is used, so that there is no need of a default."""
        named = (self.price, self.unit_price, self.mib_price)
        return bool(self.tiers or self.package) or any(isinstance(text, str) for text in named)


class _Shown(AskedPrice, forbid_unknown_fields=False, kw_only=True):
    """The fields of a `PlanView` that tell of its price."""


def terms_shown(view: str) -> Terms:
    """The price of a `PlanView` in JSON, as versions of plans are kept. Older ones have fewer fields."""
    return changed_terms(Terms(), msgspec.json.decode(view, type=_Shown))


def new_terms(asked: AskedPrice) -> Terms:
    """Of a new plan: a request costs the default where nothing says what usage costs."""
    return changed_terms(Terms(request_nanos=0 if asked.prices_usage else DEFAULT_PRICE_NANOS), asked)


def changed_terms(before: Terms, asked: AskedPrice) -> Terms:
    """What `before` becomes; refused with a sentence where it contradicts itself."""
    written = {field: text for field in _MONEY if isinstance(text := getattr(asked, field), str)}
    given = {_MONEY[field]: checked(field, parse_price, text) for field, text in written.items()}
    counts = before.counts if asked.counts is UNSET else asked.counts
    tiers = before.tiers if asked.tiers is UNSET else _tiers(asked.tiers or ())
    size, package_nanos = _package(before, asked)
    if tiers and size:
        field = "tiers" if asked.tiers is not UNSET else "package"
        raise invalid(field, f"{counts} have tiers or a package, not both; take the other away")
    terms = msgspec.structs.replace(
        before,
        **given,
        counts=counts,
        included=before.included if asked.included is UNSET else checked("included", _included, asked.included),
        mode=_mode(before, asked, tiers, size),
        tiers=tiers,
        package_size=size,
        package_nanos=package_nanos,
        billable=before.billable if asked.billable is UNSET else tuple(o for o in OUTCOMES if o in asked.billable),
    )
    return _consistent(before, asked, terms)


def _consistent(before: Terms, asked: AskedPrice, terms: Terms) -> Terms:
    one, field = _ONE[terms.counts], "price" if terms.counts == "requests" else "unit_price"
    if terms.mode != "flat" and terms.each_nanos:
        if getattr(asked, field) is not UNSET or not (asked.tiers or asked.package):
            what = "a package" if terms.mode == "package" else "tiers"
            raise invalid(field, f"{field} says what each {one} costs, and {what} do too; take one of them away")
        terms = msgspec.structs.replace(terms, **{_MONEY[field]: 0})
    unsaid = before.mode != "flat" and terms.mode == "flat" and not terms.each_nanos and getattr(asked, field) is UNSET
    others = terms.request_nanos or terms.unit_nanos or terms.mib_nanos
    if unsaid and (terms.included or not others):
        raise invalid(field, f"a {one} would cost nothing from now on; give its price too, 0 if that is meant")
    if terms.included and terms.mode == "flat" and not terms.each_nanos:
        raise invalid(
            "included",
            f"{terms.included} {terms.counts} are included, but a {one} costs nothing beyond them either; "
            "give its price, tiers or a package, or let counts be the other of requests and units",
        )
    return terms


def _mode(before: Terms, asked: AskedPrice, tiers: tuple[Tier, ...], size: int) -> Mode:
    chosen = None if asked.tier_mode is UNSET else asked.tier_mode
    if tiers:
        return chosen or ("volume" if before.mode == "volume" else "graduated")
    if chosen is not None:
        raise invalid("tier_mode", "tier_mode belongs to tiers, and there are none")
    return "package" if size else "flat"


def _package(before: Terms, asked: AskedPrice) -> tuple[int, int]:
    if asked.package is UNSET:
        return before.package_size, before.package_nanos
    if asked.package is None:
        return 0, 0
    size = checked("package", lambda text: parse_count(str(text)), asked.package.size)
    return size, checked("package", parse_price, asked.package.price)


def _tiers(asked: tuple[AskedTier, ...]) -> tuple[Tier, ...]:
    tiers: list[Tier] = []
    for number, each in enumerate(asked, start=1):
        up_to = None if each.up_to is None else checked("tiers", lambda text: parse_count(str(text)), each.up_to)
        if (up_to is None) != (number == len(asked)):
            raise invalid("tiers", f"tier {number} must {_must(up_to)}: the last one, and it alone, has all the rest")
        if up_to is not None and tiers and up_to <= (tiers[-1].up_to or 0):
            raise invalid("tiers", f"tier {number} ends at {up_to}, and the one before it at {tiers[-1].up_to}")
        tiers.append(Tier(up_to, checked("tiers", parse_price, each.price)))
    return tuple(tiers)


def _must(up_to: int | None) -> str:
    return "have a bound" if up_to is None else "be open"


def _included(asked: int | str | None) -> int:
    return 0 if asked in (None, 0, "0") else parse_count(str(asked))
