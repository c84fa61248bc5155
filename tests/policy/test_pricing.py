"""The arithmetic of charges: by example, by its properties, and against a bill worked out request by request."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.policy.money import NANOS, format_nanos, parse_price
from gatewayd.policy.pricing import (
    OUTCOMES,
    Charge,
    Mode,
    Subscription,
    Terms,
    Tier,
    Usage,
    charges,
    costs_by_key,
    decode_terms,
    encode_terms,
    is_billable,
    measured_by,
    mib_cost,
    share,
    total_nanos,
)
from gatewayd.records import ADMITTED, CLIENT_LEFT, UPSTREAM_BROKE
from tests.policy.naive_bill import Call, bill

DAY = 86400
MIB = 1 << 20


def test_terms_are_one_text() -> None:
    terms = Terms(mode="graduated", tiers=(Tier(1000, 5), Tier(None, 3)), included=10, base_nanos=7)
    text = '{"base_nanos":7,"included":10,"mode":"graduated","tiers":[[1000,5],[null,3]]}'
    assert encode_terms(terms) == text
    assert decode_terms(text) == terms
    assert encode_terms(Terms()) == "{}"


# By example


def used(terms: Terms, requests: int, units: int | None = None, size_bytes: int = 0) -> dict[tuple[str, int], int]:
    """What one key's lines of this usage come to, by kind and tier."""
    usage = [Usage(1, 7, 1, 0, requests, requests if units is None else units, size_bytes)]
    return {(line.kind, line.tier): line.nanos for line in charges(usage, (), {1: terms})}


