"""How the gateway is: what an operator asks first, and what a supervisor asks all the time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func
from sqlmodel import col, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd import __version__
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.problems import problem_response
from gatewayd.control.admin.state import ControlState, JournalView, WorkerView, control_of
from gatewayd.control.database import HEAD
from gatewayd.control.tables import Key, Service, Tenant
from gatewayd.errors import UNAVAILABLE
from gatewayd.policy.amounts import format_time

BEHIND_S = 10  # ingest looks five times a second


async def healthz(_: Request) -> Response:
    """Control answers."""
    return answer({"status": "ok"})


async def readyz(request: Request) -> Response:
    """A worker serves."""
    if any(worker.state == "serving" for worker in control_of(request).plane.workers()):
        return answer({"status": "ready"})
    return problem_response(UNAVAILABLE, "no worker is serving")


async def show(request: Request) -> Response:
    """Workers and journal are the loop's, so they are read here; to count a million keys takes a thread."""
    control = control_of(request)
    workers, journal = control.plane.workers(), control.plane.journal()
    problems = _problems(workers, journal)
    counts = await run_in_threadpool(_counts, control)
    state = "degraded" if problems else "ok"
    view = {"version": __version__, "state": state, **_facts(control), "workers": workers, "journal": journal}
    return answer({**view, **counts, "problems": problems})


def _facts(control: ControlState) -> dict[str, Any]:
    return {
        "started_at": format_time(control.started_at),
        "listen": control.listen,
        "url": control.url,
        "state_dir": str(control.settings.state_dir),
        "database": {"schema": HEAD, "bytes": control.database.size_bytes()},
    }


def _counts(control: ControlState) -> dict[str, int]:
    """Of what is there: neither removed nor revoked."""
    tables = {
        "tenants": select(func.count()).where(col(Tenant.removed_at).is_(None)),
        "services": select(func.count()).where(col(Service.removed_at).is_(None)),
        "keys": select(func.count()).where(col(Key.revoked_at).is_(None)),
    }
    with control.database.read() as session:
        return {name: session.exec(query).one() for name, query in tables.items()}


def _problems(workers: list[WorkerView], journal: JournalView) -> list[str]:
    """One line each, in the order in which they hurt."""
    problems = []
    if not any(worker.state == "serving" for worker in workers):
        problems.append("no worker is serving")
    problems += [f"worker {worker.slot} is gone" for worker in workers if worker.state == "gone"]
    if journal.full or journal.error:
        problems.append(f"the journal cannot be written: {journal.error or 'the disk is full'}")
    if journal.lost:
        problems.append(f"{journal.lost} requests were served and not recorded, since the journal had no room")
    if journal.failure:
        problems.append(f"usage is not being stored, journals are kept: {journal.failure}")
    if journal.waiting_s > BEHIND_S:
        problems.append(
            f"usage is {journal.waiting_s} s behind: {journal.waiting_records} records wait in the journals"
        )
    if journal.torn:
        problems.append(f"{journal.torn} torn records were dropped from the journal")
    if journal.damaged:
        problems.append(f"journal files are damaged and were set aside, not billed: {', '.join(journal.damaged)}")
    return problems
