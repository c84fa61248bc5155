"""Prices in words. Pure: a plan's and an invoice's are said by the same functions, of the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def price_text(price: Mapping[str, Any]) -> str:
    """What usage costs, for a column of that name; what a cycle costs beside it has columns of its own.

    `0.001`, `5 per 1,000`, `0.001 to 10,000, then 0.0005`; by the unit and the MiB: `0.01 a unit + 0.05 a MiB`.
    """
    return _usage_text(price, spelt=False) or "0"


def terms_text(price: Mapping[str, Any]) -> str:
    """All of a price, for a line of its own: what is owed anyway, what is free, what each costs; which answers do."""
    said = [f"{label} {price[name]}" for name, label in _FEES.items() if price[name] != "0"]
    if price["included"]:
        said.append(f"{price['included']:,} {price['counts']} included")
    if usage := _usage_text(price, spelt=True):
        said.append(usage)
    return f"{'; '.join(said) or 'free'}; billable: {', '.join(price['billable']) or 'nothing'}"


_FEES: Mapping[str, str] = {"base_fee": "base fee", "minimum": "at least"}


def _usage_text(price: Mapping[str, Any], *, spelt: bool) -> str:
    """`spelt`: also of requests it is said that they are meant."""
    counts_units = price.get("counts") == "units"
    counted = _counted(price, counts_units=counts_units, spelt=spelt)
    parts = [
        counted if counted and not counts_units else _each(price.get("price"), " a request" if spelt else ""),
        counted if counted and counts_units else _each(price.get("unit_price"), " a unit"),
        _each(price.get("mib_price"), " a MiB"),
    ]
    return " + ".join(part for part in parts if part)


def _counted(price: Mapping[str, Any], *, counts_units: bool, spelt: bool) -> str:
    """Tiers or package, if it has them."""
    one, many = (" a unit", " units") if counts_units else (" a request", " requests") if spelt else ("", "")
    if package := price.get("package"):
        return f"{package['price']} per {package['size']:,}{many}"
    *bounded, rest = price.get("tiers") or [{}]
    if not rest:
        return ""
    steps = [f"{tier['price']} to {tier['up_to']:,}" for tier in bounded]
    is_volume = price.get("tier_mode") == "volume"
    if steps and is_volume:
        steps[0] = f"all at {steps[0]}"
    last = "" if not steps else "else " if is_volume else "then "
    return ", ".join([*steps, f"{last}{rest['price']}"]) + one


def _each(price: Any, of: str) -> str:
    return "" if price in (None, "0") else f"{price}{of}"
