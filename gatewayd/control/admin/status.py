"""How the gateway is: what an operator asks first, and what a supervisor asks all the time."""

from __future__ import annotations

import shutil
import time
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import func
from sqlmodel import Session, col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import __version__
from gatewayd.control.admin.accidents import Noted
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.health import (
    Certificate,
    Trouble,
    certificate_problems,
    certificates_of,
    disk_problems,
    ill_targets,
    problems_of,
)
from gatewayd.control.admin.inputs import Nothing, read_query
from gatewayd.control.admin.problems import problem_response
from gatewayd.control.admin.state import ControlState, JournalView, TargetView, WorkerView, control_of
from gatewayd.control.database import HEAD
from gatewayd.control.tables import Key, Service, Tenant
from gatewayd.control.watching import Figures
from gatewayd.errors import UNAVAILABLE
from gatewayd.policy.amounts import format_time

_WINDOW_S = 10


class Health(msgspec.Struct):
    status: Literal["ok"]


class Readiness(msgspec.Struct):
    status: Literal["ready"]


class DatabaseView(msgspec.Struct):
    schema: str
    bytes: int


class DiskView(msgspec.Struct):
    free_bytes: int
    total_bytes: int


class NowView(msgspec.Struct):
    """Of the last seconds; quantiles are null where nothing came."""

    window_s: int
    requests_s: float
    errors_ratio: float
    refused_ratio: float
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int


class StatusView(msgspec.Struct):
    """`problems`: one line each; `troubles` have the command to type next.

    Counts are of what is there: neither removed nor revoked.
    """

    version: str
    state: Literal["ok", "degraded"]
    started_at: str
    listen: str
    url: str
    state_dir: str
    database: DatabaseView
    workers: list[WorkerView]
    journal: JournalView
    tenants: int
    services: int
    keys: int
    problems: list[str]
    disk: DiskView
    certificates: list[Certificate]
    now: NowView
    troubles: list[Trouble]


@documented("Tell whether control answers", answer=Health)
async def healthz(_: Request) -> Response:
    """Control answers."""
    return answer({"status": "ok"})


@documented("Tell whether a worker serves", answer=Readiness, also=(UNAVAILABLE,))
async def readyz(request: Request) -> Response:
    """A worker serves."""
    if any(worker.state == "serving" for worker in control_of(request).plane.workers()):
        return answer({"status": "ready"})
    return problem_response(UNAVAILABLE, "no worker is serving")


@documented("Show how the gateway is", query=Nothing, answer=StatusView)
async def show(request: Request) -> Response:
    """Workers and journal are the loop's, so they are read here; to count a million keys takes a thread."""
    read_query(request, Nothing)
    control = control_of(request)
    plane = control.plane
    workers, journal, views = plane.workers(), plane.journal(), plane.all_targets()
    figures = await control.watch.figures(_WINDOW_S, plane.whole_until_ns() // 1_000_000_000)
    found = await run_in_threadpool(_found, control, views)
    certificates = await run_in_threadpool(certificates_of, control.settings)
    disk = await run_in_threadpool(shutil.disk_usage, control.settings.state_dir)
    troubles = [
        *problems_of(workers, journal, found.noted),
        *disk_problems(disk.free, control.settings.state_dir),
        *certificate_problems(certificates, time.time_ns() // 1_000_000_000),
        *ill_targets(views, found.services),
    ]
    return answer(
        {
            "version": __version__,
            "state": "degraded" if troubles else "ok",
            **_facts(control),
            "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
            "certificates": certificates,
            "now": _now(figures, workers),
            "workers": workers,
            "journal": journal,
            **found.counts,
            "problems": [trouble.problem for trouble in troubles],
            "troubles": troubles,
        }
    )


def _now(figures: Figures, workers: list[WorkerView]) -> dict[str, Any]:
    """Of the last seconds, as `top` has them."""
    total = figures.total
    return {
        "window_s": figures.window_s,
        "requests_s": round(total.requests_s, 4),
        "errors_ratio": round(total.errors_ratio, 4),
        "refused_ratio": round(total.refused_ratio, 4),
        "p50_ms": total.p50_ms,
        "p99_ms": total.p99_ms,
        "in_flight": sum(worker.in_flight for worker in workers),
    }


def _facts(control: ControlState) -> dict[str, Any]:
    return {
        "started_at": format_time(control.started_at),
        "listen": control.listen,
        "url": control.url,
        "state_dir": str(control.settings.state_dir),
        "database": {"schema": HEAD, "bytes": control.database.size_bytes()},
    }


class _Found(NamedTuple):
    counts: dict[str, int]
    services: dict[int, tuple[str, str]]  # of which somebody has something to say: slug and tenant
    noted: Noted


def _found(control: ControlState, views: dict[int, list[TargetView]]) -> _Found:
    with control.database.read() as session:
        query = select(Service.id, Service.slug, Tenant.slug).join(Tenant, col(Service.tenant_id) == col(Tenant.id))
        live = query.where(col(Service.id).in_(views), col(Service.removed_at).is_(None)).order_by(col(Service.slug))
        services = {number: (slug, tenant) for number, slug, tenant in session.exec(live) if number is not None}
        return _Found(_counts(session), services, Noted.read(session.connection()))


def _counts(session: Session) -> dict[str, int]:
    """Of what is there: neither removed nor revoked."""
    tables = {
        "tenants": select(func.count()).where(col(Tenant.removed_at).is_(None)),
        "services": select(func.count()).where(col(Service.removed_at).is_(None)),
        "keys": select(func.count()).where(col(Key.revoked_at).is_(None)),
    }
    return {name: session.exec(query).one() for name, query in tables.items()}
