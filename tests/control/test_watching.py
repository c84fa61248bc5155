"""What is going on now: figures of a window, from what ingest takes to the lines of `/v1/top`."""

from __future__ import annotations

import asyncio
from array import array
from typing import Any

import pytest

from gatewayd.control.admin.state import FaringView, LoadView, TargetView
from gatewayd.control.batches import Batch, batch_of
from gatewayd.control.pressure import Pressure
from gatewayd.control.watching import KEYS_A_SECOND, LONGEST_S, REMEMBERED, WATCHERS, Figures, Watch
from gatewayd.errors import GatewayError
from gatewayd.policy.histogram import pack_seconds
from gatewayd.records import ADMITTED, MORE_BYTES, UPSTREAM_BROKE, Record
from tests.control.conftest import Admin
from tests.control.streaming import streaming
from tests.control.test_tailing import NOON_NS, record, stored

NOON_S = NOON_NS // 10**9
A, B = "http://127.0.0.1:8001", "http://127.0.0.1:8002"


def at(second: float, **changes: Any) -> Record:
    """One that ended so many seconds after noon, in 1.75 ms."""
    fields: dict[str, Any] = {"gateway_us": 250, "upstream_us": 1500} | changes
    took_ns = (fields["gateway_us"] + fields["upstream_us"]) * 1000
    return record(time_ns=NOON_NS + int(second * 10**9) - took_ns, **fields)


def batch(*records: Record) -> Batch:
    return batch_of(stored(*records))


def figures(watch: Watch, window_s: int, until: int, *more: Any) -> Figures:
    return asyncio.run(watch.figures(window_s, NOON_S + until, *more))


def test_a_request_counts_in_the_second_in_which_it_ended() -> None:
    watch = Watch(NOON_S - 100)
    watch.take(batch(at(0.5), at(0.6)))
    watch.take(batch(at(1.5, upstream_us=20_000_000)))
    watch.take(batch(at(2.1)))
    assert figures(watch, 2, 2).total.requests_s == 1.5
    assert figures(watch, 1, 2).total.requests == 1
    assert figures(watch, 1, 3).total.requests == 1
    assert figures(watch, 10, 3).total.requests_s == 0.4
    assert figures(watch, 10, 40).total.requests == 0
    assert repr(watch) == "<Watch 0 watchers, 0 batches, 0 seconds>"


def test_what_figures_say() -> None:
    watch = Watch(NOON_S - 100)
    watch.take(
        batch(
            *[at(0.1, bytes_in=10, bytes_out=100) for _ in range(6)],
            at(0.1, status=503),
            at(0.1, flags=ADMITTED | UPSTREAM_BROKE),
            at(0.1, flags=0, status=429, upstream_us=0),
            at(0.1, flags=MORE_BYTES, bytes_out=10**9),
            at(0.1, tenant=2, service=2, key=2, upstream_us=98_250),
        )
    )
    found = figures(watch, 1, 1)
    assert (found.window_s, found.total.requests) == (1, 10)
    assert (found.total.errors_ratio, found.total.refused_ratio) == (0.2, 0.1)
    assert [figure.place for figure in found.services] == [(1, 1), (2, 2)]
    first, second = found.keys
    assert (first.requests_s, first.bytes_in_s, first.bytes_out_s) == (9, 6 * 10 + 3 * 5, 6 * 100 + 3 * 500)
    assert first.p50_ms == pytest.approx(1.75, rel=1 / 16)
    assert second.p99_ms == pytest.approx(98.5, rel=1 / 16)
    assert figures(watch, 1, 1, 2).total.requests == 1
    assert [figure.place for figure in figures(watch, 1, 1, 2).services] == [(2, 2)]


def test_the_busiest_are_told_and_those_with_errors_and_the_others_are_summed() -> None:
    watch = Watch(NOON_S - 100)
    watch.take(batch(*[at(0.1, key=key) for key in range(1, 9) for _ in range(key)]))
    watch.take(batch(at(0.2, key=10, status=500), at(0.2, key=11, status=429, flags=0), at(0.2, key=0)))
    found = figures(watch, 1, 1, None, 2)
    assert [figure.place[1] for figure in found.keys] == [8, 7, 10, 11]
    assert found.other_keys.requests == 21
    assert found.total.requests == 39


