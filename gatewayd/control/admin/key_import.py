"""Keys from a CSV file: `POST /v1/keys/import` takes it as it comes in, `GET` says how far that is.

One at a time. The answer comes when all is stored, or with the first line that is wrong: then nothing is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.callers import actor_of
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.inputs import InTenant, check_display_name, check_media_type, read_query
from gatewayd.control.admin.key_terms import check_labels, expiry_of, scope_of
from gatewayd.control.admin.problems import conflict, invalid
from gatewayd.control.admin.refs import plan_by, tenant_by
from gatewayd.control.admin.state import ControlState, control_of
from gatewayd.control.database import Database
from gatewayd.control.importing import BadRowError, KeyImport, StoppedError, Words
from gatewayd.control.short_turns import short_turns
from gatewayd.control.tables import Tenant
from gatewayd.errors import UNAVAILABLE, GatewayError
from gatewayd.policy.audit_chain import Line

CSV = "text/csv"


class ImportProgress(msgspec.Struct):
    state: str  # "idle" without one
    rows: int
    stored: int


class Imported(msgspec.Struct):
    """`imported` is 0 of a dry run."""

    tenant: str
    rows: int
    imported: int
    dry_run: bool


class ImportOptions(InTenant, frozen=True, kw_only=True):
    dry_run: bool = False


class Progressing(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None  # of an import into that one alone


@documented("Show how far the import of keys is", query=Progressing, answer=ImportProgress)
def progress(request: Request) -> Response:
    """Of the import under way; `idle` when there is none."""
    asked, imports = read_query(request, Progressing), control_of(request).imports
    running = imports.running
    if running is None or asked.tenant not in (None, imports.tenant):
        return answer({"state": "idle", "rows": 0, "stored": 0})
    return answer({"state": running.state, "rows": running.rows, "stored": running.stored})


@documented(
    "Import keys from a CSV file",
    query=ImportOptions,
    body=str,
    takes=(CSV,),
    answer=Imported,
    rules="each line is a key; the first that is wrong is named",
)
async def import_(request: Request) -> Response:
    asked, control = read_query(request, ImportOptions), control_of(request)
    check_media_type(request, CSV)
    if control.imports.running is not None:
        raise conflict("another import is under way; wait until it has ended")
    with control.database.read() as session:
        tenant = tenant_by(session, asked.tenant)
    assert tenant.id is not None
    running = KeyImport(control.database.path, tenant.id, _words(control.database, tenant, now_s()), now_s())
    control.imports.running, control.imports.tenant = running, tenant.slug
    try:
        with short_turns():  # look-ups go on meanwhile
            await _run(request, control, tenant, running, asked.dry_run)
    finally:
        control.imports.running = None
        running.close()
    imported = 0 if asked.dry_run else running.rows
    return answer({"tenant": tenant.slug, "rows": running.rows, "imported": imported, "dry_run": asked.dry_run})


async def _run(request: Request, control: ControlState, tenant: Tenant, running: KeyImport, dry_run: bool) -> None:
    staging = asyncio.create_task(asyncio.to_thread(running.stage))
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(running.feed, chunk)
        await asyncio.to_thread(running.feed, None)
        await asyncio.shield(staging)
        await _until_done(running, asyncio.to_thread(running.check))
        if not dry_run:
            await _store(request, control, tenant, running)
    except BadRowError as error:
        raise invalid("file", f"{error}; nothing was imported") from None
    except sqlite3.Error as error:
        raise GatewayError(UNAVAILABLE, f"the database refused the keys: {error}; nothing was imported") from None
    except (ClientDisconnect, StoppedError):
        raise conflict("the file has not come whole; nothing was imported") from None
    finally:
        if not staging.done():
            running.stop()
            await asyncio.to_thread(running.feed, None)
            await asyncio.wait([staging])


async def _store(request: Request, control: ControlState, tenant: Tenant, running: KeyImport) -> None:
    actor = actor_of(request)

    def note(rows: int) -> Line:
        after = msgspec.json.encode({"imported": rows}).decode()
        return Line(now_s(), actor, "key.import", tenant.slug, tenant.public_id, None, after)

    with control.database.lent():
        await _until_done(running, asyncio.to_thread(running.store, note))
    # Workers ask for keys by digest from now on, and again for what they have heard to be none.
    await control.plane.publish_snapshot()


async def _until_done(running: KeyImport, work: Any) -> None:
    """Also when we are cancelled: a thread cannot be, and nobody may have what it holds before it has gone."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        running.stop()
        await asyncio.wait([task])
        raise


def _words(database: Database, tenant: Tenant, now: int) -> Words:
    """What names stand for in this tenant. For the thread."""

    def services(text: str) -> str | None:
        if not text.strip():
            return None
        with database.read() as session:
            return scope_of(session, tenant, text.split())

    def plan(text: str) -> int | None:
        if not text.strip():
            return default_plan
        with database.read() as session:
            return plan_by(session, tenant, text.strip()).id

    default_plan = tenant.default_plan_id
    return Words(
        name=check_display_name,
        services=_in_words(services, "names a service that does not exist"),
        plan=_in_words(plan, "names a plan that does not exist"),
        expires=_in_words(lambda text: expiry_of(text.strip() or None, now), "has an expiry that is no time to come"),
        labels=_in_words(check_labels, "has a label whose name or value is none"),
    )


def _in_words(read: Callable[[Any], Any], complaint: str) -> Any:
    """With a sentence about a line for the API's complaint, which quotes: where columns are mixed up, a secret."""

    def reading(value: Any) -> Any:
        try:
            return read(value)
        except GatewayError:
            raise ValueError(complaint) from None

    return reading
