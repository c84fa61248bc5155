"""The products of a small hardware shop."""

from __future__ import annotations

from starlette.types import ASGIApp

from tests.examples.collection import Item, RefusedError, collection_app

# name, price in cents, pieces in stock
_SHELF = [
    ("Claw hammer 450 g", 1890, 42),
    ("Rubber mallet", 1290, 17),
    ("Screwdriver set, 6 pieces", 2450, 33),
    ("Cordless drill 18 V", 11900, 9),
    ("Wood drill bits, 8 pieces", 1650, 51),
    ("Hand saw 500 mm", 2190, 14),
    ("Mitre box", 990, 12),
    ("Spirit level 600 mm", 1750, 23),
    ("Folding rule 2 m", 590, 120),
    ("Combination pliers", 1590, 38),
    ("Adjustable spanner 250 mm", 2090, 21),
    ("Hex key set, 9 pieces", 1190, 64),
    ("Wood glue 500 g", 790, 80),
    ("Screws 4 x 40, box of 200", 690, 210),
    ("Wall plugs 8 mm, box of 100", 450, 190),
    ("Sandpaper assortment", 520, 97),
    ("Work gloves, size 9", 640, 75),
    ("Safety goggles", 890, 44),
    ("Paint brush 50 mm", 480, 130),
    ("Paint roller with tray", 1150, 26),
    ("Masking tape 50 m", 390, 160),
    ("Extension lead 10 m", 1990, 31),
    ("Tool box, steel", 3490, 8),
    ("Step ladder, 4 rungs", 5900, 5),
]

PRODUCTS: list[Item] = [
    {"id": number, "sku": f"P-{number:04}", "name": name, "price_cents": cents, "stock": stock}
    for number, (name, cents, stock) in enumerate(_SHELF, 1)
]


def make(number: int, sent: Item) -> Item:
    """A product from `{"name", "price_cents", "stock"?}`."""
    name, cents, stock = sent.get("name"), sent.get("price_cents"), sent.get("stock", 0)
    if not isinstance(name, str) or not name.strip():
        raise RefusedError("a product needs a name")
    if not isinstance(cents, int) or not isinstance(stock, int) or cents <= 0 or stock < 0:
        raise RefusedError("price_cents must be a whole number above 0, and stock one of at least 0")
    return {"id": number, "sku": f"P-{number:04}", "name": name.strip(), "price_cents": cents, "stock": stock}


def app() -> ASGIApp:
    return collection_app(PRODUCTS, make)
