"""Which route a request takes, and why none of the others: found by what the data plane finds it with."""

from __future__ import annotations

import re

import msgspec
from sqlmodel import select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.conf import RouteConf, ServiceConf
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, checked, read_query
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import control_of
from gatewayd.control.compile import snapshot
from gatewayd.control.tables import Route
from gatewayd.policy.addresses import DOT_SEGMENT
from gatewayd.policy.allowing import check_methods
from gatewayd.policy.routing import Match, Router, mismatch
from gatewayd.policy.snapshot import all_matches

MOST_LOSERS = 100  # shown by `test`
_URL = re.compile(r"(?:https?://(?P<host>[^/?#]*))?(?P<path>/[^?#]*)?(?:\?[^#]*)?", re.ASCII | re.IGNORECASE)


class Asked(InTenant, frozen=True, kw_only=True):
    url: str
    method: str = "GET"


class Candidate(msgspec.Struct):
    """A route as `test` shows it. `reason`: why it is not the one, or nothing."""

    id: str | None
    name: str
    service: str | None
    host: str | None
    path: str
    exact: bool
    methods: tuple[str, ...] | None
    reason: str


class Tested(msgspec.Struct):
    """`other_tenant`: the request is one of another tenant's. `more`: losers that are not shown."""

    method: str
    host: str
    path: str
    other_tenant: bool
    winner: Candidate | None
    losers: list[Candidate]
    more: int


@documented(
    "Find the route of a request", query=Asked, answer=Tested, rules="`url` is a URL or a path, `method` one method"
)
def test(request: Request) -> Response:
    """Which route a request would take, and why none of the others. Found by what the data plane finds it with."""
    asked, control = read_query(request, Asked), control_of(request)
    method = checked("method", check_methods, asked.method)
    if method is None or len(method) != 1:
        raise invalid("method", "must be one method such as GET")
    host, path = checked("url", _split_url, asked.url)
    wanted = (path.encode(), (control.listen if host is None else host).encode(), method[0].encode())
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
        confs = snapshot(session.connection())
        names = dict(session.exec(select(Route.id, Route.name).where(Route.tenant_id == tenant.id)).all())
    found = sorted(all_matches(confs.services, confs.routes), key=lambda each: each[0].rank())
    number = Router((each[0], index) for index, each in enumerate(found)).match(*wanted)
    winner = None if number is None else found[number]
    losers = [
        _candidate(each, names, _reason(mismatch(each[0], *wanted)))
        for each in found
        if each is not winner and _tenant_id(each) == tenant.id
    ]
    # Nearest first where not all are shown: what is on another path has nothing to do with the request.
    losers.sort(key=lambda loser: loser.reason == _REASONS["path"])
    taken = winner is not None and _tenant_id(winner) != tenant.id
    return answer({
        "method": method[0],
        "host": wanted[1].decode(),
        "path": path,
        "other_tenant": taken,
        "winner": None if winner is None or taken else _candidate(winner, names, ""),
        "losers": losers[:MOST_LOSERS],
        "more": max(0, len(losers) - MOST_LOSERS),
    })  # fmt: skip


_REASONS = {"host": "another host", "path": "another path", "method": "another method"}


def _reason(fails: str | None) -> str:
    return "less specific" if fails is None else _REASONS[fails]


Found = tuple[Match, ServiceConf | None, RouteConf | None]


def _tenant_id(found: Found) -> int:
    _, service, route = found
    of = route or service
    assert of is not None
    return of.tenant_id


def _candidate(found: Found, names: dict[int | None, str], reason: str) -> Candidate:
    match, service, route = found
    return Candidate(
        id=None if route is None else route.public_id,
        name="" if route is None else names.get(route.id, ""),
        service=None if service is None else service.slug,
        host=match.host,
        path=match.path,
        exact=match.exact,
        methods=match.methods,
        reason=reason,
    )


def _split_url(url: str) -> tuple[str | None, str]:
    """Host and path as they would come; only what a request line may hold."""
    match = _URL.fullmatch(url)
    if match is None or not url.isascii() or not url.isprintable() or " " in url or not url:
        raise ValueError(
            f"{url[:80]!r} is no URL such as http://api.example.com/v1/users, and no path such as /v1/users"
        )
    path = match["path"] or "/"
    if DOT_SEGMENT.search(path.encode()) is not None:
        raise ValueError(f"{url[:80]!r} has a `.` or `..` segment, with which a request is refused")
    return match["host"], path
