"""The worker's side of a lease: what it says of its limits, and what it makes of news."""

from __future__ import annotations

import pytest

from gatewayd.channel import KeyFound, LeaseGranted, LeaseId, Left, LimitConf
from gatewayd.conf import KeyConf, RateConf
from gatewayd.errors import QUOTA_EXCEEDED, RATE_LIMITED, TOO_MANY_IN_FLIGHT, Refusal
from gatewayd.policy.spending import ADMITTED, KeyEntry, Lease, Slots
from gatewayd.proxy.keybook import KeyBook

KEY = LeaseId(1)
MINUTE = LimitConf("minute", 60, 60)
HOUR = LimitConf("hour", 60, 3600)
MONTH = LimitConf("month", 100, 0)


def lease_with(
    *left: int,
    limits: tuple[LimitConf, ...] = (MINUTE,),
    granted: int = 0,
    surplus: int = 0,
    blocked: int | None = None,
) -> Lease:
    """A lease that has heard this at 100 s; each limit has one more in 2 s."""
    lease = Lease(KEY)
    news = tuple(Left(remaining, 2.0) for remaining in left)
    lease.granted(LeaseGranted(KEY, granted, surplus, news, blocked, 5, limits), 100.0)
    return lease


def refused(verdict: object) -> Refusal:
    assert isinstance(verdict, Refusal)
    return verdict


def conf(name: str, window_s: int) -> KeyConf:
    return KeyConf(
        id=1, public_id="ab12cd34", digest=b"", tenant_id=1, services=None, revoked=False, expires_at=None,
        rates=(RateConf(name, 60, window_s, 60),), quota=None, price_id=1,
    )  # fmt: skip


def test_all_limits_are_told_by_names_of_their_own_and_the_tightest_to_older_clients() -> None:
    limits = (LimitConf("minute", 60, 60, "client"), LimitConf("minute", 500, 60, "route"), MONTH)
    lease = lease_with(41, 7, 90, limits=limits, granted=1, surplus=1)
    assert lease.header_fields(100.5) == (
        b'RateLimit-Policy: "client-minute";q=60;w=60, "route-minute";q=500;w=60, "month";q=100\r\n'
        b'RateLimit: "client-minute";r=42;t=2, "route-minute";r=8;t=2, "month";r=91;t=2\r\n'
        b"X-RateLimit-Limit: 500\r\nX-RateLimit-Remaining: 8\r\nX-RateLimit-Reset: 2\r\n"
    )
    assert lease.left() == 8


def test_nothing_is_told_before_anything_is_known() -> None:
    lease = Lease(KEY)
    assert (lease.header_fields(1.0), lease.left()) == (b"", None)
    lease.granted(LeaseGranted(KEY, 1, 0, (), None, 0, ()), 1.0)  # its limits were lifted
    assert (lease.take(1.0), lease.header_fields(1.0), lease.left()) == (ADMITTED, b"", None)


@pytest.mark.parametrize("left", [(Left(3, 1.0), Left(4, 1.0)), (), (Left(3, 1.0),)])
def test_news_of_other_limits_than_it_knows_misleads_nobody(left: tuple[Left, ...]) -> None:
    """As when a plan gained a window while an ask was on its way. Tokens are tokens all the same."""
    lease = lease_with(9)
    lease.granted(LeaseGranted(KEY, 2, 1, left, None, 6, None), 101.0)
    assert [lease.take(101.0), lease.take(101.0), lease.take(101.0)] == [ADMITTED, ADMITTED, None]
    assert b'RateLimit: "minute";r=9;t=1' in lease.header_fields(101.0)
    assert lease.terms == 5  # so that the next grant says which they are


def test_a_plan_with_another_window_is_told_though_its_key_is_in_use() -> None:
    lease = lease_with(9, blocked=None)
    lease.granted(LeaseGranted(KEY, 0, 0, (Left(7, 1.0), Left(8, 1.0)), None, 6, (HOUR, MONTH)), 101.0)
    assert lease.header_fields(101.0).startswith(b'RateLimit-Policy: "hour";q=60;w=3600, "month";q=100\r\n')


def test_a_limit_that_has_too_few_refuses_until_it_has_more() -> None:
    lease = lease_with(0, blocked=0)
    refusal = refused(lease.take(100.1))
    assert (refusal.problem, refusal.headers) == (RATE_LIMITED, ((b"Retry-After", b"2"),))
    assert lease.take(101.01) is None  # others may have given tokens back meanwhile
    month = refused(lease_with(5, 0, limits=(MINUTE, MONTH), blocked=1).take(100.0))
    assert (month.problem, month.detail) == (QUOTA_EXCEEDED, "100 requests per month are used up; more in 2 s")
    route = lease_with(0, limits=(LimitConf("minute", 60, 60, "route"),), blocked=0)
    assert refused(route.take(100.0)).detail == "60 requests per minute of this route are used up; more in 2 s"


def test_who_needs_more_units_is_refused_sooner_and_waits_longer() -> None:
    lease = lease_with(3, blocked=0)
    assert lease.take_units(100.0, 3) is None
    assert lease.take(100.0) is None
    refusal = refused(lease.take_units(100.0, 6))
    assert refusal.headers == ((b"Retry-After", b"4"),)  # the next in 2 s, then one a second
    assert "counts as 6" in refusal.detail


def test_units_come_from_what_was_granted_and_from_the_surplus() -> None:
    lease = lease_with(9, granted=5, surplus=3)
    assert lease.take_units(100.0, 4) is ADMITTED
    assert (lease.waiting_tokens, lease.surplus, lease.spent) == (0, 1, 2)
    assert lease.take_units(100.0, 2) is None


def test_a_plain_key_has_its_lease_at_hand_and_others_do_not() -> None:
    assert KeyEntry(conf("minute", 60)).lease is not None
    for other in ({"in_flight_limit": 3}, {"shadow": True}, {"has_clients": True}):
        fields = {name: getattr(conf("minute", 60), name) for name in KeyConf.__struct_fields__} | other
        entry = KeyEntry(KeyConf(**fields))
        assert (entry.lease, entry.more is None) == (None, False)


def test_a_plan_that_becomes_plain_goes_on_with_its_lease() -> None:
    book = KeyBook(lambda message: None, 16)
    book.found(KeyFound("ab12cd34", conf("minute", 60)), 100.0)
    entry = book.entries["ab12cd34"]
    lease = entry.lease
    entry.in_flight = 1
    book.forget(None)
    book.found(KeyFound("ab12cd34", conf("hour", 3600)), 100.0)
    assert book.entries["ab12cd34"] is entry
    assert entry.lease is lease


def test_a_slot_is_taken_once_and_denied_to_those_that_asked_for_it() -> None:
    slots, first, second = Slots(), object(), object()
    assert slots.take(first, 1.0) is None
    slots.free = 1
    assert [slots.take(first, 1.0), slots.take(first, 1.0)] == [ADMITTED, ADMITTED]
    slots.denied_at = 2.0
    assert refused(slots.take(second, 1.5)).problem is TOO_MANY_IN_FLIGHT
    assert slots.take(second, 2.5) is None  # one that came later asks anew