def test_of_very_many_keys_the_busiest_are_told_apart() -> None:
    watch = Watch(NOON_S - 100)
    many = range(1, KEYS_A_SECOND + 51)
    watch.take(batch(*[at(0.1, key=key) for key in many], *[at(0.1, key=5000) for _ in range(9)]))
    found = figures(watch, 1, 1)
    assert found.keys[0].place == (1, 5000)
    assert found.total.requests == len(many) + 9
    assert sum(figure.requests for figure in found.keys) + found.other_keys.requests == len(many) + 9


def test_no_more_is_said_to_be_known_than_is() -> None:
    watch = Watch(NOON_S - 3)
    watch.take(batch(at(0.1)))
    assert figures(watch, 10, 1).window_s == 4, "control began then"
    watch = Watch(NOON_S - 100)
    part = REMEMBERED * 2 // 5  # of which two have room
    for second in range(4):
        watch.take(batch_of(stored(at(second + 0.5)) * part))
    found = figures(watch, 10, 4)
    assert (found.window_s, found.total.requests) == (2, 2 * part)
    watch.take(batch(at(4.1)))
    assert figures(watch, 10, 5).window_s == 3, "what has been summed stays"


def test_memory_is_of_half_a_minute() -> None:
    watch = Watch(NOON_S - 100)
    for second in range(100):
        watch.take(batch(at(second + 0.1)))
    assert repr(watch) == f"<Watch 0 watchers, {LONGEST_S + 1} batches, 0 seconds>"
    figures(watch, 1, 100)
    assert repr(watch) == f"<Watch 0 watchers, 0 batches, {LONGEST_S} seconds>"


def test_so_many_may_watch() -> None:
    watch = Watch(0)
    everyone = [watch.watching() for _ in range(WATCHERS)]
    for each in everyone:
        each.__enter__()
    with pytest.raises(GatewayError, match=f"{WATCHERS} watch the gateway already"), watch.watching():
        pass
    everyone[0].__exit__(None, None, None)
    with watch.watching():
        watch.end()
        assert asyncio.run(watch.ends_within(20))
    with pytest.raises(GatewayError, match="stopping"), watch.watching():
        pass


@pytest.fixture
def busy(admin: Admin) -> Admin:
    admin.post("/v1/services", slug="orders", targets=[A, B])
    admin.post("/v1/services", slug="quiet", targets=[B])
    admin.post("/v1/keys", name="ci")
    object.__setattr__(admin.control, "watch", Watch(NOON_S - 100))
    admin.control.watch.take(batch(at(0.1), at(0.2), at(0.2, status=500), at(0.3, flags=0, status=429)))
    admin.plane.until_ns = NOON_NS + 10**9
    admin.plane.target_views = [TargetView("worker-0", A, "open", 5, "it refused the connection", 6)]
    admin.plane.load_view.services[1] = 3
    admin.plane.load_view.keys[1] = 2
    admin.plane.load_view.targets[B] = 3
    times = [pack_seconds(array("f", [0.002] * 97)), pack_seconds(array("f", [1.5] * 3))]
    admin.plane.load_view.faring[B] = FaringView(sent=4, ended=100, errors=25, times=times)
    admin.plane.pressed[1] = Pressure(0.75, "minute")
    return admin


