"""`usage tail`, from ingest to the lines of the answer: who hears what, and who loses what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from gatewayd.control.ingest import Ingest
from gatewayd.control.tailing import LISTENERS, PENDING, Describer, Tails, Wanted
from gatewayd.errors import RATE_LIMITED, GatewayError
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record, pack_record
from tests.control.conftest import Admin
from tests.control.streaming import streaming

NOON_NS = 1_795_262_400 * 10**9  # 2026-11-21 12:00 UTC
TAIL, LOGS = "/v1/usage/tail", "/v1/logs"


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
    "routed": record(route=7, client=9),
    "missing": record(status=404),
    "failed": record(status=502),
    "broken": record(flags=ADMITTED | UPSTREAM_BROKE),
    "refused": record(flags=0, status=429, problem=RATE_LIMITED.number),
    "refused 503": record(flags=0, status=503),
}


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        (Wanted(), "ok, elsewhere, routed, missing, failed, broken, refused, refused 503"),
        (Wanted(tenant_id=2), "elsewhere"),
        (Wanted(service_id=2), "elsewhere"),
        (Wanted(key_id=2), "elsewhere"),
        (Wanted(tenant_id=1, key_id=2), ""),
        (Wanted(statuses=frozenset({4})), "missing, refused"),
        (Wanted(statuses=frozenset({404})), "missing"),
        (Wanted(statuses=frozenset({404, 5})), "missing, failed, refused 503"),
        (Wanted(route_id=7), "routed"),
        (Wanted(client_ids=frozenset({8, 9})), "routed"),
        (Wanted(client_ids=frozenset()), ""),
        (Wanted(refused=True), "refused, refused 503"),
        (Wanted(errors=True), "failed, broken"),
        (Wanted(refused=True, errors=True), "failed, broken, refused, refused 503"),
        (Wanted(refused=True, statuses=frozenset({5})), "refused 503"),
    ],
)
def test_who_hears_what(wanted: Wanted, heard: str) -> None:
    assert ", ".join(name for name, each in FOUND.items() if wanted.takes(each)) == heard
    assert not wanted.takes(TUNNEL_BYTES)


def test_who_reads_too_slowly_is_told_what_is_missing_and_where() -> None:
    async def scenario() -> None:
        tails = Tails()
        listener = tails.listen(Wanted(statuses=frozenset({2})))
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
        listener = tails.listen(Wanted())
        tails.take(stored(record(5)))  # of one worker
        tails.take(stored(record(4)))  # of another
        assert await listener.next(9) == ([record(4), record(5)], 0)

    asyncio.run(scenario())


def test_so_many_may_listen() -> None:
    tails = Tails()
    listeners = [tails.listen(Wanted()) for _ in range(LISTENERS)]
    with pytest.raises(GatewayError, match=f"tailed {LISTENERS} times, which is the most"):
        tails.listen(Wanted())
    assert repr(tails) == f"<Tails {LISTENERS} listeners>"
    tails.leave(listeners[0])
    tails.listen(Wanted())


class Journals:
    """The journals of a gateway whose worker this is, and an ingest that tells who listens."""

    def __init__(self, admin: Admin) -> None:
        self.folder = admin.control.settings.state_dir / "journal"
        self.folder.mkdir()
        self.journal = Journal(self.folder, b"w" * 16, 1)
        self.ingest = Ingest(admin.control.database, self.folder, lambda *_: None, lambda _: None, 1 << 30)
        self.ingest.on_taken = lambda batch: admin.control.tails.take(batch.data)
        admin.plane.positions = self.ingest.positions  # type: ignore[method-assign]

    def append(self, *records: Record) -> None:
        for each in records:
            self.journal.append(pack_record(*each))

    def take(self) -> None:
        while self.ingest.step():
            pass


@pytest.fixture
def journals(named: Admin) -> Iterator[Journals]:
    made = Journals(named)
    yield made
    made.journal.close()


def test_ingest_tells_what_it_has_stored(named: Admin, journals: Journals) -> None:
    async def scenario() -> None:
        listener = named.control.tails.listen(Wanted())
        taken = [record(number) for number in range(3)]
        journals.append(*taken)
        with named.control.database.lent():
            journals.ingest.step()
        journals.take()
        journals.take()
        assert await listener.next(9) == (taken, 0)

    asyncio.run(scenario())


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


def number_of(line: dict[str, Any]) -> int:
    return int(line["request_id"])


def test_at_the_seam_of_past_and_present_each_request_is_told_once(named: Admin, journals: Journals) -> None:
    """Of those that are in the journal and not taken when somebody begins to listen, too."""

    async def scenario() -> None:
        journals.append(*map(record, range(5)))
        journals.take()
        journals.append(*map(record, range(5, 8)))
        async with streaming(named.app, TAIL, "lines=100") as stream:
            assert stream.status == 200
            journals.take()
            journals.append(record(8), record(9, tenant=2), record(10))
            journals.take()
            assert [number_of(await stream.line()) for _ in range(10)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
            assert stream.rest() == []
        assert repr(named.control.tails).startswith("<Tails 0 listeners")

    asyncio.run(scenario())


def test_the_last_lines_and_what_follows(named: Admin, journals: Journals) -> None:
    coming = count(10)

    async def heard(query: str, lines: int) -> list[int]:
        async with streaming(named.app, TAIL, query) as stream:
            journals.append(record(next(coming)))
            journals.take()
            return [number_of(await stream.line()) for _ in range(lines)]

    async def scenario() -> None:
        journals.append(*map(record, range(5)))
        journals.take()
        assert await heard("", 1) == [10]
        assert await heard("lines=2", 3) == [4, 10, 11]
        assert await heard("since=2026-11-21T12:00:00Z&lines=1", 2) == [11, 12]
        assert await heard("since=2026-11-21T12:00:00Z", 9) == [0, 1, 2, 3, 4, 10, 11, 12, 13]

    asyncio.run(scenario())


FILTERS: dict[str, list[int]] = {
    "service=products": [2],
    "key=ci&status=2xx": [1, 2, 7],
    "client=kiosk": [3],
    "status=404": [4],
    "status=404,403": [4, 6],
    "status=4xx": [4, 6],
    "route=reads": [7],
    "everyone=true&errors=true": [5],
    "tenant=acme": [5],
    "refused=true": [6],
    "refused=true&errors=true&everyone=true": [5, 6],
}
OF_THESE = (
    record(1), record(2, service=2), record(3, key=0, client=1), record(4, status=404),
    record(5, tenant=2, status=500), record(6, flags=0, status=403), record(7, route=1), record(8, flags=MORE_BYTES),
)  # fmt: skip


def test_filters_of_the_query(named: Admin, journals: Journals) -> None:
    """The same of what has been, whether it is taken or not, and of what comes."""
    named("POST", "/v1/routes", {"name": "reads", "path": "/v1", "service": "orders"})
    journals.append(*OF_THESE[:4])
    journals.take()
    journals.append(*OF_THESE[4:])
    for query, numbers in FILTERS.items():
        told = named("GET", f"{LOGS}?{query}").json()
        assert [number_of(item) for item in told["items"]] == numbers, query

    async def scenario() -> None:
        for query, numbers in FILTERS.items():
            async with streaming(named.app, TAIL, query) as stream:
                named.control.tails.take(stored(*OF_THESE))
                assert [number_of(await stream.line()) for _ in numbers] == numbers, query

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
    named.refused("not_found", "GET", TAIL, params={"route": "nowhere"})
    named.refused("invalid", "GET", TAIL, params={"lines": "10001"})
    named.refused("invalid", "GET", TAIL, params={"since": "yesterday-ish"})
    for _ in range(LISTENERS):
        named.control.tails.listen(Wanted())
    assert "is the most" in named.refused("unavailable", "GET", TAIL)["detail"]
