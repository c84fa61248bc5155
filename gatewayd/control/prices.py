"""Prices are immutable rows, which records name: one for each set of terms."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Connection, select
from sqlmodel import Session

from gatewayd.control.tables import Price
from gatewayd.policy.pricing import Terms, decode_terms, encode_terms

_price = Price.__table__  # type: ignore[attr-defined]
_decoded = lru_cache(10_000)(decode_terms)


def price_id_of(session: Session, terms: Terms) -> int:
    """The price with these terms, made when it is the first."""
    text = encode_terms(terms)
    found = session.connection().execute(select(_price.c.id).where(_price.c.terms == text)).scalar()
    if found is not None:
        return int(found)
    price = Price(terms=text)
    session.add(price)
    session.flush()
    assert price.id is not None
    return price.id


def terms_of(session: Session, price_id: int) -> Terms:
    price = session.get(Price, price_id)
    assert price is not None
    return _decoded(price.terms)


def all_terms(connection: Connection) -> dict[int, Terms]:
    """Every price there is: a few dozen, or one a key where keys have their own."""
    return {row.id: _decoded(row.terms) for row in connection.execute(select(_price.c.id, _price.c.terms))}