def test_a_line_of_top(busy: Admin) -> None:
    (key,) = busy.get("/v1/keys")["items"]
    line = busy.get("/v1/top", once="true", window_s=2)
    assert (line["time"], line["window_s"], line["workers"], line["workers_serving"]) == (
        "2026-11-21T12:00:01Z",
        2,
        1,
        1,
    )
    rates = {"requests_s": 2.0, "errors_ratio": 0.25, "refused_ratio": 0.25, "bytes_in_s": 10.0, "bytes_out_s": 1000.0,
             "p50_ms": line["total"]["p50_ms"], "p99_ms": line["total"]["p99_ms"]}  # fmt: skip
    assert line["total"] == {**rates, "in_flight": 1}
    nothing = dict.fromkeys(rates, 0.0) | {"p50_ms": None, "p99_ms": None}
    assert line["services"] == [
        {**rates, "service": "orders", "tenant": "default", "in_flight": 3, "targets": 2, "targets_ill": 1},
        {**nothing, "service": "quiet", "tenant": "default", "in_flight": 0, "targets": 1, "targets_ill": 0},
    ]
    assert line["keys"] == [
        {**rates, "key": key["prefix"], "name": "ci", "tenant": "default", "in_flight": 2, "pressure": 0.75,
         "limit": "minute"}
    ]  # fmt: skip
    of = {"service": "orders", "tenant": "default"}
    fares = {"requests_s": 0.4, "errors_ratio": 0.25, "p50_ms": line["targets"][1]["p50_ms"],
             "p99_ms": line["targets"][1]["p99_ms"]}  # fmt: skip
    assert line["targets"] == [
        {**of, "url": A, "state": "open", "error": "it refused the connection", "requests_s": 0.0,
         "errors_ratio": 0.0, "p50_ms": None, "p99_ms": None, "in_flight": 0},
        {**of, "url": B, "state": "healthy", "error": None, **fares, "in_flight": 3},
        {**of, "service": "quiet", "url": B, "state": "healthy", "error": None, **fares, "in_flight": 3},
    ]  # fmt: skip
    assert fares["p50_ms"] == pytest.approx(2, rel=1 / 14)
    assert fares["p99_ms"] == pytest.approx(1500, rel=1 / 14)
    assert line["others"] == {"services": 0.0, "keys": 0.0}


def test_errors_of_a_target_are_of_what_has_ended(busy: Admin) -> None:
    def errors_ratio(faring: FaringView) -> float:
        busy.plane.load_view.faring[B] = faring
        return float(busy.get("/v1/top", once="true")["targets"][1]["errors_ratio"])

    assert errors_ratio(FaringView(sent=5)) == 0, "they wait"
    assert errors_ratio(FaringView(sent=5, ended=3, errors=2)) == 0.6667
    assert errors_ratio(FaringView(ended=1, errors=2)) == 1, "a stream from before the window broke off in it"
    assert errors_ratio(FaringView(errors=1)) == 1


def test_top_of_one_tenant(busy: Admin) -> None:
    busy.post("/v1/tenants", slug="acme")
    line = busy.get("/v1/top", once="true", tenant="acme")
    assert (line["services"], line["keys"], line["targets"]) == ([], [], [])
    assert (line["total"]["requests_s"], line["total"]["in_flight"]) == (0, 0)
    busy.refused("not_found", "GET", "/v1/top", params={"tenant": "nobody"})
    busy.refused("invalid", "GET", "/v1/top", params={"window_s": LONGEST_S + 1})


def test_lines_of_top_come_until_the_gateway_stops(busy: Admin) -> None:
    async def scenario() -> None:
        async with streaming(busy.app, "/v1/top") as stream:
            assert (await stream.line())["total"]["requests_s"] == 0.4
            busy.control.watch.take(batch(at(1.5)))
            busy.plane.until_ns += 10**9
            assert (await stream.line())["total"]["requests_s"] == 0.5
            busy.control.watch.end()
            while not stream.over:
                await asyncio.sleep(0.001)
        assert repr(busy.control.watch).startswith("<Watch 0 watchers")

    asyncio.run(scenario())
    assert busy.refused("unavailable", "GET", "/v1/top")["detail"] == "the gateway is stopping"


def test_status_says_what_is_wrong_and_what_to_type(busy: Admin) -> None:
    status = busy.get("/v1/status")
    assert status["state"] == "degraded"
    assert status["problems"] == [f"target {A} of service orders is open: it refused the connection"]
    assert status["troubles"][0]["command"] == "gatectl service health orders"
    assert status["now"]["requests_s"] == 0.4
    busy.plane.target_views = [TargetView("worker-0", A, "drained", 5, "", 0)]
    assert busy.get("/v1/status")["state"] == "ok", "as somebody wanted it"
    busy.plane.target_views = [TargetView("worker-0", f"http://t{n}", "unhealthy", 5, "", 0) for n in range(7)]
    assert busy.get("/v1/status")["problems"][-1] == "2 more targets are not well"
    busy.plane.load_view = LoadView()
