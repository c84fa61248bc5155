"""`https` targets against a real TLS server: who is believed, what is shown, and what an end without a word means."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gatewayd.conf import ServiceConf, TlsConf
from gatewayd.proxy import target_tls
from tests.wire.harness import GET, Upstream, Wire, service
from tests.wire.peer import CutShortError, Peer

pytestmark = pytest.mark.anyio

CA = trustme.CA()
OTHER_CA = trustme.CA()
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


class TlsUpstream(Upstream):
    """Notes the names that clients asked for (SNI) and the subjects of the certificates that they showed."""

    def __init__(self, certificate: trustme.LeafCert, wants_certificate_of: trustme.CA | None = None) -> None:
        super().__init__()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        if wants_certificate_of is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            wants_certificate_of.configure_trust(self.context)
        self.names: list[str | None] = []
        self.context.sni_callback = lambda _, name, __: self.names.append(name)

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)

    @property
    def tls(self) -> Any:
        return self.peers[-1]._writer.get_extra_info("ssl_object")


@pytest.fixture
def trusted(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def believing(trusted: str) -> TlsConf:
    return TlsConf(ca_file=trusted)


@asynccontextmanager
async def wired(folder: Path, upstream: Upstream, **settings: Any) -> AsyncIterator[Wire]:
    (folder / "wire").mkdir()
    async with Wire(folder / "wire", upstream, **settings) as wire:
        yield wire


def to(wire: Wire, tls: TlsConf, host: str = "localhost", **other: Any) -> ServiceConf:
    return service(1, "open", f"https://{host}:{wire.upstream.port}", tls=tls, **other)


async def detail(wire: Wire) -> str:
    answer = await wire.ask(GET)
    assert answer.status == 502, answer
    assert b'"code":"upstream_unreachable"' in answer.body
    return answer.body.decode()


async def test_a_certificate_of_an_authority_that_is_trusted(tmp_path: Path, believing: TlsConf) -> None:
    upstream = TlsUpstream(CA.issue_cert("localhost"))
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, believing))
        client = await wire.client()
        for _ in range(3):
            await client.send(GET)
            assert (await client.message()).body == b"ok"
        assert len(upstream.peers) == 1  # and it was used again
        assert upstream.names == ["localhost"]
        assert upstream.tls.selected_alpn_protocol() == "http/1.1"
        assert upstream.tls.version() in ("TLSv1.2", "TLSv1.3")
        assert upstream.requests[0].one(b"host") == b"localhost:%d" % upstream.port


@pytest.mark.parametrize(
    ("certificate", "host", "why"),
    [
        (lambda: OTHER_CA.issue_cert("localhost"), "localhost", "signed by an authority that is not trusted here"),
        (lambda: CA.issue_cert("elsewhere.example"), "localhost", "it is for another name"),
        (lambda: CA.issue_cert("localhost"), "127.0.0.1", "it is for another address"),
        (
            lambda: CA.issue_cert("localhost", not_before=YESTERDAY - timedelta(days=9), not_after=YESTERDAY),
            "localhost",
            "it has expired",
        ),
        (
            lambda: CA.issue_cert("localhost", not_before=TOMORROW, not_after=TOMORROW + timedelta(days=9)),
            "localhost",
            "it is not valid yet",
        ),
    ],
)
async def test_certificates_that_are_not_believed(
    tmp_path: Path, believing: TlsConf, certificate: Callable[[], trustme.LeafCert], host: str, why: str
) -> None:
    upstream = TlsUpstream(certificate())
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, believing, host))
        said = await detail(wire)
        assert "verification of the upstream's certificate failed: " in said
        assert why in said
        assert upstream.received == b""
        wire.serve(to(wire, TlsConf(verify=False), host))
        assert (await wire.ask(GET)).body == b"ok"


async def test_the_systems_authorities_are_believed_and_no_others(tmp_path: Path) -> None:
    async with wired(tmp_path, TlsUpstream(CA.issue_cert("localhost"))) as wire:
        wire.serve(to(wire, TlsConf()))
        assert "not trusted here" in await detail(wire)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_in_the_certificate(tmp_path: Path, believing: TlsConf, host: str) -> None:
    upstream = TlsUpstream(CA.issue_cert("127.0.0.1", "localhost"))
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, believing, host))
        assert (await wire.ask(GET)).body == b"ok"
        assert upstream.names == ["localhost" if host == "localhost" else None]


async def test_a_server_name_of_its_own(tmp_path: Path, trusted: str) -> None:
    upstream = TlsUpstream(CA.issue_cert("api.example"))
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, TlsConf(ca_file=trusted, server_name="api.example"), "127.0.0.1"))
        assert (await wire.ask(GET)).body == b"ok"
        assert upstream.names == ["api.example"]
        assert upstream.requests[0].one(b"host") == b"127.0.0.1:%d" % upstream.port
        wire.serve(to(wire, TlsConf(ca_file=trusted, server_name="other.example"), "127.0.0.1"))
        assert "it is for another name" in await detail(wire)


async def test_a_client_certificate(tmp_path: Path, trusted: str) -> None:
    shown = CA.issue_cert("gateway.example", common_name="gateway")
    shown.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    shown.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    cert_file, key_file = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    upstream = TlsUpstream(CA.issue_cert("localhost"), wants_certificate_of=CA)
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, TlsConf(ca_file=trusted, cert_file=cert_file, key_file=key_file)))
        assert (await wire.ask(GET)).body == b"ok"
        assert (("commonName", "gateway"),) in upstream.tls.getpeercert()["subject"]
        wire.serve(to(wire, TlsConf(ca_file=trusted)))
        assert (await wire.ask(GET)).status == 502
        assert len(upstream.requests) == 1


async def test_services_that_speak_tls_differently_share_no_connection(tmp_path: Path, believing: TlsConf) -> None:
    upstream = TlsUpstream(CA.issue_cert("elsewhere.example"))
    async with wired(tmp_path, upstream) as wire:
        url = f"https://localhost:{upstream.port}"
        careless, careful = TlsConf(verify=False), believing
        wire.serve(
            service(1, "open", url, tls=careless),
            service(2, "other", url, tls=careful),
            service(3, "third", url, tls=TlsConf(verify=False)),
        )
        assert (await wire.ask(GET)).status == 200
        assert (await wire.ask(GET.replace(b"open", b"other"))).status == 502
        assert (await wire.ask(GET.replace(b"open", b"third"))).status == 200
        assert len(upstream.requests) == 2
        assert len(upstream.peers) == 1
        assert len(wire.worker.contexts._made) == 2


async def test_an_upstream_that_speaks_no_tls(wire: Wire, believing: TlsConf) -> None:
    async def answer_in_clear(upstream: Upstream, peer: Peer) -> None:
        await peer.more()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    wire.upstream.script = answer_in_clear
    wire.serve(to(wire, believing, "127.0.0.1"))
    assert "the TLS handshake with the upstream failed (" in await detail(wire)


async def test_a_handshake_that_stalls_counts_as_connecting(wire: Wire, believing: TlsConf) -> None:
    async def stall(upstream: Upstream, peer: Peer) -> None:
        await peer.rest()

    wire.upstream.script = stall
    wire.serve(to(wire, believing, connect_timeout_s=0.2))
    answer = await wire.ask(GET)
    assert (answer.status, b"did not accept the connection in time" in answer.body) == (504, True)


HEAD_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nthe first half"


@pytest.mark.parametrize("end", ["close", "cut", "reset"])
async def test_a_body_until_close_is_whole_only_if_its_end_was_declared(
    tmp_path: Path, believing: TlsConf, end: str
) -> None:
    async def half(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(HEAD_UNTIL_CLOSE)
        await asyncio.sleep(0.05)
        getattr(peer, end)()

    upstream = TlsUpstream(CA.issue_cert("localhost"))
    upstream.script = half
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, believing))
        if end == "close":
            assert (await wire.ask(GET)).body == b"the first half"
        else:
            with pytest.raises(CutShortError):
                await wire.ask(GET)


async def test_a_gateway_that_stops_declares_no_end_that_was_none(wire: Wire) -> None:
    async def half(upstream: Upstream, peer: Peer) -> None:
        await peer.message()
        await peer.send(HEAD_UNTIL_CLOSE)
        await peer.rest()

    wire.upstream.script = half
    client = await wire.client()
    await client.send(GET)
    await client.more()
    for pool in wire.worker._pools.values():
        pool.close()
    with pytest.raises(CutShortError):
        await client.message()


async def test_bodies_of_any_size_pass(tmp_path: Path, believing: TlsConf) -> None:
    body = bytes(range(256)) * 8192
    upstream = TlsUpstream(CA.issue_cert("localhost"))
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with wired(tmp_path, upstream) as wire:
        wire.serve(to(wire, believing))
        answer = await wire.ask(b"POST /open/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert answer.body == body
        assert upstream.requests[0].body == body


async def test_a_renewed_file_is_read_and_a_broken_one_is_not_used(
    tmp_path: Path, trusted: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(target_tls, "CHECK_S", 0.0)
    caplog.set_level(logging.INFO, "gatewayd.proxy.target_tls")
    upstream = TlsUpstream(CA.issue_cert("localhost"))
    async with wired(tmp_path, upstream) as wire:
        conf = TlsConf(ca_file=trusted)

        async def checked() -> None:
            contexts = wire.worker.contexts
            for _ in range(2):  # a check that is under way may have looked already
                contexts.look_after({conf})
                if contexts._check is not None:
                    await asyncio.wait({contexts._check})

        async def answer_on_a_new_connection() -> int:
            for pool in wire.worker._pools.values():
                pool._leave(list(pool._open))
            return (await wire.ask(GET)).status

        wire.serve(to(wire, conf))
        assert (await wire.ask(GET)).status == 200
        context = wire.worker.contexts._made[conf].context
        await checked()
        assert wire.worker.contexts._made[conf].context is context

        Path(trusted).write_text("nothing of use")
        await checked()
        await checked()
        assert await answer_on_a_new_connection() == 200
        broken = f"{trusted} holds no PEM certificate; the files from before stay in use"
        assert [broken in record.message for record in caplog.records] == [True]

        OTHER_CA.cert_pem.write_to_path(trusted)
        await checked()
        assert await answer_on_a_new_connection() == 502
        assert "read anew" in caplog.records[-1].message

        CA.cert_pem.write_to_path(trusted)
        await checked()
        assert await answer_on_a_new_connection() == 200


async def test_a_file_that_is_not_there_is_said_once_and_not_to_callers(
    tmp_path: Path, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.serve(to(wire, TlsConf(ca_file=str(tmp_path / "gone.pem"))))
    for _ in range(3):
        said = await detail(wire)
        assert "cannot read the certificates" in said
        assert "gone.pem" not in said
    assert len([record for record in caplog.records if "gone.pem" in record.message]) == 1
