"""`usage tail`, from ingest to the lines of the answer: who hears what, and who loses what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gatewayd.control.ingest import Ingest
from gatewayd.control.tailing import LISTENERS, PENDING, REMEMBERED, Describer, Tails, Wanted
from gatewayd.errors import RATE_LIMITED, GatewayError
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record, pack_record
from tests.control.conftest import Admin
from tests.control.streaming import streaming

NOON_NS = 1_795_262_400 * 10**9  # 2026-11-21 12:00 UTC
TAIL = "/v1/usage/tail"


def record(number: int = 0, **changes: Any) -> Record:
    """The one of millisecond `number`."""
    fields: dict[str, Any] = {
        "flags": ADMITTED, "time_ns": NOON_NS + number * 10**6, "tenant": 1, "service": 1, "route": 0, "key": 1,
        "client": 0, "identity": 0, "price": 1, "status": 200, "problem": 0, "units": 1, "bytes_in": 5,
        "bytes_out": 500, "gateway_us": 250, "upstream_us": 1500, "request_id": b"%016d" % number,
    }  # fmt: skip
    return Record(**fields | changes)


def stored(*records: Record) -> bytes:
    """As they stand in a segment."""
    return b"".join(pack_record(*each) for each in records)


TUNNEL_BYTES = record(flags=MORE_BYTES)
FOUND = {
    "ok": record(),
    "elsewhere": record(tenant=2, service=2, key=2),
    "missing": record(status=404),
    "failed": record(status=502),
    "broken": record(flags=ADMITTED | UPSTREAM_BROKE),
    "refused": record(flags=0, status=429, problem=RATE_LIMITED.number),
    "refused 503": record(flags=0, status=503),
}


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        (Wanted(), "ok, elsewhere, missing, failed, broken, refused, refused 503"),
        (Wanted(tenant_id=2), "elsewhere"),
        (Wanted(service_id=2), "elsewhere"),
        (Wanted(key_id=2), "elsewhere"),
        (Wanted(tenant_id=1, key_id=2), ""),
        (Wanted(status=4), "missing, refused"),
        (Wanted(status=404), "missing"),
        (Wanted(refused=True), "refused, refused 503"),
        (Wanted(errors=True), "failed, broken"),
        (Wanted(refused=True, errors=True), "failed, broken, refused, refused 503"),
        (Wanted(refused=True, status=5), "refused 503"),
    ],
)
def test_who_hears_what(wanted: Wanted, heard: str) -> None:
    assert ", ".join(name for name, each in FOUND.items() if wanted.takes(each)) == heard
    assert not wanted.takes(TUNNEL_BYTES)


def test_who_reads_too_slowly_is_told_what_is_missing_and_where() -> None:
    async def scenario() -> None:
        tails = Tails()
        listener, _ = tails.listen(Wanted(status=2))
        tails.take(stored(*map(record, range(PENDING))))
        tails.take(stored(record(PENDING), record(status=500), record(PENDING + 1)))
        first = await listener.next(PENDING - 1)
        assert first is not None
        assert (len(first[0]), first[1]) == (PENDING - 1, 0)
        tails.take(stored(record(PENDING + 2)))  # there is room, but it would come before the gap is told
        assert await listener.next(PENDING) == ([record(PENDING - 1)], 3)
        tails.take(stored(record(PENDING + 3)))
        assert await listener.next(PENDING) == ([record(PENDING + 3)], 0)
        assert repr(listener) == "<Listener 0 pending, 0 lost>"

    asyncio.run(scenario())


def test_records_come_in_the_order_of_their_times() -> None:
    async def scenario() -> None:
        tails = Tails()
        tails.take(stored(record(3), record(1)))
        listener, recent = tails.listen(Wanted())
        assert recent == [record(1), record(3)]
        tails.take(stored(record(5)))  # of one worker
        tails.take(stored(record(4)))  # of another
        assert await listener.next(9) == ([record(4), record(5)], 0)

    asyncio.run(scenario())


def test_memory_is_bounded() -> None:
    tails = Tails()
    for start in (0, 1000, 2000):
        tails.take(stored(*map(record, range(start, start + 1000))))
    tails.take(stored(*map(record, range(10))))
    listeners = [tails.listen(Wanted())[0] for _ in range(LISTENERS)]
    with pytest.raises(GatewayError, match=f"tailed {LISTENERS} times, which is the most"):
        tails.listen(Wanted())
    assert repr(tails) == f"<Tails {LISTENERS} listeners, {REMEMBERED + 10} records>"
    tails.leave(listeners[0])
    recent = tails.listen(Wanted())[1]
    assert len(recent) == REMEMBERED
    assert [each.request_id for each in recent[:11:10]] == [record(0).request_id, record(1010).request_id]


def test_ingest_tells_what_it_has_stored(admin: Admin, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    journal = Journal(folder, b"w" * 16, 1)
    taken = [record(number) for number in range(3)]
    for each in taken:
        journal.append(pack_record(*each))
    ingest = Ingest(admin.control.database, folder, lambda *_: None, lambda _: None)
    ingest.on_taken = admin.control.tails.take
    with admin.control.database.lent():
        ingest.step()
    assert admin.control.tails.listen(Wanted())[1] == [], "nothing is stored while the database is lent"
    ingest.step()
    ingest.step()
    assert admin.control.tails.listen(Wanted())[1] == taken
    journal.close()


@pytest.fixture
def named(admin: Admin) -> Admin:
    admin.post("/v1/services", slug="orders", targets=["http://127.0.0.1:8001"])
    admin.post("/v1/services", slug="products", targets=["http://127.0.0.1:8001"])
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/clients", name="kiosk")
    admin.post("/v1/tenants", slug="acme")
    return admin


def test_a_line_has_names(named: Admin) -> None:
    (key,) = named.get("/v1/keys")["items"]
    describer = Describer(named.control.database.lookup)
    refusal = record(7, flags=0, status=429, problem=RATE_LIMITED.number, client=1, route=99, request_id=b"ab\0\0")
    assert describer.describe([refusal]) == [
        {
            "time": "2026-11-21T12:00:00.007Z", "tenant": "default", "service": "orders", "route": "99",
            "key": key["prefix"], "client": "kiosk", "status": 429, "code": "rate_limited", "admitted": False,
            "units": 1, "bytes_in": 5, "bytes_out": 500, "gateway_ms": 0.25, "upstream_ms": 1.5, "total_ms": 1.75,
            "request_id": "ab",
        }
    ]  # fmt: skip
    (other,) = describer.describe([record(tenant=2, key=0, service=2)])
    assert (other["tenant"], other["key"], other["service"], other["code"]) == ("acme", "-", "products", None)


def test_lines_come_as_they_are_taken(named: Admin) -> None:
    async def scenario() -> None:
        tails = named.control.tails
        tails.take(stored(record(1), record(2), record(3, client=1)))
        async with streaming(named.app, TAIL, "lines=2") as stream:
            assert stream.status == 200
            assert [(await stream.line())["request_id"][-1] for _ in range(2)] == ["2", "3"]
            tails.take(stored(record(4), record(5, tenant=2)))
            tails.take(stored(record(6)))
            assert [(await stream.line())["request_id"][-1] for _ in range(2)] == ["4", "6"]
        assert repr(tails).startswith("<Tails 0 listeners")

    asyncio.run(scenario())


def test_filters_of_the_query(named: Admin) -> None:
    async def heard(query: str) -> list[int]:
        async with streaming(named.app, TAIL, query + "&lines=100") as stream:
            return [int(line["request_id"]) for line in stream.rest()]

    async def scenario() -> None:
        named.control.tails.take(
            stored(
                record(1),
                record(2, service=2),
                record(3, key=0, client=1),
                record(4, status=404),
                record(5, tenant=2, status=500),
                record(6, flags=0, status=403),
            )
        )
        assert await heard("service=products") == [2]
        assert await heard("key=ci&status=2xx") == [1, 2]
        assert await heard("client=kiosk") == [3]
        assert await heard("status=404") == [4]
        assert await heard("everyone=true&errors=true") == [5]
        assert await heard("tenant=acme") == [5]
        assert await heard("refused=true") == [6]

    asyncio.run(scenario())


def test_a_client_that_does_not_read_loses_lines_and_is_told(named: Admin) -> None:
    async def scenario() -> None:
        tails = named.control.tails
        async with streaming(named.app, TAIL) as stream:
            stream.reads.clear()
            tails.take(stored(record(0)))
            for _ in range(20):  # the line is on its way to a socket that is full
                await asyncio.sleep(0)
            for batch in range(3):
                tails.take(stored(*map(record, range(batch * PENDING, (batch + 1) * PENDING))))
            stream.reads.set()
            lines = [await stream.line() for _ in range(1 + PENDING + 1)]
            assert lines[-1] == {"lost": 2 * PENDING}
            assert [int(line["request_id"]) for line in lines[1:-1]] == list(range(PENDING))

    asyncio.run(scenario())


def test_a_drain_ends_every_tail(named: Admin) -> None:
    async def scenario() -> None:
        async with streaming(named.app, TAIL) as stream:
            named.control.tails.end()
            while not stream.over:
                await asyncio.sleep(0.001)

    asyncio.run(scenario())
    problem = named.refused("unavailable", "GET", TAIL)
    assert problem["detail"] == "the gateway is stopping"


def test_what_cannot_be_tailed(named: Admin) -> None:
    assert "not a status such as 404" in named.refused("invalid", "GET", TAIL, params={"status": "9"})["detail"]
    assert "not a status" in named.refused("invalid", "GET", TAIL, params={"status": "4XX"})["detail"]
    named.refused("not_found", "GET", TAIL, params={"service": "nowhere"})
    named.refused("not_found", "GET", TAIL, params={"key": "nobody"})
    named.refused("invalid", "GET", TAIL, params={"lines": str(REMEMBERED + 1)})
    for _ in range(LISTENERS):
        named.control.tails.listen(Wanted())
    assert "is the most" in named.refused("unavailable", "GET", TAIL)["detail"]
