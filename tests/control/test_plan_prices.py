"""What plans may say of their price over the admin API, and what comes of it in records."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from gatewayd.control.charging import usage_of
from gatewayd.control.compile import find_key
from gatewayd.control.cycles import cycle_by_id
from gatewayd.control.prices import all_terms, price_id_of
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import PlanVersion, Price
from gatewayd.policy.amounts import parse_time
from gatewayd.policy.money import NANOS, format_nanos
from gatewayd.policy.pricing import Charge, Subscription, Terms, Tier, charges, costs_by_key, decode_terms, total_nanos
from gatewayd.records import ADMITTED, CLIENT_LEFT, MORE_BYTES, UPSTREAM_BROKE, Record
from tests.control.conftest import Admin
from tests.policy.naive_bill import Call, bill

NOON = parse_time("2026-09-20T12:00:00Z")
TIERS = [{"up_to": 10_000, "price": "0.001"}, {"up_to": None, "price": "0.0005"}]
PRICED: dict[str, Any] = {
    "price": "0",
    "unit_price": "0.002",
    "mib_price": "0.05",
    "base_fee": "20",
    "minimum": "30",
    "included": 10_000,
    "tiers": TIERS,
    "tier_mode": "volume",
    "package": None,
    "counts": "requests",
    "billable": ["2xx", "4xx"],
}


def part(plan: dict[str, Any], like: dict[str, Any] = PRICED) -> dict[str, Any]:
    return {name: plan[name] for name in like}


def terms_of(admin: Admin, key: str) -> Terms:
    """What a new record of the key would be priced by."""
    conf = find_key(admin.control.database.lookup, admin.get(f"/v1/keys/{key}")["prefix"][3:])
    assert conf is not None
    with admin.control.database.read() as session:
        return decode_terms(session.get_one(Price, conf.price_id).terms)


def test_all_that_a_price_may_say(admin: Admin) -> None:
    written = PRICED | {
        "unit_price": "0.0020",
        "included": "10k",
        "tiers": [{"up_to": "10k", "price": "0.001"}, TIERS[1]],
        "billable": ["4xx", "2xx", "4xx"],
    }
    added = admin.post("/v1/plans", name="full", **written)
    assert part(added) == PRICED
    assert admin.patch("/v1/plans/full", **PRICED) == added  # what is shown may be sent back, and changes nothing
    admin.post("/v1/keys", name="ci", plan="full")
    assert terms_of(admin, "ci") == Terms(
        unit_nanos=2_000_000,
        mib_nanos=50_000_000,
        base_nanos=20_000_000_000,
        minimum_nanos=30_000_000_000,
        included=10_000,
        mode="volume",
        tiers=(Tier(10_000, 1_000_000), Tier(None, 500_000)),
        billable=("2xx", "4xx"),
    )
    nothing = {
        "price": "0.001", "unit_price": "0", "mib_price": "0", "base_fee": "0", "minimum": "0", "included": 0,
        "tiers": [], "tier_mode": None, "package": None, "counts": "requests", "billable": ["2xx", "3xx"],
    }  # fmt: skip
    assert part(admin.patch("/v1/plans/full", **nothing)) == nothing
    assert terms_of(admin, "ci") == Terms(request_nanos=1_000_000)


def test_a_package(admin: Admin) -> None:
    added = admin.post("/v1/plans", name="packed", package={"size": "1k", "price": "5.00"}, counts="units")
    assert (added["price"], added["package"], added["counts"]) == ("0", {"size": 1000, "price": "5"}, "units")
    changed = admin.patch("/v1/plans/packed", package={"size": 500, "price": "3"})
    assert changed["package"] == {"size": 500, "price": "3"}


DEFAULTS: list[tuple[dict[str, Any], str]] = [
    ({}, "0.001"),
    ({"price": None}, "0.001"),
    ({"base_fee": "10", "included": 100}, "0.001"),
    ({"unit_price": "0.01"}, "0"),
    ({"mib_price": "0.01"}, "0"),
    ({"tiers": TIERS}, "0"),
    ({"tiers": TIERS, "counts": "units"}, "0"),
    ({"tiers": TIERS, "counts": "units", "price": "0.5"}, "0.5"),
    ({"tiers": [], "package": None}, "0.001"),
]


def test_the_default_price_is_where_nothing_else_is_said(admin: Admin) -> None:
    for number, (body, price) in enumerate(DEFAULTS):
        assert admin.post("/v1/plans", name=f"p{number}", **body)["price"] == price, body


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"price": ""}, "price"),
    ({"unit_price": "-1"}, "unit_price"),
    ({"mib_price": 5}, "mib_price"),
    ({"base_fee": "ten"}, "base_fee"),
    ({"minimum": "1000001"}, "minimum"),
    ({"included": -1}, "included"),
    ({"included": "some"}, "included"),
    ({"included": 1.5}, "included"),
    ({"included": 10**13}, "included"),
    ({"included": 5, "price": "0"}, "included"),
    ({"included": 5, "unit_price": "1"}, "included"),
    ({"included": 5, "counts": "units"}, "included"),
    ({"tiers": "10k=1"}, "tiers"),
    ({"tiers": [{"up_to": 5, "price": "1"}]}, "tiers"),
    ({"tiers": [{"up_to": None, "price": "1"}, {"up_to": None, "price": "2"}]}, "tiers"),
    ({"tiers": [{"up_to": None, "price": "1"}, {"up_to": 5, "price": "2"}]}, "tiers"),
    ({"tiers": [{"up_to": 0, "price": "1"}, TIERS[1]]}, "tiers"),
    ({"tiers": [TIERS[0], TIERS[0], TIERS[1]]}, "tiers"),
    ({"tiers": [TIERS[0], {"up_to": 5, "price": "1"}, TIERS[1]]}, "tiers"),
    ({"tiers": [{"up_to": 5, "price": "free"}, TIERS[1]]}, "tiers"),
    ({"tiers": [{"price": "1"}]}, "up_to"),
    ({"tiers": [{"up_to": None, "price": "1", "flat": "2"}]}, "flat"),
    ({"tiers": [{"up_to": n + 1, "price": "1"} for n in range(50)] + [TIERS[1]]}, "tiers"),
    ({"tiers": TIERS, "price": "0.1"}, "price"),
    ({"tiers": TIERS, "counts": "units", "unit_price": "0.1"}, "unit_price"),
    ({"package": {"size": 5, "price": "1"}, "price": "0.1"}, "price"),
    ({"tiers": TIERS, "package": {"size": 5, "price": "1"}}, "tiers"),
    ({"tier_mode": "volume"}, "tier_mode"),
    ({"tiers": TIERS, "tier_mode": "stairs"}, "tier_mode"),
    ({"package": {"size": 0, "price": "1"}}, "package"),
    ({"package": {"size": 5, "price": ""}}, "package"),
    ({"package": {"size": 5}}, "price"),
    ({"package": 5}, "package"),
    ({"counts": "bytes"}, "counts"),
    ({"billable": []}, "billable"),
    ({"billable": ["200"]}, "billable"),
    ({"billable": "2xx"}, "billable"),
]


def test_prices_that_contradict_themselves_are_refused(admin: Admin) -> None:
    for body, field in CONTRADICTIONS:
        problem = admin.refused("invalid", "POST", "/v1/plans", {"name": "starter"} | body)
        assert (problem["field"], field in problem["detail"]) == (field, True), problem
        assert len(problem["detail"]) < 200
    assert admin.get("/v1/plans")["items"] == []


def test_the_sentences(admin: Admin) -> None:
    for body, says in (
        ({"tiers": [TIERS[0]]}, "tier 1 must be open: the last one, and it alone, has all the rest"),
        ({"tiers": [TIERS[1], TIERS[1]]}, "tier 1 must have a bound: the last one, and it alone, has all the rest"),
        ({"tiers": [TIERS[0], TIERS[0], TIERS[1]]}, "tier 2 ends at 10000, and the one before it at 10000"),
        ({"tiers": TIERS, "price": "1"}, "price says what each request costs, and tiers do too"),
        ({"tier_mode": "volume"}, "tier_mode belongs to tiers, and there are none"),
        ({"included": 5, "unit_price": "1"}, "5 requests are included, but a request costs nothing beyond them"),
        ({"billable": ["200"]}, "billable must be one of 2xx, 3xx, 4xx, 5xx, client-left"),
    ):
        assert says in admin.refused("invalid", "POST", "/v1/plans", {"name": "p"} | body)["detail"]


def test_from_one_way_of_pricing_to_another(admin: Admin) -> None:
    """Tiers take the place of the plain price; back, the price has to be said."""
    path = "/v1/plans/starter"
    admin.post("/v1/plans", name="starter", price="0.002")
    tiered = admin.patch(path, tiers=TIERS)
    assert (tiered["price"], tiered["tier_mode"]) == ("0", "graduated")
    assert admin.patch(path, tier_mode="volume")["tier_mode"] == "volume"
    assert admin.patch(path, tiers=[TIERS[1]])["tier_mode"] == "volume"
    for body, field in (
        ({"price": "0.1"}, "price"),
        ({"package": {"size": 5, "price": "1"}}, "package"),
        ({"tiers": []}, "price"),
        ({"tiers": [], "included": 5, "mib_price": "1"}, "price"),
        ({"tiers": None, "tier_mode": "volume"}, "tier_mode"),
    ):
        assert admin.refused("invalid", "PATCH", path, body)["field"] == field
    packed = admin.patch(path, tiers=None, package={"size": 5, "price": "1"}, included=10)
    assert (packed["tiers"], packed["tier_mode"], packed["included"]) == ([], None, 10)
    assert admin.refused("invalid", "PATCH", path, {"package": None, "price": "0"})["field"] == "included"
    plain = admin.patch(path, package=None, price="0", included=None)
    assert part(plain, {"price": 0, "package": 0, "included": 0}) == {"price": "0", "package": None, "included": 0}
    by_unit = admin.patch(path, unit_price="0.1", counts="units", included=7)
    assert (by_unit["unit_price"], by_unit["included"]) == ("0.1", 7)
    assert admin.refused("invalid", "PATCH", path, {"counts": "requests"})["field"] == "included"
    tiered = admin.patch(path, counts="requests", tiers=TIERS)
    assert (tiered["unit_price"], tiered["counts"]) == ("0.1", "requests")
    assert admin.patch(path, counts="units", tiers=[])["unit_price"] == "0.1"  # which is what units cost now
    # A unit price was there before its units had tiers: they take its place too.
    assert admin.patch(path, tiers=TIERS)["unit_price"] == "0"


def test_a_version_keeps_its_price_and_one_of_before_shows_what_held(admin: Admin) -> None:
    first = admin.post("/v1/plans", name="starter", **PRICED)
    second = admin.patch("/v1/plans/starter", base_fee="25")
    with admin.control.database.write() as session:
        old = '{"id":"p","name":"starter","tenant":"default","version":3,"rates":[],"quota":null,"quota_mode":"hard",'
        old += '"in_flight_limit":null,"shadow":false,"alerts":[],"clients_limit":0,"price":"0.5",'
        old += '"created_at":"2026-09-01T00:00:00Z"}'
        session.add(PlanVersion(plan_id=1, version=3, created_at=NOON, terms=old))
    third, *others = admin.get("/v1/plans/starter/versions")["items"]
    assert [part(version) for version in others] == [part(second), part(first)]
    assert admin.get("/v1/plans/starter", version=3) == third
    assert (third["price"], third["tiers"], third["billable"]) == ("0.5", [], ["2xx", "3xx"])


def test_a_keys_own_price_takes_the_place_of_all_of_the_plans(admin: Admin) -> None:
    admin.post("/v1/plans", name="full", **PRICED)
    admin.post("/v1/keys", name="ci", plan="full", price="0.5")
    assert terms_of(admin, "ci") == Terms(request_nanos=500_000_000)
    assert admin.get("/v1/keys/ci")["overrides"] == {"price": "0.5"}
    admin.patch("/v1/keys/ci", price=None)
    assert terms_of(admin, "ci").base_nanos == 20_000_000_000


# Through records


def use(admin: Admin, requests: int, key: str = "ci", at: int = NOON, **more: Any) -> None:
    """Records as a worker writes them, with the price that the key has now."""
    conf = find_key(admin.control.database.lookup, admin.get(f"/v1/keys/{key}")["prefix"][3:])
    assert conf is not None
    said = {"service": 1, "status": 200, "units": 1, "flags": ADMITTED, "problem": 0, "bytes_in": 0, "bytes_out": 0}
    said |= more
    record = Record(
        said["flags"], at * 10**9, 1, said["service"], 0, conf.id, 0, 0, conf.price_id, said["status"],
        said["problem"], said["units"], said["bytes_in"], said["bytes_out"], 0, 0, b"",
    )  # fmt: skip
    with admin.control.database.write() as session:
        Rollups().add(session, [record] * requests)


def lines(admin: Admin) -> list[Charge]:
    with admin.control.database.read() as session:
        connection = session.connection()
        return charges(usage_of(connection, cycle_by_id(connection, 1)), (), all_terms(connection))


def test_usage_before_a_change_keeps_its_price(admin: Admin) -> None:
    admin.post("/v1/plans", name="starter", price="0.001")
    admin.post("/v1/keys", name="ci", plan="starter")
    use(admin, 100)
    admin.patch("/v1/plans/starter", tiers=[{"up_to": 150, "price": "0.01"}, {"up_to": None, "price": "0.002"}])
    use(admin, 80)
    assert [(line.kind, line.tier, line.quantity, format_nanos(line.nanos)) for line in lines(admin)] == [
        ("request", 0, 100, "0.1"),
        ("tier", 1, 50, "0.5"),
        ("tier", 2, 30, "0.06"),
    ]
    admin.patch("/v1/plans/starter", tiers=[], price="0.001")  # as it was: the same row, and one stretch with the first
    use(admin, 1)
    assert [line.quantity for line in lines(admin)] == [101, 49, 31]


OUTCOMES: list[tuple[dict[str, Any], str | None]] = [
    ({"status": 200}, "2xx"),
    ({"status": 101}, "2xx"),
    ({"status": 200, "flags": ADMITTED | CLIENT_LEFT}, "2xx"),
    ({"status": 304}, "3xx"),
    ({"status": 404}, "4xx"),
    ({"status": 499}, "4xx"),  # the API's own
    ({"status": 503}, "5xx"),
    ({"status": 499, "flags": ADMITTED | CLIENT_LEFT}, "client-left"),
    ({"status": 502, "problem": 7}, None),  # the gateway's own
    ({"status": 429, "flags": 0, "problem": 7}, None),
    ({"status": 200, "flags": ADMITTED | UPSTREAM_BROKE}, None),
    ({"status": 499, "flags": ADMITTED | UPSTREAM_BROKE | CLIENT_LEFT}, None),
    ({"status": 101, "flags": MORE_BYTES}, None),
]


@pytest.mark.parametrize("billable", [["2xx", "3xx"], ["2xx", "3xx", "4xx"], ["5xx"], ["client-left"]])
def test_each_plan_says_which_outcomes_cost(admin: Admin, billable: list[str]) -> None:
    admin.post("/v1/plans", name="starter", billable=billable, price="1", unit_price="0.1", mib_price="1")
    admin.post("/v1/keys", name="ci", plan="starter")
    expected = 0
    for number, (outcome, name) in enumerate(OUTCOMES):
        use(admin, 2**number, units=3, bytes_in=5, bytes_out=7, **outcome)
        expected += 2**number if name in billable else 0
    with admin.control.database.read() as session:
        (usage,) = usage_of(session.connection(), cycle_by_id(session.connection(), 1))
    assert (usage.requests, usage.units, usage.size_bytes) == (expected, 3 * expected, 12 * expected)


def test_records_come_to_what_a_bill_by_hand_does(admin: Admin) -> None:
    """Of any prices in any order, to the nano: what was not billable is in the records and not on the bill."""
    random = Random(11)
    prices = [
        Terms(request_nanos=7, unit_nanos=3, included=40),
        Terms(mode="graduated", tiers=(Tier(50, 9), Tier(90, 5), Tier(None, 1)), included=20, mib_nanos=1001),
        Terms(mode="volume", tiers=(Tier(100, 9), Tier(None, 4)), counts="units", request_nanos=2),
        Terms(mode="package", package_size=30, package_nanos=100, counts="units", billable=("2xx", "4xx")),
        Terms(mode="package", package_size=30, package_nanos=90, included=10, counts="units", billable=("3xx",)),
    ]
    costing = {200: "2xx", 304: "3xx", 404: "4xx"}
    made: list[Call] = []
    with admin.control.database.write() as session:
        ids = [price_id_of(session, terms) for terms in prices]
        by_id = dict(zip(ids, prices, strict=True))
        records = []
        for _ in range(600):
            key, service, price = random.randint(1, 3), random.randint(1, 3), random.choice(ids)
            at, units, size = NOON + random.randint(-10, 9) * 86400, random.randint(1, 3), random.randint(0, 1 << 19)
            status = random.choice(list(costing))
            records.append(
                Record(ADMITTED, at * 10**9, 1, service, 0, key, 0, 0, price, status, 0, units, size, 5, 0, 0, b"")
            )
            if costing[status] in by_id[price].billable:
                made.append(Call(key, service, price, at - at % 86400, units, size + 5))
        Rollups().add(session, records)
    with admin.control.database.read() as session:
        connection = session.connection()
        charged = costs_by_key(charges(usage_of(connection, cycle_by_id(connection, 1)), (), all_terms(connection)))
    assert len({call.key for call in made}) == 3
    assert charged == {key: int(total * NANOS) for key, total in bill(made, {}, by_id).items()}


def test_the_worked_example_through_records(admin: Admin) -> None:
    """By hand: 1,240 of orders and 310 of products, of which 1,000 are included.

    240 and 260 at 0.001, 50 at 0.0005: 0.24 + 0.26 + 0.025 = 0.525. With the base fee 2.525, and 3 are due at least.
    """
    admin.post("/v1/services", slug="orders", targets=["http://127.0.0.1:1"])
    admin.post("/v1/services", slug="products", targets=["http://127.0.0.1:1"])
    tiers = [{"up_to": 500, "price": "0.001"}, {"up_to": None, "price": "0.0005"}]
    plan = admin.post("/v1/plans", name="pro", base_fee="2", minimum="3", included="1k", tiers=tiers)
    assert plan["price"] == "0"
    admin.post("/v1/keys", name="ci", plan="pro")
    use(admin, 310, service=2)
    use(admin, 1240, service=1)
    use(admin, 70, service=1, status=500)
    with admin.control.database.read() as session:
        usage = usage_of(session.connection(), cycle_by_id(session.connection(), 1))
        prices = all_terms(session.connection())
    found = charges(usage, [Subscription(1, usage[0].price_id)], prices)
    assert [
        (line.service_id, line.kind, line.tier, line.quantity, format_nanos(line.each_nanos), format_nanos(line.nanos))
        for line in found
    ] == [
        (1, "included", 0, 1000, "0", "0"),
        (1, "tier", 1, 240, "0.001", "0.24"),
        (2, "tier", 1, 260, "0.001", "0.26"),
        (2, "tier", 2, 50, "0.0005", "0.025"),
        (0, "base", 0, 1, "2", "2"),
        (0, "minimum", 0, 1, "0.475", "0.475"),
    ]
    assert format_nanos(total_nanos(found)) == "3"
