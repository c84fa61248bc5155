"""Money: decimal text and integer nanos, exact both ways."""

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.policy.money import NANOS, format_nanos, parse_amount, parse_price

prices = st.integers(min_value=0, max_value=1_000_000 * NANOS)


@given(prices)
def test_a_price_survives_being_written_and_read(nanos: int) -> None:
    assert parse_price(format_nanos(nanos)) == nanos


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_text_is_the_exact_decimal_without_exponent_or_trailing_zeros(nanos: int) -> None:
    text = format_nanos(nanos)
    assert int(Decimal(text).scaleb(9, Context(prec=50))) == nanos
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0.001", 1_000_000), ("0", 0), ("12", 12 * NANOS), ("0.100000000000", NANOS // 10), (" 1.5 ", 3 * NANOS // 2)],
)
def test_prices_as_people_write_them(text: str, nanos: int) -> None:
    assert parse_price(text) == nanos


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-1", "negative"),
        ("0.0000000001", "more than 9 decimals"),
        ("free", "not a price"),
        ("1e3", "not a price"),
        ("1,5", "not a price"),
        (".5", "not a price"),
        ("", "not a price"),
        ("nan", "not a price"),
        ("٣", "not a price"),
        ("1000000.000000001", "more than 1000000"),
        ("9" * 100_000, "more than 1000000"),
    ],
)
def test_what_is_no_price_is_said_to_be_none(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_price(text)
    assert len(str(caught.value)) < 120


@given(st.integers(-(10**16) + 1, 10**16 - 1))
def test_amounts_of_either_sign_survive_their_text(nanos: int) -> None:
    assert parse_amount(format_nanos(nanos)) == nanos


@pytest.mark.parametrize("text", ["", "-", "--1", "+1", "1.", "1e3", "0.0000000001", "12345678", "-12345678"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        parse_amount(text)
