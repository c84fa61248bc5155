"""The orders of the same shop: two hundred of them, always the same ones."""

from __future__ import annotations

import datetime as dt
import random

from starlette.types import ASGIApp

from tests.examples.collection import Item, RefusedError, collection_app
from tests.examples.products import PRODUCTS

_CUSTOMERS = [
    "Ada Quint",
    "Bram de Wit",
    "Chiara Lodi",
    "Dara Osei",
    "Emil Novak",
    "Femi Ade",
    "Greta Holm",
    "Hugo Paz",
]
_STATUSES = ["paid", "packed", "shipped", "delivered", "returned"]
_FIRST_DAY = dt.datetime(2026, 1, 5, 8, 0, tzinfo=dt.UTC)
_BY_SKU = {product["sku"]: product for product in PRODUCTS}
_MOST_OF_ONE = 100


def _order(number: int, customer: str, status: str, at: dt.datetime, amounts: dict[str, int]) -> Item:
    lines = [{"sku": sku, "quantity": n, "price_cents": _BY_SKU[sku]["price_cents"]} for sku, n in amounts.items()]
    total = sum(line["quantity"] * line["price_cents"] for line in lines)
    placed_at = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": number,
        "customer": customer,
        "status": status,
        "placed_at": placed_at,
        "lines": lines,
        "total_cents": total,
    }


def _past_orders(amount: int = 200) -> list[Item]:
    dice = random.Random(2026)  # the same two hundred in every process
    return [
        _order(
            number,
            dice.choice(_CUSTOMERS),
            dice.choice(_STATUSES),
            _FIRST_DAY + dt.timedelta(minutes=97 * number),
            {sku: dice.randint(1, 4) for sku in dice.sample(sorted(_BY_SKU), dice.randint(1, 4))},
        )
        for number in range(1, amount + 1)
    ]


def make(number: int, sent: Item) -> Item:
    """An order from `{"customer", "lines": [{"sku", "quantity"}]}`."""
    customer, lines = sent.get("customer"), sent.get("lines")
    if not isinstance(customer, str) or not customer.strip():
        raise RefusedError("an order needs a customer")
    if not isinstance(lines, list) or not lines:
        raise RefusedError("an order needs at least one line")
    amounts: dict[str, int] = {}
    for line in lines:
        sku, quantity = line["sku"], line["quantity"]
        if sku not in _BY_SKU:
            raise RefusedError(f"there is no product {sku}")
        if not isinstance(quantity, int) or not 1 <= quantity <= _MOST_OF_ONE:
            raise RefusedError(f"quantity must be a whole number from 1 to {_MOST_OF_ONE}")
        amounts[sku] = amounts.get(sku, 0) + quantity
    return _order(number, customer.strip(), "paid", dt.datetime.now(dt.UTC), amounts)


def app() -> ASGIApp:
    return collection_app(_past_orders(), make)
