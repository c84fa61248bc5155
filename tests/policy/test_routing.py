"""Which route is taken: the order of specificity, and that the tree finds what the order says."""

from __future__ import annotations

import itertools
import random
from timeit import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.policy.routing import Match, Router, clash, length_of_segments, mismatch, plain_host

HOSTS = (None, "a.example.com", "b.example.com", "*.example.com", "*.com", "*.a.example.com", "example.com")
SEGMENTS = ("a", "b", "{x}", "{y}", "ab")
METHODS = (None, ("GET",), ("POST",), ("GET", "POST"), ("HEAD",))

paths = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(lambda parts: "/" + "/".join(parts))
matches = st.builds(Match, paths, st.booleans(), st.sampled_from(HOSTS), st.sampled_from(METHODS))
asked_paths = st.lists(st.sampled_from(("a", "b", "ab", "c", "")), max_size=5).map(
    lambda p: ("/" + "/".join(p)).encode()
)
asked_hosts = st.sampled_from(
    [b"a.example.com", b"A.Example.COM.:8080", b"b.example.com", b"x.a.example.com", b"example.com", b"c.com", b"",
     b"com", b".com", b"[::1]:80", b"x" * 300 + b".com"]
)  # fmt: skip
asked_methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"])


def accepted(created: list[Match]) -> list[Match]:
    """Those that may stand beside each other, as they would be created one after the other."""
    kept: list[Match] = []
    for match in created:
        if not any(clash(match, other) for other in kept):
            kept.append(match)
    return kept


# The reference: as the documentation says it, knowing nothing of the tree.


def fits(match: Match, path: bytes, host: bytes, method: bytes) -> bool:
    name = host.decode().lower()
    name = (name[: name.index("]") + 1] if name[:1] == "[" else name.split(":")[0]).rstrip(".")
    if match.host is not None and match.host.startswith("*."):
        if not (name.endswith(match.host[1:]) and name[: -len(match.host[1:])]):
            return False
    elif match.host is not None and name != match.host:
        return False
    wanted = [part for part in match.path.split("/") if part]
    asked = path.decode().split("/")[1:] if path != b"/" else []
    if len(asked) < len(wanted) or (match.exact and len(asked) != len(wanted)):
        return False
    if not all((w[0] == "{" and a != "") or w == a for w, a in zip(wanted, asked, strict=False)):
        return False
    return match.methods is None or method.decode() in match.methods


def before(one: Match, other: Match) -> bool | None:
    """Rules 1 to 4, told apart one by one; None where they say nothing."""

    def of_host(match: Match) -> int:
        if match.host is None:
            return 0
        return match.host.count(".") if match.host.startswith("*.") else 1000

    if of_host(one) != of_host(other):
        return of_host(one) > of_host(other)
    parts = [[part for part in match.path.split("/") if part] for match in (one, other)]
    for mine, theirs in itertools.zip_longest(*parts):
        kinds = [2 if part is None else 1 if part[0] == "{" else 0 for part in (mine, theirs)]
        if kinds[0] != kinds[1]:
            return kinds[0] < kinds[1]
    if one.exact != other.exact:
        return one.exact
    if (one.methods is None) != (other.methods is None):
        return other.methods is None
    return None


plain = st.lists(st.sampled_from(("a", "b", "ab")), max_size=4).map(lambda parts: Match("/" + "/".join(parts)))


@given(
    st.lists(matches, max_size=30) | st.lists(plain, max_size=6) | st.lists(plain | matches, max_size=6),
    asked_paths,
    asked_hosts,
    asked_methods,
)
@settings(max_examples=1000)
def test_the_tree_finds_what_trying_all_in_order_finds(
    created: list[Match], path: bytes, host: bytes, method: bytes
) -> None:
    routes = accepted(created)
    router = Router((match, match) for match in routes)
    fitting = [match for match in routes if fits(match, path, host, method)]
    found = router.match(path, host, method)
    assert found == min(fitting, key=Match.rank, default=None)
    if found is not None:
        assert all(before(found, other) for other in fitting if other is not found), "nothing was left to chance"
    for match in routes:
        assert (mismatch(match, path, host, method) is None) == (match in fitting)


