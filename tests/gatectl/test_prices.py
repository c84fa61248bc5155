"""How a price reads in one line."""

from __future__ import annotations

from typing import Any

import pytest

from gatectl.price_text import price_text, terms_text
from tests.gatectl.billing_answers import PRICE

TIERS = [{"up_to": 10_000, "price": "0.001"}, {"up_to": 250_000, "price": "0.0007"}, {"up_to": None, "price": "0.0005"}]


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
    assert price_text(PRICE | price) == text


def test_a_plan_of_before_has_its_price_alone() -> None:
    assert price_text({"name": "old", "price": "0.001"}) == "0.001"


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ({}, "free; billable: 2xx, 3xx"),
        ({"price": "0.001", "billable": ["2xx"]}, "0.001 a request; billable: 2xx"),
        ({"price": "1", "billable": []}, "1 a request; billable: nothing"),
        (
            {"counts": "units", "included": 1000, "unit_price": "1", "base_fee": "20", "minimum": "30"},
            "base fee 20; at least 30; 1,000 units included; 1 a unit; billable: 2xx, 3xx",
        ),
        (
            {"package": {"size": 1000, "price": "5"}, "mib_price": "0.05"},
            "5 per 1,000 requests + 0.05 a MiB; billable: 2xx, 3xx",
        ),
        (
            {"tiers": TIERS[1:], "tier_mode": "volume"},
            "all at 0.0007 to 250,000, else 0.0005 a request; billable: 2xx, 3xx",
        ),
        (
            {"tiers": TIERS[1:], "tier_mode": "graduated", "counts": "units", "price": "2"},
            "2 a request + 0.0007 to 250,000, then 0.0005 a unit; billable: 2xx, 3xx",
        ),
    ],
)
def test_all_of_a_price_in_words(price: dict[str, Any], text: str) -> None:
    assert terms_text(PRICE | price) == text
