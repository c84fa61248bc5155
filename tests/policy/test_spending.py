"""The worker's side of a lease: what it says of its limits."""

from __future__ import annotations

from gatewayd.channel import KeyConf, KeyFound, LeaseGranted, Left, RateConf
from gatewayd.policy.spending import KeyLease
from gatewayd.proxy.keybook import KeyBook


def conf(name: str, window_s: int) -> KeyConf:
    return KeyConf(
        id=1, public_id="ab12cd34", digest=b"", tenant_id=1, services=None, revoked=False, expires_at=None,
        rates=(RateConf(name, 60, window_s, 60),), quota=None, price_id=1,
    )  # fmt: skip


def fields(lease: KeyLease | None) -> bytes:
    assert lease is not None
    lease.granted(LeaseGranted(1, 1, 1, (Left(59, 1.0),), None), 100.0)
    return lease.header_fields(100.0)


def test_a_plan_with_another_window_is_told_though_its_key_is_in_use() -> None:
    book = KeyBook(lambda message: None, 16)
    book.found(KeyFound("ab12cd34", conf("minute", 60)), 100.0)
    entry = book.entries["ab12cd34"]
    assert entry is not None
    assert b'"minute";q=60;w=60' in fields(entry.lease)
    entry.in_flight = 1
    book.forget(None)
    book.found(KeyFound("ab12cd34", conf("hour", 3600)), 100.0)
    assert book.entries["ab12cd34"] is entry
    assert b'"hour";q=60;w=3600' in fields(entry.lease)
