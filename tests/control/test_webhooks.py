"""Deliveries to a receiver of real HTTP: signed, at least once, tried again, given up, and never twice for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from gatewayd.control import audit_check, outbox
from gatewayd.control.alerting import Alerting
from gatewayd.control.batches import batch_of
from gatewayd.control.database import Database
from gatewayd.control.tables import Alert, AlertEvent, Audit
from gatewayd.control.webhooks import AT_ONCE_TO_ONE, Deliveries, Post, post_over_http
from gatewayd.policy.webhooks import DELAYS_S, Reply
from gatewayd.records import pack_record
from tests.receiver import Delivery, Receiver, receiver

NOW = 1_795_262_400  # 2026-11-21 12:00 UTC
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class House:
    """Alerts and their events in a database; time is an argument."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.count = 0

    def alert(self, url: str) -> int:
        self.count += 1
        with self.database.write() as session:
            alert = Alert(id=self.count, public_id=f"alr_{self.count}", tenant_id=1, kind="refusals", threshold=10,
                          url=url, secret=SECRET, created_at=NOW)  # fmt: skip
            session.add(alert)
        return self.count

    def tell(self, alert_id: int, occasion: str = "refusals:1") -> None:
        with self.database.write() as session:
            wanted = next(each for each in outbox.wanted(session.connection(), "refusals") if each.id == alert_id)
            outbox.put(session.connection(), wanted, "refusals", occasion, NOW, {"refused": 12})

    def events(self) -> list[AlertEvent]:
        with self.database.read() as session:
            return list(session.exec(select(AlertEvent).order_by(col(AlertEvent.id))))

    def event(self) -> AlertEvent:
        return self.events()[0]

    def deliver(self, now: int = NOW, post: Post = post_over_http) -> None:
        """What is due at `now`, until nothing is under way."""

        async def run() -> None:
            deliveries = Deliveries(self.database, post)
            deliveries.look(now)
            await asyncio.gather(*deliveries._tasks.values())

        asyncio.run(run())

    def during(self, happen: Callable[[Deliveries], Awaitable[None]], post: Post) -> None:
        async def run() -> None:
            deliveries = Deliveries(self.database, post)
            deliveries.look(NOW)
            await happen(deliveries)
            await deliveries.close()

        asyncio.run(run())


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are not for these."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_an_event_arrives_signed(house: House, hooks: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    house.tell(house.alert(hooks.url))
    house.deliver()
    (delivery,) = hooks.got
    event = house.event()
    assert delivery.verified(SECRET) == {
        "type": "refusals.spike",
        "timestamp": "2026-11-21T12:00:00Z",
        "data": {"alert": "alr_1", "tenant": "default", "key": None, "key_name": None, "refused": 12},
    }
    assert delivery.path == "/hooks"
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.id == event.public_id
    assert (event.attempts, event.next_at, event.error) == (1, None, "")
    assert event.delivered_at is not None
    assert SECRET.removeprefix("whsec_") not in caplog.text
    house.deliver()
    assert len(hooks.got) == 1


def test_another_secret_does_not_verify(house: House, hooks: Receiver) -> None:
    house.tell(house.alert(hooks.url))
    house.deliver()
    with pytest.raises(Exception, match="No matching signature"):
        hooks.got[0].verified("whsec_" + "A" * 32)


def test_what_fails_is_tried_again_with_the_same_id(house: House) -> None:
    with receiver(500, 302, 200) as hooks:
        house.tell(house.alert(hooks.url))
        house.deliver()
        failed = house.event()
        assert (failed.attempts, failed.error, failed.delivered_at) == (1, "it answered 500", None)
        assert failed.next_at is not None
        assert failed.next_at > NOW
        house.deliver(NOW)  # not due yet
        assert len(hooks.got) == 1
        house.deliver(failed.next_at)
        again = house.event()
        assert (again.attempts, again.error) == (2, "it answered 302")
        assert again.next_at is not None
        house.deliver(again.next_at)
        assert len({delivery.id for delivery in hooks.got}) == 1
        assert all(delivery.verified(SECRET) for delivery in hooks.got)
    assert house.event().delivered_at is not None
    assert (house.event().attempts, house.event().error) == (3, "")


def test_nobody_there_is_a_failure_like_others(house: House) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and held, so that nobody else gets that port meanwhile
        house.tell(house.alert(f"http://127.0.0.1:{nobody.getsockname()[1]}/"))
        house.deliver()
    assert house.event().error.startswith("no connection (")
    assert house.event().next_at is not None


