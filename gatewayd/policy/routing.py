"""Which route a request takes: what a route matches, which of two is the more specific, and how the first is found.

A route matches by host, path and methods, all compared as bytes, as they came.

    host     `api.example.com`; `*.example.com`, one label or more before it; or any. Without port, case and last dot.
    path     `/v1/users` and what is below it, or with `exact` that path alone. Segments are whole: `/v1/us` is another.
             `{name}` in the place of a segment is any one that is not empty.
    methods  those named, or all

Of the routes that match, the most specific is taken. The order is total, and knows nothing of who came first:

    1. host: an exact one, then the wildcard of more labels, then of fewer, then any
    2. path, segment by segment from the left: a literal one, then `{name}`, then none (the longer path)
    3. exact, then prefix
    4. some methods, then all

Routes that are equal in 1 to 3, and whose methods are both all or overlap, would tie: the second is refused when it is
created (`clash`). What cannot match the same request is ordered by its text, so that a list has one order (`rank`).
The addresses that a service has of itself are routes without host and methods, in the same order. A request whose
method fits no route at the best path falls to the next less specific one; in the end to 404, for 405 is the API's word.

To find the first without trying them all: by host there is one tree of segments, and in a node the literal child is
tried, then `{name}`, then what ends there, which is the order above. A path of n segments that could go both ways at
each visits at most 2^n nodes, for which somebody must have created as many (and `addresses.MOST_NAMES` bounds n). For
paths that begin with a segment below which there are only prefixes for any host and all methods, as built-in addresses
are, no tree is walked: the path is cut after n segments, for n from the longest prefix down to one, and looked up. In
neither does the cost depend on the number of routes: 10,000 cost what 10 cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_THROUGH_TREE = -1  # in place of a depth
Rank = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """What a route matches. From checked values; `rank` sorts the most specific first."""

    path: str
    exact: bool = False
    host: str | None = None
    methods: tuple[str, ...] | None = None

    def __str__(self) -> str:
        methods = "" if self.methods is None else ",".join(self.methods) + " "
        return f"{methods}{self.host or ''}{self.path}{' (exact)' if self.exact else ''}"

    def segments(self) -> list[str]:
        return [] if self.path == "/" else self.path.split("/")[1:]

    def shape(self) -> str:
        """The path without its names: two of one shape match the same paths."""
        return "/" + "/".join("{}" if segment[:1] == "{" else segment for segment in self.segments())

    def rank(self) -> Rank:
        """Less is more specific. Two have the same rank only if they are the same match."""
        host = self.host
        if host is None:
            of_host: Rank = (2, 0, "")
        else:
            of_host = (1, -host.count("."), host) if host.startswith("*.") else (0, 0, host)
        of_path = [(1, "") if segment[:1] == "{" else (0, segment) for segment in self.segments()]
        return (of_host, (*of_path, (2, "")), not self.exact, self.methods is None, self.methods or ())


def clash(one: Match, other: Match) -> bool:
    """Whether some request would match both and neither be the more specific."""
    if (one.host, one.exact, one.shape()) != (other.host, other.exact, other.shape()):
        return False
    if one.methods is None or other.methods is None:
        return one.methods is other.methods
    return not set(one.methods).isdisjoint(other.methods)


def mismatch(match: Match, path: bytes, host: bytes, method: bytes) -> str | None:
    """Which of `host`, `path`, `method` keeps this request from matching; None if nothing does."""
    if match.host is not None and not _fits_host(match.host.encode(), plain_host(host)):
        return "host"
    asked = [] if path == b"/" else path.split(b"/")[1:]
    wanted = match.segments()
    if len(asked) < len(wanted) or (match.exact and len(asked) > len(wanted)):
        return "path"
    for segment, pattern in zip(asked, wanted, strict=False):
        if not segment if pattern[:1] == "{" else segment != pattern.encode():
            return "path"
    return "method" if match.methods is not None and method.decode("latin-1") not in match.methods else None


def plain_host(host: bytes) -> bytes:
    """A Host as routes have it: without a port, in lower case, without the dot that ends an absolute name."""
    end = host.find(b"]") + 1 if host[:1] == b"[" else host.find(b":")
    return (host if end < 0 else host[:end]).lower().rstrip(b".")


def length_of_segments(path: bytes, count: int) -> int:
    """How many bytes the first so many segments of a path take."""
    end = 0
    for _ in range(count):
        end = path.find(b"/", end + 1)
        if end < 0:
            return len(path)
    return end


def _fits_host(wanted: bytes, host: bytes) -> bool:
    if wanted[:2] == b"*.":
        return host.endswith(wanted[1:]) and len(host) > len(wanted) - 1
    return host == wanted


class _Node(Generic[T]):
    """A place in the tree: the segments that may follow, and what ends here. `exact` and `prefix` by methods."""

    __slots__ = ("exact", "literals", "named", "prefix")

    def __init__(self) -> None:
        self.literals: dict[bytes, _Node[T]] = {}
        self.named: _Node[T] | None = None
        self.exact: list[tuple[frozenset[bytes] | None, T]] = []
        self.prefix: list[tuple[frozenset[bytes] | None, T]] = []

    def child(self, segment: str) -> _Node[T]:
        if segment[:1] != "{":
            return self.literals.setdefault(segment.encode(), _Node())
        if self.named is None:
            self.named = _Node()
        return self.named

    def find(self, segments: list[bytes], index: int, method: bytes) -> T | None:
        """The most specific of what is here and below; `segments` from `index` on are still to be matched."""
        if index < len(segments):
            segment = segments[index]
            child = self.literals.get(segment)
            if child is not None:
                found = child.find(segments, index + 1, method)
                if found is not None:
                    return found
            if self.named is not None and segment:
                found = self.named.find(segments, index + 1, method)
                if found is not None:
                    return found
        elif self.exact:
            found = _of_method(self.exact, method)
            if found is not None:
                return found
        return _of_method(self.prefix, method)


class _Tree(Generic[T]):
    """Routes of one host."""

    __slots__ = ("_depth", "_root")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._depth = 0  # of the longest path

    def add(self, match: Match, route: T) -> None:
        node, segments = self._root, match.segments()
        for segment in segments:
            node = node.child(segment)
        self._depth = max(self._depth, len(segments))
        _put(node.exact if match.exact else node.prefix, match, route)

    def find(self, path: bytes, method: bytes) -> T | None:
        # What is deeper than any route stays in one piece: no path makes this slow by its length.
        segments = path.split(b"/", self._depth + 1) if path != b"/" else [b""]
        return self._root.find(segments, 1, method)


class Router(Generic[T]):
    """Routes and the addresses of services, arranged so that the most specific match is found at once."""

    __slots__ = ("_depths", "_hosts", "_most_labels", "_other_depth", "_plain", "_tree", "_whole", "_wildcards", "size")

    def __init__(self, routes: Iterable[tuple[Match, T]] = ()) -> None:
        self.size = 0
        self._hosts: dict[bytes, _Tree[T]] = {}
        self._wildcards: dict[bytes, _Tree[T]] = {}  # by what stands behind `*.`
        self._most_labels = 0  # of these
        # For any host.
        self._plain: dict[bytes, T] = {}  # by prefix
        # By first segment: how many segments the longest prefix has that begins with it, or that the tree is asked.
        self._depths: dict[bytes, int] = {}
        self._other_depth = 0  # of any other first segment
        self._tree: _Tree[T] = _Tree()
        self._whole: list[tuple[frozenset[bytes] | None, T]] = []  # of `/`, by methods
        for _ in self.arrange(list(routes)):
            pass

    def __repr__(self) -> str:
        return f"<Router {self.size} routes, {len(self._hosts) + len(self._wildcards)} hosts>"

    def match(self, path: bytes, host: bytes, method: bytes) -> T | None:
        """The route of this raw path (no query), Host and method, or None."""
        if self._hosts or self._wildcards:
            found = self._of_host(path, host, method)
            if found is not None:
                return found
        end = path.find(b"/", 1)
        first = path if end < 0 else path[:end]
        depth = self._depths.get(first, self._other_depth)
        if depth == 1:  # no longer prefix begins like this
            return self._plain[first]
        if depth < 0:
            return self._tree.find(path, method)
        if depth:
            segments = path.split(b"/", depth + 1)
            for count in range(min(len(segments), depth + 1), 1, -1):
                route = self._plain.get(b"/".join(segments[:count]))
                if route is not None:
                    return route
        return _of_method(self._whole, method)

    def _of_host(self, path: bytes, host: bytes, method: bytes) -> T | None:
        name = plain_host(host)
        tree = self._hosts.get(name)
        if tree is not None:
            found = tree.find(path, method)
            if found is not None:
                return found
        if self._wildcards:  # as many labels as the longest of these has, however long the host is
            labels = name.rsplit(b".", self._most_labels)
            for index in range(1, len(labels)):
                tree = self._wildcards.get(b".".join(labels[index:]))
                # Something stands before the dot.
                if tree is not None and (labels[0] or index > 1):
                    found = tree.find(path, method)
                    if found is not None:
                        return found
        return None

    def arrange(self, routes: list[tuple[Match, T]]) -> Iterator[None]:
        """Of a router that has none yet, in steps. It is to be asked after the last of them."""
        self.size = len(routes)
        for_any_host: list[tuple[Match, T]] = []
        for match, route in routes:
            yield
            if match.host is None:
                for_any_host.append((match, route))
            elif match.host.startswith("*."):
                name = match.host[2:].encode()
                self._most_labels = max(self._most_labels, name.count(b".") + 1)
                self._wildcards.setdefault(name, _Tree()).add(match, route)
            else:
                self._hosts.setdefault(match.host.encode(), _Tree()).add(match, route)
        # First segments below which there is more than prefixes.
        in_tree = {_first(match) for match, _ in for_any_host if not _is_plain(match)}
        self._other_depth = _THROUGH_TREE if "{}" in in_tree else 0
        for match, route in for_any_host:
            yield
            first = _first(match)
            if not first and not match.exact:
                _put(self._whole, match, route)
                self._tree.add(match, route)
            elif self._other_depth or first in in_tree:
                self._depths[b"/" + first.encode()] = _THROUGH_TREE
                self._tree.add(match, route)
            else:
                prefix = match.path.encode()
                self._plain[prefix] = route
                key = b"/" + first.encode()
                self._depths[key] = max(self._depths.get(key, 0), prefix.count(b"/"))


def _first(match: Match) -> str:
    """The first segment, `{}` for a name; nothing for `/`."""
    return match.shape().split("/", 2)[1]


def _is_plain(match: Match) -> bool:
    if match.path == "/":
        return not match.exact
    return not match.exact and match.methods is None and "{" not in match.path


def _put(routes: list[tuple[frozenset[bytes] | None, T]], match: Match, route: T) -> None:
    """Among those of one place: some methods come before all. Those that name some have none in common (`clash`)."""
    if match.methods is None:
        routes.append((None, route))
    else:
        routes.insert(0, (frozenset(method.encode() for method in match.methods), route))


def _of_method(routes: list[tuple[frozenset[bytes] | None, T]], method: bytes) -> T | None:
    for methods, route in routes:
        if methods is None or method in methods:
            return route
    return None