@given(matches, matches, matches)
@settings(max_examples=1000)
def test_the_order_is_total(one: Match, other: Match, third: Match) -> None:
    ranks = [match.rank() for match in (one, other, third)]
    assert (ranks[0] < ranks[1]) + (ranks[1] < ranks[0]) + (ranks[0] == ranks[1]) == 1
    if ranks[0] == ranks[1]:
        assert clash(one, other)
        assert (one.host, one.shape(), one.exact, one.methods) == (
            other.host,
            other.shape(),
            other.exact,
            other.methods,
        )
    if ranks[0] <= ranks[1] <= ranks[2]:
        assert ranks[0] <= ranks[2]


@given(st.lists(matches, max_size=10), st.randoms(use_true_random=False), asked_paths, asked_hosts, asked_methods)
def test_who_came_first_does_not_matter(
    created: list[Match], chance: random.Random, path: bytes, host: bytes, method: bytes
) -> None:
    routes = accepted(created)
    shuffled = list(routes)
    chance.shuffle(shuffled)
    one, other = (Router((match, match) for match in some) for some in (routes, shuffled))
    assert one.match(path, host, method) == other.match(path, host, method)
    assert sorted(routes, key=Match.rank) == sorted(shuffled, key=Match.rank)


@given(matches, matches)
@settings(max_examples=500)
def test_what_may_stand_together_is_never_in_doubt(one: Match, other: Match) -> None:
    assert clash(one, other) == clash(other, one)
    for path, host, method in itertools.product(
        (b"/", b"/a", b"/a/b", b"/ab/ab/ab", b"/a/b/a/b"), (b"a.example.com", b"x.a.example.com"), (b"GET", b"POST")
    ):
        if fits(one, path, host, method) and fits(other, path, host, method):
            assert clash(one, other) or before(one, other) is not None


# In words: the first of each list wins over those after it.
ORDERED = [
    [Match("/a"), Match("/")],
    [Match("/", host="api.example.com"), Match("/", host="*.example.com"), Match("/", host="*.com"), Match("/a/b")],
    [Match("/a/b", exact=True), Match("/a/b", methods=("GET",)), Match("/a/b"), Match("/a/{x}", exact=True)],
    [Match("/a/{x}"), Match("/a", methods=("GET",)), Match("/a"), Match("/{x}/b"), Match("/{x}"), Match("/")],
]


@pytest.mark.parametrize("order", ORDERED)
def test_the_order_in_words(order: list[Match]) -> None:
    backwards = order[::-1]
    assert sorted(backwards, key=Match.rank) == order
    for one, other in itertools.combinations(order, 2):
        router = Router([(other, other), (one, one)])
        assert router.match(b"/a/b", b"api.example.com", b"GET") in (
            one,
            None if one.exact and one.path == "/" else one,
        )


@pytest.mark.parametrize(
    ("match", "path", "host", "method", "fails"),
    [
        (Match("/a"), b"/a", b"", b"GET", None),
        (Match("/a"), b"/a/", b"", b"GET", None),
        (Match("/a"), b"/ab", b"", b"GET", "path"),
        (Match("/a"), b"/%61", b"", b"GET", "path"),
        (Match("/a"), b"/A", b"", b"GET", "path"),
        (Match("/a"), b"//a", b"", b"GET", "path"),
        (Match("/a", exact=True), b"/a/", b"", b"GET", "path"),
        (Match("/", exact=True), b"/", b"", b"GET", None),
        (Match("/", exact=True), b"/a", b"", b"GET", "path"),
        (Match("/", exact=True), b"//", b"", b"GET", "path"),
        (Match("/{x}"), b"/", b"", b"GET", "path"),
        (Match("/{x}"), b"//", b"", b"GET", "path"),
        (Match("/{x}"), b"/%2F", b"", b"GET", None),
        (Match("/{x}/b", exact=True), b"/a/b", b"", b"GET", None),
        (Match("/{x}/b", exact=True), b"/a/b/c", b"", b"GET", "path"),
        (Match("/a", methods=("GET",)), b"/a", b"", b"get", "method"),
        (Match("/", host="a.b"), b"/", b"A.B.:80", b"GET", None),
        (Match("/", host="a.b"), b"/", b"x.a.b", b"GET", "host"),
        (Match("/", host="*.b"), b"/", b"x.a.b", b"GET", None),
        (Match("/", host="*.b"), b"/", b"b", b"GET", "host"),
        (Match("/", host="*.b"), b"/", b".b", b"GET", "host"),
        (Match("/", host="*.b"), b"/", b"xb", b"GET", "host"),
        (Match("/", host="[::1]"), b"/", b"[::1]:8080", b"GET", None),
        (Match("/", host="127.0.0.1"), b"/", b"127.0.0.1:8080", b"GET", None),
    ],
)
def test_what_matches(match: Match, path: bytes, host: bytes, method: bytes, fails: str | None) -> None:
    assert mismatch(match, path, host, method) == fails
    assert Router([(match, 1)]).match(path, host, method) == (1 if fails is None else None)


