"""Active checks: what a probe asks and believes, and when workers hear of it. The servers are real."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gatewayd import __version__
from gatewayd.channel import TargetChecked, TargetsChecked
from gatewayd.conf import HealthConf, ServiceConf, TargetConf, TlsConf
from gatewayd.control import probing
from gatewayd.control.probe import probe
from gatewayd.control.probing import Check, Prober
from tests.upstreams.test_pools import SocketUpstream
from tests.wire.conftest import anyio_backend
from tests.wire.harness import OK, Upstream, service
from tests.wire.peer import Peer

__all__ = ["anyio_backend"]
pytestmark = pytest.mark.anyio

HEALTH = HealthConf(path="/health", interval_s=0.05, timeout_s=5.0)


def answer(status: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"Content-Length: 0", b"", b""))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b"200 OK", None),
        (b"204 No Content", None),
        (b"399 Odd", None),
        (b"400 Bad Request", "it answered 400"),
        (b"503 Service Unavailable", "it answered 503"),
    ],
)
async def test_2xx_and_3xx_are_good(status: bytes, error: str | None) -> None:
    async with Upstream() as upstream:
        upstream.answer = answer(status)
        assert await probe(f"http://127.0.0.1:{upstream.port}", HEALTH, TlsConf()) == error


async def test_what_a_probe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with Upstream() as upstream:
        upstream.answer = answer(b"302 Found", b"Location: /elsewhere", b"Set-Cookie: a=b")
        for _ in range(2):
            assert await probe(f"http://127.0.0.1:{upstream.port}/base", HEALTH, TlsConf()) is None
        assert len(upstream.requests) == len(upstream.peers) == 2  # nothing is followed, no connection kept
        request = upstream.requests[1]
        assert request.line == b"GET /base/health HTTP/1.1"
        assert sorted((name.lower(), value) for name, value in request.fields) == [
            (b"accept", b"*/*"),
            (b"connection", b"close"),
            (b"host", b"127.0.0.1:%d" % upstream.port),
            (b"user-agent", f"gatewayd/{__version__} (health check)".encode()),
        ]


async def test_a_query_goes_along() -> None:
    async with Upstream() as upstream:
        health = HealthConf(path="/health?deep=1")
        assert await probe(f"http://127.0.0.1:{upstream.port}", health, TlsConf()) is None
        assert upstream.requests[0].line == b"GET /health?deep=1 HTTP/1.1"


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with SocketUpstream(tmp_path / "app.sock") as upstream:
        assert await probe(f"unix:{tmp_path}/app.sock:/v1", HEALTH, TlsConf()) is None
        assert (upstream.requests[0].line, upstream.requests[0].one(b"host")) == (
            b"GET /v1/health HTTP/1.1",
            b"localhost",
        )
    assert "no connection" in str(await probe(f"unix:{tmp_path}/none.sock", HEALTH, TlsConf()))


async def test_no_connection_and_no_sense() -> None:
    async def nonsense(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(b"nonsense\r\n\r\n")
        peer.close()

    async def cut(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        peer.cut()

    assert "no connection" in str(await probe("http://127.0.0.1:1", HEALTH, TlsConf()))
    async with Upstream() as upstream:
        for script in (nonsense, cut):
            upstream.script = script
            said = await probe(f"http://127.0.0.1:{upstream.port}", HEALTH, TlsConf())
            assert said == "it closed the connection or sent an invalid answer"


class TlsUpstream(Upstream):
    def __init__(self, ca: trustme.CA) -> None:
        super().__init__()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("orders.example").configure_cert(self.context)

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)


async def test_tls_by_the_services_options(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with TlsUpstream(ca) as upstream:
        url = f"https://127.0.0.1:{upstream.port}"
        right = TlsConf(server_name="orders.example", ca_file=f"{tmp_path}/ca.pem")
        assert await probe(url, HEALTH, right) is None
        assert await probe(url, HEALTH, TlsConf(verify=False)) is None
        assert "no connection" in str(await probe(url, HEALTH, TlsConf(ca_file=f"{tmp_path}/ca.pem")))
        assert "no connection" in str(await probe(url, HEALTH, TlsConf()))
        assert "certificates" in str(await probe(url, HEALTH, TlsConf(ca_file=f"{tmp_path}/none.pem")))


def test_so_many_answers_in_a_row_decide() -> None:
    check = Check(1, "http://a", HealthConf(path="/", healthy_after=2, unhealthy_after=3), TlsConf())
    bad = "it answered 503"
    assert [check.heard(error, at) for at, error in enumerate([bad, bad, None, bad, bad, bad, bad])] == [
        False, False, False, False, False, True, False
    ]  # fmt: skip
    assert (check.healthy, check.since_s, check.error, check.error_at_s) == (False, 5, bad, 6)
    assert [check.heard(error, at) for at, error in enumerate([None, bad, None, None, None])] == [
        False, False, False, True, False
    ]  # fmt: skip
    assert (check.healthy, check.since_s) == (True, 3)


@asynccontextmanager
async def prober(*services: ServiceConf, **more: Any) -> AsyncIterator[tuple[Prober, list[TargetChecked]]]:
    told: list[TargetChecked] = []

    def tell(message: TargetsChecked) -> None:
        told.extend(message.targets)

    opened = Prober(tell, **more)
    opened.configure(services)
    try:
        yield opened, told
    finally:
        await opened.close()
        assert not [task for task in asyncio.all_tasks() if "_watch" in repr(task)]


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "BEGIN_WITHIN_S", 0.01)


async def test_workers_hear_of_changes_and_of_nothing_else() -> None:
    async with Upstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        checked = service(7, "a", url, health=HEALTH)
        async with prober(checked, service(8, "b", url)) as (opened, told):
            await until(lambda: told)
            upstream.answer = answer(b"503 No")
            await until(lambda: len(told) == 2)
            upstream.answer = OK
            await until(lambda: len(told) == 3)
            assert told == [TargetChecked(7, url, healthy) for healthy in (True, False, True)]
            assert opened.known().targets == (told[-1],)
            opened.configure([service(7, "a", url)])
            assert opened.known().targets == ()
            asked = len(upstream.requests)
            await asyncio.sleep(0.2)
            assert len(upstream.requests) <= asked + 1  # one may have been under way


async def test_a_target_that_hangs_is_unhealthy_and_ends_with_us() -> None:
    async def hang(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.rest()

    async with Upstream() as upstream:
        upstream.script = hang
        health = HealthConf(path="/", interval_s=0.01, timeout_s=0.05, unhealthy_after=2)
        async with prober(service(7, "a", f"http://127.0.0.1:{upstream.port}", health=health)) as (opened, told):
            await until(lambda: told)
            assert not told[0].healthy
            assert opened.checks(7)[0].error == "it did not answer in time"


async def test_what_is_known_stands_when_the_check_changes() -> None:
    async with Upstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        async with prober(service(7, "a", url, health=HEALTH)) as (opened, told):
            await until(lambda: told)
            opened.configure([service(7, "a", url, health=HealthConf(path="/other", interval_s=0.05))])
            assert opened.known().targets == (TargetChecked(7, url, True),)
            await until(lambda: upstream.requests[-1].line.startswith(b"GET /other"))
            assert len(told) == 1


async def test_no_more_probes_at_once_than_the_bound() -> None:
    under_way = most = asked = 0

    async def ask(url: str, health: HealthConf, tls: TlsConf, bound: bool) -> str | None:
        nonlocal under_way, most, asked
        under_way, asked = under_way + 1, asked + 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return None

    many = tuple(TargetConf(f"http://10.0.0.{n}", 1) for n in range(200))
    async with prober(service(1, "a", "", many, health=HEALTH), ask=ask):
        await until(lambda: asked > 400)
    assert most == probing.AT_ONCE


async def test_a_probe_that_fails_by_our_fault_is_a_bad_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(url: str, health: HealthConf, tls: TlsConf, bound: bool) -> str | None:
        raise RuntimeError("bug")

    async with prober(service(1, "a", "http://a", health=HEALTH), ask=ask) as (opened, told):
        await until(lambda: told)
        assert opened.checks(1)[0].error == "the probe failed (RuntimeError)"
    assert "a probe of http://a failed" in caplog.text
