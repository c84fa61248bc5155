"""The arithmetic of charges, by its properties."""

from __future__ import annotations

from gatewayd.policy.pricing import (
    Charge,
    Subscription,
    Terms,
    Tier,
    Usage,
    charges,
    decode_terms,
    encode_terms,
    is_billable,
)
from gatewayd.records import UPSTREAM_BROKE

DAY = 86400


def test_terms_are_one_text() -> None:
    terms = Terms(mode="graduated", tiers=(Tier(1000, 5), Tier(None, 3)), included=10, base_nanos=7)
    text = '{"base_nanos":7,"included":10,"mode":"graduated","tiers":[[1000,5],[null,3]]}'
    assert encode_terms(terms) == text
    assert decode_terms(text) == terms
    assert encode_terms(Terms()) == "{}"


def test_a_key_climbs_its_tiers_once_over_services_and_prices() -> None:
    old = Terms(request_nanos=10, included=100)
    new = Terms(mode="graduated", tiers=(Tier(150, 5), Tier(None, 3)), included=100, base_nanos=1000)
    usage = [
        Usage(1, 7, 2, DAY, 60, 60, 0),
        Usage(1, 7, 1, 0, 120, 120, 0),
        Usage(1, 8, 2, 2 * DAY, 200, 200, 0),
    ]
    assert charges(usage, [Subscription(1, 2)], {1: old, 2: new}) == [
        Charge(7, 1, 1, "included", 0, 100, 0, 0),
        Charge(7, 1, 1, "request", 0, 20, 10, 200),
        Charge(7, 1, 2, "tier", 1, 60, 5, 300),
        Charge(8, 1, 2, "tier", 1, 70, 5, 350),
        Charge(8, 1, 2, "tier", 2, 130, 3, 390),
        Charge(0, 1, 2, "base", 0, 1, 1000, 1000),
    ]


def test_what_costs() -> None:
    terms = Terms()
    assert is_billable(terms, 200, 0, 0)
    assert is_billable(terms, 101, 0, 0)
    assert not is_billable(terms, 199, 0, 0)
    assert not is_billable(terms, 404, 0, 0)
    assert not is_billable(terms, 200, UPSTREAM_BROKE, 0)
    assert is_billable(Terms(billable=("5xx",)), 503, 0, 0)
    assert not is_billable(Terms(billable=("5xx",)), 503, 0, 7)
