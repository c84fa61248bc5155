"""The whole configuration as one document: shown, compared, applied in one transaction, and brought back.

A document is planned and stored by threads; control's loop goes on meanwhile, with leases and look-ups. Changes by
others wait while one is stored, and are seen if they came between: then the plan is made once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin import hidden
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.callers import actor_of
from gatewayd.control.admin.changes import Change, now_s
from gatewayd.control.admin.config_definitions import Document
from gatewayd.control.admin.config_document import MOST_BYTES, DocumentReader, Mistakes
from gatewayd.control.admin.config_plan import Plan, Planner, Scope
from gatewayd.control.admin.config_revisions import RevisionView, document_of, revision_by, show_revisions
from gatewayd.control.admin.config_state import BoundTarget, bound_targets, digest_of, dump, joined, let_go, read_state
from gatewayd.control.admin.config_store import Ordered, Store, newest_change, present_of
from gatewayd.control.admin.documented import JSON, documented
from gatewayd.control.admin.inputs import (
    Nothing,
    check_display_name,
    check_media_type,
    checked,
    read_body,
    read_query,
)
from gatewayd.control.admin.problems import AdminError, conflict
from gatewayd.control.admin.refs import tenant_by
from gatewayd.control.admin.state import Applying, ControlState, control_of
from gatewayd.control.short_turns import short_turns
from gatewayd.errors import BODY_TOO_LARGE, CONFLICT, MALFORMED, NOT_FOUND, UNAVAILABLE
from gatewayd.policy.differences import Difference

# Of all documents at once: two of the largest. And a client that falls silent keeps no room for ever.
_MOST_HELD_BYTES = 2 * MOST_BYTES
_SILENCE_S = 30.0
_PLANS = 5  # so often others may come between
# Of more keys than these, workers forget all: to look each of them up would hold the loop.
_KEYS_NAMED = 50
_LET_GO = 100  # steps at once
_bound = msgspec.json.Decoder(tuple[BoundTarget, ...])


class Shown(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tenant: str | None = None


class Asked(Shown, frozen=True, kw_only=True):
    """`tenant`: the document is about this one alone."""

    prune: bool = False


class Application(Asked, frozen=True, kw_only=True):
    dry_run: bool = False
    base: str | None = None
    message: str = ""


class RollbackQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    dry_run: bool = False
    base: str | None = None
    message: str = ""


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Differences(msgspec.Struct, kw_only=True):
    """`base` is what was compared with: an apply with it is refused with 409 if something has changed since."""

    differences: list[Difference]
    added: int
    changed: int
    removed: int
    base: str


class AppliedView(Differences, kw_only=True):
    """`revision` is null where nothing differed, and of a dry run."""

    revision: RevisionView | None


class Progress(msgspec.Struct):
    state: Literal["planning", "storing", "publishing", "idle"]
    done: int
    of: int


_RULES = "what POST of a tenant, service, plan, route or key refuses; `errors` has every mistake with its pointer"


@documented("Show the configuration", query=Shown, answer=Document)
async def show(request: Request) -> Response:
    """To a viewer without what may be credentials, as services are shown; such a one is not applied."""
    asked, control = read_query(request, Shown), control_of(request)
    with short_turns():
        document = await asyncio.to_thread(_document, control, asked.tenant, hidden.hides(request))
    return Response(document, media_type="application/json")


@documented("Compare a configuration with what is there", query=Asked, body=Document, answer=Differences, rules=_RULES)
async def diff(request: Request) -> Response:
    """What an apply would do. Nothing is changed. A viewer is not shown what may be credentials."""
    asked, control = read_query(request, Asked), control_of(request)
    check_media_type(request, JSON)
    scope, hides = _scope(control, asked), hidden.hides(request)
    async with _document_in(request) as body, control.applies.planning:
        comparing = control.applies.comparing = Applying()
        try:
            with short_turns():
                return await asyncio.to_thread(lambda: _answer(_plan(control, body, scope, comparing), hides=hides))
        finally:
            control.applies.comparing = None


@documented(
    "Apply a configuration", query=Application, body=Document, answer=AppliedView, rules=_RULES, also=(CONFLICT,)
)
async def apply(request: Request) -> Response:
    asked, control = read_query(request, Application), control_of(request)
    message = checked("message", check_display_name, asked.message)
    check_media_type(request, JSON)
    scope = _scope(control, asked)
    async with _document_in(request) as body:
        with short_turns():
            return await _applied(request, body, scope, Ordered("apply", message), asked)


@documented(
    "Roll the configuration back",
    query=RollbackQuery,
    body=Rollback,
    answer=AppliedView,
    rules="what the revision names may not be possible any more",
    also=(CONFLICT, NOT_FOUND),
)
async def rollback(request: Request) -> Response:
    """As a document that was applied before, with all that was not in it taken away."""
    asked, control = read_query(request, RollbackQuery), control_of(request)
    message = checked("message", check_display_name, asked.message)
    wanted = await read_body(request, Rollback)
    with control.database.read() as session:
        found = revision_by(session, wanted.number)
        body, bound = document_of(found), _bound.decode(found.bound)
    ordered = Ordered("rollback", message, wanted.number, frozenset(bound))
    with short_turns():
        return await _applied(request, body, Scope(prune=True, reissue=True), ordered, asked)


@documented("Show how far an apply is", query=Nothing, answer=Progress)
def progress(request: Request) -> Response:
    """Of what goes on; `idle` when nothing does."""
    read_query(request, Nothing)
    applies = control_of(request).applies
    running = applies.running or applies.comparing
    if running is None:
        return answer({"state": "idle", "done": 0, "of": 0})
    return answer({"state": running.state, "done": running.done(), "of": running.of})


@asynccontextmanager
async def _document_in(request: Request) -> AsyncIterator[bytearray]:
    """The body, for as long as it is needed. Others that come meanwhile have what room is left."""
    applies, body, chunks = control_of(request).applies, bytearray(), request.stream()
    try:
        while (chunk := await _next_of(chunks)) is not None:
            body += chunk
            applies.held_bytes += len(chunk)
            if len(body) > MOST_BYTES:
                raise AdminError(BODY_TOO_LARGE, f"the body is longer than {MOST_BYTES} bytes")
            if applies.held_bytes > _MOST_HELD_BYTES:
                raise AdminError(UNAVAILABLE, "other documents take all the room that there is; try again in a moment")
        yield body
    finally:
        applies.held_bytes -= len(body)


async def _next_of(chunks: AsyncIterator[bytes]) -> bytes | None:
    """None: that was all."""
    try:
        async with asyncio.timeout(_SILENCE_S):
            return await anext(chunks, None)
    except TimeoutError:
        raise AdminError(MALFORMED, f"the body has not come: nothing of it in {_SILENCE_S:g} s") from None


async def _applied(
    request: Request, body: bytes | bytearray, scope: Scope, ordered: Ordered, asked: Application | RollbackQuery
) -> Response:
    control = control_of(request)
    if control.applies.running is not None:
        raise conflict("another configuration is being applied; wait until it has ended")
    running = control.applies.running = Applying()
    try:
        async with control.applies.planning:
            plan, number = await _planned_and_stored(request, body, scope, ordered, asked)
            if number is not None:
                running.state = "publishing"
                await _publish(control, plan)
            return await asyncio.to_thread(_answer, plan, control, number)
    finally:
        control.applies.running = None


async def _planned_and_stored(
    request: Request, body: bytes | bytearray, scope: Scope, ordered: Ordered, asked: Application | RollbackQuery
) -> tuple[Plan, int | None]:
    """The plan, and the number of its revision where there is one."""
    control, actor = control_of(request), actor_of(request)
    running = control.applies.running
    assert running is not None
    caught_up = False
    for _ in range(_PLANS):
        plan = await asyncio.to_thread(_plan, control, body, scope, running)
        if asked.base not in (None, plan.base):
            raise conflict("the configuration has changed since it was compared; compare again, then apply")
        if asked.dry_run or not plan.steps:
            return plan, None
        if plan.has("tenant", "currency") and not caught_up:
            await control.plane.catch_up()  # whether there is a bill yet
            caught_up = True
            continue
        await control.database.given_back()
        with control.database.lent():
            number = await _until_done(asyncio.to_thread(_store, control, plan, ordered, actor, running))
        if number is not None:
            return plan, number
    raise conflict("the configuration is being changed by others all the time; try again")


def _scope(control: ControlState, asked: Asked) -> Scope:
    if asked.tenant is None:
        return Scope(asked.prune)
    with control.database.read() as session:
        return Scope(asked.prune, tenant_by(session, asked.tenant).slug)


def _document(control: ControlState, ref: str | None, hides: bool) -> bytes:
    with control.database.read() as session:
        state = read_state(session)
        return dump(state if ref is None else {(slug := tenant_by(session, ref).slug): state[slug]}, hides=hides)


def _plan(control: ControlState, body: bytes | bytearray, scope: Scope, running: Applying) -> Plan:
    """For a thread. Raises AdminError with every mistake."""
    reader = DocumentReader(control)
    running.begin("planning", lambda: reader.done, 0)
    wanted = reader.read(body)
    mistakes: Mistakes = reader.mistakes
    with control.database.read() as session:
        last_change = newest_change(session)
        state = read_state(session)
        plan = Planner(session, state, scope, mistakes).plan(wanted)
    mistakes.refuse()
    plan.document, plan.bound = dump(state), bound_targets(state)
    plan.base, plan.last_change = digest_of(plan.document), last_change
    let_go(state)  # what is to change is still known by its step
    return plan


def _store(control: ControlState, plan: Plan, ordered: Ordered, actor: str, running: Applying) -> int | None:
    """For a thread. None: somebody changed something since this was planned."""
    with control.database.write_elsewhere() as session:
        if newest_change(session) != plan.last_change:
            return None
        store = Store(Change(session, actor, now_s()), plan, control.url)
        running.begin("storing", lambda: store.done, len(plan.steps))
        return store.run(ordered)


async def _publish(control: ControlState, plan: Plan) -> None:
    """Keys first: one that is revoked is refused from then on."""
    changes = {(step.difference.kind, step.difference.change) for step in plan.steps}
    named = [
        str(present_of(step).columns["public_id"])
        for step in plan.steps
        if step.difference.kind == "key" and step.difference.change != "add"
    ]
    if ("plan", "set") in changes or len(named) > _KEYS_NAMED:
        await control.plane.publish_keys(None)
    elif named:
        await control.plane.publish_keys(named)
    if {kind for kind, _ in changes} & {"tenant", "service", "route"}:
        await control.plane.publish_snapshot()


def _answer(
    plan: Plan, control: ControlState | None = None, number: int | None = None, *, hides: bool = False
) -> Response:
    """For a thread, which also lets go of the plan: all at once, that would take the loop as long as a lease may."""
    differences = (step.difference for step in plan.steps)
    parts = {
        "differences": joined([hidden.of_difference(each) if hides else each for each in differences]),
        "added": msgspec.json.encode(plan.counts["add"]),
        "changed": msgspec.json.encode(plan.counts["set"]),
        "removed": msgspec.json.encode(plan.counts["remove"]),
        "base": msgspec.json.encode(plan.base),
    }
    if control is not None:
        shown: Any = None
        if number is not None:
            with control.database.read() as session:
                shown = show_revisions([revision_by(session, number)])[0]
        parts = {"revision": msgspec.json.encode(shown), **parts}
    members = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in parts.items())
    while plan.steps:
        del plan.steps[-_LET_GO:]
    return Response(b"{%s}" % members, media_type="application/json")


async def _until_done(work: Awaitable[int | None]) -> int | None:
    """Also when we are cancelled: a thread cannot be, and the write lock is its own until it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
