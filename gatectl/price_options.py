"""Options of a price: how they are typed, and what the admin API calls what they mean."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from gatectl.grammar import argument, refuse_both

Price = Annotated[
    str | None,
    typer.Option("--price", metavar="AMOUNT", help="Of a request.  [default: 0.001, or 0 beside other prices]"),
]
UnitPrice = Annotated[
    str | None, typer.Option("--unit-price", metavar="AMOUNT", help="Of a unit: routes weigh their requests.")
]
NoUnitPrice = Annotated[bool, typer.Option("--no-unit-price", help="Units cost nothing.")]
MibPrice = Annotated[str | None, typer.Option("--mib-price", metavar="AMOUNT", help="Of a MiB of bodies, both ways.")]
NoMibPrice = Annotated[bool, typer.Option("--no-mib-price", help="Bytes cost nothing.")]
BaseFee = Annotated[str | None, typer.Option("--base-fee", metavar="AMOUNT", help="Of each key, in each cycle.")]
NoBaseFee = Annotated[bool, typer.Option("--no-base-fee", help="Without one.")]
Minimum = Annotated[
    str | None, typer.Option("--minimum", metavar="AMOUNT", help="What a key pays at least for a cycle.")
]
NoMinimum = Annotated[bool, typer.Option("--no-minimum", help="Without one.")]
Included = Annotated[
    str | None, typer.Option("--included", metavar="N", help="So many of a key in a cycle cost nothing: 10k.")
]
NoIncluded = Annotated[bool, typer.Option("--no-included", help="The first one costs.")]
Tier = Annotated[
    list[str] | None,
    typer.Option("--tier", metavar="N=AMOUNT", help="Price of each up to N, in order; the last is rest=AMOUNT."),
]
NoTier = Annotated[bool, typer.Option("--no-tier", help="Without tiers; give --price with it.")]
TierMode = Annotated[
    Literal["graduated", "volume"] | None,
    typer.Option("--tiers", help="Each by its own tier, or all by that of the whole.  [default: graduated]"),
]
Package = Annotated[
    str | None, typer.Option("--package", metavar="N=AMOUNT", help="Price of each begun package of N: 1000=5.00.")
]
NoPackage = Annotated[bool, typer.Option("--no-package", help="Without packages; give --price with it.")]
Count = Annotated[
    Literal["requests", "units"] | None,
    typer.Option("--count", help="What --included, --tier and --package count.  [default: requests]"),
]
Billable = Annotated[
    str | None,
    typer.Option("--billable", metavar="A,B", help="What costs: 2xx, 3xx, 4xx, 5xx, client-left.  [default: 2xx,3xx]"),
]

# By the field of the admin API: the option that it is typed behind.
OPTIONS = {
    "price": "--price",
    "unit_price": "--unit-price",
    "mib_price": "--mib-price",
    "base_fee": "--base-fee",
    "minimum": "--minimum",
    "included": "--included",
    "tiers": "--tier",
    "tier_mode": "--tiers",
    "package": "--package",
    "counts": "--count",
    "billable": "--billable",
}
_PLAIN = {"price", "unit_price", "mib_price", "base_fee", "minimum", "included"}
# By the parameter that takes away: the field, what it is without, and the parameter that it contradicts.
_CLEARED: Mapping[str, tuple[str, Any, str]] = {
    "no_unit_price": ("unit_price", "0", "unit_price"),
    "no_mib_price": ("mib_price", "0", "mib_price"),
    "no_base_fee": ("base_fee", "0", "base_fee"),
    "no_minimum": ("minimum", "0", "minimum"),
    "no_included": ("included", 0, "included"),
    "no_tier": ("tiers", [], "tier"),
    "no_package": ("package", None, "package"),
}


def price_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's parameters those about the price, as the admin API has them."""
    for name, (_, _, opposite) in _CLEARED.items():
        refuse_both((_option(opposite), given.get(opposite), _option(name), given.get(name, False)))
    fields = {name: value for name, value in given.items() if name in _PLAIN and value is not None}
    if given.get("tier"):
        with argument("--tier"):
            fields["tiers"] = [_tier(text) for text in given["tier"]]
    if given.get("tiers"):
        fields["tier_mode"] = given["tiers"]
    if given.get("package") is not None:
        with argument("--package"):
            size, price = _pair(given["package"], "1000=5.00")
        fields["package"] = {"size": size, "price": price}
    if given.get("count"):
        fields["counts"] = given["count"]
    if given.get("billable") is not None:
        fields["billable"] = [name.strip() for name in given["billable"].split(",")]
    return fields | {field: nothing for name, (field, nothing, _) in _CLEARED.items() if given.get(name)}


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _tier(text: str) -> dict[str, str | None]:
    bound, price = _pair(text, "10k=0.001 or rest=0.0005")
    return {"up_to": None if bound == "rest" else bound, "price": price}


def _pair(text: str, example: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise ValueError(f"{text!r} says not how much of what; write one such as {example}")
    return left.strip(), right.strip()
