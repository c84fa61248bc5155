"""What differs between two configurations, and who is who in them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.policy.differences import (
    Difference,
    FieldDifference,
    KeyName,
    Pairs,
    RouteName,
    compare,
    pair_keys,
    pair_named,
    pair_routes,
    place,
)

fields = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))
routes = st.lists(
    st.builds(RouteName, st.sampled_from(["", "x", "y"]), st.tuples(st.integers(0, 3))),
    unique_by=(lambda route: route.name or object(), lambda route: route.match),
)
keys = st.lists(
    st.builds(KeyName, st.sampled_from(["1", "2", "3", "4"]), st.sampled_from(["", "x", "y"])),
    unique_by=lambda key: key.id,
)


@given(fields, fields)
def test_there_is_a_difference_where_something_is_another(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert compare("plan", "default", "p", before, before, {}) is None
    found = compare("plan", "default", "p", before, after, {})
    assert (found is None) == (before == after)
    if found is not None:
        assert found.change == "set"
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert {each.field for each in found.fields} == changed


def test_what_is_left_out_of_a_change_is_its_default() -> None:
    found = compare("service", "default", "s", {"auth": "none"}, {"limit": None}, {"auth": "key", "limit": 30})
    assert found is not None
    assert set(found.fields) == {FieldDifference("auth", "none", "key"), FieldDifference("limit", 30, None)}
    added = compare("service", "default", "s", None, {"limit": None}, {"limit": 30})
    assert added == Difference("service", "default", "s", "add", (FieldDifference("limit", None, None),))
    removed = compare("service", "default", "s", {"auth": "none"}, None, {"auth": "key"})
    assert removed is not None and removed.fields == (FieldDifference("auth", "none", None),)


def test_nothing_goes_before_what_refers_to_it_or_comes_after_it() -> None:
    changes: list[Any] = [
        ("key", "remove"), ("route", "remove"), ("plan", "remove"), ("service", "remove"), ("tenant", "add"),
        ("service", "set"), ("plan", "add"), ("route", "add"), ("key", "set"),
    ]  # fmt: skip
    wanted = [Difference(kind, "default", "x", change, ()) for kind, change in changes]
    for shuffled in list(permutations(wanted))[:: 7919 * 2]:
        assert sorted(shuffled, key=place) == wanted


def whole(pairs: Pairs, wanted: int, present: int) -> bool:
    """Everything is in one pair."""
    firsts = sorted(first for first, _ in pairs if first is not None)
    seconds = sorted(second for _, second in pairs if second is not None)
    return (firsts, seconds) == (list(range(wanted)), list(range(present))) and (None, None) not in pairs


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcd"), unique=True))
def test_names_are_paired(wanted: list[str], present: list[str]) -> None:
    pairs = pair_named(wanted, present)
    assert whole(pairs, len(wanted), len(present))
    for first, second in pairs:
        if first is not None:
            assert (second is None) == (wanted[first] not in present)


@given(routes, routes)
def test_routes_are_paired_by_name_and_then_by_what_they_match(
    wanted: list[RouteName], present: list[RouteName]
) -> None:
    pairs = pair_routes(wanted, present)
    assert whole(pairs, len(wanted), len(present))
    assert all(first == second for first, second in pair_routes(wanted, wanted))
    taken = {second: first for first, second in pairs}
    for index, route in enumerate(wanted):
        same = next((number for number, other in enumerate(present) if route.name and other.name == route.name), None)
        if same is not None:
            assert taken[same] == index
        else:
            match = next((number for number, other in enumerate(present) if other.match == route.match), None)
            assert match is None or taken[match] is not None  # nothing is added beside what it would tie with


@given(keys, keys)
def test_keys_are_paired_by_id_and_then_by_name(wanted: list[KeyName], present: list[KeyName]) -> None:
    pairs, unclear = pair_keys(wanted, present)
    assert whole(pairs, len(wanted), len(present)) and not unclear
    for first, second in pairs:
        if first is not None and second is not None:
            assert wanted[first].id == present[second].id


@pytest.mark.parametrize(
    ("wanted", "present", "pairs", "unclear"),
    [
        ([(None, "x")], [("1", "x")], [(0, 0)], []),
        ([(None, "x")], [("1", "x"), ("2", "x")], [(0, None), (None, 0), (None, 1)], [0]),
        ([(None, "x"), ("1", "y")], [("1", "x")], [(0, None), (1, 0)], []),
        ([(None, "x"), ("1", "x")], [("1", "x"), ("2", "x")], [(0, 1), (1, 0)], []),
        ([("3", "x")], [("1", "x")], [(0, None), (None, 0)], []),
    ],
)
def test_a_key_that_is_known_by_its_name(wanted: Any, present: Any, pairs: Pairs, unclear: list[int]) -> None:
    of_wanted, of_present = ([KeyName(*each) for each in side] for side in (wanted, present))
    assert pair_keys(of_wanted, of_present) == (pairs, unclear)