def test_requests_units_and_mib_each_have_their_line() -> None:
    terms = Terms(request_nanos=10, unit_nanos=3, mib_nanos=100)
    assert used(terms, 5, 8, 3 * MIB // 2) == {("request", 0): 50, ("unit", 0): 24, ("mib", 0): 150}
    assert used(Terms(request_nanos=10, unit_nanos=3, counts="units"), 5, 8) == {("unit", 0): 24, ("request", 0): 50}


def test_mib_are_rounded_once_a_line_halves_up() -> None:
    assert [mib_cost(size, 1) for size in (0, MIB // 2 - 1, MIB // 2, MIB, 3 * MIB // 2)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("requests", "nanos"), [(0, 0), (1, 0), (100, 0), (101, 5), (200, 500), (201, 503), (400, 1100), (401, 1101)]
)
def test_a_bound_belongs_to_the_tier_below_it(requests: int, nanos: int) -> None:
    terms = Terms(included=100, mode="graduated", tiers=(Tier(100, 5), Tier(300, 3), Tier(None, 1)))
    assert sum(used(terms, requests).values()) == nanos


@pytest.mark.parametrize(("requests", "nanos"), [(100, 0), (200, 500), (201, 303), (400, 900), (401, 301)])
def test_volume_takes_all_of_it_at_the_tier_of_the_whole(requests: int, nanos: int) -> None:
    terms = Terms(included=100, mode="volume", tiers=(Tier(100, 5), Tier(300, 3), Tier(None, 1)))
    assert sum(used(terms, requests).values()) == nanos


@pytest.mark.parametrize(("requests", "packages"), [(0, 0), (10, 0), (11, 1), (60, 1), (61, 2), (110, 2), (111, 3)])
def test_a_begun_package_is_paid(requests: int, packages: int) -> None:
    terms = Terms(included=10, mode="package", package_size=50, package_nanos=7)
    assert used(terms, requests).get(("package", 0), 0) == packages * 7


def test_a_key_climbs_its_tiers_once_over_services_and_prices() -> None:
    old = Terms(request_nanos=10, included=100)
    new = Terms(mode="graduated", tiers=(Tier(150, 5), Tier(None, 3)), included=100, base_nanos=1000)
    usage = [
        Usage(1, 7, 2, DAY, 60, 60, 0),
        Usage(1, 7, 1, 0, 120, 120, 0),
        Usage(1, 8, 2, 2 * DAY, 200, 200, 0),
    ]
    assert charges(usage, [Subscription(1, 2)], {1: old, 2: new}) == [
        Charge(7, 1, 1, "included", 0, 100, 0, 0),
        Charge(7, 1, 1, "request", 0, 20, 10, 200),
        Charge(7, 1, 2, "tier", 1, 60, 5, 300),
        Charge(8, 1, 2, "tier", 1, 70, 5, 350),
        Charge(8, 1, 2, "tier", 2, 130, 3, 390),
        Charge(0, 1, 2, "base", 0, 1, 1000, 1000),
    ]


def package(size: int, nanos: int) -> Terms:
    return Terms(mode="package", package_size=size, package_nanos=nanos)


@pytest.mark.parametrize(
    ("first", "second", "packages"),
    [
        (package(100, 5), package(100, 7), [1, 1]),  # 60 of the first, 40 of which are left: 20 begin a second
        (package(100, 5), package(50, 7), [1, 2]),  # of another size: nothing is left over
        (Terms(request_nanos=1), package(100, 7), [1]),  # nobody paid for a package yet
        (package(100, 5), Terms(request_nanos=1), [1]),
    ],
)
def test_a_package_that_was_begun_holds_for_its_size(first: Terms, second: Terms, packages: list[int]) -> None:
    usage = [Usage(1, 7, 1, 0, 60, 60, 0), Usage(1, 7, 2, DAY, 60, 60, 0)]
    lines = charges(usage, (), {1: first, 2: second})
    assert [line.quantity for line in lines if line.kind == "package"] == packages


def test_packages_of_units_hold_over_services() -> None:
    terms = Terms(mode="package", package_size=100, package_nanos=5, counts="units")
    usage = [Usage(1, service, 1, 0, 10, 60, 0) for service in (7, 8)]
    lines = charges(usage, (), {1: terms})
    assert [(line.service_id, line.quantity, line.nanos) for line in lines] == [(7, 1, 5), (8, 1, 5)]
    assert total_nanos(charges([*usage[:1], usage[1]._replace(units=40)], (), {1: terms})) == 5


def test_a_new_price_counts_from_where_the_key_is() -> None:
    """9,000 used at the old price, 20,000 included in the new one: 11,000 are left. Units go on from the units."""
    prices = {1: Terms(request_nanos=1), 2: Terms(request_nanos=2, included=20_000)}
    lines = charges([Usage(1, 7, 1, 0, 9000, 9000, 0), Usage(1, 7, 2, DAY, 12_000, 12_000, 0)], (), prices)
    assert [(line.kind, line.quantity) for line in lines] == [
        ("request", 9000),
        ("included", 11_000),
        ("request", 1000),
    ]
    prices = {1: Terms(request_nanos=1), 2: Terms(unit_nanos=2, counts="units", included=50)}
    lines = charges([Usage(1, 7, 1, 0, 10, 40, 0), Usage(1, 7, 2, DAY, 10, 40, 0)], (), prices)
    assert [(line.kind, line.quantity) for line in lines] == [("request", 10), ("included", 10), ("unit", 30)]


def test_prices_of_one_day_follow_their_numbers() -> None:
    prices = {1: Terms(request_nanos=1, included=10), 2: Terms(request_nanos=2, included=10)}
    usage = [Usage(1, 7, 2, 0, 10, 10, 0), Usage(1, 7, 1, 0, 10, 10, 0)]
    assert total_nanos(charges(usage, (), prices)) == 20
    assert total_nanos(charges([usage[0], usage[1]._replace(first_day=DAY)], (), prices)) == 10


@pytest.mark.parametrize(
    ("requests", "lines"),
    [
        (0, [("base", 100), ("minimum", 400)]),
        (30, [("request", 300), ("base", 100), ("minimum", 100)]),
        (40, [("request", 400), ("base", 100)]),
        (50, [("request", 500), ("base", 100)]),
    ],
)
def test_the_minimum_is_of_base_fee_and_usage_together(requests: int, lines: list[tuple[str, int]]) -> None:
    terms = Terms(request_nanos=10, base_nanos=100, minimum_nanos=500)
    usage = [Usage(1, 7, 1, 0, requests, requests, 0)] if requests else []
    found = charges(usage, [Subscription(1, 1)], {1: terms})
    assert [(line.kind, line.nanos) for line in found] == lines


def test_what_costs() -> None:
    terms = Terms()
    assert is_billable(terms, 200, 0, 0)
    assert is_billable(terms, 101, 0, 0)
    assert not is_billable(terms, 199, 0, 0)
    assert not is_billable(terms, 404, 0, 0)
    assert not is_billable(terms, 200, UPSTREAM_BROKE, 0)
    assert is_billable(Terms(billable=("5xx",)), 503, 0, 0)
    assert not is_billable(Terms(billable=("5xx",)), 503, 0, 7)


def test_who_left_before_an_answer_is_not_who_was_answered_499() -> None:
    left, answered = Terms(billable=("client-left",)), Terms(billable=("4xx",))
    assert is_billable(left, 499, ADMITTED | CLIENT_LEFT, 0)
    assert not is_billable(answered, 499, ADMITTED | CLIENT_LEFT, 0)
    assert is_billable(answered, 499, ADMITTED, 0)
    assert not is_billable(left, 499, ADMITTED, 0)
    # An answer that the client did not wait for was given.
    assert is_billable(Terms(), 200, ADMITTED | CLIENT_LEFT, 0)


@given(st.integers(100, 599), st.integers(0, 31), st.integers(0, 50), st.sets(st.sampled_from(OUTCOMES), min_size=1))
def test_what_the_gateway_answered_and_what_broke_off_never_costs(
    status: int, flags: int, problem: int, outcomes: set[str]
) -> None:
    terms = Terms(billable=tuple(each for each in OUTCOMES if each in outcomes))
    if problem or flags & UPSTREAM_BROKE:
        assert not is_billable(terms, status, flags, problem)


# The worked example of the README


def test_the_worked_example() -> None:
    """12,400 requests of `orders` and 3,100 of `products`, of which 10,000 are included."""
    terms = Terms(
        base_nanos=parse_price("20"),
        minimum_nanos=parse_price("30"),
        included=10_000,
        mode="graduated",
        tiers=(Tier(5000, parse_price("0.001")), Tier(None, parse_price("0.0005"))),
    )
    usage = [Usage(1, 1, 1, 0, 12_400, 12_400, 0), Usage(1, 2, 1, 0, 3100, 3100, 0)]
    lines = charges(usage, [Subscription(1, 1)], {1: terms})
    assert [
        (line.service_id, line.kind, line.tier, line.quantity, format_nanos(line.each_nanos), format_nanos(line.nanos))
        for line in lines
    ] == [
        (1, "included", 0, 10_000, "0", "0"),
        (1, "tier", 1, 2400, "0.001", "2.4"),
        (2, "tier", 1, 2600, "0.001", "2.6"),
        (2, "tier", 2, 500, "0.0005", "0.25"),
        (0, "base", 0, 1, "20", "20"),
        (0, "minimum", 0, 1, "4.75", "4.75"),
    ]
    assert format_nanos(total_nanos(lines)) == "30"


# By its properties

amounts = st.integers(0, 5 * NANOS) | st.integers(0, 7)
counts = st.sampled_from(["requests", "units"])
bounds = st.lists(st.integers(1, 60), min_size=0, max_size=3, unique=True).map(sorted)


@st.composite
def terms_of(draw: st.DrawFn, modes: Iterable[Mode] = ("flat", "graduated", "volume", "package")) -> Terms:
    mode = draw(st.sampled_from(list(modes)))
    counted = draw(counts)
    tiers: tuple[Tier, ...] = ()
    if mode in ("graduated", "volume"):
        tiers = tuple(Tier(up_to, draw(amounts)) for up_to in [*draw(bounds), None])
    beside = draw(amounts)
    return Terms(
        request_nanos=beside if mode == "flat" or counted == "units" else 0,
        unit_nanos=draw(amounts) if mode == "flat" or counted == "requests" else 0,
        mib_nanos=draw(amounts),
        base_nanos=draw(amounts),
        minimum_nanos=draw(amounts),
        counts=counted,  # type: ignore[arg-type]
        included=draw(st.integers(0, 40)),
        mode=mode,
        tiers=tiers,
        package_size=draw(st.integers(1, 30)) if mode == "package" else 0,
        package_nanos=draw(amounts) if mode == "package" else 0,
    )


calls = st.lists(
    st.builds(
        Call,
        key=st.integers(1, 2),
        service=st.integers(1, 3),
        price=st.integers(1, 3),
        day=st.integers(0, 4).map(lambda day: day * DAY),
        units=st.integers(0, 4),
        size_bytes=st.integers(0, 3 * MIB),
    ),
    max_size=60,
)


def summed(made: Iterable[Call]) -> list[Usage]:
    """As rollups have it."""
    rows: dict[tuple[int, int, int], Usage] = {}
    for call in made:
        of = (call.key, call.service, call.price)
        row = rows.get(of, Usage(*of, call.day, 0, 0, 0))
        rows[of] = Usage(
            *of,
            min(row.first_day, call.day),
            row.requests + 1,
            row.units + call.units,
            row.size_bytes + call.size_bytes,
        )
    return list(rows.values())


prices = st.fixed_dictionaries({number: terms_of() for number in (1, 2, 3)})
owing = st.dictionaries(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None)
@given(calls, owing, prices)
def test_it_is_what_a_bill_by_hand_comes_to(made: list[Call], owed: dict[int, int], terms: dict[int, Terms]) -> None:
    """To the nano, for every key: any prices in any order, within one cycle."""
    lines = charges(summed(made), [Subscription(*each) for each in owed.items()], terms)
    by_hand = {key: int(total * NANOS) for key, total in bill(made, owed, terms).items()}
    found = costs_by_key(lines)
    assert {key: found.get(key, 0) for key in by_hand} == by_hand
    assert total_nanos(lines) == sum(by_hand.values())
    for line in lines:
        assert line.quantity > 0
        assert line.nanos >= 0
        if line.kind != "mib":
            assert line.nanos == line.quantity * line.each_nanos


@settings(deadline=None)
@given(calls, prices)
def test_every_quantity_is_on_one_line(made: list[Call], terms: dict[int, Terms]) -> None:
    """Of what a price counts, each request or unit is included, or has its price, or is of a package."""
    usage = summed(made)
    lines = charges(usage, (), terms)
    for each in usage:
        own = [line for line in lines if line[:3] == (each.service_id, each.key_id, each.price_id)]
        of = terms[each.price_id]
        flat = "request" if of.counts == "requests" else "unit"
        counted = sum(line.quantity for line in own if line.kind in ("included", flat, "tier"))
        whole = each.requests if of.counts == "requests" else each.units
        assert counted <= whole if of.mode == "package" else counted == whole
        assert all(measured_by(line, of) in ("requests", "units", "size_bytes") for line in own)


@settings(deadline=None)
@given(calls, terms_of())
def test_services_share_what_is_their_keys(made: list[Call], terms: Terms) -> None:
    """However usage is split among services, a key pays the same, but for the rounding of MiB: half a nano a line."""
    one_price = [call._replace(price=1) for call in made]
    split = costs_by_key(charges(summed(one_price), (), {1: terms}))
    whole = costs_by_key(charges(summed(call._replace(service=1) for call in one_price), (), {1: terms}))
    assert split.keys() == whole.keys()
    for key, nanos in whole.items():
        assert abs(split[key] - nanos) <= (2 if terms.mib_nanos else 0)


@settings(deadline=None)
@given(calls, owing, prices)
def test_two_keys_share_nothing(made: list[Call], owed: dict[int, int], terms: dict[int, Terms]) -> None:
    together = charges(summed(made), [Subscription(*each) for each in owed.items()], terms)
    for key in (1, 2, 3):
        own = [Subscription(key, owed[key])] if key in owed else []
        alone = charges(summed(call for call in made if call.key == key), own, terms)
        assert alone == [line for line in together if line.key_id == key]


@settings(deadline=None)
@given(calls, st.fixed_dictionaries({n: terms_of(("flat", "graduated", "package")) for n in (1, 2, 3)}), st.data())
def test_more_usage_never_costs_less(made: list[Call], terms: dict[int, Terms], data: st.DataObject) -> None:
    """But for volume, whose purpose that is, and packages of another price, which may hold for longer now."""
    one_price = [call._replace(price=1) for call in made]
    fewer = [call for call in one_price if data.draw(st.booleans())]
    less, more = (charges(summed(each), [Subscription(1, 1)], terms) for each in (fewer, one_price))
    assert total_nanos(less) <= total_nanos(more)


@settings(deadline=None)
@given(calls, terms_of(), st.data())
def test_a_new_price_with_the_same_terms_changes_nothing(made: list[Call], terms: Terms, data: st.DataObject) -> None:
    """Usage before and after is charged as if there had been one price: tiers, allowance and packages run on."""
    day = data.draw(st.integers(0, 5)) * DAY
    changed = [call._replace(price=1 if call.day < day else 2) for call in made]
    once = costs_by_key(charges(summed(call._replace(price=1) for call in made), (), {1: terms}))
    twice = costs_by_key(charges(summed(changed), (), {1: terms, 2: terms}))
    assert once.keys() == twice.keys()
    for key, nanos in once.items():
        assert abs(twice[key] - nanos) <= (3 if terms.mib_nanos else 0)


@settings(deadline=None)
@given(calls, prices, owing)
def test_the_order_of_rows_means_nothing(made: list[Call], terms: dict[int, Terms], owed: dict[int, int]) -> None:
    owing_keys = [Subscription(*each) for each in owed.items()]
    usage = summed(made)
    assert charges(reversed(usage), reversed(owing_keys), terms) == charges(usage, owing_keys, terms)


@settings(deadline=None)
@given(calls, terms_of(("flat",)))
def test_linear_terms_are_sums(made: list[Call], terms: Terms) -> None:
    """What `is_linear` says of a price: each request costs the same by itself."""
    if not terms.is_linear:
        return
    one_price = [call._replace(price=1) for call in made]
    each = sum(total_nanos(charges(summed([call]), (), {1: terms})) for call in one_price)
    assert total_nanos(charges(summed(one_price), (), {1: terms})) == each


@given(st.integers(0, 10**15), st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_shares_come_to_the_whole(nanos: int, parts: list[int]) -> None:
    whole, before, given_out = sum(parts), 0, 0
    for part in parts:
        got = share(nanos, whole, before, part)
        assert got >= 0
        assert whole == 0 or abs(got * whole - nanos * part) <= whole  # within a nano of its proportion
        before, given_out = before + part, given_out + got
    assert given_out == (nanos if whole else 0)


@given(prices)
def test_terms_survive_being_written_and_read(terms: dict[int, Terms]) -> None:
    for each in terms.values():
        assert decode_terms(encode_terms(each)) == each
