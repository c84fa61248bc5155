"""How a price reads in one line."""

from __future__ import annotations

from typing import Any

import pytest

from gatectl.price_text import price_text

TIERS = [{"up_to": 10_000, "price": "0.001"}, {"up_to": 250_000, "price": "0.0007"}, {"up_to": None, "price": "0.0005"}]
NOTHING: dict[str, Any] = {
    "price": "0", "unit_price": "0", "mib_price": "0", "tiers": [], "tier_mode": None, "package": None,
    "counts": "requests",
}  # fmt: skip


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ({}, "0"),
        ({"price": "0.001"}, "0.001"),
        ({"price": "0.001", "counts": "units"}, "0.001"),
        ({"unit_price": "0.01"}, "0.01 a unit"),
        ({"price": "1", "unit_price": "0.01", "mib_price": "0.05"}, "1 + 0.01 a unit + 0.05 a MiB"),
        ({"package": {"size": 1000, "price": "5"}}, "5 per 1,000"),
        ({"package": {"size": 1000, "price": "5"}, "counts": "units", "price": "1"}, "1 + 5 per 1,000 units"),
        ({"tiers": TIERS[2:], "tier_mode": "graduated"}, "0.0005"),
        ({"tiers": TIERS, "tier_mode": "graduated"}, "0.001 to 10,000, 0.0007 to 250,000, then 0.0005"),
        ({"tiers": TIERS, "tier_mode": "volume"}, "all at 0.001 to 10,000, 0.0007 to 250,000, else 0.0005"),
        (
            {"tiers": TIERS[1:], "tier_mode": "graduated", "counts": "units", "mib_price": "2"},
            "0.0007 to 250,000, then 0.0005 a unit + 2 a MiB",
        ),
    ],
)
def test_a_price_in_words(price: dict[str, Any], text: str) -> None:
    assert price_text(NOTHING | price) == text


def test_a_plan_of_before_has_its_price_alone() -> None:
    assert price_text({"name": "old", "price": "0.001"}) == "0.001"