def test_it_is_given_up_in_the_end(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.tell(house.alert("http://127.0.0.1:9/secret-token"))
    posts = 0

    async def refuse(*_: Any) -> Reply:
        nonlocal posts
        posts += 1
        return Reply(503)

    for _ in range(20):
        due = house.event().next_at
        if due is not None:
            house.deliver(due, refuse)
    assert posts == len(DELAYS_S) + 1
    event = house.event()
    assert (event.next_at, event.delivered_at, event.error) == (None, None, "it answered 503")
    assert caplog.messages == [f"alert alr_1 cannot tell of {event.public_id}, given up: it answered 503"]


def test_retry_after_is_waited_for(house: House) -> None:
    async def ask_to_wait(*_: Any) -> Reply:
        return Reply(503, retry_after="5000")

    house.tell(house.alert("http://127.0.0.1:9"))
    house.deliver(NOW, ask_to_wait)
    event = house.event()
    assert event.next_at is not None
    assert event.next_at - event.created_at >= 5000


def test_gone_disables_the_alert(house: House) -> None:
    with receiver(410) as hooks:
        alert_id = house.alert(hooks.url)
        house.tell(alert_id, "refusals:1")
        house.tell(alert_id, "refusals:2")
        house.deliver()
        house.deliver()
        assert len(hooks.got) == 1
    assert [(event.next_at, event.delivered_at) for event in house.events()] == [(None, None)] * 2
    with house.database.read() as session:
        assert session.get_one(Alert, alert_id).disabled_at is not None
        assert outbox.wanted(session.connection(), "refusals") == []
        (line,) = session.exec(select(Audit)).all()
        assert (line.actor, line.action, line.tenant, line.subject) == (
            "gatewayd", "alert.disable", "default", session.get_one(Alert, alert_id).public_id,
        )  # fmt: skip
        assert audit_check.check(session.connection()).differences == []


def test_a_disabled_alert_finds_out_nothing_more(house: House) -> None:
    alerting = Alerting(house.database, gone)
    house.tell(house.alert("http://127.0.0.1:9"))
    packed = pack_record(0, NOW * 10**9, 1, 0, 0, 0, 0, 0, 1, 429, 0, 1, 0, 0, 0, 0, b"")

    async def run() -> None:
        with house.database.write() as session:
            alerting.storing(session, batch_of(packed))
        alerting.deliveries.look(NOW)
        await asyncio.gather(*alerting.deliveries._tasks.values())
        with house.database.write() as session:
            alerting.storing(session, batch_of(packed * 50))

    asyncio.run(run())
    assert len(house.events()) == 1


async def gone(*_: Any) -> Reply:
    return Reply(410)


def test_redirects_are_not_followed(house: House, hooks: Receiver) -> None:
    def elsewhere(handler: Any) -> None:
        handler.send_response(307)
        handler.send_header("Location", hooks.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with receiver(elsewhere) as first:
        house.tell(house.alert(first.url))
        house.deliver()
        assert len(first.got) == 1
    assert hooks.got == []
    assert house.event().error == "it answered 307"


def test_an_endless_answer_is_not_read(house: House) -> None:
    def talk(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    with receiver(talk) as hooks:
        house.tell(house.alert(hooks.url))
        house.deliver()
    assert house.event().delivered_at is not None


def test_no_answer_within_the_time_is_a_failure(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.control.webhook_post.TIMEOUT_S", 0.2)
    with receiver(lambda handler: handler.rfile.read(1)) as hooks:
        house.tell(house.alert(hooks.url))
        house.deliver()
    assert house.event().error == "it did not answer within 0.2 s"


@pytest.mark.parametrize("garbage", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000])
def test_what_is_no_answer_is_a_failure(house: House, garbage: bytes) -> None:
    def reply(handler: Any) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(garbage)
        handler.close_connection = True

    with receiver(reply) as hooks:
        house.tell(house.alert(hooks.url))
        house.deliver()
    assert house.event().delivered_at is None
    assert house.event().next_at is not None
    assert house.event().error


def test_who_is_slow_holds_up_nobody_else(house: House) -> None:
    for _ in range(10):
        house.tell(house.alert("http://slow.example/"))
    others = [house.alert(f"http://quick-{number}.example/") for number in range(5)]
    for alert_id in others:
        house.tell(alert_id)
        house.tell(alert_id, "refusals:2")
    told: list[str] = []
    most_at_once = 0

    async def post(url: str, *_: Any) -> Reply:
        if "slow" in url:
            await asyncio.Event().wait()
        told.append(url)
        return Reply(200)

    async def happen(deliveries: Deliveries) -> None:
        nonlocal most_at_once
        most_at_once = len(deliveries._tasks)
        for _ in range(3):
            for _ in range(10):
                await asyncio.sleep(0)
            deliveries.look(NOW)

    house.during(happen, post)
    assert sorted(told) == sorted(2 * [f"http://quick-{number}.example/" for number in range(5)])
    assert most_at_once == AT_ONCE_TO_ONE + 5


def test_a_removed_alert_sends_nothing(house: House) -> None:
    """Neither what waits, nor what was on its way and failed."""
    alert_id = house.alert("http://127.0.0.1:9")
    house.tell(alert_id, "refusals:1")
    house.tell(alert_id, "refusals:2")

    async def remove_meanwhile(*_: Any) -> Reply:
        with house.database.write() as session:
            session.execute(update(Alert).values(removed_at=NOW))
            outbox.give_up(session.connection(), alert_id, "the alert was removed")
        return Reply(500)

    house.deliver(NOW, remove_meanwhile)
    assert [(event.next_at, event.error) for event in house.events()] == [(None, "the alert was removed")] * 2

    async def never(*_: Any) -> Reply:
        raise AssertionError

    house.deliver(NOW + 10**6, never)


def test_what_is_under_way_is_broken_off_with_its_alert(house: House) -> None:
    alert_id = house.alert("http://127.0.0.1:9")
    house.tell(alert_id)

    async def stall(*_: Any) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async def happen(deliveries: Deliveries) -> None:
        await asyncio.sleep(0)
        assert repr(deliveries) == "<Deliveries, 1 under way>"
        deliveries.drop(alert_id)
        for _ in range(3):
            await asyncio.sleep(0)
        assert repr(deliveries) == "<Deliveries, 0 under way>"

    house.during(happen, stall)


def test_a_control_that_dies_before_it_has_stored_the_answer_sends_again(house: House, hooks: Receiver) -> None:
    house.tell(house.alert(hooks.url))
    other = sqlite3.connect(house.database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def until_it_has_arrived(deliveries: Deliveries) -> None:
        await asyncio.to_thread(hooks.wait_for, 1)
        await asyncio.sleep(0.1)  # and then it ends

    house.during(until_it_has_arrived, post_over_http)
    other.execute("ROLLBACK")
    other.close()
    assert house.event().attempts == 0
    house.deliver()
    first, second = hooks.got
    assert first.id == second.id
    assert first.body == second.body
    assert house.event().delivered_at is not None


def test_a_post_that_raises_is_a_failure_and_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: Any) -> Reply:
        raise RuntimeError("a bug")

    house.tell(house.alert("http://127.0.0.1:9"))
    house.deliver(NOW, fail)
    assert house.event().error == "the delivery failed (RuntimeError)"
    assert house.event().next_at is not None
    assert "a delivery of alert alr_1 failed" in caplog.text


def test_what_is_due_goes_out_one_after_the_other_without_a_pause(house: House) -> None:
    alert_id = house.alert("http://127.0.0.1:9")
    for minute in range(5):
        house.tell(alert_id, f"refusals:{minute}")
    told: list[str] = []

    async def post(url: str, secret: str, event_id: str, *_: Any) -> Reply:
        told.append(event_id)
        return Reply(200)

    async def happen(deliveries: Deliveries) -> None:
        assert repr(deliveries) == "<Deliveries, 1 under way>"
        for _ in range(100):
            await asyncio.sleep(0)

    house.during(happen, post)
    assert told == [event.public_id for event in house.events()]


def test_an_occasion_is_told_once(house: House) -> None:
    alert_id = house.alert("http://127.0.0.1:9")
    house.tell(alert_id)
    house.tell(alert_id)
    assert len(house.events()) == 1


def test_what_is_old_is_forgotten_unless_it_waits(house: House) -> None:
    alert_id = house.alert("http://127.0.0.1:9")
    house.tell(alert_id, "refusals:1")
    house.tell(alert_id, "refusals:2")
    with house.database.write() as session:
        session.execute(update(AlertEvent).where(col(AlertEvent.id) == 1).values(next_at=None))
        outbox.prune(session.connection(), NOW + outbox.EVENTS_KEPT_S)
        assert len(session.exec(select(AlertEvent)).all()) == 2
        outbox.prune(session.connection(), NOW + outbox.EVENTS_KEPT_S + 1)
    assert [event.id for event in house.events()] == [2]


README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()


def test_the_receiver_of_the_readme_verifies(house: House, hooks: Receiver) -> None:
    block = next(block for block in README.split("```python\n")[1:] if "webhook-id" in block).partition("```")[0]
    names: dict[str, Any] = {}
    exec(block, names)
    house.tell(house.alert(hooks.url))
    house.deliver()
    (delivery,) = hooks.got
    assert names["verified"](SECRET, delivery.headers, delivery.body) == json.loads(delivery.body)
    for changed in _altered(delivery):
        with pytest.raises(ValueError, match=r".+"):
            names["verified"](SECRET, changed.headers, changed.body)


def _altered(delivery: Delivery) -> Iterator[Delivery]:
    yield delivery._replace(body=delivery.body + b" ")
    for name, value in (("webhook-id", "evt_other"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")):
        yield delivery._replace(headers={**delivery.headers, name: value})
