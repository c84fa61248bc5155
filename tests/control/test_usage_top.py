"""`usage top`: who made the most of what, over rows of hours and of days."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.control.tables import Cycle, Price, Progress, Rollup, RollupDay
from gatewayd.policy.pricing import Terms, Tier, encode_terms
from tests.control.conftest import Admin

HOUR, DAY = 3600, 86400
FIRST = 1_788_220_800  # 2026-09-01T00:00:00Z
RANGE = {"since": "2026-09-01T00:00:00Z", "until": "2026-09-04T00:00:00Z"}
TIERED = Terms(mode="graduated", tiers=(Tier(10, 2), Tier(None, 1)))


@pytest.fixture
def used(admin: Admin) -> Admin:
    """Three days: the first has rows of its day alone, the second both, the third hours alone."""
    for slug in ("orders", "products"):
        admin.post("/v1/services", slug=slug, targets=["http://127.0.0.1:8001"])
    for name in ("ci", "cd", "ce"):
        admin.post("/v1/keys", name=name)
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=1, period="2026-09", starts_at=FIRST, ends_at=FIRST + 30 * DAY))
        session.add(Price(terms=encode_terms(TIERED)))
        session.add(Progress(name="rolled_until", value=FIRST + 2 * DAY))
        session.add(RollupDay(day=FIRST, **columns(requests=100, billable=20, price_id=2, bytes_in=1)))
        session.add(Rollup(hour=FIRST + DAY + HOUR, **columns(requests=7, billable=5, errors=3, key_id=2)))
        session.add(RollupDay(day=FIRST + DAY, **columns(requests=7, billable=5, errors=3, key_id=2)))
        session.add(Rollup(hour=FIRST + 2 * DAY, **columns(requests=50, key_id=2, service_id=2, bytes_out=900)))
        session.add(Rollup(hour=FIRST + 2 * DAY, **columns(refused=9, key_id=0, status_class=4)))
        session.add(Rollup(hour=FIRST + 2 * DAY, **columns(requests=1, key_id=3, billable=1)))
    return admin


def columns(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("route_id", "client_id", "requests", "billable", "errors", "refused", "units", "bytes_in", "bytes_out"), 0
    )
    row |= {"tenant_id": 1, "cycle_id": 1, "service_id": 1, "key_id": 1, "price_id": 1, "status_class": 2}
    return row | {"latency": b""} | changes


def top(admin: Admin, by: str = "key", of: str = "requests", **query: Any) -> list[tuple[Any, ...]]:
    """Name (of a key the one it was given), value, share."""
    names = {item["prefix"]: item["name"] for item in admin.get("/v1/keys")["items"]}
    answer = admin.get("/v1/usage/top", **(RANGE | query), by=by, of=of)
    assert (answer["by"], answer["of"]) == (by, of)
    return [(names.get(item[by], item[by]), item[of], item["share"]) for item in answer["items"]]


def test_the_heaviest_come_first_with_their_share(used: Admin) -> None:
    assert top(used) == [("ci", 100, 0.6329), ("cd", 57, 0.3608), ("ce", 1, 0.0063)]
    assert top(used, by="service") == [("orders", 108, 0.6835), ("products", 50, 0.3165)]
    assert top(used, of="errors") == [("cd", 3, 1.0)]
    assert top(used, of="refused") == [("-", 9, 1.0)]
    assert top(used, of="bytes") == [("cd", 900, 0.9989), ("ci", 1, 0.0011)]
    assert top(used, by="status") == [("2xx", 158, 1.0)]
    assert top(used, by="tenant") == [("default", 158, 1.0)]
    assert top(used, by="route", of="refused") == [("-", 9, 1.0)]


def test_cost_is_of_the_terms(used: Admin) -> None:
    """20 of which 10 cost 2 and 10 cost 1 nano; 5 and 1 at the default price."""
    assert top(used, of="cost") == [("cd", "0.005", 0.8333), ("ce", "0.001", 0.1667), ("ci", "0.00000003", 0.0)]


def test_only_so_many_are_shown_and_the_others_counted(used: Admin) -> None:
    assert top(used, limit=1) == [("ci", 100, 0.6329)]
    assert top(used, limit=2, of="cost") == [("cd", "0.005", 0.8333), ("ce", "0.001", 0.1667)]
    answer = used.get("/v1/usage/top", **RANGE, limit=1)
    assert (len(answer["items"]), answer["count"]) == (1, 3)
    assert answer["total"] == {
        "requests": 158, "billable": 26, "errors": 3, "refused": 9, "units": 0, "bytes_in": 1, "bytes_out": 900,
        "bytes": 901, "cost": "0.00600003",
    }  # fmt: skip
    assert used.plane.told[-1] == "caught up"


def test_the_range_ends_where_it_ends(used: Admin) -> None:
    assert top(used, until="2026-09-02T00:00:00Z") == [("ci", 100, 1.0)]
    assert top(used, since="2026-09-02T01:00:00Z", until="2026-09-02T02:00:00Z") == [("cd", 7, 1.0)]
    assert top(used, since="2026-09-02T02:00:00Z", until="2026-09-03T00:00:00Z") == []
    assert top(used, since="2026-09-01T01:00:00Z", until="2026-09-04T00:00:00Z")[0] == ("cd", 57, 0.9828)
    assert top(used, until="2026-08-01T00:00:00Z", since="2026-07-01T00:00:00Z") == []


def test_another_tenant_sees_its_own(used: Admin) -> None:
    used.post("/v1/tenants", slug="acme")
    assert top(used, tenant="acme") == []
    assert top(used, by="tenant", tenant="acme") == []


def test_what_cannot_be_asked(admin: Admin) -> None:
    for query in ({"by": "colour"}, {"of": "money"}, {"limit": "0"}, {"since": "2026-09-02", "until": "2026-09-01"}):
        admin.refused("invalid", "GET", "/v1/usage/top", params=query)
    admin.refused("not_found", "GET", "/v1/usage/top", params={"tenant": "nobody"})
