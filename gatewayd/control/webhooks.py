"""Deliveries: events of the outbox to their receivers, each at least once, tried again for a day.

An attempt's outcome is stored after the answer: a control that dies in between sends the event again, under the same
`webhook-id`. Of an alert one event is under way at a time, of a destination a few, so whoever is slow holds up nobody
else's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import DBAPIError

from gatewayd.control import outbox
from gatewayd.control.admin.changes import Change
from gatewayd.control.database import Database
from gatewayd.control.tables import Alert, AlertEvent, Tenant
from gatewayd.errors import GatewayError
from gatewayd.policy.webhooks import JITTER, Reply, destination, next_at

ACTOR = "gatewayd"
AT_ONCE = 256
AT_ONCE_TO_ONE = 4  # host and port
_STORE_AGAIN_S = 1.0

_alert, _event, _tenant = (table.__table__ for table in (Alert, AlertEvent, Tenant))  # type: ignore[union-attr]
# Of each alert the event that is due the longest: a search in an index for each, however many events there are.
_first = (
    select(_event.c.id)
    .where(_event.c.alert_id == _alert.c.id, _event.c.next_at <= bindparam("now"))
    .order_by(_event.c.next_at)
    .limit(1)
    .correlate(_alert)
    .scalar_subquery()
)
_DUE = (
    select(
        _event.c.id,
        _event.c.alert_id,
        _alert.c.public_id,
        _event.c.public_id,
        _event.c.body,
        _event.c.attempts,
        _alert.c.url,
        _alert.c.secret,
        _alert.c.bound,
    )
    .select_from(_alert)
    .join(_event, _event.c.id == _first)
    .join(_tenant, _alert.c.tenant_id == _tenant.c.id)
    .where(_alert.c.removed_at.is_(None), _tenant.c.removed_at.is_(None))
    .order_by(_event.c.next_at)
)

log = logging.getLogger(__name__)

# URL, secret, webhook-id, body, seconds since 1970, whether who named the URL is bound to a tenant; what came of it.
Post = Callable[[str, str, str, bytes, int, bool], Awaitable[Reply]]

_random = secrets.SystemRandom()


async def post_over_http(url: str, secret: str, event_id: str, body: bytes, now_s: int, bound: bool) -> Reply:
    from gatewayd.control.webhook_post import post  # with httpx: 0.15 s of start-up, which only those with alerts pay

    return await post(url, secret, event_id, body, now_s, bound)


class _Due(NamedTuple):
    """An event to send, in the order of `_DUE`."""

    id: int
    alert_id: int
    alert: str
    event: str
    body: str
    attempts: int
    url: str
    secret: str
    bound: bool


class Deliveries:
    """Those under way, one task each. `on_gone` hears that an alert was disabled. Lives on the event loop's thread."""

    def __init__(
        self, database: Database, post: Post = post_over_http, on_gone: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._post = post
        self._on_gone = on_gone
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by alert
        self._to: Counter[str] = Counter()  # by destination

    def __repr__(self) -> str:
        return f"<Deliveries, {len(self._tasks)} under way>"

    def look(self, now_s: int) -> None:
        """Begin what is due, as far as there is room."""
        for row in self._database.lookup.execute(_DUE, {"now": now_s}).all():
            event = _Due(*row)
            if len(self._tasks) >= AT_ONCE:
                return
            to = destination(event.url)
            if event.alert_id in self._tasks or self._to[to] >= AT_ONCE_TO_ONE:
                continue
            self._to[to] += 1
            task = asyncio.get_running_loop().create_task(self._deliver(event))
            self._tasks[event.alert_id] = task
            task.add_done_callback(lambda task, alert_id=event.alert_id, to=to: self._done(task, alert_id, to))  # type: ignore[misc]

    def drop(self, alert_id: int) -> None:
        """The alert is gone: what is under way for it ends here, if it has not arrived yet."""
        if task := self._tasks.get(alert_id):
            task.cancel()

    async def close(self) -> None:
        """What is under way is sent again by the control after this one."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None], alert_id: int, to: str) -> None:
        del self._tasks[alert_id]
        self._to[to] -= 1
        if not self._to[to]:
            del self._to[to]
        if task.cancelled() or task.exception():  # the one is the end of it, the other would come again at once
            return
        try:
            self.look(_now_s())
        except DBAPIError as error:
            log.error("what is to be delivered cannot be read for the moment: %s", error)

    async def _deliver(self, event: _Due) -> None:
        try:
            reply = await self._post(event.url, event.secret, event.event, event.body.encode(), _now_s(), event.bound)
        except Exception as error:  # whatever it is: it must not be tried again every second
            log.exception("a delivery of alert %s failed", event.alert)
            reply = Reply(error=f"the delivery failed ({type(error).__name__})")
        while not self._store(event, reply, _now_s()):
            await asyncio.sleep(_STORE_AGAIN_S)

    def _store(self, event: _Due, reply: Reply, now_s: int) -> bool:
        attempts = event.attempts + 1
        changes: dict[str, Any] = {"attempts": attempts, "error": reply.failure, "next_at": None}
        if reply.delivered:
            changes["delivered_at"] = now_s
        else:
            changes["next_at"] = next_at(reply, attempts, now_s, _random.uniform(*JITTER))
        try:
            with self._database.write() as session:
                connection = session.connection()
                # An alert that was removed meanwhile has given up its events, and none may come back.
                still = (_event.c.id == event.id, _event.c.next_at.is_not(None))
                connection.execute(update(_event).where(*still).values(**changes))
                if reply.gone:
                    _disable(Change(session, ACTOR, now_s), event, reply)
        except (DBAPIError, GatewayError) as error:
            log.error("the outcome of a delivery cannot be stored for the moment: %s", error)
            return False
        if reply.gone:
            self._on_gone()
        if not reply.delivered and changes["next_at"] is None:
            log.error("alert %s cannot tell of %s, given up: %s", event.alert, event.event, reply.failure)
        return True


def _disable(made: Change, event: _Due, reply: Reply) -> None:
    connection, of_alert = made.session.connection(), _alert.c.id == event.alert_id
    stopped = connection.execute(
        update(_alert).where(of_alert, _alert.c.disabled_at.is_(None)).values(disabled_at=made.at)
    )
    outbox.give_up(connection, event.alert_id, reply.failure)
    if stopped.rowcount:
        tenant = connection.execute(select(_tenant.c.slug).join_from(_alert, _tenant).where(of_alert)).scalar_one()
        made.note("alert.disable", tenant, event.alert, after={"error": reply.failure})


def _now_s() -> int:
    return time.time_ns() // 1_000_000_000
