"""What holds for every configuration: a dump is what was applied, and what was can come back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.control.conftest import Admin
from tests.control.test_config import another, applied, default, differences

__all__ = ["another"]  # a fixture

NAMES = ["a", "b", "c", "d"]
SPANS = ["s", "min", "h", "d", "90s", "15m"]
counts = st.integers(1, 10**12)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


def named(entries: st.SearchStrategy[dict[str, Any]], column: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """One for each of some names, in any order."""
    return st.dictionaries(st.sampled_from(NAMES), entries, max_size=4).map(
        lambda found: [{column: name, **entry} for name, entry in found.items()]
    )


@st.composite
def rates(draw: st.DrawFn) -> list[str]:
    spans = draw(st.lists(st.sampled_from(SPANS), unique=True, min_size=1, max_size=3))
    burst = st.sampled_from(["", " burst 7", " burst 1k"])
    return [f"{draw(st.sampled_from([1, 60, '10k', '3M']))}/{span}{draw(burst)}" for span in spans]


money = st.integers(0, 10**12).map(lambda nanos: f"{nanos // 10**9}.{nanos % 10**9:09}")
tiers = st.lists(counts, unique=True, max_size=3).flatmap(
    lambda bounds: st.lists(money, min_size=len(bounds) + 1, max_size=len(bounds) + 1).map(
        lambda prices: [
            {"up_to": up_to, "price": price}
            for up_to, price in zip([*sorted(bounds), None], prices, strict=True)
        ]
    )
)  # fmt: skip
prices = st.one_of(
    some(price=money, unit_price=money, mib_price=money),
    some(base_fee=money, minimum=money, mib_price=money),
    some(price=st.just("0"), counts=st.just("units"), base_fee=money, billable=st.just(["5xx", "2xx"])),
    st.fixed_dictionaries(
        {"tiers": tiers}, optional={"tier_mode": st.sampled_from(["graduated", "volume"]), "included": counts}
    ),
    st.fixed_dictionaries({"counts": st.just("units"), "tiers": tiers}, optional={"price": money, "mib_price": money}),
    st.fixed_dictionaries({"package": st.fixed_dictionaries({"size": counts, "price": money})}),
    st.fixed_dictionaries({"price": st.just("0.5")}, optional={"included": counts}),
)
limits = some(
    rates=rates(), quota=st.one_of(st.none(), counts, st.just("10k/month")), in_flight_limit=st.integers(1, 1000)
)
plans = st.tuples(
    prices, limits, some(quota_mode=st.sampled_from(["hard", "soft"]), shadow=st.booleans(),
                         alerts=st.lists(st.integers(1, 200), max_size=3), clients_limit=st.integers(0, 9)),
).map(lambda parts: {**parts[0], **parts[1], **parts[2]})  # fmt: skip
services = st.fixed_dictionaries(
    {"targets": st.lists(st.sampled_from(["http://x.example", "https://Y.example/", "unix:/run/z.sock:/b/"]),
                         unique=True, min_size=1)},
    optional={
        "timeout_s": st.sampled_from([None, 5, 30, 0.5]),
        "auth": st.sampled_from(["key", "none"]),
        "health": some(path=st.sampled_from([None, "/ok"]), interval_s=st.integers(1, 60), eject_after=st.just(3)),
        "breaker": some(failures=st.integers(0, 50), ratio=st.sampled_from([0, 0.5, 1])),
        "hash_on": st.sampled_from(["address", "key", "header:X-User"]),
        "request_headers": st.just([{"action": "set", "name": "X-A", "value": "1"}]),
        "response_headers": st.just([{"action": "remove", "name": "Server"}]),
        "in_flight_limit": st.one_of(st.none(), st.integers(1, 9)),
    },
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> Any:
    of_services, of_plans = draw(named(services, "slug")), draw(named(plans, "name"))
    slugs, plan_names = [each["slug"] for each in of_services], [each["name"] for each in of_plans]
    of_routes = draw(
        named(
            some(
                exact=st.booleans(), methods=st.lists(st.sampled_from(["get", "POST"]), min_size=1), rates=rates(),
                host=st.sampled_from([None, "API.example.com", "*.example.com"]), weight=st.integers(1, 9),
                prefix=st.sampled_from(["strip", "keep", "/v2/"]), networks=st.just(["10.0.0.7", "10.0.0.0/8"]),
            ),
            "name",
        )
    )  # fmt: skip
    for route in of_routes:
        route.update(path=f"/r/{route['name']}/{{id}}", service=draw(st.sampled_from([None, *slugs])))
    own = st.tuples(limits, some(
        services=st.one_of(st.none(), st.just(slugs), st.just([])), expires=st.just("2031-01-01T00:00:00+02:00"),
        labels=st.dictionaries(st.sampled_from(["x", "y"]), st.text("ab", max_size=3)), price=money,
        plan=st.sampled_from([None, *plan_names]), allow=st.just(["post,get /a/*"]),
    )).map(lambda parts: {**parts[0], **parts[1]})  # fmt: skip
    return default(
        services=of_services,
        plans=of_plans,
        routes=of_routes,
        keys=draw(named(own, "name")),
        **draw(
            some(
                contact=st.text("ab c", max_size=5), time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
                rates=rates(), default_plan=st.sampled_from([None, *plan_names]),
            )
        ),
    )  # fmt: skip


# Not shrunk: each try is a dozen requests, on a gateway that keeps what the last one left.
@settings(
    phases=(Phase.generate,),
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(documents(), documents())
def test_what_is_applied_is_there_once_and_can_come_back(admin: Admin, another: Admin, first: Any, second: Any) -> None:
    applied(admin, first, prune=True)
    assert differences(admin, first, prune=True) == []
    whole = admin("GET", "/v1/config").content
    assert differences(admin, json.loads(whole), prune=True) == []
    applied(another, json.loads(whole), prune=True)
    assert another("GET", "/v1/config").content == whole
    revisions = admin.get("/v1/config/revisions", limit=1)["items"]
    changed = applied(admin, second, prune=True)["differences"]
    assert differences(admin, second, prune=True) == []
    if revisions and changed:
        answer = admin("POST", "/v1/config/rollback", {"number": revisions[0]["number"]})
        assert answer.status_code == 200, answer.text
        assert admin("GET", "/v1/config").content == whole
        back = {(each["kind"], each["name"]) for each in answer.json()["differences"]}
        assert back == {(each["kind"], each["name"]) for each in changed}
