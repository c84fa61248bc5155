"""A price in words: what usage costs, in one line. What a cycle costs beside it has fields of its own."""

from collections.abc import Mapping
from typing import Any


def price_text(plan: Mapping[str, Any]) -> str:
    """`0.001`, `5 per 1,000`, `0.001 to 10,000, then 0.0005`; by the unit and the MiB: `0.01 a unit + 0.05 a MiB`."""
    counts_units = plan.get("counts") == "units"
    counted = _counted(plan, counts_units=counts_units)
    parts = [
        counted if counted and not counts_units else _each(plan.get("price"), ""),
        counted if counted and counts_units else _each(plan.get("unit_price"), " a unit"),
        _each(plan.get("mib_price"), " a MiB"),
    ]
    return " + ".join(part for part in parts if part) or "0"


def _counted(plan: Mapping[str, Any], *, counts_units: bool) -> str:
    """Tiers or package, if it has them."""
    if package := plan.get("package"):
        return f"{package['price']} per {package['size']:,}{' units' if counts_units else ''}"
    *bounded, rest = plan.get("tiers") or [{}]
    if not rest:
        return ""
    steps = [f"{tier['price']} to {tier['up_to']:,}" for tier in bounded]
    if steps and plan.get("tier_mode") == "volume":
        steps[0] = f"all at {steps[0]}"
    last = "" if not steps else "else " if plan.get("tier_mode") == "volume" else "then "
    return ", ".join([*steps, f"{last}{rest['price']}"]) + (" a unit" if counts_units else "")


def _each(price: Any, of: str) -> str:
    return "" if price in (None, "0") else f"{price}{of}"
