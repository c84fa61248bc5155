"""What is going on now, a line every second: services, keys and targets, for `gatectl top`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import __version__
from gatewayd.channel import LOAD_S
from gatewayd.control.admin.accidents import Noted
from gatewayd.control.admin.documented import NDJSON, documented
from gatewayd.control.admin.health import ill_targets, is_ill, problems_of, state_of
from gatewayd.control.admin.inputs import read_query
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import ControlState, FaringView, LoadView, TargetView, control_of
from gatewayd.control.admin.streams import BlockStream
from gatewayd.control.pressure import Pressure
from gatewayd.control.tables import Key, Service, Target, Tenant
from gatewayd.control.watching import LONGEST_S, SHARES, Figure, Figures
from gatewayd.keys import PREFIX
from gatewayd.policy.amounts import format_time
from gatewayd.policy.histogram import quantiles_of, sum_packed

MOST_SHOWN = 100  # services and keys, the busiest; half as many again of those with the most errors and refusals
_MOST_LISTED = 1000  # services that are looked at beside those with requests, and targets
_PATIENCE_S = 30.0

_key, _service, _target, _tenant = (
    table.__table__  # type: ignore[union-attr]
    for table in (Key, Service, Target, Tenant)
)
_encoder = msgspec.json.Encoder()


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # all of them
    window_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_S)] = 10
    every_s: Annotated[int, msgspec.Meta(ge=1, le=60)] = 1
    once: bool = False


class Rates(msgspec.Struct, kw_only=True):
    """Figures of a window. A request counts when it has ended; latencies are of those that were admitted."""

    requests_s: float  # refused ones too
    errors_ratio: float
    refused_ratio: float
    bytes_in_s: float
    bytes_out_s: float
    p50_ms: float | None
    p99_ms: float | None


class TotalLine(Rates, kw_only=True):
    in_flight: int


class ServiceLine(Rates, kw_only=True):
    service: str
    tenant: str
    in_flight: int
    targets: int
    targets_ill: int


class KeyLine(Rates, kw_only=True):
    """`pressure`: of the limit that is fullest, 1 when the next request may be refused; null where none is in use."""

    key: str
    name: str
    tenant: str
    in_flight: int
    pressure: float | None
    limit: str | None


class TargetLine(msgspec.Struct, kw_only=True):
    """Figures are of its URL, whichever services lead there, over ten seconds.

    `requests_s`: as they were sent there. `errors_ratio`: answers of 5xx, those that broke off, and requests without
    an answer. `p50_ms`, `p99_ms`: from when a request had been sent to the head of its answer, or to the end of waiting
    for one.
    """

    service: str
    tenant: str
    url: str
    state: str
    error: str | None
    requests_s: float
    errors_ratio: float
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int


class Others(msgspec.Struct):
    """Those that are too many to be told one by one: requests a second, of all of them."""

    services: float
    keys: float


class Picture(msgspec.Struct, kw_only=True):
    """`window_s` may be less than was asked for: no more is known, of a gateway that has just begun or is very busy."""

    time: str
    window_s: int
    version: str
    started_at: str
    url: str
    workers: int
    workers_serving: int
    journal_records: int  # that are not counted yet
    journal_s: int
    problems: list[str]
    total: TotalLine
    services: list[ServiceLine]
    keys: list[KeyLine]
    targets: list[TargetLine]
    others: Others


@documented("Follow what is going on now", query=Asked, lines=(Picture,), media=NDJSON)
async def top(request: Request) -> Response:
    asked, control = read_query(request, Asked), control_of(request)
    tenant_id = None
    if asked.tenant is not None:
        with control.database.read() as session:
            tenant_id = tenant_by(session, asked.tenant).id
    watching = ExitStack()
    watching.enter_context(control.watch.watching())
    return BlockStream(_lines(control, asked, tenant_id), watching.close, _PATIENCE_S)


async def _lines(control: ControlState, asked: Asked, tenant_id: int | None) -> AsyncGenerator[bytes, None]:
    while True:
        yield _encoder.encode(await picture(control, asked.window_s, tenant_id)) + b"\n"
        if asked.once or await control.watch.ends_within(asked.every_s):
            return


async def picture(control: ControlState, window_s: int, tenant_id: int | None) -> Picture:
    """What workers, journals and leases hold is read on the loop, which has them; what takes long, in a thread."""
    plane = control.plane
    workers, journal, load, views = plane.workers(), plane.journal(), plane.load(), plane.all_targets()
    until_ns = plane.whole_until_ns()
    figures = await control.watch.figures(window_s, until_ns // 1_000_000_000, tenant_id, MOST_SHOWN)
    found = await asyncio.to_thread(_looked_up, control, figures, load, views, tenant_id)
    services = _services(figures, found, load, views)
    named = {row.id: (row.slug, row.tenant) for row in found.services.values()}
    troubles = [*problems_of(workers, journal, found.noted), *ill_targets(views, named)]
    in_flight = sum(line.in_flight for line in services) if tenant_id else sum(each.in_flight for each in workers)
    return Picture(
        time=format_time(figures.until_s),
        window_s=figures.window_s,
        version=__version__,
        started_at=format_time(control.started_at),
        url=control.url,
        workers=len(workers),
        workers_serving=sum(worker.state == "serving" for worker in workers),
        journal_records=journal.waiting_records,
        journal_s=max(0, time.time_ns() - until_ns) // 1_000_000_000,
        problems=[trouble.problem for trouble in troubles],
        total=TotalLine(**_rates(figures.total), in_flight=in_flight),
        services=services,
        keys=_keys(figures, found, load),
        targets=_targets(found, load, views),
        others=Others(round(figures.other_services.requests_s, 3), round(figures.other_keys.requests_s, 3)),
    )


class _ServiceRow(NamedTuple):
    id: int
    slug: str
    tenant: str


class _Fares(NamedTuple):
    """How a target does, as its line says it."""

    requests_s: float
    errors_ratio: float
    p50_ms: float | None
    p99_ms: float | None


_NOTHING_SENT = _Fares(0.0, 0.0, None, None)


class _Found(NamedTuple):
    """What the database has to say of them, by number; and how targets do, by URL."""

    services: dict[int, _ServiceRow]
    targets: dict[int, list[tuple[str, bool]]]  # URL, and whether it is drained
    keys: dict[int, tuple[str, str, str]]  # prefix, name, tenant
    pressures: dict[int, Pressure]
    noted: Noted
    fares: dict[str, _Fares]


def _looked_up(
    control: ControlState,
    figures: Figures,
    load: LoadView,
    views: dict[int, list[TargetView]],
    tenant_id: int | None,
) -> _Found:
    asked = {figure.place[1] for figure in figures.services} | views.keys()
    keys = {figure.place[1] for figure in figures.keys}
    with control.database.read() as session:
        connection = session.connection()
        services = _named_services(connection, asked, tenant_id)
        rows = connection.execute(
            select(_target.c.service_id, _target.c.url, _target.c.drained)
            .where(_target.c.service_id.in_(services))
            .order_by(_target.c.service_id, _target.c.position)
            .limit(_MOST_LISTED)
        )
        targets: dict[int, list[tuple[str, bool]]] = {}
        for service_id, url, drained in rows:
            targets.setdefault(service_id, []).append((url, drained))
        of_keys = select(_key.c.id, _key.c.public_id, _key.c.name, _tenant.c.slug).join_from(_key, _tenant)
        found = connection.execute(of_keys.where(_key.c.id.in_(keys)))
        noted = Noted.read(connection)
        names = {row[0]: (PREFIX + row[1], row[2], row[3]) for row in found}
    fares = {url: _fares(faring) for url, faring in load.faring.items()}
    return _Found(services, targets, names, control.plane.pressures(keys), noted, fares)


def _fares(faring: FaringView) -> _Fares:
    p50, p99 = quantiles_of(sum_packed(faring.times), SHARES)
    # A stream that breaks off is an error when it does, and an answer when it began: that may have left the window.
    errors_ratio = min(1.0, faring.errors / faring.ended) if faring.ended else float(faring.errors > 0)
    return _Fares(
        round(faring.sent / LOAD_S, 3),
        round(errors_ratio, 4),
        None if p50 is None else p50 / 1000,
        None if p99 is None else p99 / 1000,
    )


def _named_services(connection: Connection, asked: set[int], tenant_id: int | None) -> dict[int, _ServiceRow]:
    """Those that are asked for, and of the others as many as there is room for: a quiet service is there too."""
    query = select(_service.c.id, _service.c.slug, _tenant.c.slug).join_from(_service, _tenant)
    if tenant_id is not None:
        query = query.where(_service.c.tenant_id == tenant_id)
    first = connection.execute(query.where(_service.c.id.in_(asked)).limit(_MOST_LISTED))
    live = query.where(_service.c.removed_at.is_(None)).order_by(_service.c.slug).limit(MOST_SHOWN)
    return {row[0]: _ServiceRow(*row) for query in (first, connection.execute(live)) for row in query}


def _services(figures: Figures, found: _Found, load: LoadView, views: dict[int, list[TargetView]]) -> list[ServiceLine]:
    busy = {figure.place[1]: figure for figure in figures.services}
    quiet = [number for number in found.services if number not in busy]
    lines = []
    for number in [*busy, *quiet]:
        row = found.services.get(number)
        targets = found.targets.get(number, [])
        lines.append(
            ServiceLine(
                **_rates(busy.get(number)),
                service=str(number) if row is None else row.slug,
                tenant="-" if row is None else row.tenant,
                in_flight=load.services[number],
                targets=len(targets),
                targets_ill=sum(is_ill(state_of(target, views.get(number, ()))) for target in targets),
            )
        )
    return lines


def _keys(figures: Figures, found: _Found, load: LoadView) -> list[KeyLine]:
    lines = []
    for figure in figures.keys:
        number = figure.place[1]
        prefix, name, tenant = found.keys.get(number, (str(number), "", "-"))
        pressure = found.pressures.get(number)
        lines.append(
            KeyLine(
                **_rates(figure),
                key=prefix,
                name=name,
                tenant=tenant,
                in_flight=load.keys[number],
                pressure=None if pressure is None else round(pressure.share, 4),
                limit=None if pressure is None else pressure.limit,
            )
        )
    return lines


def _targets(found: _Found, load: LoadView, views: dict[int, list[TargetView]]) -> list[TargetLine]:
    lines = []
    for number, targets in found.targets.items():
        row = found.services[number]
        for url, drained in targets:
            said = views.get(number, ())
            lines.append(
                TargetLine(
                    service=row.slug,
                    tenant=row.tenant,
                    url=url,
                    state=state_of((url, drained), said),
                    error=_last_error(url, said),
                    **found.fares.get(url, _NOTHING_SENT)._asdict(),
                    in_flight=load.targets[url],
                )
            )
    return lines


def _last_error(url: str, views: Sequence[TargetView]) -> str | None:
    errors = [view for view in views if view.url == url and view.error]
    return max(errors, key=lambda view: view.error_at_s).error if errors else None


def _rates(figure: Figure | None) -> dict[str, Any]:
    if figure is None:
        figure = Figure((0, 0), 0, 0.0, 0.0, 0.0, 0.0, 0.0, None, None)
    values = figure._asdict()
    return {name: None if values[name] is None else round(values[name], 4) for name in Rates.__struct_fields__}
