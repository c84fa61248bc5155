"""Alerts as a whole: what finds out, and what delivers.

ingest ──records──> spikes     (in the transaction)  ┐
       ──units────> alerts     (once a second)       ├─> outbox ──> webhooks
       ──records──> spending   (when it has moved)   ┘
"""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from gatewayd.control import outbox
from gatewayd.control.alerts import Alerts
from gatewayd.control.batches import Batch
from gatewayd.control.database import Database
from gatewayd.control.spending_alerts import SpendingAlerts
from gatewayd.control.spikes import Spikes
from gatewayd.control.webhooks import Deliveries, Post, post_over_http
from gatewayd.errors import GatewayError

STEP_S = 1.0

log = logging.getLogger(__name__)


class Alerting:
    """Lives on the event loop's thread."""

    def __init__(self, database: Database, post: Post = post_over_http) -> None:
        self._database = database
        self.quotas = Alerts(database)
        self.spending = SpendingAlerts(database)
        self.spikes = Spikes()
        self.deliveries = Deliveries(database, post, self.forget)

    def __repr__(self) -> str:
        return f"<Alerting {self.quotas} {self.spending} {self.spikes} {self.deliveries}>"

    def recorded(self, key_id: int, units: int) -> None:
        """A key has gone on by so many units of its quota, and that is stored."""
        self.quotas.recorded(key_id, units)

    def storing(self, session: Session, batch: Batch) -> None:
        """Its records are added to the rollups in this transaction."""
        self.spikes.add(session, batch, _now_s())
        self.spending.recorded(batch.groups)

    def forget(self) -> None:
        """Alerts, plans or keys have changed."""
        self.quotas.forget()
        self.spending.forget()
        self.spikes.forget()

    def tenants_changed(self) -> None:
        """What is known of keys stays: there may be a million of them to look up again."""
        self.spending.forget()
        self.spikes.forget()

    def alert_added(self) -> None:
        """A new one may have been reached already."""
        self.forget()
        self.quotas.look_at_recent()

    def alert_removed(self, alert_id: int) -> None:
        self.forget()
        self.deliveries.drop(alert_id)

    async def run(self) -> None:
        """Until cancelled. Each at its own pace: bills that take long to add up hold up no delivery."""
        await asyncio.gather(self._watch_quotas(), self._watch_spending(), self._deliver())

    async def close(self) -> None:
        await self.deliveries.close()

    def tidy(self) -> None:
        """What is old is forgotten."""
        try:
            with self._database.write() as session:
                outbox.prune(session.connection(), _now_s())
        except (DBAPIError, GatewayError) as error:
            log.warning("old events of alerts cannot be removed for the moment: %s", error)

    # A loop that has died would tell nothing for good and nobody would know: whatever is raised is logged.

    async def _watch_quotas(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            try:
                await self.quotas.step(_now_s())
            except Exception:
                log.exception("quotas could not be looked at")

    async def _watch_spending(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            try:
                await self.spending.step(_now_s(), time.monotonic())
            except Exception:
                log.exception("spending could not be looked at")

    async def _deliver(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            try:
                self.deliveries.look(_now_s())
            except Exception:
                log.exception("webhooks could not be delivered")


def _now_s() -> int:
    return time.time_ns() // 1_000_000_000
