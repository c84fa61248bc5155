"""Prices are immutable rows, which records name: one for each amount."""

from __future__ import annotations

from sqlmodel import Session, select

from gatewayd.control.tables import Price


def price_id_of(session: Session, nanos: int) -> int:
    """The price of this amount, made when it is the first."""
    price = session.exec(select(Price).where(Price.request_nanos == nanos)).first()
    if price is None:
        price = Price(request_nanos=nanos)
        session.add(price)
        session.flush()
    assert price.id is not None
    return price.id