def test_a_prefix_inside_a_prefix() -> None:
    """The look-up without a tree, which built-in addresses have."""
    paths = ("/a", "/a/b/c", "/a/b", "/b", "/")
    for order in itertools.permutations(paths):
        router = Router((Match(path), path) for path in order)
        asked = {
            "/a": "/a",
            "/a/x": "/a",
            "/a/b": "/a/b",
            "/a/b/x/c": "/a/b",
            "/a/b/c/": "/a/b/c",
            "/b/a": "/b",
            "/c": "/",
        }
        assert {path: router.match(path.encode(), b"", b"GET") for path in asked} == asked
    assert Router([(Match("/a/b/c"), 1)]).match(b"/a/b", b"", b"GET") is None


def test_a_method_that_fits_nowhere_falls_to_the_next() -> None:
    router = Router([(Match("/a/b", methods=("GET",)), 1), (Match("/a/{x}", methods=("POST",)), 2), (Match("/a"), 3)])
    assert [router.match(b"/a/b", b"", method) for method in (b"GET", b"POST", b"PUT")] == [1, 2, 3]
    assert Router([(Match("/a", methods=("GET",)), 1)]).match(b"/a", b"", b"PUT") is None


@pytest.mark.parametrize(
    ("one", "other", "clashes"),
    [
        (Match("/a/{x}"), Match("/a/{y}"), True),
        (Match("/a/{x}"), Match("/a/{y}", exact=True), False),
        (Match("/a", methods=("GET",)), Match("/a"), False),
        (Match("/a", methods=("GET",)), Match("/a", methods=("POST",)), False),
        (Match("/a", methods=("GET",)), Match("/a", methods=("GET", "POST")), True),
        (Match("/a", host="a.b"), Match("/a"), False),
        (Match("/a", host="*.b"), Match("/a", host="*.b"), True),
    ],
)
def test_ties(one: Match, other: Match, clashes: bool) -> None:
    assert clash(one, other) is clash(other, one) is clashes


def test_hosts_as_they_are_compared() -> None:
    hosts = (b"A.b:80", b"a.b.", b"a.b.:80", b"[::1]:80", b"[::1]", b"", b":80")
    assert [plain_host(host) for host in hosts] == [b"a.b", b"a.b", b"a.b", b"[::1]", b"[::1]", b"", b""]


def test_the_length_of_a_prefix() -> None:
    assert [length_of_segments(b"/a/bc/d", count) for count in (1, 2, 3, 4)] == [2, 5, 7, 7]


def test_a_long_host_or_path_costs_no_more() -> None:
    router = Router([(Match("/{x}/a", host="*.example.com"), 1), (Match("/{x}/b"), 2)])
    deep, many = b"/x/c" + b"/y" * 4000, b"a." * 100 + b"example.com"
    slow_s = min(repeat(lambda: router.match(deep, many, b"GET"), number=10, repeat=5)) / 10
    assert slow_s < 0.001


def test_ten_thousand_routes_cost_what_ten_do() -> None:
    """By the least of many runs, a few times over: anything else would tell of the machine's other work."""

    def routes(count: int) -> Router[int]:
        kinds = ("/v{}/users/{{id}}", "/s{}", "/t{}/things", "/u{}/{{a}}/posts/{{b}}", "/w{}/only")
        return Router(
            (Match(kinds[n % 5].format(n), n % 5 == 4, "api.example.com" if n % 2 else None), n) for n in range(count)
        )

    few, many = routes(10), routes(10_000)
    asked = [b"/v0/users/7", b"/s1/x", b"/t2/things/9", b"/u3/x/posts/y", b"/w4/only", b"/none"]

    def cost_s(router: Router[int]) -> float:
        def ask() -> None:
            for path in asked:
                router.match(path, b"api.example.com", b"GET")

        return min(repeat(ask, number=200, repeat=10))

    assert all(
        few.match(path, b"api.example.com", b"GET") == many.match(path, b"api.example.com", b"GET") for path in asked
    )
    ratios: list[float] = []
    while not ratios or (ratios[-1] > 1.3 and len(ratios) < 10):
        ratios.append(cost_s(many) / cost_s(few))
    assert ratios[-1] <= 1.3, ratios
